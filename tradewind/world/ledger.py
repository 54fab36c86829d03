"""What became of every request, and what it cost: by hour and flow, in whole requests.

    demand = served + late + shed + failed           to the request, in each hour
    served   answered within the class's SLO (deferred work: by its deadline)
    late     answered, but after it
    shed     turned away at the gateway: the table admits only a part of its tier
    failed   not answered by any endpoint that was asked, or nothing could be asked

Money is what is paid for replicas, whether they serve or not, launches and drains included, and for egress. Beside it
stands what the requests served would have cost at full replicas: the rest is idle.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Final

import numpy as np

from tradewind.world.engine import Engine, Span
from tradewind.world.ground import Counts, Floats, Ground
from tradewind.world.market import HOUR_S, Market
from tradewind.world.replicas import Pool

FATES: Final = ("served", "late", "shed", "failed")
IDLE_POWER: Final = 0.3
"""Of its power at capacity, that a replica draws when it does nothing."""


@dataclass(slots=True)
class Money:
    """Of one hour, whatever it served. Dollars and grams."""

    replicas_usd: float = 0.0
    start_usd: float = 0.0
    """Of that: while they start and while they leave."""
    egress_usd: float = 0.0
    carbon_g: float = 0.0
    replica_h: float = 0.0

    @property
    def usd(self) -> float:
        """All that is paid."""
        return self.replicas_usd + self.egress_usd


class Ledger:
    """Accounts of a run from `start_s` to `end_s`. Shapes: H hours, F flows."""

    def __init__(self, ground: Ground, market: Market, start_s: float, end_s: float) -> None:
        self._ground, self._market, self._start_s = ground, market, start_s
        hours, flows = max(1, ceil((end_s - start_s) / HOUR_S)), len(ground.flows)
        self.demand: Counts = np.zeros((hours, flows), np.int64)
        self.fates: dict[str, Counts] = {fate: np.zeros((hours, flows), np.int64) for fate in FATES}
        self.money = [Money() for _ in range(hours)]
        self.used_usd = np.zeros((hours, flows))
        """What the answers would have cost at full replicas, egress included: what budgets are about."""
        self.used_g = np.zeros((hours, flows))
        """Of carbon, in the same way."""
        self.breaches: dict[tuple[int, int], int] = {}
        """(flow, endpoint) that the law forbids, to requests that were sent there."""
        self.checked = 0
        """Requests sent to an endpoint, each of them held against the law."""
        self._egress_usd = _egress_usd(ground)

    def hour(self, at_s: float) -> int:
        """Which hour `at_s` lies in."""
        return min(len(self.money) - 1, int((at_s - self._start_s) // HOUR_S))

    def ask(self, span: Span, flow: int, count: int) -> None:
        """So many requests of `flow` came in a step; fewer than none: so many went back to where they wait."""
        self.demand[self.hour(span.from_s), flow] += count

    def end(self, span: Span, flow: int, **fates: int) -> None:
        """So many requests of `flow` ended so in a step."""
        hour = self.hour(span.from_s)
        for fate, count in fates.items():
            self.fates[fate][hour, flow] += count

    def sent(self, flow: int, end: int, count: int) -> None:
        """Requests of `flow` went to `end`; whether they might is looked up in the law as it stands."""
        self.checked += count
        if (flow, end) in self._ground.forbidden:
            self.breaches[flow, end] = self.breaches.get((flow, end), 0) + count

    def pay(self, span: Span, engine: Engine, answered: Counts, loads: Sequence[float]) -> None:
        """The step's bill. `answered` [F, E] requests; `loads` [E] of ready replicas."""
        hour, hours = self.hour(span.from_s), span.s / HOUR_S
        usd_per_h, grams = self._market.usd_per_h(span.from_s), self._market.g_per_kwh(span.from_s)
        for n, pool in enumerate(engine.replicas.pools):
            self._pay_pool(self.money[hour], pool, float(usd_per_h[n]), float(grams[n]), loads[n], hours)
        egress_usd = (answered * self._egress_usd).sum(axis=1)
        self.money[hour].egress_usd += float(egress_usd.sum())
        ends = self._ground.ends
        requests_per_h = np.array([end.capacity_rps * HOUR_S for end in ends])
        self.used_usd[hour] += answered @ (usd_per_h / requests_per_h) + egress_usd
        self.used_g[hour] += answered @ (np.array([end.power_w for end in ends]) / 1000.0 * grams / requests_per_h)

    @staticmethod
    def _pay_pool(money: Money, pool: Pool, usd_per_h: float, grams: float, load: float, hours: float) -> None:
        money.replicas_usd += pool.billed * usd_per_h * hours
        money.start_usd += (pool.billed - pool.ready) * usd_per_h * hours
        money.replica_h += pool.billed * hours
        busy = pool.billed * IDLE_POWER + pool.ready * (1.0 - IDLE_POWER) * min(1.0, load)
        money.carbon_g += busy * pool.end.power_w / 1000.0 * hours * grams

    @property
    def conserved(self) -> bool:
        """Whether everything that was demanded is accounted for, in each hour and flow."""
        return bool((self.demand == sum(self.fates.values())).all())


def _egress_usd(ground: Ground) -> Floats:
    """[F, E] of one answer."""
    kilobytes = np.array([flow.class_.response_kb for flow in ground.flows])
    out: Floats = np.outer(kilobytes, [end.egress_usd_per_gb for end in ground.ends]) / 1e6
    return out
