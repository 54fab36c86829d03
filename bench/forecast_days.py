"""The next day by the hour, on a sample of steady series: each candidate, and the one that a back-test would choose."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np

from forecasting.evaluate import PAST, Cell, geometric
from forecasting.models.day_ahead import DAY, candidates, day_ahead
from forecasting.traces import Trace

SERIES: Final = 12
DAYS: Final = 4
"""Of each series' test, evenly spaced."""
LEAST: Final = 8 * DAY
CHOSEN: Final = "chosen"


def day_rows(cells: Sequence[Cell], progress: Callable[[str], None]) -> dict[str, Any]:
    """Mean absolute error of each over yesterday's, geometric mean over series; how often each was chosen."""
    traces = {(cell.trace.file, cell.trace.name): cell.trace for cell in cells}
    hourly = [hours for trace in traces.values() if len(hours := by_hour(trace)) >= LEAST / (1 - PAST)]
    sample = (
        [hourly[n] for n in np.unique(np.linspace(0, len(hourly) - 1, SERIES).round().astype(int))] if hourly else []
    )
    progress(f"the next day by the hour, of {len(sample)} series")
    errors: dict[str, list[float]] = {}
    chosen: dict[str, int] = {}
    for hours in sample:
        for name, error in _errors(hours, chosen).items():
            errors.setdefault(name, []).append(error)
    relative = {name: geometric(values) for name, values in sorted(errors.items())}
    return {
        "mae_vs_yesterday": {name: round(value, 4) for name, value in relative.items() if value is not None},
        "chosen": chosen,
        "series": len(sample),
    }


def by_hour(trace: Trace) -> np.ndarray:
    """Means of whole hours, gaps filled with what was before them; from the first known one on."""
    slots = round(3600 / trace.step_s)
    whole = trace.values[: len(trace.values) // slots * slots].reshape(-1, slots).astype(np.float64)
    known = ~np.isnan(whole)
    hours = np.where(known, whole, 0).sum(axis=1) / np.maximum(known.sum(axis=1), 1)
    (there,) = np.nonzero(known.any(axis=1))
    if not len(there):
        return np.empty(0)
    last = np.maximum.accumulate(np.where(known.any(axis=1), np.arange(len(hours)), 0))
    filled: np.ndarray = hours[last][there[0] :]
    return filled


def _errors(hours: np.ndarray, chosen: dict[str, int]) -> dict[str, float]:
    """Of each candidate over yesterday's, in sum over the days told; `chosen` is counted on."""
    first, last = int(PAST * len(hours)), len(hours) - DAY
    sums: dict[str, float] = {}
    for end in np.linspace(first, last, DAYS).astype(int).tolist():
        came = hours[end : end + DAY]
        told = {name: tell(hours[:end], 0.0) for name, (needs, tell) in candidates().items() if end >= needs}
        if (best := day_ahead(hours[:end], 0.0)) is not None:
            chosen[best.model] = chosen.get(best.model, 0) + 1
            told[CHOSEN] = best.hours
        for name, said in told.items():
            sums[name] = sums.get(name, 0.0) + float(np.abs(said - came).mean())
    floor = max(sums.get("yesterday", 0.0), 1e-9)
    return {name: value / floor for name, value in sums.items()}
