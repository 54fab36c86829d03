"""What a request is expected to cost in the hours ahead: prices and carbon as they were heard, and as they repeat.

price    the last one said of the pool, else the declared one; it is expected to stay
carbon   of an hour ahead: forecast, else the mean of the same hour of the last days, else as in the hour before it that
         is known: an hour of which nothing is known never looks greener than what comes before it
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NamedTuple

import numpy as np

from router_sync.layout import Floats, Layout
from streams import signals
from streams.contract.records import CarbonIntensity, SpotPrice

HOUR_S: Final = 3600
DAYS: Final = 7
"""Of measured carbon are kept, to expect the same hour by."""
_LONGEST: Final = 31 * 24
"""Hours of one record that are looked at."""
Source = Literal["measured", "forecast", "usual", "last", "unknown"]
SERIES: Final = 20_000
"""Pools, and grid zones, that are kept; more are left out, and said to be."""
Zone = tuple[str, str]
"""(grid zone, average or marginal)"""
Measured = dict[int, tuple[float, float]]
"""Hour to (grams x seconds, seconds): corrections are averaged in."""
Forecast = dict[int, dict[float, tuple[float, float]]]
"""Hour to what each interval in it was last said to be: (grams, seconds)."""


class Hour(NamedTuple):
    """Grams per kWh expected in an hour, and by what; NaN: unknown."""

    carbon_g_per_kwh: float
    source: Source


_UNKNOWN: Final = Hour(math.nan, "unknown")


@dataclass(slots=True)
class HeardCosts:
    """Prices by pool; carbon by zone and hour (unix hours)."""

    prices: dict[str, SpotPrice] = field(default_factory=dict)
    measured: dict[Zone, Measured] = field(default_factory=dict)
    forecast: dict[Zone, Forecast] = field(default_factory=dict)
    full: bool = False
    """Some series were left out, which was said."""

    def fold_price(self, record: SpotPrice) -> bool:
        """Take a price in; whether it is another."""
        known = self.prices.get(record.pool)
        if (known is not None and known.effective_at_s > record.effective_at_s) or not self._room(
            self.prices, record.pool
        ):
            return False
        self.prices[record.pool] = record
        return known is None or known.price_usd_per_h != record.price_usd_per_h

    def fold_carbon(self, record: CarbonIntensity) -> None:
        """Take in what a grid's carbon was, or is going to be."""
        zone, grams = (record.grid_zone, record.kind), record.carbon_g_per_kwh
        if not self._room(self.forecast if record.basis == "forecast" else self.measured, zone):
            return
        for hour, seconds in _parts(record.valid_from_s, record.valid_until_s):
            if record.basis == "forecast":
                self.forecast.setdefault(zone, {}).setdefault(hour, {})[record.valid_from_s] = grams, seconds
            else:
                hours = self.measured.setdefault(zone, {})
                told, length = hours.get(hour, (0.0, 0.0))
                hours[hour] = told + grams * seconds, length + seconds

    def _room(self, held: Mapping[Any, object], key: object) -> bool:
        """Whether one more series may be kept; the first that may not is said."""
        if key in held or len(held) < SERIES:
            return True
        if not self.full:
            signals.event("costs_left_out", "warning", first=str(key), most=SERIES)
        self.full = True
        return False

    def advance(self, now_s: float) -> None:
        """Forget what is over: forecasts of hours gone by, measurements older than DAYS and an hour."""
        now = int(now_s // HOUR_S)
        for hours in self.forecast.values():
            for hour in [hour for hour in hours if hour < now]:
                del hours[hour]
        for past in self.measured.values():
            for hour in [hour for hour in past if hour < now - 24 * DAYS - 1]:
                del past[hour]

    def carbon(self, grid_zone: str, hours: Sequence[int], now: int) -> list[Hour]:
        """What is expected in each of `hours`, `now` being the present one; the average, or else the marginal one."""
        for kind in ("average", "marginal"):
            past, ahead = self.measured.get((grid_zone, kind), {}), self.forecast.get((grid_zone, kind), {})
            if grid_zone and (known := sorted(past.keys() | ahead.keys())):
                return [_hour(past, ahead, known, hour, now) for hour in hours]
        return [_UNKNOWN] * len(hours)


def _hour(past: Measured, ahead: Forecast, known: Sequence[int], hour: int, now: int) -> Hour:
    """What is expected in `hour`; `known`: all hours of `past` and `ahead`, in order."""
    if hour <= now and hour in past:
        return Hour(_mean([past[hour]]), "measured")
    if hour in ahead:
        return Hour(_mean(_weighted(ahead[hour])), "forecast")
    if usual := [past[hour - 24 * day] for day in range(1, DAYS + 1) if hour - 24 * day in past]:
        return Hour(_mean(usual), "usual")
    before = known[max(0, bisect_right(known, hour) - 1)]
    return Hour(_mean([past[before]] if before in past else _weighted(ahead[before])), "last")


def _weighted(intervals: Mapping[float, tuple[float, float]]) -> list[tuple[float, float]]:
    return [(grams * seconds, seconds) for grams, seconds in intervals.values()]


def _mean(told: Sequence[tuple[float, float]]) -> float:
    return sum(weighted for weighted, _ in told) / max(1e-9, sum(seconds for _, seconds in told))


def _parts(since_s: float, until_s: float) -> Iterator[tuple[int, float]]:
    """The hours of an interval, and how many seconds of each lie in it.

    >>> list(_parts(1800.0, 9000.0))
    [(0, 1800.0), (1, 3600.0), (2, 1800.0)]
    """
    first = int(since_s // HOUR_S)
    for hour in range(first, min(first + _LONGEST, math.ceil(until_s / HOUR_S))):
        yield hour, min(until_s, (hour + 1) * HOUR_S) - max(since_s, hour * HOUR_S)


class Ahead(NamedTuple):
    """Costs ahead. Shapes: T hours, E endpoints."""

    usd: Floats
    """[T, E] of one request, without its egress."""
    sources: tuple[frozenset[Source], ...]
    """[E] by what its carbon is expected."""


def ahead(plan: Layout, heard: HeardCosts, hours: Sequence[int], usd_per_kg: float) -> Ahead:
    """What a request costs at each endpoint in each of `hours` (unix hours; the first is the present one)."""
    known = {e.grid_zone: heard.carbon(e.grid_zone, hours, hours[0]) for e in plan.fleet.endpoints}
    price = np.array([_price_usd_per_h(plan, column, heard) for column in range(len(plan.names))])
    per_request = 1.0 / (HOUR_S * np.array([e.capacity_rps for e in plan.fleet.endpoints]))
    kwh = np.array([e.power_w for e in plan.fleet.endpoints]) / 1000.0 * per_request
    grams = np.array([[hour.carbon_g_per_kwh for hour in known[e.grid_zone]] for e in plan.fleet.endpoints]).T
    usd: Floats = price * per_request + np.nan_to_num(grams) * kwh * usd_per_kg / 1000.0
    sources = tuple(
        frozenset(hour.source for hour in known[e.grid_zone]) if e.power_w else frozenset()
        for e in plan.fleet.endpoints
    )
    return Ahead(usd, sources)


def _price_usd_per_h(plan: Layout, column: int, heard: HeardCosts) -> float:
    endpoint = plan.fleet.endpoints[column]
    said = heard.prices.get(endpoint.pool)
    return endpoint.price_usd_per_h if said is None else said.price_usd_per_h
