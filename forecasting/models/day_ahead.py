"""The next day by the hour: rules that know the clock, and Prophet; whoever told the last days best tells tomorrow.

```
 hours known  ───────────────────────┬───────┬───────┬───────┐
 back-test        told from here ──►│ day 1 │ day 2 │ day 3 │──► the least wrong one tells ──► the next 24 h
```

For plans of a day, and for saying what is trend and what is the time of day. Within the hour other models are better,
and this is not listened to. Prophet takes a tenth of a second and more, and is an extra (forecast): not for a loop.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Hours = NDArray[np.float64]
DAY: Final = 24
WEEK: Final = 7 * DAY
DAYS: Final = 3
"""Told again to see who is right."""
LEAST: Final = DAY
"""Hours a rule needs to tell from."""


@dataclass(frozen=True)
class DayAhead:
    """The next 24 hours, in the unit of what was known."""

    model: str
    hours: Hours
    wrong: Mapping[str, float]
    """Candidate to its mean absolute error over the days told again, over their mean; empty: none could be."""


@dataclass(frozen=True)
class Parts:
    """What Prophet makes of the past: arrays [hour of the day] and [day of the week], shares of the mean."""

    growth_per_day: float
    by_hour: Hours
    by_day: Hours
    """Empty where less than two weeks are known."""


def day_ahead(hours: Hours, begins_s: float) -> DayAhead | None:
    """What comes after `hours` (means, the first of them from `begins_s` on, unix seconds; NaN: unknown).

    None where not even a day is known.
    """
    hours = _whole(hours)
    able = {name: tell for name, (needs, tell) in candidates().items() if len(hours) >= needs}
    if not able:
        return None
    days = min(DAYS, len(hours) // DAY - 1)
    wrong = {
        name: _wrong(hours, begins_s, days, tell)
        for name, tell in able.items()
        if days > 0 and len(hours) >= candidates()[name][0] + days * DAY
    }
    best = min(wrong, key=lambda name: wrong[name]) if wrong else next(iter(able))
    return DayAhead(best, able[best](hours, begins_s), wrong)


def parts(hours: Hours, begins_s: float) -> Parts | None:
    """What of the past is trend, time of day, and day of the week; None without Prophet, or with less than two days."""
    hours = _whole(hours)
    if not can_explain() or len(hours) < 2 * DAY:
        return None
    _, told = _prophet(hours, begins_s, 0)
    mean = max(float(hours.mean()), 1e-9)
    clock = (np.arange(len(hours)) + int(begins_s // 3600)) % DAY
    weekday = ((np.arange(len(hours)) + int(begins_s // 3600)) // DAY + 3) % 7  # 1970 began on a Thursday
    trend = told["trend"].to_numpy()
    return Parts(
        growth_per_day=float(trend[-1] - trend[0]) / mean / (len(hours) / DAY),
        by_hour=_by(clock, told["daily"].to_numpy() / mean, DAY),
        by_day=_by(weekday, told["weekly"].to_numpy() / mean, 7) if "weekly" in told else np.empty(0),
    )


def can_explain() -> bool:
    """Whether Prophet is there."""
    return find_spec("prophet") is not None


Tell = Callable[[Hours, float], Hours]


def candidates() -> dict[str, tuple[int, Tell]]:
    """Name to the hours it needs, and how it tells; the simplest first."""
    rules: dict[str, tuple[int, Tell]] = {
        "yesterday": (DAY, lambda hours, _: hours[-DAY:]),
        "last_days": (3 * DAY, lambda hours, _: hours[-3 * DAY :].reshape(3, DAY).mean(axis=0)),
        "last_week": (WEEK + DAY, lambda hours, _: hours[-WEEK : -WEEK + DAY]),
    }
    return rules | ({"prophet": (2 * DAY, _by_prophet)} if can_explain() else {})


def _wrong(hours: Hours, begins_s: float, days: int, tell: Tell) -> float:
    ends = [len(hours) - DAY * day for day in range(days, 0, -1)]
    errors = [np.abs(tell(hours[:end], begins_s) - hours[end : end + DAY]).mean() for end in ends]
    return float(np.mean(errors) / max(hours[ends[0] :].mean(), 1e-9))


def _by_prophet(hours: Hours, begins_s: float) -> Hours:
    _, told = _prophet(hours, begins_s, DAY)
    ahead: Hours = np.maximum(0, told["yhat"].to_numpy()[-DAY:])
    return ahead


def _prophet(hours: Hours, begins_s: float, ahead: int) -> tuple[Any, Any]:
    """A fitted model, and its table of the past and `ahead` hours more."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.getLogger("prophet.plot").disabled = True  # it wants plotly, to draw what nobody asked for
        import pandas
        from prophet import Prophet

        logging.getLogger("cmdstanpy").disabled = True  # it says each fit
        times = pandas.to_datetime(begins_s + 3600.0 * np.arange(len(hours) + ahead), unit="s")
        model = Prophet(uncertainty_samples=0, yearly_seasonality=False, daily_seasonality=True)
        model.fit(pandas.DataFrame({"ds": times[: len(hours)], "y": hours}), seed=0)
        return model, model.predict(pandas.DataFrame({"ds": times}))


def _whole(hours: Hours) -> Hours:
    """From the first known hour on; gaps hold what was before them."""
    known = np.flatnonzero(~np.isnan(hours))
    if not len(known):
        return np.empty(0)
    hours = hours[known[0] :].astype(np.float64)
    return hours[np.maximum.accumulate(np.where(np.isnan(hours), 0, np.arange(len(hours))))]


def _by(number: NDArray[np.intp], values: Hours, count: int) -> Hours:
    return np.bincount(number, values, count) / np.maximum(np.bincount(number, minlength=count), 1)
