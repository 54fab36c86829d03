"""What `bench.forecast` says of scored cells: sums alone, nothing is chosen here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np

from forecasting.evaluate import Cell, average_precision, capacity, controlled, cost, covered, geometric, over_at_unmet
from forecasting.evaluate import relative as relative_to_lv_add
from forecasting.protocol import QUANTILES, Floats

OURS: Final = "ensemble"
NEAR: Final = 0.02
STEADY: Final = 0.9
"""Share of the past's slots with demand, from which on a series is steady."""
CIRCLES: Final = {"steady": STEADY, "half_busy": 0.5, "all": 0.0}
SPIKES_S: Final = {"10min": 600.0, "30min": 1800.0}
_LEAST_OVER: Final = 1e-4


def groups(cells: Sequence[Cell]) -> dict[str, list[Cell]]:
    """Steady series are what quantiles are for; wider circles take in ever more of those that rest and burst."""
    return {name: [cell for cell in cells if cell.busy >= least] for name, least in CIRCLES.items()}


def relspl(cells: Sequence[Cell]) -> dict[str, Any]:
    """Ours over lv_add's: over all cells, and by family."""
    families = {family: _mean(of(cells, family), OURS) for family in sorted({cell.trace.family for cell in cells})}
    worst = max(families, key=lambda family: families[family] or 0.0)
    horizons = sorted({cell.ahead_s for cell in cells})
    return {
        "overall": _mean(cells, OURS),
        "cells": len(cells),
        "worst_family": families[worst],
        "worst": worst,
        "families": families,
        "horizons": {f"{s / 60:g}min": _mean([cell for cell in cells if cell.ahead_s == s], OURS) for s in horizons},
    }


def of(cells: Sequence[Cell], family: str) -> list[Cell]:
    """Those of one family."""
    return [cell for cell in cells if cell.trace.family == family]


def best_single(cells: Sequence[Cell]) -> dict[str, Any]:
    """The one of those listened to that would have been best, had it been known; and ours over it."""
    means = {name: _mean(cells, name) or 0.0 for name in cells[0].said if name != OURS}
    best = min(means, key=lambda name: means[name])
    return {"model": best, "relspl": means[best], "ratio": _round((_mean(cells, OURS) or 0.0) / means[best])}


def rows(cells: Sequence[Cell]) -> list[dict[str, Any]]:
    """A row for ours, for each that it listens to, and for the last value."""
    whole = [{"model": name, "relspl": _mean(cells, name), "cells": len(cells)} for name in cells[0].said]
    last = geometric([_of_last(cell) for cell in cells])
    return [*whole, {"model": "last_value", "relspl": _round(last), "cells": len(cells)}]


def ov1(cells: Sequence[Cell]) -> dict[str, Any]:
    """Over-provisioned share at 1 % unmet, the margin set in hindsight: ours over last value's and over lv_add's."""
    asked = [cell for cell in cells if cell.truth.sum() > 0]
    ours, lv_add = ([_over(cell, capacity(cell.said[name])) for cell in asked] for name in (OURS, "lv_add"))
    last = [_over(cell, _times(cell.last)) for cell in asked]
    return {
        "vs_last_value": _ratio(ours, last),
        "vs_lv_add": _ratio(ours, lv_add),
        "median": {"ours": _median(ours), "last_value": _median(last), "lv_add": _median(lv_add)},
        "cells": len(asked),
    }


def coverage(cells: Sequence[Cell]) -> dict[str, Any]:
    """Share of words not exceeded, the mean over cells; and how many cells are within two points at 0.95."""
    shares = np.array([covered(cell, OURS) for cell in cells])
    within = np.abs(shares[:, QUANTILES.index(0.95)] - 0.95) <= NEAR
    by_quantile = {str(q): _round(share) for q, share in zip(QUANTILES, shares.mean(axis=0).tolist(), strict=True)}
    return {**by_quantile, "cells_within_2_points_at_0.95": _round(float(within.mean()))}


def controller(cells: Sequence[Cell]) -> dict[str, Any]:
    """Had there been what the controller said: medians over cells of what was unmet, and of what was too much."""
    shares = np.array([controlled(cell) for cell in cells if cell.truth.sum() > 0])
    if not len(shares):
        return {"unmet": None, "over": None}
    unmet, over = np.median(shares, axis=0).tolist()
    return {"unmet": _round(unmet), "over": _round(over), "target": 0.01}


def spikes(cells: Sequence[Cell]) -> dict[str, Any]:
    """Average precision of the onset of spikes, on steady clients (steady series, where there are no clients)."""
    clients = any(cell.trace.client for cell in cells)
    steady = [cell for cell in cells if cell.busy >= STEADY and (cell.trace.client or not clients)]
    said: dict[str, Any] = {"series": len({(c.trace.file, c.trace.name) for c in steady}), "clients": clients}
    for name, ahead_s in SPIKES_S.items():
        some = [cell for cell in steady if cell.ahead_s == ahead_s]
        happened = np.concatenate([cell.spiked for cell in some]) if some else np.zeros(0)
        known = ~np.isnan(happened)
        chance = np.concatenate([cell.spike for cell in some])[known] if some else np.zeros(0)
        said[f"ap_{name}"] = _round(average_precision(chance, happened[known]))
        said[f"rate_{name}"] = _round(float(happened[known].mean())) if known.any() else None
    return said


def _mean(cells: Sequence[Cell], teller: str) -> float | None:
    return _round(geometric([relative_to_lv_add(cell, teller) for cell in cells]))


def _of_last(cell: Cell) -> float:
    """What the last value costs, over lv_add."""
    return cost(cell.truth, np.repeat(cell.last[:, None], len(QUANTILES), axis=1)) / cost(
        cell.truth, cell.said["lv_add"]
    )


def _over(cell: Cell, by_margin: Callable[[float], Floats]) -> float:
    return max(_LEAST_OVER, over_at_unmet(cell.truth, by_margin))


def _times(last: Floats) -> Callable[[float], Floats]:
    return lambda margin: np.float32(margin) * last


def _ratio(ours: Sequence[float], other: Sequence[float]) -> float | None:
    return _round(geometric([a / b for a, b in zip(ours, other, strict=True)]))


def _median(values: Sequence[float]) -> float | None:
    return _round(float(np.median(values))) if values else None


def _round(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.4g}")
