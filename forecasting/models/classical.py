"""The online ensemble: simple rules, each with the quantiles of what it got wrong lately, weighed by what that cost.

```
 rule ─► point ─┬─ + quantile of the last 250 residuals        ─► teller ┐
                └─ the same with residuals of the logarithm    ─► teller ┴─► weights by recent pinball ─► quantiles
```
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from forecasting.models.past import Bools, Floats, Level, Past, Rows, decay
from forecasting.models.rules import FLAT, RULES, Rules
from forecasting.models.weights import Weights, mixed, pinball

RESIDUALS: Final = 250
TELLERS: Final = 2 * len(RULES)
HALF_LIFE_S: Final = 12 * 3600.0
POWER: Final = 4
_MOST_LOG: Final = 40.0
_ALL: Final = np.ones(TELLERS, np.bool_)


@dataclass(slots=True)
class Told:
    """What the ensemble says at one moment."""

    quantiles: Floats
    """[series, horizon, quantile]"""
    tellers: Floats
    """[series, horizon, teller, quantile]; the first is lv_add."""
    points: Floats
    """[series, horizon, rule], log1p"""
    linear: Floats
    """[series, horizon, feature]"""


class Classical:
    """The ensemble over `rows` series; `every` slots its words are kept, to be judged when the truth is there."""

    def __init__(self, rows: int, step_s: float, lags: Sequence[int], quantiles: Floats, every: int) -> None:
        self.lags, self.quantiles = lags, quantiles
        self.reach = RESIDUALS + max(lags) + 1
        self.rules = Rules(rows, step_s, lags)
        self.flat = np.zeros((rows, FLAT, self.reach), np.float32)
        self.ahead = np.zeros((rows, len(lags), len(RULES) - FLAT, self.reach), np.float32)
        self.weights = Weights(
            (rows, len(lags), TELLERS, len(quantiles)),
            keeps=decay(every * step_s, HALF_LIFE_S),
            power=POWER,
            prior=np.zeros(TELLERS, np.float32),
            trust=0,
        )

    def reset(self, rows: Rows) -> None:
        """Other series live in `rows` from now on."""
        self.rules.reset(rows)
        self.weights.reset(rows)

    def learn(self, past: Past, level: Level) -> tuple[Floats, Floats]:
        """`past` has learnt a slot; comes back: where rules point now, and the linear one's features."""
        self.rules.learn(past)
        points, linear = self.rules.points(past, level)
        at = past.slot % self.reach
        self.flat[:, :, at] = points[:, 0, :FLAT]
        self.ahead[:, :, :, at] = points[:, :, FLAT:]
        return points, linear

    def tell(self, past: Past, points: Floats, linear: Floats) -> Told:
        """What is to be expected, `past` and `points` being the newest."""
        tellers = np.stack([self._tell(past, at, points[:, at]) for at in range(len(self.lags))], axis=1)
        return Told(mixed(tellers, self.weights.shares(_ALL)), tellers, points, linear)

    def judge(self, horizon: int, told: Told, truth: Floats, known: Bools) -> None:
        """`truth` [series] came to what was `told` a lag ago, where it is known."""
        self.weights.learn(horizon, pinball(truth[:, None], told.tellers[:, horizon], self.quantiles), known)
        rows = np.flatnonzero(known)
        half = told.points[rows, horizon, 1]
        self.rules.linear.learn(horizon, rows, told.linear[rows, horizon], np.log1p(truth[rows]) - half)

    def _tell(self, past: Past, horizon: int, points: Floats) -> Floats:
        """[series, teller, quantile] at one horizon."""
        lag = self.lags[horizon]
        truth, known = past.newest(RESIDUALS), past.measured(RESIDUALS)
        ages = np.arange(RESIDUALS, 0, -1) + lag
        known &= ages <= past.taught[:, None]
        origins = np.arange(past.slot - RESIDUALS + 1 - lag, past.slot + 1 - lag) % self.reach
        said = np.concatenate([self.flat[:, :, origins], self.ahead[:, horizon][:, :, origins]], axis=1)
        residuals = np.empty((len(said), len(RULES), 2, RESIDUALS), np.float32)
        residuals[:, :, 0] = truth[:, None] - np.expm1(said)
        residuals[:, :, 1] = np.log1p(truth)[:, None] - said
        wrong = self._quantiles(residuals, known)
        told = np.empty_like(wrong)
        told[:, :, 0] = np.expm1(points)[:, :, None] + wrong[:, :, 0]
        told[:, :, 1] = np.expm1(np.minimum(points[:, :, None] + wrong[:, :, 1], _MOST_LOG))
        return np.maximum(told, 0).reshape(len(told), TELLERS, -1)

    def _quantiles(self, residuals: Floats, known: Bools) -> Floats:
        """[series, rule, kind, quantile]: rank (n + 1) q of the n that are known, as in `last_value`; 0 of none."""
        residuals[~np.broadcast_to(known[:, None, None], residuals.shape)] = np.nan
        residuals.sort(axis=-1)  # NaN last
        count = known.sum(axis=1)[:, None]
        ranks = (
            np.clip(
                np.ceil((count + 1) * self.quantiles.astype(np.float64).round(6) - 1e-9), 1, np.maximum(count, 1)
            ).astype(np.intp)
            - 1
        )
        ranks = np.broadcast_to(ranks[:, None, None], (*residuals.shape[:3], ranks.shape[1]))
        return np.nan_to_num(np.take_along_axis(residuals, ranks, axis=-1), nan=0.0)
