"""How well demand is forecast: `python -m bench.forecast --data DIR [--json]`.

Each series at its own resolution; the demand in the single slot 5, 10, 30 and 60 min ahead (as far as slots are
no longer), from data up to and including the origin. The first 60 % of a series are its past: models learn there; trees
are fitted to all pasts together, and listened to where they tell the newest quarter of them better than those shipped.
The last 40 % are scored, in quantiles 0.5, 0.9, 0.95 and 0.99; gaps never are. All parameters are frozen in
`forecasting/`; nothing is tuned to the folder given.

Figures are of steady series: those with demand in nine tenths of their past's slots. Series that rest and burst are
found out and said to be, and no quantile helps them; `wider` has the figures of series busy half of the time, and of
all.

    relspl      mean pinball loss over that of lv_add (last value and rolling quantiles of its errors), geometric means
                over series and horizons. Goals: overall 0.80, worst_family 0.97 at most.
    ov1         over-provisioned share of demand at the margin that leaves 1 % unmet: ours over last value's (goal
                0.30) and lv_add's (0.80). A margin scales the way from the median to q99; of the last value, all
    coverage    share of slots not above a quantile. Goals: within 0.01 at 0.9 and 0.95, at least 0.985 at 0.99
    controller  medians of what was unmet and too much, had there been what `provide` says. Goals: 0.7 to 1.5 %, 1.4
    spikes      average precision of "above twice the trailing hour's mean within so long", onsets on steady clients.
                Goals: 0.40 at 10 min, 0.57 at 30 min
    rows        relspl of ours, of those it listens to, and of others; slow ones on a sample of series and origins,
                where `ours` is ours on the same sample
    day_ahead   the next 24 h by the hour, on a sample: mean absolute error over that of yesterday's hours, of each
                candidate and of the one that a back-test chose
    cost        CPU of a slot learnt and told of a series, of 20,000 series, and of a fit of trees

The folder holds CSV files; a family is the first word of a file's name:

"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final

import numpy as np

import forecasting.traces
from bench import forecast_figures as figures
from bench.forecast_days import day_rows
from bench.forecast_rivals import rivals
from bench.machine import described
from forecasting.demand import BLOCK, HORIZONS_S, ensemble
from forecasting.evaluate import Cell, Panel, cells, panels, tested
from forecasting.lessons import joined
from forecasting.models.fit import refit
from forecasting.models.many import TELLERS, Many, shipped
from forecasting.models.trees import Trees, unpacked
from forecasting.pretrain import learned
from forecasting.protocol import Examples

SERIES: Final = 20_000
Progress = Callable[[str], None]


def scored(panel: Panel, model: Many, trees: dict[str, Trees]) -> list[Cell]:
    """The test of a panel, told by a model that has lived its past."""
    model.adopt(trees)
    return cells(tested(model, panel, TELLERS if trees else TELLERS[:-1]))


def walked(made: Sequence[Panel], jobs: int, progress: Progress) -> tuple[list[Cell], Examples, float]:
    """Cells of all panels, what the trees were fitted to, and how long that took."""
    with ProcessPoolExecutor(jobs, get_context("spawn")) as pool:
        firsts = np.cumsum([0, *(len(panel.traces) for panel in made)])[:-1].tolist()
        lives = []
        for panel, life in zip(made, pool.map(learned, made, [None] * len(made), firsts), strict=True):
            progress(f"past of {_named(panel)}")
            lives.append(life)
        examples = joined([part for _, part in lives])
        progress(f"fitting trees to {len(examples)} examples")
        began_s = time.process_time()
        than = {name: trees.packed() for name, trees in shipped().items()}
        trees = {name: unpacked(arrays) for name, arrays in refit(examples, than).items()}
        took_s = time.process_time() - began_s
        found: list[Cell] = []
        for panel, part in zip(made, pool.map(scored, made, [m for m, _ in lives], [trees] * len(made)), strict=True):
            progress(f"test of {_named(panel)}")
            found += part
    return found, examples, took_s


def _named(panel: Panel) -> str:
    return f"{len(panel.traces)} series of {len(panel.values)} slots of {panel.step_s:g} s"


def update_ms(blocks: int = 25, warm: int = 60, timed: int = 20) -> float:
    """CPU of a minute learnt and told, of a series: as the stage does it, over more blocks than a cache holds."""
    rng = np.random.default_rng(0)
    models = [ensemble() for _ in range(blocks)]
    for minute in range(warm + timed):
        if minute == warm:
            began_s = time.process_time()
        for model in models:
            model.learn(minute, rng.poisson(100, BLOCK).astype(np.float32))
            model.forecast()
    return 1000 * (time.process_time() - began_s) / timed / blocks / BLOCK


def measured(folder: Path, *, jobs: int, slow: bool, progress: Progress) -> dict[str, Any]:
    """Everything. Raises ValueError where there is nothing to score."""
    left_out: list[dict[str, str]] = []
    traces = forecasting.traces.read(folder, lambda what, why: left_out.append({"what": what, "why": why}))
    made = sorted(
        panels(traces, HORIZONS_S), key=lambda panel: -len(panel.values)
    )  # so that no core waits for a long one
    progress(f"{len(traces)} series, {len(made)} sets of equal slots and length: their past")
    found, examples, refit_s = walked(made, jobs, progress)
    if not found:
        raise ValueError(
            f"none of the {len(traces)} series in {folder} can be scored: a series needs 25 slots, ten of them in its "
            "last 40 %, and has to change there"
        )
    circles = figures.groups(found)
    steady = circles.pop("steady") or found
    return {
        "bench": "forecast",
        **described(),
        "data": _data(traces, found, left_out),
        **_figures(steady),
        "spikes": figures.spikes(found),
        "best_single": figures.best_single(steady),
        "rows": figures.rows(steady) + (rivals(steady, progress) if slow else []),
        "wider": {name: _figures(cells) for name, cells in circles.items() if cells},
        "day_ahead": day_rows(steady, progress) if slow else None,
        "cost": _cost(refit_s, len(examples), progress),
    }


def _figures(cells: Sequence[Cell]) -> dict[str, Any]:
    return {each.__name__: each(cells) for each in (figures.relspl, figures.ov1, figures.coverage, figures.controller)}


def _data(traces: Sequence[Any], found: Sequence[Cell], left_out: list[dict[str, str]]) -> dict[str, Any]:
    families = sorted({trace.family for trace in traces})
    known = {(cell.trace.file, cell.trace.name) for cell in found}
    return {
        "series": {f: sum(trace.family == f for trace in traces) for f in families},
        "scored": {f: len({(c.trace.file, c.trace.name) for c in figures.of(found, f)}) for f in families},
        "not_scored": len(traces) - len(known),
        "cells": len(found),
        "left_out": left_out,
    }


def _cost(refit_s: float, rows: int, progress: Progress) -> dict[str, Any]:
    progress("timing updates")
    ms = update_ms()
    return {
        "ms_per_update": round(ms, 3),
        "series_20000_s": round(ms * SERIES / 1000, 2),
        "refit_s": round(refit_s, 1),
        "refit_examples": rows,
    }


def _shown(said: dict[str, Any]) -> str:
    """For people: a line a figure."""
    wanted = ("data", "relspl", "ov1", "coverage", "controller", "spikes", "best_single", "wider", "day_ahead", "cost")
    lines = [f"{name:12}{json.dumps(said[name])}" for name in wanted]
    rows = (f"  {row['model']:14}" + json.dumps({k: v for k, v in row.items() if k != "model"}) for row in said["rows"])
    return "\n".join([*lines, "rows", *rows])


def main() -> None:
    """Read, walk, score, say."""
    formats = (forecasting.traces.__doc__ or "").partition("\n\n")[2]
    made = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("bench.forecast", description=(__doc__ or "") + formats, formatter_class=made)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder of CSV files")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)), help="processes (default: cores)")
    parser.add_argument("--quick", action="store_true", help="leave AutoARIMA, AutoETS and Prophet out")
    asked = parser.parse_args()
    began_s = time.monotonic()

    def progress(what: str) -> None:
        print(f"{time.monotonic() - began_s:6.1f} s  {what}", file=sys.stderr, flush=True)

    try:
        said = measured(asked.data, jobs=max(1, asked.jobs), slow=not asked.quick, progress=progress)
    except ValueError as error:
        sys.exit(f"bench.forecast: {error}")
    print(json.dumps(said) if asked.json else _shown(said))


if __name__ == "__main__":
    main()
