"""What is needed: requests per second now, and one cold start ahead, of each flow.

now      of the last six seconds or of the last minute, whichever is more
ahead    the median forecast, the highest within the longest cold start; where there is none, the busiest of the last
         ten minutes; never below now. What forecasts are unsure of is part of the reserve (`mix`)
waiting  work that may wait needs the mean of its day, now and ahead: it is ballast that others may displace
surge    six seconds twice as busy as their minute: what is ahead is the level just reached, and, once it has gone on
         for a quarter of a minute, what it would grow to within a cold start at the slope it has
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from forecasting.plan.rates import Rates
from forecasting.plan.site import Bools, Floats, Key, Site
from streams.contract.records import DemandForecast

SHORT_S: Final = 6
SURGE: Final = 2.0
LEAST: Final = 20.0
"""Requests in the last seconds, before anything is called a surge."""
CHANCE: Final = 5.0
"""Standard deviations that chance does not reach, second after second, in some hundreds of flows."""
LASTED_S: Final = 15
"""A step looks like a slope until it has lasted so long."""
STALE_S: Final = 600.0
"""A forecast made longer ago is none."""
UNSURE: Final = 0.15
"""Of demand ahead, where no forecast says how unsure it is."""
_NOISE: Final = 2.0


@dataclass(frozen=True, slots=True)
class Need:
    """[F] each, requests per second."""

    now: Floats
    ahead: Floats
    unsure: Floats
    """How far above `ahead` one case in twenty would be."""
    surge: Bools
    foretold: Bools
    """Whether `ahead` is by a forecast."""


def need(site: Site, rates: Rates, forecasts: Mapping[Key, DemandForecast], cold_start_s: float, now_s: float) -> Need:
    """The need at `now_s`; `cold_start_s` is the longest of the pools that may be planned."""
    keys = [flow.key for flow in site.flows]
    if rates.newest is None:
        expected = site.expected_rps
        return Need(expected, expected, UNSURE * expected, *(np.zeros(len(keys), np.bool_) for _ in "ab"))
    seconds = rates.seconds(keys, LASTED_S + SHORT_S + 60)
    short, minute = seconds[:, -SHORT_S:].mean(axis=1), seconds[:, -60:].mean(axis=1)
    now = np.maximum(short, minute)
    surge = surging(seconds) & rates.settled
    foretold, median, unsure = _foretold(keys, forecasts, cold_start_s, now_s)
    ahead = np.maximum(now, np.where(foretold, median, rates.peak_rps(keys)))
    ahead = np.where(surge, np.maximum(ahead, reached(seconds) + cold_start_s * slope(seconds)), ahead)
    waits = site.waits & (rates.steady_rps(keys) > 0)
    steady = np.where(waits, rates.steady_rps(keys), 0.0)
    now, ahead = np.where(waits, steady, now), np.where(waits, steady, ahead)
    return Need(now, ahead, np.where(waits, 0.0, np.where(foretold, unsure, UNSURE * ahead)), surge & ~waits, foretold)


def surging(seconds: Floats) -> Bools:
    """[F] whether the last seconds of [F, ≥ 60] are twice as busy as their minute, and it is not chance."""
    short, usual = seconds[:, -SHORT_S:].sum(axis=1), SHORT_S * seconds[:, -60:].mean(axis=1)
    out: Bools = (short > SURGE * usual) & (short >= np.maximum(LEAST, usual + CHANCE * np.sqrt(usual)))
    return out


def slope(seconds: Floats) -> Floats:
    """[F] by how much each second is busier than the one before, over the last quarter of a minute; less what may be
    chance, and 0 where the surge has not lasted so long.

    >>> steps = np.concatenate((np.full(70, 1.0), np.full(11, 100.0)))
    >>> slope(steps[None]).tolist()
    [0.0]
    """
    recent, before = seconds[:, -LASTED_S:], seconds[:, :-LASTED_S]
    at = np.arange(LASTED_S) - (LASTED_S - 1) / 2.0
    rise = recent @ at / (at @ at)
    chance = np.sqrt(np.maximum(recent.mean(axis=1), 0.0) / (at @ at))
    lasted = before[:, -SHORT_S:].mean(axis=1) > SURGE * before[:, :-SHORT_S].mean(axis=1)
    out: Floats = np.where(lasted, np.maximum(0.0, rise - _NOISE * chance), 0.0)
    return out


def reached(seconds: Floats) -> Floats:
    """[F] the second busiest of the last seconds: one odd second is not a level."""
    out: Floats = np.partition(seconds[:, -SHORT_S:], -2, axis=1)[:, -2]
    return out


def _foretold(
    keys: list[Key], forecasts: Mapping[Key, DemandForecast], cold_start_s: float, now_s: float
) -> tuple[Bools, Floats, Floats]:
    """(there is a forecast, its highest median up to a cold start ahead, how far its 0.95 lies above that)."""
    known, median, unsure = np.zeros(len(keys), np.bool_), np.zeros(len(keys)), np.zeros(len(keys))
    for n, key in enumerate(keys):
        said = forecasts.get(key)
        if said is None or now_s > said.made_at_s + STALE_S:
            continue
        ends = [h for h in said.horizons if "0.5" in h.rps]
        near = [h for h in ends if h.ahead_s <= cold_start_s] or ends[:1]
        beyond = next((h for h in ends if h.ahead_s > cold_start_s), None)
        asked = [*near, beyond] if beyond is not None and near[-1].ahead_s < cold_start_s else near
        if asked:
            known[n] = True
            median[n] = max(h.rps["0.5"] for h in asked)
            unsure[n] = max(0.0, max(h.rps.get("0.95", h.rps["0.5"]) for h in asked) - median[n])
    return known, median, unsure
