"""What the market and the actuators said: prices, carbon, the risk of losing spot capacity, replicas that are ready.

Each is the last word on its pool or grid zone. What is too old, or was never said, is as the fleet declares it; carbon
that nobody knows has no price, and a gap between two measurements is bridged by the forecast, then by the last one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple

import numpy as np

from router_sync.layout import Floats, Layout
from streams.contract.records import Capacity, CarbonIntensity, Endpoint, SpotPrice, SpotRisk

OLD_S: Final = 86400.0
"""A price last observed so long ago is no price any more."""
BRIDGE_S: Final = 3 * 3600.0
"""Carbon measured so long ago stands in for what is not known yet."""
RISKY_S: Final = 6 * 3600.0
Kind = Literal["average", "marginal"]
Quote = SpotPrice | CarbonIntensity | SpotRisk | Capacity


class Quoted(NamedTuple):
    """What holds now, of each endpoint [E]."""

    price_usd_per_h: Floats
    """Of one replica."""
    carbon_g_per_kwh: Floats
    """NaN: unknown."""
    risk_usd_per_h: Floats
    """Of one replica."""
    replicas: Floats
    """Ready ones."""


@dataclass(slots=True)
class Quotes:
    """The last word of each kind. `kind`: the series of carbon to go by; average and marginal are never mixed."""

    kind: Kind = "average"
    prices: dict[str, SpotPrice] = field(default_factory=dict)
    risks: dict[str, SpotRisk] = field(default_factory=dict)
    ready: dict[str, Capacity] = field(default_factory=dict)
    carbon: dict[tuple[str, str], dict[float, CarbonIntensity]] = field(default_factory=dict)
    """(grid zone, basis) to what is valid, by since when: a forecast speaks of many hours."""

    def fold(self, record: Quote) -> bool:
        """Take in a word; whether replicas went, so that it cannot wait."""
        match record:
            case SpotPrice():
                self.prices[record.pool] = record
            case SpotRisk():
                self.risks[record.pool] = record
            case CarbonIntensity() if record.kind == self.kind:
                self.carbon.setdefault((record.grid_zone, record.basis), {})[record.valid_from_s] = record
            case Capacity():
                before, self.ready[record.pool] = self.ready.get(record.pool), record
                return before is None or record.ready < before.ready
        return False

    def advance(self, now_s: float) -> None:
        """Forget carbon that bridges nothing any more."""
        for said in self.carbon.values():
            for since_s in [s for s, record in said.items() if record.valid_until_s + BRIDGE_S < now_s]:
                del said[since_s]

    def at(self, plan: Layout, now_s: float) -> Quoted:
        """What holds at `now_s`."""
        ends = plan.fleet.endpoints
        return Quoted(
            price_usd_per_h=_column(self._price(e, now_s) for e in ends),
            carbon_g_per_kwh=_column(self._carbon(e, now_s) for e in ends),
            risk_usd_per_h=_column(self._risk(e, now_s) for e in ends),
            replicas=self._replicas(ends),
        )

    def _price(self, endpoint: Endpoint, now_s: float) -> float:
        said = self.prices.get(endpoint.pool)
        fresh = said is not None and now_s - said.observed_at_s <= OLD_S
        return said.price_usd_per_h if fresh and said is not None else endpoint.price_usd_per_h

    def _risk(self, endpoint: Endpoint, now_s: float) -> float:
        said = self.risks.get(endpoint.pool)
        return said.risk_usd_per_h if said is not None and now_s - said.made_at_s <= RISKY_S else 0.0

    def _carbon(self, endpoint: Endpoint, now_s: float) -> float:
        zone = endpoint.grid_zone
        for basis, grace_s in (("measured", 0.0), ("forecast", 0.0), ("measured", BRIDGE_S)):
            said = self.carbon.get((zone, basis), {})
            valid = [at_s for at_s, r in said.items() if at_s <= now_s < r.valid_until_s + grace_s]
            if valid:
                return said[max(valid)].carbon_g_per_kwh
        return float("nan")

    def _replicas(self, ends: Sequence[Endpoint]) -> Floats:
        """What is ready in a pool is divided among its endpoints as the fleet has it; evenly where it has none."""
        pool: dict[str, list[int]] = {}
        for endpoint in ends:
            pool.setdefault(endpoint.pool, []).append(endpoint.replicas)
        return _column(self._part(endpoint, pool[endpoint.pool]) for endpoint in ends)

    def _part(self, endpoint: Endpoint, pool: Sequence[int]) -> float:
        said = self.ready.get(endpoint.pool)
        if said is None:
            return float(endpoint.replicas)
        return said.ready * (endpoint.replicas / sum(pool) if any(pool) else 1.0 / len(pool))


def _column(values: Iterable[float]) -> Floats:
    return np.fromiter(values, np.float64)
