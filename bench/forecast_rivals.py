"""AutoARIMA, AutoETS and Prophet on a sample of what was scored, each fitted anew at each origin it is asked at."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from bench.env import forecasters_python
from forecasting.evaluate import Cell, cost, geometric
from forecasting.protocol import QUANTILES, Floats

SERIES: Final = 20
ORIGINS: Final = 8
NEWEST: Final = {"AutoARIMA": 500, "AutoETS": 500, "Prophet": 2000}
"""Slots that each is fitted to."""
Progress = Callable[[str], None]


@dataclass(frozen=True)
class Asked:
    """A series at some origins."""

    cells: list[Cell]
    slots: list[int]

    def request(self, model: str, slot: int) -> dict[str, Any]:
        """What `bench.forecast_peer` is asked."""
        trace = self.cells[0].trace
        past = _filled(trace.values[: slot + 1])[-NEWEST[model] :]
        lags = [round(cell.ahead_s / trace.step_s) for cell in self.cells]
        values = [float(value) for value in past]
        return {"model": model, "step_s": trace.step_s, "values": values, "lags": lags, "quantiles": QUANTILES}


def rivals(cells: Sequence[Cell], progress: Progress) -> list[dict[str, Any]]:
    """A row each; with an `error` in the place of figures where a library cannot be had."""
    asked = sample(cells)
    with ThreadPoolExecutor(2) as pool:
        arima = pool.submit(_both, asked, progress)
        prophet = pool.submit(_row, "Prophet", Path(sys.executable), asked, progress)
        return [*arima.result(), prophet.result()]


def sample(cells: Sequence[Cell]) -> list[Asked]:
    """Some series, as many of each family as can be, and a few moments of each at which every horizon was judged."""
    families: dict[str, dict[tuple[str, str], list[Cell]]] = {}
    for cell in cells:
        families.setdefault(cell.trace.family, {}).setdefault((cell.trace.file, cell.trace.name), []).append(cell)
    queues = [_spread(list(series.values()), SERIES) for _, series in sorted(families.items())]
    turns = [queue[turn] for turn in range(SERIES) for queue in queues if turn < len(queue)]
    made = []
    for chosen in turns[:SERIES]:
        slots = set.intersection(*(set(cell.slots.tolist()) for cell in chosen))
        made.append(Asked(chosen, _spread(sorted(slots), ORIGINS)))
    return [one for one in made if one.slots]


def _spread(items: list[Any], most: int) -> list[Any]:
    """At most so many of them, evenly spaced."""
    return [items[n] for n in np.unique(np.linspace(0, len(items) - 1, min(most, len(items))).round().astype(int))]


def _both(asked: list[Asked], progress: Progress) -> list[dict[str, Any]]:
    try:
        python = forecasters_python()
    except RuntimeError as error:
        return [{"model": name, "error": str(error)} for name in ("AutoARIMA", "AutoETS")]
    return [_row(name, python, asked, progress) for name in ("AutoARIMA", "AutoETS")]


def _row(model: str, python: Path, asked: list[Asked], progress: Progress) -> dict[str, Any]:
    requests = [(one, slot, one.request(model, slot)) for one in asked for slot in one.slots]
    progress(f"{model}: {len(requests)} fits")
    lines = "\n".join(json.dumps(request) for _, _, request in requests)
    script = str(Path(__file__).with_name("forecast_peer.py"))
    done = subprocess.run([str(python), script], input=lines, capture_output=True, text=True, check=False)
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    if len(answers) < len(requests):
        return {"model": model, "error": done.stderr.strip()[-300:] or "it stopped without a word"}
    told = {(id(one), slot): answer for (one, slot, _), answer in zip(requests, answers, strict=True)}
    return _scored(model, asked, told)


def _scored(model: str, asked: list[Asked], told: dict[tuple[int, int], dict[str, Any]]) -> dict[str, Any]:
    theirs, ours = [], []
    for one in asked:
        answers = {slot: told[id(one), slot] for slot in one.slots}
        good = [slot for slot in one.slots if "said" in answers[slot]]
        for at, cell in enumerate(one.cells):
            words = np.flatnonzero(np.isin(cell.slots, good))
            said = np.array([answers[slot]["said"][at] for slot in cell.slots[words].tolist()], np.float32)
            if len(words) and (floor := cost(cell.truth[words], cell.said["lv_add"][words])) > 0:
                theirs.append(cost(cell.truth[words], _in_order(said)) / floor)
                ours.append(cost(cell.truth[words], cell.said["ensemble"][words]) / floor)
    cpu_s = [answer["cpu_s"] for answer in told.values() if "cpu_s" in answer]
    return {
        "model": model,
        "relspl": _round(geometric(theirs)),
        "ours": _round(geometric(ours)),
        "cells": len(theirs),
        "series": len(asked),
        "fits": len(cpu_s),
        "failed": len(told) - len(cpu_s),
        "fit_s": _round(float(np.median(cpu_s))) if cpu_s else None,
    }


def _in_order(said: Floats) -> Floats:
    """Finite, 0 or more, higher quantiles never below lower ones: as ours are."""
    return np.maximum.accumulate(np.maximum(np.nan_to_num(said, nan=0.0, posinf=1e15), 0), axis=-1)


def _filled(values: Floats) -> Floats:
    """Gaps hold what was before them; before the first number, 0."""
    known = np.where(np.isnan(values), 0, np.arange(1, len(values) + 1))
    return np.concatenate(([np.float32(0)], values))[np.maximum.accumulate(known)]


def _round(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.4g}")
