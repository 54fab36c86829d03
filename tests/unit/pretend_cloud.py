"""A cloud in virtual time, for tests of who carries plans out: launches take a while, and may fail."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from router_sync.actuators.entry import Entry
from router_sync.actuators.protocol import Receipt, Replicas
from router_sync.actuators.section import Actuators
from router_sync.actuators.standing import Brought, Order, Trouble
from router_sync.flow import actuator_steps
from streams.contract import topics
from streams.contract.records import Capacity, CapacityPlan, Endpoint, Fleet
from streams.runtime.memory import MemoryCarrier
from streams.runtime.step import Errand
from streams.settings import Settings
from tests.unit.router_fleet import endpoint, fleet

T0: Final = 1_800_000_000.0


class CloudEntry(Entry, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An entry of no kind that ships."""

    kind: str = "cloud"
    drain_s: float = 0.0


class Forgetful(CloudEntry, frozen=True, kw_only=True, forbid_unknown_fields=True):
    forgets = True


@dataclass
class Target:
    """One pool over there."""

    want: int = 2
    ready: int = 2
    launched_at_s: list[float] = field(default_factory=list)
    blind: bool = False


@dataclass
class Cloud:
    """Runs errands as `MemoryCarrier` has them run. `trouble`: by pool, what is answered instead."""

    cold_start_s: float = 20.0
    targets: dict[str, Target] = field(default_factory=dict)
    trouble: dict[str, Trouble] = field(default_factory=dict)
    receipt: Receipt | None = None
    stuck: bool = False
    """True: launches never become ready."""
    ran: list[tuple[str, str | None, int | None, float]] = field(default_factory=list)
    """Pool, plan id and number (None: a look), and when."""
    failures: set[tuple[str, float]] = field(default_factory=set)
    """Pool and time of what was answered by trouble."""

    def act(self, errand: Errand, now_s: float) -> Brought:
        pool, order = errand.on, errand.what
        assert order is None or isinstance(order, Order)
        plan = None if order is None else order.plan
        self.ran.append((pool, plan and plan.plan_id, plan and plan.want, now_s - T0))
        if (trouble := self.trouble.get(pool)) is not None:
            self.failures.add((pool, now_s - T0))
            return Brought(now_s, now_s, blind=trouble, trouble=trouble if order else None)
        target = self.targets.setdefault(pool, Target())
        receipt = self._take(target, plan.want, now_s) if plan is not None else None
        return Brought(now_s, now_s, self._see(target, now_s), receipt)

    def _take(self, target: Target, want: int, now_s: float) -> Receipt:
        if self.receipt is not None:
            return self.receipt
        target.launched_at_s += [now_s] * (want - target.want)
        del target.launched_at_s[max(0, want - target.ready) :]
        target.want, target.ready = want, min(target.ready, want)
        return Receipt(want)

    def _see(self, target: Target, now_s: float) -> Replicas | None:
        there = [at_s for at_s in target.launched_at_s if now_s - at_s >= self.cold_start_s and not self.stuck]
        target.launched_at_s = [at_s for at_s in target.launched_at_s if at_s not in there]
        target.ready += len(there)
        return None if target.blind else Replicas(target.ready, len(target.launched_at_s), target.want)

    @property
    def done(self) -> list[tuple[str | None, int | None, float]]:
        """Plans that came, without looks: id, number, when."""
        return [(plan_id, want, at_s) for _, plan_id, want, at_s in self.ran if plan_id is not None]


class Shop:
    """The stage on the memory carrier, with a cloud, a fleet of one or more pools, and what it said."""

    def __init__(self, *entries: Entry, cloud: Cloud | None = None, mode: Any = "act", ends: int = 1) -> None:
        self.cloud = cloud or Cloud()
        self.ends = [end(f"e{n}") for n in range(ends)]
        self.section = Actuators(mode=mode, pools=entries or (CloudEntry(pool="*"),))
        self.carrier = MemoryCarrier(actuator_steps(Settings(), self.section), now_s=T0, act=self.cloud.act)
        self.publish(fleet(endpoints=self.ends))

    @property
    def pool(self) -> str:
        return self.ends[0].pool

    @property
    def now_s(self) -> float:
        """Seconds since the beginning."""
        return self.carrier.now_s - T0

    def publish(self, known: Fleet) -> None:
        self.carrier.send(topics.FLEET, known.fleet, msgspec.json.encode(known))

    def plan(self, want: int, plan_id: str = "p1", pool: str | None = None, **more: Any) -> CapacityPlan:
        now_s = self.carrier.now_s
        told: dict[str, Any] = {"made_at_s": now_s, "have": 2, "not_before_s": now_s, "reason": "noon"}
        made = CapacityPlan(pool=pool or self.pool, plan_id=plan_id, want=want, **(told | more))
        self.carrier.send(topics.CAPACITY_PLAN, made.pool, msgspec.json.encode(made))
        return made

    def take_back(self) -> None:
        """A tombstone."""
        self.carrier.send(topics.CAPACITY_PLAN, self.pool, None)

    def run(self, seconds: float) -> None:
        self.carrier.run_until(self.carrier.now_s + seconds)

    def taken_over(self) -> Shop:
        """Another worker in place of this one: it knows what is on the topics."""
        other = Shop.__new__(Shop)
        other.cloud, other.ends, other.section = self.cloud, self.ends, self.section
        other.carrier = MemoryCarrier(
            actuator_steps(Settings(), self.section), now_s=self.carrier.now_s, act=self.cloud.act
        )
        for name, logs in self.carrier.logs.items():
            for number, log in enumerate(logs):
                other.carrier.logs[name][number].messages.extend(log.messages)
        return other

    @property
    def said(self) -> list[Capacity]:
        """All that was said, in order."""
        return [msgspec.json.decode(m.value or b"", type=Capacity) for m in self.carrier.said(topics.CAPACITY)]

    @property
    def last(self) -> Capacity:
        return [said for said in self.said if said.pool == self.pool][-1]


def end(name: str, **more: Any) -> Endpoint:
    """An endpoint in a pool of its own: two replicas, ten at most."""
    return endpoint(name, **({"replicas": 2, "most_replicas": 10, "cold_start_s": 60.0} | more))
