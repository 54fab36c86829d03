"""Rivals: rules that say shares and replicas, step by step, in place of the house. The accounts are the same.

A rule sees what a `View` shows, answers with a `Choice`, and is told by name; its tables are followed like ours.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from streams.contract.records import CapacityPlan, EndpointState, Route, RoutingTable, Service, TableEndpoint
from tradewind.world.brain import Said, View
from tradewind.world.ground import Floats, Ground
from tradewind.world.market import Told

TTL_S: Final = 3600.0


@dataclass(frozen=True, slots=True)
class Choice:
    """What a rule says: shares [F, E] whose rows add up to 1, or to 0 where nothing may be asked; which part of each
    flow is let in [F], None: all; and replicas by endpoint [E], None: as they are."""

    shares: Floats
    admit: Floats | None = None
    want: Sequence[int] | None = None


Rule = Callable[[View], Choice]


class Ruled:
    """A brain that does as a rule says."""

    def __init__(self, name: str, rule: Rule) -> None:
        self.name, self._rule = name, rule
        self._last: Choice | None = None
        self._version = 0

    def live(self, told: Sequence[Told], until_s: float, every_s: float, view: View) -> Said:
        """As `Brain`; what is told is not listened to."""
        choice, last = self._rule(view), self._last
        self._last = choice
        said = Said()
        if last is None or not _same(last, choice):
            self._version += 1
            said.tables = [_table(view.ground, s, choice, self._version, until_s, self.name)
                           for s in view.ground.fleet.services]  # fmt: skip
        if choice.want is not None and (last is None or last.want is None or list(last.want) != list(choice.want)):
            said.plans = list(_plans(view, choice.want, self._version, until_s, self.name))
        return said


def nearest(view: View) -> Choice:
    """Each flow to the nearest region that law allows, by declared capacity, come what may: the way of DNS by place."""
    ground = view.ground
    shares = np.zeros(ground.rtt_ms.shape)
    for f in range(len(ground.flows)):
        allowed = [e for e in range(len(ground.ends)) if (f, e) not in ground.forbidden]
        if allowed:
            near_ms = min(ground.rtt_ms[f, e] for e in allowed)
            for e in allowed:
                if ground.rtt_ms[f, e] == near_ms:
                    shares[f, e] = ground.ends[e].capacity_rps * ground.ends[e].replicas
    total = shares.sum(axis=1, keepdims=True)
    return Choice(shares / np.where(total > 0, total, 1.0))


RULES: Final[Mapping[str, Rule]] = {"nearest": nearest}


def _same(one: Choice, other: Choice) -> bool:
    pairs = ((one.shares, other.shares), (one.admit, other.admit))
    return all(a is b or (a is not None and b is not None and np.array_equal(a, b)) for a, b in pairs)


def _plans(view: View, want: Sequence[int], version: int, now_s: float, who: str) -> list[CapacityPlan]:
    return [
        CapacityPlan(pool=end.pool, plan_id=f"{who}-{version}-{n}", made_at_s=now_s, want=want[n], have=view.ready[n],
                     not_before_s=now_s, reason=f"as {who} says")
        for n, end in enumerate(view.ground.ends)
    ]  # fmt: skip


def _table(ground: Ground, service: Service, choice: Choice, version: int, now_s: float, who: str) -> RoutingTable:
    return RoutingTable(
        service=service.name,
        epoch=1,
        version=version,
        issued_at_s=now_s,
        expires_at_s=now_s + TTL_S,
        fleet_version=ground.fleet.version,
        default_class=service.default_class,
        endpoints=tuple(_endpoint(ground, n) for n, e in enumerate(ground.ends) if service.name in e.services),
        routes=tuple(_route(ground, f, choice) for f, flow in enumerate(ground.flows) if flow.service == service.name),
        reason=f"as {who} says",
    )


def _endpoint(ground: Ground, n: int, state: EndpointState = "ready") -> TableEndpoint:
    end = ground.ends[n]
    return TableEndpoint(
        name=end.name, url=end.url, provider=end.provider, region=end.region, zone=end.zone,
        jurisdiction=end.jurisdiction, state=state, capacity_rps=end.capacity_rps * end.replicas,
        concurrency=end.concurrency * end.replicas, cost_usd_per_request=0.0, latency_p95_ms=end.latency_ms,
    )  # fmt: skip


def _route(ground: Ground, f: int, choice: Choice) -> Route:
    flow, chosen = ground.flows[f], np.flatnonzero(choice.shares[f] > 0).tolist()
    return Route(
        origin=flow.origin,
        class_=flow.class_.name,
        tier=flow.class_.tier,
        slo_p95_ms=flow.class_.slo_p95_ms,
        endpoints=tuple(ground.ends[e].name for e in chosen),
        shares=tuple(float(choice.shares[f, e]) for e in chosen),
        admit=1.0 if choice.admit is None else float(choice.admit[f]),
    )
