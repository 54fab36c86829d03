"""A pretend cloud for the planner: pools that launch, fail and are taken away; demand as a fluid. No chance in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from forecasting.flow import steps
from streams.contract import records as r
from streams.contract.topics import (
    CAPACITY,
    CAPACITY_PLAN,
    DEAD_LETTERS,
    DEMAND,
    FLEET,
    INTERRUPTIONS,
    SPOT_PRICES,
    SPOT_RISK,
    Topic,
)
from streams.runtime.memory import MemoryCarrier
from streams.runtime.step import Step
from streams.settings import load

T0 = 1_763_938_800.0
RTT_MS = {"eu-1": 10.0, "eu-2": 20.0, "us-1": 90.0}


def endpoint(name: str, region: str = "eu-1", market: r.Market = "on_demand", **more: object) -> r.Endpoint:
    """Ten requests/s a replica, a dollar an hour on demand and 30 cents as spot, three minutes to start."""
    told: dict[str, object] = {
        "url": "http://127.0.0.1:1", "services": ("chat",), "provider": "p", "region": region, "zone": name,
        "jurisdiction": "US" if region.startswith("us") else "DE", "market": market, "capacity_rps": 10.0,
        "price_usd_per_h": 0.3 if market == "spot" else 1.0, "latency_ms": 100.0, "most_replicas": 200,
        "cold_start_s": 180.0, "replicas": 0,
    }  # fmt: skip
    return r.Endpoint(name=name, **(told | more))  # type: ignore[arg-type]


def fleet(endpoints: Sequence[r.Endpoint], classes: Sequence[r.RequestClass] = (), version: int = 1) -> r.Fleet:
    """One service, one origin in Europe."""
    kinds = tuple(classes) or (r.RequestClass(name="interactive", slo_p95_ms=400),)
    return r.Fleet(
        version=version,
        services=(r.Service(name="chat", classes=kinds, default_class=kinds[0].name),),
        origins=(r.Origin(name="eu", jurisdiction="DE", rtt_ms=RTT_MS),),
        endpoints=tuple(endpoints),
    )


@dataclass
class Pool:
    """`starting` holds when each launch will be ready."""

    endpoint: r.Endpoint
    ready: int = 0
    starting: list[float] = field(default_factory=list)
    failed: int = 0
    available: bool = True
    plan_id: str | None = None
    carried_at_s: float = 0.0

    def carry(self, plan: r.CapacityPlan, now_s: float) -> None:
        """Launch or let go; where nothing can be had a launch fails."""
        self.plan_id, self.carried_at_s = plan.plan_id, now_s
        lack = plan.want - self.ready - len(self.starting)
        if lack > 0 and not self.available:
            self.failed += 1
        elif lack > 0:
            self.starting += [now_s + self.endpoint.cold_start_s] * lack
        else:
            let_go = min(-lack, len(self.starting))
            self.starting = self.starting[: len(self.starting) - let_go]
            self.ready -= -lack - let_go

    def live(self, now_s: float) -> None:
        self.ready += sum(at_s <= now_s for at_s in self.starting)
        self.starting = [at_s for at_s in self.starting if at_s > now_s]

    def said(self, now_s: float) -> r.Capacity:
        return r.Capacity(
            pool=self.endpoint.pool, at_s=now_s, ready=self.ready, starting=len(self.starting), failed=self.failed,
            plan_id=self.plan_id,
        )  # fmt: skip


class Cloud:
    """Steps of room 2 on the memory carrier, and pools that do as planned, a second later."""

    def __init__(self, made: r.Fleet, *, ready: Mapping[str, int] | None = None, carrier: Sequence[Step] = ()) -> None:
        settings = load()
        self.steps = [step for step in steps(settings) if step.name in ("spot-risk", "plan")]
        self.carrier = MemoryCarrier(carrier or self.steps, now_s=T0)
        self.fleet = made
        self.pools = {e.name: Pool(e, (ready or {}).get(e.name, 0)) for e in made.endpoints}
        self.read = 0
        self.arrived: list[float] = []
        self.unserved: list[float] = []
        self.usd = 0.0
        self.tell(FLEET, made)

    @property
    def now_s(self) -> float:
        return self.carrier.now_s - T0

    def tell(self, topic: Topic, record: msgspec.Struct) -> None:
        self.carrier.send(topic, topic.key_of(record), msgspec.json.encode(record))

    def live(self, seconds: int, rps: Callable[[float], Mapping[str, float]]) -> None:
        """Each second: plans are carried out, launches come up, demand by class is served as far as there is capacity
        that it may use (the most restricted first)."""
        for _ in range(seconds):
            self._carry()
            for pool in self.pools.values():
                pool.live(self.carrier.now_s)
            if int(self.now_s) % 5 == 0 or any(pool.starting for pool in self.pools.values()):
                for pool in self.pools.values():
                    self.tell(CAPACITY, pool.said(self.carrier.now_s))
            self._serve(rps(self.now_s))
            self.carrier.run_until(self.carrier.now_s + 1.0)

    def lose(self, name: str, notice_s: float | None = None) -> None:
        """All of a pool goes, and cannot be had again until `available` is set."""
        pool = self.pools[name]
        if notice_s is not None:
            now_s = self.carrier.now_s
            self.tell(INTERRUPTIONS, r.Interruption(
                endpoint=name, kind="terminate", notice_at_s=now_s, deadline_at_s=now_s + notice_s,
            ))  # fmt: skip
        else:
            pool.ready, pool.starting, pool.available = 0, [], False
            self.tell(CAPACITY, pool.said(self.carrier.now_s))

    def price(self, name: str, usd_per_h: float) -> None:
        at_s = self.carrier.now_s
        self.tell(SPOT_PRICES, r.SpotPrice(
            pool=self.pools[name].endpoint.pool, price_usd_per_h=usd_per_h, effective_at_s=at_s, observed_at_s=at_s,
        ))  # fmt: skip

    def plans(self) -> list[r.CapacityPlan]:
        assert self.carrier.said(DEAD_LETTERS) == []
        return [msgspec.json.decode(m.value or b"", type=r.CapacityPlan) for m in self.carrier.said(CAPACITY_PLAN)]

    def risks(self) -> list[r.SpotRisk]:
        return [msgspec.json.decode(m.value or b"", type=r.SpotRisk) for m in self.carrier.said(SPOT_RISK)]

    def ready(self) -> dict[str, int]:
        return {name: pool.ready for name, pool in self.pools.items()}

    def missed(self, since: int = 0) -> float:
        """The share of requests that found no capacity."""
        return sum(self.unserved[since:]) / max(1e-9, sum(self.arrived[since:]))

    def _carry(self) -> None:
        plans = self.plans()
        for plan in plans[self.read :]:
            pool = next(p for p in self.pools.values() if p.endpoint.pool == plan.pool)
            pool.carry(plan, self.carrier.now_s)
        self.read = len(plans)

    def _serve(self, rps: Mapping[str, float]) -> None:
        free = {name: pool.ready * pool.endpoint.capacity_rps for name, pool in self.pools.items()}
        self.usd += sum((p.ready + len(p.starting)) * p.endpoint.price_usd_per_h for p in self.pools.values()) / 3600.0
        kinds = sorted(self.fleet.services[0].classes, key=lambda c: (not c.jurisdictions, c.tier == "sheddable"))
        rows = []
        for kind in kinds:
            left = rps.get(kind.name, 0.0)
            for name, pool in self.pools.items():
                if not kind.jurisdictions or pool.endpoint.jurisdiction in kind.jurisdictions:
                    took = min(left, free[name])
                    free[name], left = free[name] - took, left - took
            rows.append((kind.name, round(rps.get(kind.name, 0.0)), round(left)))
            if kind.tier != "sheddable":
                self.arrived.append(rps.get(kind.name, 0.0))
                self.unserved.append(left)
        at_s = self.carrier.now_s
        n = len(rows)
        self.tell(DEMAND, r.Demand(
            source="arrivals.v1/0", at_s=at_s, slot_s=1.0, service=("chat",) * n, origin=("eu",) * n,
            class_=tuple(name for name, _, _ in rows), arrived=tuple(a for _, a, _ in rows),
            admitted=tuple(a - left for _, a, left in rows), shed=tuple(left for _, _, left in rows), failed=(0,) * n,
        ))  # fmt: skip
