"""What was heard of pools: fleet, prices, notices, what actuators saw and what was planned. Both steps that think of
capacity keep one.

It keeps words as they come and makes sense of them when time passes, so that it matters neither how batches were cut
nor which topic came first.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from forecasting.spot.evidence import Evidence
from forecasting.spot.ledger import Fact, Ledger
from forecasting.spot.prices import Prices
from streams import signals
from streams.contract.records import Capacity, Endpoint, Fleet, Interruption, SpotPrice
from streams.contract.topics import CAPACITY, CAPACITY_PLAN, FLEET, INTERRUPTIONS, SPOT_PRICES
from streams.runtime.step import Heard

MOST: Final = 10_000
"""Pools kept apart; those beyond them are left out, and said to be."""
WAITS_S: Final = 3600.0
"""So long a notice waits for the fleet that names its endpoint."""
REPEATS_S: Final = 600.0
"""The same notice again within so long is the same notice."""
_TAKEN: Final = frozenset({"terminate", "preempt", "stop", "outage"})


@dataclass(slots=True)
class Watch:
    """Everything by pool, but notices by endpoint."""

    fleet: Fleet | None = None
    fleet_at_s: float = 0.0
    pools: dict[str, tuple[Endpoint, ...]] = field(default_factory=dict)
    ledgers: dict[str, Ledger] = field(default_factory=dict)
    capacity: dict[str, Capacity] = field(default_factory=dict)
    """The last word of an actuator."""
    prices: dict[str, Prices] = field(default_factory=dict)
    notices: list[Interruption] = field(default_factory=list)
    """Not entered in a ledger yet."""
    entered: dict[tuple[str, str], float] = field(default_factory=dict)
    """(endpoint, kind) to the time of the last notice that was: pollers repeat them."""
    left_out: bool = False

    def fold(self, heard: Heard[Any]) -> bool:
        """Take in what is one of ours; whether something was lost, or will be."""
        match heard.topic:
            case FLEET.name:
                for record, at_s in zip(heard.records, heard.stamps_s.tolist(), strict=True):
                    self._fleet(record, at_s)
            case SPOT_PRICES.name:
                for record in heard.records:
                    self._price(record)
            case CAPACITY_PLAN.name:
                for record in heard.records:
                    if (ledger := self.ledger(record.pool)) is not None:
                        ledger.add(Fact(record.made_at_s, "4 planned", record.want, plan_id=record.plan_id))
            case CAPACITY.name:
                news = [self._capacity(r, s) for r, s in zip(heard.records, heard.stamps_s.tolist(), strict=True)]
                return any(news)
            case INTERRUPTIONS.name:
                self.notices.extend(heard.records)
                return True
        return False

    def advance(self, now_s: float) -> None:
        """Enter notices in the ledgers of their pools, and settle what no word can come before any more."""
        if self.fleet is not None and self.notices:
            pool_of = {e.name: e.pool for e in self.fleet.endpoints}
            self.notices.sort(key=lambda notice: notice.notice_at_s)
            waiting = [notice for notice in self.notices if not self._notice(notice, pool_of.get(notice.endpoint))]
            self.notices = [notice for notice in waiting if notice.notice_at_s > now_s - WAITS_S]
        for ledger in self.ledgers.values():
            ledger.settle(now_s)

    def ledger(self, pool: str) -> Ledger | None:
        """The pool's ledger, a new one while there is room."""
        if (known := self.ledgers.get(pool)) is not None:
            return known
        if len(self.ledgers) >= MOST:
            if not self.left_out:
                self.left_out = True
                signals.event("pools_left_out", "warning", first=pool, most=MOST)
            return None
        return self.ledgers.setdefault(pool, Ledger())

    def evidence(self, now_s: float) -> dict[str, Evidence]:
        """Of every pool of the fleet."""
        return {pool: self.ledgers[pool].evidence(now_s) for pool in self.pools if pool in self.ledgers}

    def cold_start_s(self, pool: str) -> float:
        """As launches showed it, else as declared."""
        said = self.capacity.get(pool)
        if said is not None and said.cold_start_s is not None:
            return said.cold_start_s
        return max(e.cold_start_s for e in self.pools[pool])

    def price_usd_per_h(self, pool: str, now_s: float) -> float:
        """Of one replica: as last heard, else the list price."""
        heard = self.prices[pool].now(now_s) if pool in self.prices else None
        return max(e.price_usd_per_h for e in self.pools[pool]) if heard is None else heard

    def _fleet(self, fleet: Fleet, at_s: float) -> None:
        """One fleet under one prefix, and its versions only grow; the router says so to whoever publishes another."""
        held = self.fleet
        if held is not None and (fleet.fleet != held.fleet or fleet.version < held.version or fleet == held):
            return
        self.fleet, self.fleet_at_s, self.pools = fleet, at_s, by_pool(fleet)
        for pool, endpoints in self.pools.items():
            if (ledger := self.ledger(pool)) is not None:
                ledger.add(Fact(at_s, "0 declared", sum(e.replicas for e in endpoints)))

    def _price(self, said: SpotPrice) -> None:
        if said.pool in self.prices or len(self.prices) < MOST:
            self.prices.setdefault(said.pool, Prices()).add(said.effective_at_s, said.price_usd_per_h)

    def _capacity(self, said: Capacity, stamp_s: float) -> bool:
        """Never ahead of the broker's clock: a fast one must not make what comes after it look old. Words that repeat
        the last are no news."""
        at_s = min(said.at_s, stamp_s)
        last = self.capacity.get(said.pool)
        if (ledger := self.ledger(said.pool)) is None:
            return False
        if last is None or (said.ready, said.failed, said.plan_id) != (last.ready, last.failed, last.plan_id):
            ledger.add(Fact(at_s, "1 reported", said.ready, said.failed, plan_id=said.plan_id or ""))
        if last is None or said.at_s >= last.at_s:
            self.capacity[said.pool] = said
        return last is not None and (said.ready < last.ready or said.failed > last.failed)

    def _notice(self, notice: Interruption, pool: str | None) -> bool:
        """Whether it is done with: entered, known, or none of ours."""
        if pool is None:
            return False
        what = notice.endpoint, notice.kind
        ledger = self.ledger(pool)
        if ledger is None or notice.notice_at_s < self.entered.get(what, -REPEATS_S) + REPEATS_S:
            return True
        self.entered[what] = notice.notice_at_s
        if notice.kind == "rebalance":
            ledger.add(Fact(notice.notice_at_s, "3 advised"))
        elif notice.kind in _TAKEN:
            ends = self.pools[pool]
            gone = sum(e.replicas for e in ends if e.name == notice.endpoint)
            ledger.add(Fact(notice.notice_at_s, "2 noticed", part=gone / max(1, sum(e.replicas for e in ends))))
        return True


def by_pool(fleet: Fleet) -> dict[str, tuple[Endpoint, ...]]:
    """The endpoints of each pool, pools in the order of the file."""
    pools: dict[str, list[Endpoint]] = {}
    for endpoint in fleet.endpoints:
        pools.setdefault(endpoint.pool, []).append(endpoint)
    return {pool: tuple(ends) for pool, ends in pools.items()}
