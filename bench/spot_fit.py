"""The weights of the hazard, fitted to traces: how those that are frozen were found."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np

from bench.spot_rows import SIGNS, Floats, Table
from forecasting.spot.hazard import FROZEN, Weights

ASSUMED: Final = ("price", "advised")
"""Signs that no trace shows; their weights stay."""
RIDGE: Final = 5.0
WORTH: Final = 400.0
"""Rows overlap and say much the same: so many independent ones a set is taken to be worth."""


def chance(table: Table, weights: Weights) -> Floats:
    """Of losing a replica within the hour, by row: what `hazard` says, over columns."""
    each = np.array([getattr(weights, name) for name in SIGNS])
    p: Floats = 1.0 - np.exp(-np.exp(weights.base + table.signs @ each))
    return p


def fit(tables: list[Table]) -> Weights:
    """Weights of the highest penalised likelihood over what was looked at; by Newton's steps, none below 0 but calm's.

    A replica is lost with probability 1 - exp(-hazard): the complementary log-log link.
    """
    x = np.concatenate([np.column_stack((np.ones(t.look.sum()), t.signs[t.look])) for t in tables])
    y = np.concatenate([t.lost[t.look] for t in tables])
    worth = np.concatenate([WORTH * t.ready[t.look] / t.ready[t.look].sum() for t in tables])
    names = ("base", *SIGNS)
    least = np.array([-np.inf if name in ("base", "calm") else 0.0 for name in names])
    free = np.array([name not in ASSUMED for name in names])
    ridge = RIDGE * np.array([name != "base" for name in names])
    at = np.zeros(len(names))
    for _ in range(60):
        h = np.exp(np.clip(x @ at, -12.0, 3.0))
        p = np.maximum(1.0 - np.exp(-h), 1e-9)
        slope = x.T @ (worth * (y / p - 1.0) * h) - ridge * at
        bend = (x.T * (worth * h**2 * (1.0 - p) / p)) @ x + np.diag(ridge)
        step = np.linalg.solve(bend[np.ix_(free, free)], slope[free])
        at[free] = np.maximum(least[free], at[free] + np.clip(step, -0.5, 0.5))
    found = zip(names, at.tolist(), free.tolist(), strict=True)
    return replace(FROZEN, **{name: round(value, 3) for name, value, is_free in found if is_free})
