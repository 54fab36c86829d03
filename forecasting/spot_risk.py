"""The risk of spot pools: what was heard of them in, hazard and its price out.

```
 fleet, prices, notices, what actuators saw ─► watch (by pool) ─► signs ─► hazard per hour ─► dollars per hour
                                                  └ settled a minute later ─► comes back after a restart
```

Pools of other markets have no record: nobody takes them back. A record is said when it differs, and every ten minutes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import exp
from typing import Any, Final

from forecasting.spot.cost import risk_usd_per_h
from forecasting.spot.evidence import HALF_LIFE_S, Evidence
from forecasting.spot.hazard import FROZEN, Signs, hazard, signs
from forecasting.spot.prices import Prices
from forecasting.spot.watch import Watch
from streams.contract.records import Endpoint, SpotRisk
from streams.contract.topics import SPOT_RISK
from streams.runtime.step import Heard

AGAIN_S: Final = 600.0
DIFFERS: Final = 0.05
"""A record is said again when the hazard or its price moved by more than this share."""
NOTABLE: Final = 0.05
"""A sign is named among the reasons when it moves the hazard by this much, on a logarithmic scale."""


@dataclass(slots=True)
class RiskState:
    """What was heard, and what was said."""

    watch: Watch = field(default_factory=Watch)
    before: dict[str, SpotRisk] = field(default_factory=dict)
    """Said by whoever was here before, by pool; empty from the first view on."""
    began: bool = False
    said: dict[str, SpotRisk] = field(default_factory=dict)
    say: tuple[SpotRisk, ...] = ()
    say_at_s: float = float("-inf")
    urgent: bool = False


class ExpectLosses:
    """The stage. `usd_per_s` is what a late second of a request costs."""

    def __init__(self, *, usd_per_s: float = 0.001) -> None:
        self.usd_per_s = usd_per_s

    def empty(self) -> RiskState:
        """Nothing was heard."""
        return RiskState()

    def fold(self, state: RiskState, heard: Heard[Any]) -> RiskState:
        """Take words in; those of a stage before this one count until it speaks itself."""
        state.urgent = False
        if heard.topic == SPOT_RISK.name:
            for record in heard.records if not state.began else ():
                known = state.before.get(record.pool)
                if known is None or record.made_at_s >= known.made_at_s:
                    state.before[record.pool] = record
        else:
            state.urgent = state.watch.fold(heard)
        return state

    def advance(self, state: RiskState, now_s: float) -> RiskState:
        """Judge every spot pool of the fleet."""
        if not state.began and state.watch.fleet is not None:
            state.began = True
            _go_on(state)
        state.watch.advance(now_s)
        state.say, state.say_at_s = tuple(self._news(state, now_s)), now_s
        state.said.update({record.pool: record for record in state.say})
        return state

    def urgent(self, state: RiskState) -> bool:
        """Losses, failed launches and notices."""
        return state.urgent

    def view(self, state: RiskState, now_s: float) -> Iterable[SpotRisk]:
        """What differs from what was said, or was said long ago."""
        return state.say if now_s == state.say_at_s else ()

    def _news(self, state: RiskState, now_s: float) -> Iterable[SpotRisk]:
        watch = state.watch
        evidence = watch.evidence(now_s)
        neighbours = Neighbours(watch.pools, evidence)
        for pool, ends in watch.pools.items():
            if ends[0].market == "spot" and pool in evidence:
                record = self._judged(watch, pool, evidence[pool], neighbours, now_s)
                if _differs(state.said.get(pool), record):
                    yield record

    def _judged(self, watch: Watch, pool: str, evidence: Evidence, neighbours: Neighbours, now_s: float) -> SpotRisk:
        ends = watch.pools[pool]
        price, prices = watch.price_usd_per_h(pool, now_s), watch.prices.get(pool, Prices())
        usual = prices.median(now_s)
        region_at_s, zone_at_s = neighbours.lost(pool)
        seen = signs(
            evidence,
            now_s,
            region_lost_at_s=region_at_s,
            zone_lost_at_s=zone_at_s,
            price_ratio=price / usual if usual else 1.0,
        )
        found = hazard(seen, evidence)
        risk = risk_usd_per_h(
            found.per_h, price, watch.cold_start_s(pool), max(e.capacity_rps for e in ends), self.usd_per_s
        )
        ledger = watch.ledgers[pool]
        return SpotRisk(
            pool=pool,
            made_at_s=now_s,
            hazard_per_h=_rounded(found.per_h),
            low_per_h=_rounded(found.low_per_h),
            high_per_h=_rounded(found.high_per_h),
            risk_usd_per_h=_rounded(risk),
            reasons=tuple(_reasons(seen, evidence, now_s)),
            evidence=ledger.settled.record(usual),
        )


class Neighbours:
    """When others of the same place lost replicas last."""

    def __init__(self, pools: Mapping[str, tuple[Endpoint, ...]], evidence: Mapping[str, Evidence]) -> None:
        self._at = {pool: (ends[0].provider, ends[0].region, ends[0].zone) for pool, ends in pools.items()}
        self._lost: dict[tuple[str, ...], list[tuple[float, str]]] = {}
        for pool, place in self._at.items():
            if pool in evidence and (at_s := evidence[pool].lost_at_s) is not None:
                for where in (place[:2], place):
                    self._lost.setdefault(where, []).append((at_s, pool))

    def lost(self, pool: str) -> tuple[float | None, float | None]:
        """The last loss of another pool in the region's other zones, and in the same zone."""
        place = self._at[pool]
        far = [at_s for at_s, other in self._lost.get(place[:2], ()) if self._at[other] != place]
        near = [at_s for at_s, other in self._lost.get(place, ()) if other != pool]
        return max(far, default=None), max(near, default=None)


def _go_on(state: RiskState) -> None:
    """From what the one before had gathered."""
    for pool, record in state.before.items():
        if record.evidence is not None and pool in state.watch.pools:
            if (ledger := state.watch.ledger(pool)) is not None and ledger.settled.at_s is None:
                ledger.settled = Evidence.of(record.evidence)
            state.watch.prices.setdefault(pool, Prices()).usual = record.evidence.usual_usd_per_h
    state.before = {}


def _differs(said: SpotRisk | None, now: SpotRisk) -> bool:
    if said is None or now.made_at_s >= said.made_at_s + AGAIN_S:
        return True
    pairs = ((said.hazard_per_h, now.hazard_per_h), (said.risk_usd_per_h, now.risk_usd_per_h))
    return any(abs(new - old) > DIFFERS * max(old, 1e-9) for old, new in pairs)


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")


def _reasons(seen: Signs, evidence: Evidence, now_s: float) -> Iterable[str]:
    """In words, what moves the hazard, and by how much."""
    fades_h = HALF_LIFE_S / 3600.0
    yield f"{evidence.losses:.3g} losses in {evidence.exposure_h:.3g} h of standing, each worth half in {fades_h:.0f} h"
    calm_h = evidence.calm_s(now_s) / 3600.0
    words = {
        "calm": f"nothing lost for {calm_h:.1f} h" if calm_h < 24 * 365 else "nothing lost since it is known",
        "region": "a loss in another zone of the region",
        "zone": "a loss of another pool in the zone",
        "price": "its price against the week's median",
        "advised": "an advice of the provider",
    }
    for name, says in words.items():
        if abs(moved := getattr(FROZEN, name) * getattr(seen, name)) >= NOTABLE:
            yield f"{says}: x {exp(moved):.2g}"
