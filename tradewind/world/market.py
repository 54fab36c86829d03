"""What replicas cost and how dirty their power is, over time; told to the house as prices and carbon come in.

Spot prices are told when they change and each hour; carbon each half hour as measured, and each hour as forecast for
the day ahead, by the curve itself with an error that grows with the time ahead.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.random import Generator

from streams.contract.records import CarbonIntensity, Record, SpotPrice
from tradewind.world.ground import Floats, Ground
from tradewind.world.series import Series

HOUR_S: Final = 3600.0
HALF_HOUR_S: Final = 1800.0
AHEAD_H: Final = 24
ERROR: Final = 0.02
"""Of a carbon forecast, an hour ahead; it grows with the square root of the hours."""
Told = tuple[float, Record]
"""When something is told, and what."""


@dataclass(slots=True)
class Market:
    """`price`: by endpoint number, $/h of a replica. `carbon`: by grid zone, g/kWh. What is not there costs the list
    price, and emits nothing."""

    ground: Ground
    rng: Generator
    price: Mapping[int, Series] = field(default_factory=dict)
    carbon: Mapping[str, Series] = field(default_factory=dict)

    def usd_per_h(self, now_s: float) -> Floats:
        """[E] of one replica."""
        listed = [end.price_usd_per_h for end in self.ground.ends]
        return np.array([self.price[n].at(now_s) if n in self.price else usd for n, usd in enumerate(listed)])

    def g_per_kwh(self, now_s: float) -> Floats:
        """[E] of the grid each endpoint is fed by."""
        known = {zone: series.at(now_s) for zone, series in self.carbon.items()}
        return np.array([known.get(end.grid_zone, 0.0) for end in self.ground.ends])

    def told(self, from_s: float, until_s: float, *, first: bool = False) -> Iterator[Told]:
        """What is told in [from, until); with `first` all that holds at its beginning, too."""
        hours = list(_marks(from_s, until_s, HOUR_S))
        opening = [from_s] if first and from_s not in hours else []
        for at_s in opening + hours:
            yield from ((at_s, self._price(n, at_s)) for n in self.price)
            yield from ((at_s, record) for record in self._forecast(at_s))
        for n, series in self.price.items():
            yield from ((at_s, self._price(n, at_s)) for at_s, _ in series.changes(from_s, until_s) if at_s % HOUR_S)
        for at_s in opening + list(_marks(from_s, until_s, HALF_HOUR_S)):
            yield from ((at_s, record) for record in self._measured(at_s))

    def _price(self, n: int, at_s: float) -> SpotPrice:
        usd = round(self.price[n].at(at_s), 6)
        return SpotPrice(pool=self.ground.ends[n].pool, price_usd_per_h=usd, effective_at_s=at_s, observed_at_s=at_s)

    def _measured(self, at_s: float) -> Iterator[CarbonIntensity]:
        for zone, series in self.carbon.items():
            yield CarbonIntensity(
                grid_zone=zone, kind="average", basis="measured", carbon_g_per_kwh=round(series.at(at_s), 1),
                valid_from_s=at_s, valid_until_s=at_s - at_s % HALF_HOUR_S + HALF_HOUR_S,
            )  # fmt: skip

    def _forecast(self, at_s: float) -> Iterator[CarbonIntensity]:
        hour_s = at_s - at_s % HOUR_S
        for zone, series in self.carbon.items():
            error = self.rng.standard_normal()
            for ahead in range(1, AHEAD_H + 1):
                from_s = hour_s + ahead * HOUR_S
                grams = series.at(from_s + HALF_HOUR_S) * (1.0 + ERROR * ahead**0.5 * error)
                yield CarbonIntensity(
                    grid_zone=zone, kind="average", basis="forecast", carbon_g_per_kwh=round(max(0.0, grams), 1),
                    valid_from_s=from_s, valid_until_s=from_s + HOUR_S,
                )  # fmt: skip


def _marks(from_s: float, until_s: float, every_s: float) -> Iterator[float]:
    """Whole multiples of `every_s` in [from, until)."""
    at_s = from_s + -from_s % every_s
    while at_s < until_s:
        yield at_s
        at_s += every_s
