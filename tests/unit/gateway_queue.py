"""Gateways before endpoints that answer in the order of arrival, in virtual time: who waits, and who is shed."""

from __future__ import annotations

import heapq
import random
from collections import Counter, deque
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any, NamedTuple

from router_sync.client import Pick, Picker
from router_sync.gateway.config import Tiers
from router_sync.gateway.saturation import Kind
from router_sync.gateway.shedding import Shedding
from streams.contract.records import Route, RoutingTable, TableEndpoint, Tier

SLOTS = 8
SERVICE_S = 0.1
ENDS = ("a", "b")
CAPACITY_RPS = len(ENDS) * SLOTS / SERVICE_S
SLO_MS = 300.0


def route(class_: str, tier: Tier, slo_ms: float = SLO_MS, ends: tuple[str, ...] = ENDS, **more: Any) -> Route:
    shares = tuple(1 / len(ends) for _ in ends)
    return Route(origin="eu", class_=class_, tier=tier, slo_p95_ms=slo_ms, endpoints=ends, shares=shares, **more)


CHAT, BATCH = route("chat", "premium"), route("batch", "sheddable", 5000.0)


def table(*routes: Route, concurrency: int = SLOTS, service: str = "m") -> RoutingTable:
    names = dict.fromkeys(name for one in routes for name in one.endpoints)
    ends = tuple(
        TableEndpoint(
            name=name, url="http://a:1", provider="p", region="r", zone="z", jurisdiction="DE", capacity_rps=80,
            concurrency=concurrency, cost_usd_per_request=0.0, latency_p95_ms=100,
        )
        for name in names
    )  # fmt: skip
    return RoutingTable(
        service=service, epoch=1, version=1, issued_at_s=0, expires_at_s=1e9, fleet_version=1,
        default_class=routes[0].class_, endpoints=ends, routes=routes,
    )  # fmt: skip


class Asked(NamedTuple):
    """What became of one request; `latency_ms` None: it was shed."""

    at_s: float
    class_: str
    latency_ms: float | None


class _Gateway:
    def __init__(self, of: RoutingTable, config: Tiers, seed: int, clock: Callable[[], float]) -> None:
        self.picker = Picker(of, rng=random.Random(seed), clock=clock)
        self.in_flight: Counter[str] = Counter()
        self.shedding = Shedding(config, {"m": self.picker}, self.in_flight.__getitem__, random.Random(seed), clock)


class _Job(NamedTuple):
    at_s: float
    gateway: _Gateway
    pick: Pick
    trial: bool
    held: int


class Queue:
    """`load` is the share of all capacity that arrives by second; a `premium` part of it is chat, the rest batch."""

    def __init__(
        self, load: Callable[[float], float], *, gateways: int = 1, concurrency: int = SLOTS, premium: float = 0.2,
        config: Tiers | None = None, spread: float = 0.3,
    ) -> None:  # fmt: skip
        self.now_s = 0.0
        of = table(CHAT, BATCH, concurrency=concurrency)
        self._gateways = [_Gateway(of, config or Tiers(), seed, lambda: self.now_s) for seed in range(gateways)]
        self._load, self._premium, self._spread = load, premium, spread
        self._rng = random.Random(1)
        self._busy: Counter[str] = Counter()
        self._waiting: dict[str, deque[_Job]] = {name: deque() for name in ENDS}
        self._events: list[tuple[float, int, _Job | None]] = []
        self._number = count()
        self.asked: list[Asked] = []

    def run(self, seconds: float) -> list[Asked]:
        """All that arrived within `seconds`, when all of it is answered."""
        for at_s in self._arrivals(seconds):
            self._push(at_s, None)
        while self._events:
            self.now_s, _, job = heapq.heappop(self._events)
            if job is None:
                self._arrive()
            else:
                self._answer(job)
        return self.asked

    def _arrivals(self, seconds: float) -> Iterator[float]:
        at_s = 0.0
        while (at_s := at_s + self._rng.expovariate(CAPACITY_RPS * self._load(at_s))) < seconds:
            yield at_s

    def _arrive(self) -> None:
        class_ = CHAT if self._rng.random() < self._premium else BATCH
        gateway = self._rng.choice(self._gateways)
        if gateway.shedding.refusal(gateway.picker, class_, 0.0, None) is not None:
            self.asked.append(Asked(self.now_s, class_.class_, None))
            return
        pick = gateway.picker.pick("eu", class_.class_)
        assert pick is not None
        gateway.in_flight[pick.endpoint.name] += 1
        job = _Job(self.now_s, gateway, pick, pick.endpoint.begin(), gateway.in_flight[pick.endpoint.name])
        self._waiting[pick.endpoint.name].append(job)
        self._begin(pick.endpoint.name)

    def _begin(self, name: str) -> None:
        if self._waiting[name] and self._busy[name] < SLOTS:
            self._busy[name] += 1
            takes_s = SERVICE_S * self._rng.lognormvariate(0, self._spread)
            self._push(self.now_s + takes_s, self._waiting[name].popleft())

    def _answer(self, job: _Job) -> None:
        local, latency_ms = job.pick.endpoint, (self.now_s - job.at_s) * 1000
        self._busy[local.name] -= 1
        self._begin(local.name)
        job.gateway.in_flight[local.name] -= 1
        local.ok(self.now_s, latency_ms, job.trial)
        kind = Kind("m", job.pick.route.class_, streamed=False)
        job.gateway.shedding.load(local.name).answered(kind, latency_ms, local.slo_ms, job.held, self.now_s)
        self.asked.append(Asked(job.at_s, job.pick.route.class_, latency_ms))

    def _push(self, at_s: float, job: _Job | None) -> None:
        heapq.heappush(self._events, (at_s, next(self._number), job))
