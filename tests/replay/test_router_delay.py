"""Shares under measurement delay: every p95 looks back on a minute of what the last tables caused."""

from __future__ import annotations

import random
from collections import deque
from itertools import pairwise

import pytest

from streams.contract.records import EndpointHealth
from tests.replay.test_router_in_memory import World
from tests.unit.router_fleet import demand, endpoint, fleet, request_class

ORIGINS = ("eu", "us")
AT = {"eu-west-a": ("eu-west", 0.9), "us-east-a": ("us-east", 0.8), "ap-south-a": ("ap-south", 0.95)}
WINDOW_S = 60


class Queues:
    """Endpoints of 100 requests/s whose p95 is 60 + 40 u / (1 - u) ms at utilisation u, measured over a minute."""

    def __init__(self, rps: float, slo_ms: float, seed: int = 1) -> None:
        ends = [endpoint(name, at, price_usd_per_h=usd, latency_ms=100.0) for name, (at, usd) in AT.items()]
        self.rps, self.rng = rps, random.Random(seed)
        self.world = World(fleet([request_class(slo_p95_ms=slo_ms)], ends, demand_rps=rps))
        self.past: dict[str, deque[tuple[float, float]]] = {name: deque(maxlen=WINDOW_S) for name in AT}

    def load(self) -> dict[str, float]:
        """Requests/s at each endpoint, by the table in force."""
        load = dict.fromkeys(AT, 0.0)
        for route in self.world.tables()[-1].routes:
            for name, share in zip(route.endpoints, route.shares, strict=True):
                load[name] += share * self.rps
        return load

    def second(self) -> dict[str, float]:
        load = self.load()
        for name, rps in load.items():
            u = min(0.98, rps / 100.0)
            self.past[name].append((rps, 60.0 + 40.0 * u / (1.0 - u)))
        self.world.tell(self.health(load))
        self.world.tell(demand(self.world.now_s - 1, {(o, "interactive"): int(self.rps) for o in ORIGINS}))
        self.world.carrier.run_until(self.world.now_s + 1.0)
        return load

    def health(self, load: dict[str, float]) -> EndpointHealth:
        p95 = [self._measured_ms(name) for name in AT]
        whole = [None if ms is None else 0.7 * ms + 500.0 for ms in p95]
        n = len(AT)
        return EndpointHealth(
            source="endpoint-metrics.v1/0", made_at_s=self.world.now_s, endpoint=tuple(AT), service=("chat",) * n,
            class_=("interactive",) * n, verdict=("up",) * n, reason=("",) * n,
            observations=tuple(int(sum(rps for rps, _ in past)) for past in self.past.values()),
            rps=tuple(load.values()), p50_ms=tuple(whole), p95_ms=tuple(p95), p99_ms=(None,) * n,
            ttft_p95_ms=(None,) * n, queue=(None,) * n, age_s=(0.0,) * n, first_error_at_s=(None,) * n,
            in_flight=tuple(round(rps * (ms or 0.0) / 1000.0) for rps, ms in zip(load.values(), whole, strict=True)),
            last_ok_at_s=(None,) * n,
        )  # fmt: skip

    def _measured_ms(self, name: str) -> float | None:
        seen = sum(rps for rps, _ in self.past[name])
        if seen < 1.0:
            return None
        return sum(rps * ms for rps, ms in self.past[name]) / seen * self.rng.gauss(1.0, 0.05) + 20.0


@pytest.mark.parametrize(("rps", "slo_ms"), [(60.0, 220.0), (90.0, 220.0)])
def test_shares_do_not_chase_the_p95_that_they_caused_themselves(rps: float, slo_ms: float) -> None:
    queues = Queues(rps, slo_ms)
    loads = [queues.second() for _ in range(780)][-180:]
    moved = sum(abs(a[name] - b[name]) for a, b in pairwise(loads) for name in AT)
    assert moved < 0.02 * rps, "of the demand of three minutes"
