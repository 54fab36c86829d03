"""Replicas of each pool: wanted, launched, ready a cold start later, leaving, lost with a notice. The pretend actuator.

    want ─► starting ── cold start ──► ready ── fewer are wanted ──► leaving ── DRAIN_S ──► gone
              │                          │
              └── the zone lends none: a failed launch, tried again      lost with its zone, NOTICE before: gone

What is launched is paid for from the launch on, what leaves until it is gone. It obeys `capacity-plan.v1` within each
endpoint's limits, and says in `capacity.v1` what there is.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import ceil, exp, inf
from typing import Final

from numpy.random import Generator

from streams.contract.records import Capacity, CapacityPlan, Endpoint, Interruption
from tradewind.world.ground import Ground
from tradewind.world.market import Told
from tradewind.world.series import Series

DRAIN_S: Final = 30.0
AGAIN_S: Final = 60.0
"""Between launches that fail."""
COLD_NOISE: Final = 0.15
"""Standard deviation of the logarithm of a cold start."""
_SEEN: Final = 20
_ENOUGH: Final = 3


@dataclass(frozen=True, slots=True)
class Lending:
    """How many replicas a pool lends over time, and how long before it takes some back it says so."""

    most: Series
    notice_s: float = 120.0


@dataclass(slots=True)
class Pool:
    """The replicas of one endpoint."""

    end: Endpoint
    cold_start_s: float
    lending: Lending | None
    want: int
    ready: int = 0
    starting: list[float] = field(default_factory=list)
    """When each is ready."""
    leaving: list[float] = field(default_factory=list)
    """When each is gone."""
    failed: int = 0
    plan: CapacityPlan | None = None
    took_s: deque[float] = field(default_factory=lambda: deque(maxlen=_SEEN))
    tried_s: float = -inf
    said: tuple[int, int, int, str] | None = None

    @property
    def billed(self) -> int:
        return self.ready + len(self.starting) + len(self.leaving)

    def lends(self, now_s: float) -> float:
        return self.lending.most.at(now_s) if self.lending is not None else inf

    def advance(self, now_s: float, rng: Generator) -> None:
        """Let time pass up to `now_s`."""
        self.ready += sum(at_s <= now_s for at_s in self.starting)
        self.starting = [at_s for at_s in self.starting if at_s > now_s]
        self.leaving = [at_s for at_s in self.leaving if at_s > now_s]
        if self.plan is not None and self.plan.not_before_s <= now_s:
            self.want = _within(self.end, self.plan.want)
        self._lose(self.lends(now_s))
        self._shrink(now_s)
        self._launch(now_s, rng)

    def _lose(self, most: float) -> None:
        """What the pool lends no longer is gone at once: who starts before who serves."""
        while self.starting and self.ready + len(self.starting) > most:
            self.starting.pop()
        self.ready = int(min(self.ready, most))

    def _shrink(self, now_s: float) -> None:
        while self.starting and self.ready + len(self.starting) > self.want:
            self.starting.pop()
        if (spare := self.ready - self.want) > 0:
            self.ready = self.want
            self.leaving += [now_s + DRAIN_S] * spare

    def _launch(self, now_s: float, rng: Generator) -> None:
        missing = self.want - self.ready - len(self.starting)
        room = self.lends(now_s) - self.ready - len(self.starting)
        for _ in range(int(min(missing, room))):
            took_s = self.cold_start_s * exp(COLD_NOISE * float(rng.standard_normal()))
            self.starting.append(now_s + took_s)
            self.took_s.append(took_s)
        if missing > room and now_s - self.tried_s >= AGAIN_S:
            self.tried_s, self.failed = now_s, self.failed + 1

    def measured_s(self) -> float | None:
        """The cold start that nine in ten launches did not exceed; None: too few were seen."""
        if len(self.took_s) < _ENOUGH:
            return None
        return round(sorted(self.took_s)[ceil(0.9 * len(self.took_s)) - 1], 1)

    def next_s(self, now_s: float) -> float:
        """When something is ready or gone next; infinity when nothing is under way."""
        return min((at_s for at_s in (*self.starting, *self.leaving) if at_s > now_s), default=inf)


class Replicas:
    """All pools. `cold_start_s`: of every endpoint; None: as the fleet declares it."""

    def __init__(
        self, ground: Ground, lending: Mapping[int, Lending], rng: Generator, cold_start_s: float | None = None
    ) -> None:
        self._ground, self._rng = ground, rng
        self.pools = [
            Pool(end, cold_start_s or end.cold_start_s, lending.get(n), end.replicas, end.replicas)
            for n, end in enumerate(ground.ends)
        ]

    def obey(self, plan: CapacityPlan) -> None:
        """Have what `plan` wants, from its time on; a plan for a pool that is not here is nobody's."""
        if (n := self._ground.pool_at.get(plan.pool)) is not None:
            self.pools[n].plan = plan

    def advance(self, now_s: float) -> None:
        """Let time pass up to `now_s`."""
        for pool in self.pools:
            pool.advance(now_s, self._rng)

    def next_s(self, now_s: float) -> float:
        """When something is ready or gone next."""
        return min(pool.next_s(now_s) for pool in self.pools)

    def capacity(self, now_s: float) -> Iterator[Capacity]:
        """What has changed since it was said last."""
        for pool in self.pools:
            plan_id = pool.plan.plan_id if pool.plan is not None else ""
            now = (pool.ready, len(pool.starting), pool.failed, plan_id)
            if now != pool.said:
                pool.said = now
                yield Capacity(
                    pool=pool.end.pool, at_s=now_s, ready=now[0], starting=now[1], failed=now[2],
                    cold_start_s=pool.measured_s(), plan_id=plan_id or None,
                )  # fmt: skip

    def notices(self, from_s: float, until_s: float) -> Iterator[Told]:
        """Notices given in [from, until) to endpoints that are about to lose all their replicas."""
        for pool in self.pools:
            if pool.lending is None:
                continue
            notice_s = pool.lending.notice_s
            for at_s, most in pool.lending.most.changes(from_s + notice_s, until_s + notice_s):
                if most <= 0 < pool.billed:
                    yield (
                        at_s - notice_s,
                        Interruption(
                            endpoint=pool.end.name, kind="terminate", notice_at_s=at_s - notice_s, deadline_at_s=at_s
                        ),
                    )


def _within(end: Endpoint, replicas: int) -> int:
    most = end.replicas if end.most_replicas is None else end.most_replicas
    return max(end.least_replicas, min(most, replicas))
