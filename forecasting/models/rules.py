"""Simple rules: where demand will be, each in O(1) a slot, in log1p of the unit.

last     as now                          day      as a day ago, moved by how the last hour differs from then
half     as the last 30 min on average   week     the same with a week ago
smooth   exponential smoothing           linear   recursive least squares on ten features, one a horizon
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from forecasting.models.past import DAY_S, HOUR_S, Floats, Level, Past, Rows, decay

RULES: Final = ("last", "half", "smooth", "day", "week", "linear")
FLAT: Final = 3
"""The first rules say the same at every horizon."""
SMOOTHING: Final = 0.1
PULL: Final = 0.6
"""How much of the last hour's difference to the same hour a day or a week ago is carried ahead."""
AROUND_S: Final = 1800.0
WEEK_S: Final = 7 * DAY_S
FEATURES: Final = 10
_FORGETS_S: Final = 2 * DAY_S
_WIDE: Final = 1e3
_START: Final = 10.0
_MOST_ERROR: Final = 3.0
Doubles = NDArray[np.float64]


class Rules:
    """Where `rows` series will be after each of `lags` slots."""

    def __init__(self, rows: int, step_s: float, lags: Sequence[int]) -> None:
        self.lags = lags
        self.smooth, self.highest = np.zeros((2, rows), np.float32)
        self.linear = Linear(rows, len(lags), decay(step_s, _FORGETS_S))

    def reset(self, rows: Rows) -> None:
        """Other series live in `rows` from now on."""
        self.smooth[rows] = self.highest[rows] = 0
        self.linear.reset(rows)

    def learn(self, past: Past) -> None:
        """`past` has just learnt a slot."""
        now = np.log1p(past.back(0))
        self.smooth = np.where(past.taught > 1, self.smooth + SMOOTHING * (now - self.smooth), now).astype(np.float32)
        self.highest = np.maximum(self.highest, now)

    def points(self, past: Past, level: Level) -> tuple[Floats, Floats]:
        """[series, horizon, rule] where rules say demand will be, and [series, horizon, feature] of the linear one."""
        half, hour, day = (np.log1p(mean) for mean in (level.minutes30, level.hour, level.day))
        points = np.empty((len(half), len(self.lags), len(RULES)), np.float32)
        points[..., 0], points[..., 1], points[..., 2] = (
            a[:, None] for a in (np.log1p(past.back(0)), half, self.smooth)
        )
        seasons = [self._seasons(past, half, lag) for lag in self.lags]
        for at, (day_ahead, week_ahead) in enumerate(seasons):
            for rule, (back_s, then) in enumerate(((DAY_S, day_ahead), (WEEK_S, week_ahead)), FLAT):
                points[:, at, rule] = _season(past, half, hour, then, back_s)
        features = _features(past, half, hour, day, self.lags)
        points[..., 5] = np.clip(half[:, None] + self.linear.tell(features), 0, self.highest[:, None] + 1)
        return points, features

    def _seasons(self, past: Past, half: Floats, lag: int) -> tuple[Floats, Floats]:
        """What it was around the slot `lag` ahead, a day and a week ago; NaN where that is not known."""
        smooth = round(AROUND_S / past.mean_s) // 2 * 2 + 1 if past.mean_s < AROUND_S else 1
        day_ahead, week_ahead = (past.mean_at(lag, back_s, smooth) for back_s in (DAY_S, WEEK_S))
        return np.log1p(day_ahead), np.log1p(week_ahead)


def _season(past: Past, half: Floats, hour: Floats, then: Floats, back_s: float) -> Floats:
    means = past.means_before(back_s, max(1, round(HOUR_S / past.mean_s)))
    said = np.maximum(0, then + PULL * (hour - np.log1p(means).mean(axis=1)))
    return np.where(np.isnan(said), half, said)


def _features(past: Past, half: Floats, hour: Floats, day: Floats, lags: Sequence[int]) -> Floats:
    """Ten numbers a horizon, as differences from the last half hour; what is not known differs by nothing."""
    yesterday = np.log1p(past.mean_at(0, DAY_S)) - half
    shared = [np.ones_like(half), *(np.log1p(past.back(n)) - half for n in range(3))]
    shared += [half - day, hour - half, day - half, yesterday]
    features = np.empty((len(half), len(lags), FEATURES), np.float32)
    features[..., : len(shared)] = np.stack(shared, axis=-1)[:, None]
    for at, lag in enumerate(lags):
        for column, back_s in ((8, DAY_S), (9, WEEK_S)):
            features[:, at, column] = np.log1p(past.mean_at(lag, back_s)) - half
    return np.nan_to_num(features, nan=0.0)


class Linear:
    """Recursive least squares with forgetting: one regression for each series and horizon.

    ```
    gain = P x / (memory + x'P x)     weights += gain · error     P = (P - gain x'P) / memory
    ```
    """

    def __init__(self, rows: int, horizons: int, memory: float) -> None:
        self.memory = max(memory, 0.995)
        self.weights = np.zeros((rows, horizons, FEATURES))
        self.spread = np.zeros((rows, horizons, FEATURES, FEATURES))
        self.reset(np.arange(rows))

    def reset(self, rows: Rows) -> None:
        """Other series live in `rows` from now on."""
        self.weights[rows] = 0
        self.spread[rows] = _START * np.eye(FEATURES)

    def tell(self, features: Floats) -> Floats:
        """[series, horizon]."""
        told: Floats = np.einsum("rhf,rhf->rh", self.weights, features).astype(np.float32)
        return told

    def learn(self, horizon: int, rows: Rows, x: Floats, target: Floats) -> None:
        """`target` [row] followed features `x` [row, feature] at this horizon."""
        spread = self.spread[rows, horizon]
        shadow = np.einsum("rij,rj->ri", spread, x)
        gain = shadow / (self.memory + np.einsum("ri,ri->r", x, shadow))[:, None]
        error = target - np.einsum("ri,ri->r", self.weights[rows, horizon], x)
        self.weights[rows, horizon] += gain * np.clip(error, -_MOST_ERROR, _MOST_ERROR)[:, None]
        spread = (spread - gain[:, :, None] * shadow[:, None, :]) / self.memory
        self.spread[rows, horizon] = spread * np.minimum(1, _WIDE / _trace(spread))[:, None, None]


def _trace(spread: Doubles) -> Doubles:
    """Kept within bounds: without news in a direction, forgetting would let its spread grow without end."""
    trace: Doubles = np.einsum("rii->r", spread)
    return trace
