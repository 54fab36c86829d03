"""What trees are asked with: a row of numbers for each series and horizon, told in the series' own scale."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from forecasting.models.classical import Told
from forecasting.models.past import DAY_S, HOUR_S, LEAST, SPIKE, Bools, Floats, Level, Past
from forecasting.models.rules import WEEK_S

UNKNOWN: Final = -1.0
SHARED: Final = (
    "now", "back1", "back2", "minutes30", "hour", "hour_most", "hour_least", "hour_deviation", "hours6", "jump",
    "idle_hours6", "idle_day", "hours_busy", "hours_idle", "age_h", "all", "day_ago", "week_ago",
    "now_by_hour", "back1_by_hour", "back2_by_hour", "hours_calm", "spikes", "slot_min",
)  # fmt: skip
AHEAD: Final = (
    "median", "up90", "up95", "up99", "last_from", "linear_from", "day_ago_ahead", "week_ago_ahead", "ahead_min",
    "day_most_by_hour", "week_most_by_hour", "hour_ago_by_hour", "hours6_ago_by_hour",
)  # fmt: skip
FEATURES: Final = SHARED + AHEAD
_OLD_H: Final = 192.0
_MOST: Final = 1e6


def features(past: Past, level: Level, told: Told, lags: Sequence[int]) -> Floats:
    """[series, horizon, feature] for horizons `lags` slots ahead."""
    rows = np.empty((*told.quantiles.shape[:2], len(FEATURES)), np.float32)
    scale = level.scale[:, None]
    rows[..., : len(SHARED)] = _shared(past, level)[:, None]
    median = told.quantiles[..., 0]
    for at, lag in enumerate(lags):
        rows[:, at, len(SHARED) :] = np.stack(
            [
                median[:, at] / level.scale,
                *((told.quantiles[:, at, 1:] - median[:, at, None]) / scale).T,
                (np.expm1(told.points[:, at, 0]) - median[:, at]) / level.scale,
                (np.expm1(told.points[:, at, -1]) - median[:, at]) / level.scale,
                *_seasons(past, level, lag),
            ],
            axis=1,
        )
    return np.clip(rows, -_MOST, _MOST)


def _shared(past: Past, level: Level) -> Floats:
    scale = level.scale
    by_scale = [past.back(0), past.back(1), past.back(2), level.minutes30, level.hour, level.hour_most,
                level.hour_least, level.hour_deviation, level.hours6, past.jump]  # fmt: skip
    age_h = np.minimum(past.age * np.float32(past.step_s / HOUR_S), _OLD_H)
    plain = [past.idle_hours6, past.idle_day, past.hours_busy, past.hours_idle, age_h, level.all / scale]
    seasons = [_known(past.mean_at(0, back_s), scale) for back_s in (DAY_S, WEEK_S)]
    hour = level.hour + LEAST
    ratios = [past.back(n) / hour for n in range(3)]
    spikes = [past.hours_calm, past.spikes, np.full_like(hour, past.step_s / 60)]
    return np.stack([*(each / scale for each in by_scale), *plain, *seasons, *ratios, *spikes], axis=1)


def _known(mean: Floats, scale: Floats) -> Floats:
    return np.where(np.isnan(mean), UNKNOWN, mean / scale)


def _seasons(past: Past, level: Level, lag: int) -> list[Floats]:
    """What was a day, a week, an hour ago where the horizon is now; by the scale, and the most up to it by the hour."""
    hour = level.hour + LEAST
    ago = past.back(max(0, round(HOUR_S / past.step_s) - lag))
    return [
        *(_known(past.mean_at(lag, back_s), level.scale) for back_s in (DAY_S, WEEK_S)),
        np.full(len(hour), lag * past.step_s / 60, np.float32),
        *(_known(past.most_ahead(lag, back_s), hour) for back_s in (DAY_S, WEEK_S)),
        ago / hour,
        _known(past.most_ahead(lag, 6 * HOUR_S), hour),
    ]


def rising(rows: Floats) -> Bools:
    """[row] whether demand is a spike already, so that no onset can be told."""
    return rows[..., FEATURES.index("now_by_hour")] > SPIKE
