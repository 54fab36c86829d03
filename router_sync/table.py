"""Tables: immutable snapshots, checked before they are said.

shares ─► damp ─► build ─► check ─► differs? ─► said, signed
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np

from router_sync.ladder import Standing
from router_sync.layout import Bools, Floats, Layout
from router_sync.notices import leave_by_s
from router_sync.orders import words
from router_sync.policy.law import Law
from router_sync.quotes import Quoted
from router_sync.score import Scores
from streams.contract.errors import TableRefused
from streams.contract.records import (
    Endpoint,
    EndpointState,
    Fleet,
    Interruption,
    Order,
    RequestClass,
    Route,
    RoutingTable,
    Spent,
    TableEndpoint,
)
from streams.contract.topics import MAX_VALUE_BYTES

MOST_MOVED: Final = 0.5
"""Of a route's share, per table, unless law, health or a first table ask for more."""
DIFFERS: Final = 0.02
ANCHOR_BYTES: Final = 128
"""Room for the digest of the decision, which is known last."""
NEWS: Final = 0.1
NOTHING: Final = 1e-6
"""Shares up to this are left out, such as the last of what is damped away: rounded they would be none."""
FALLBACKS: Final = 16
LEAST_BAD: Final = "every allowed endpoint is down: the least bad stay in"
LEAVING: Final = "every allowed endpoint is about to go, or down"
NOWHERE: Final = "law leaves no endpoint"
DRAINED: Final = "every allowed endpoint is drained"
_DECLARED: Final = (
    "url", "provider", "region", "zone", "jurisdiction", "api", "health_path", "instance", "market", "edge", "parent",
    "parent_country", "certificates",
)  # fmt: skip
_OF_CLASS: Final = ("data_class", "jurisdictions", "tenant", "purpose", "complexity", "tier")
"""What a route says of its class, for law to be checked where it is followed."""
_declared = attrgetter(*_DECLARED)
_of_class = attrgetter(*_OF_CLASS)
_size = msgspec.json.Encoder().encode
RouteKey = tuple[str, str]
"""(origin, class)"""


@dataclass(frozen=True, slots=True)
class Number:
    """A table's place in the order of all tables."""

    epoch: int
    version: int


@dataclass(frozen=True, slots=True)
class Draft:
    """What all tables of one solve are made of. Shapes: F flows, E endpoints."""

    plan: Layout
    shares: Floats
    """[F, E] rows add up to 1, or to 0 where law leaves nothing."""
    usable: Bools
    """[F, E] what a route may use now."""
    standings: Mapping[str, Standing]
    scores: Scores
    quoted: Quoted
    p95_ms: Floats
    """[F, E] inside each endpoint, measured or declared."""
    admit: Floats | None = None
    """[F] the share of each flow's requests that gateways admit; None: all."""
    spent: tuple[Spent, ...] = ()
    orders: Mapping[str, Order] = field(default_factory=dict)
    """Endpoint to the order that drains it."""
    leaving: Mapping[str, Interruption] = field(default_factory=dict)
    """Endpoint to the notice that it is about to go."""
    held: Mapping[str, str] = field(default_factory=dict)
    """Service to by whose order its shares are held, and why."""


def build(
    draft: Draft,
    service: str,
    number: Number,
    now_s: float,
    ttl_s: float,
    reason: str = "",
    evidence_at_s: float | None = None,
    last: RoutingTable | None = None,
) -> RoutingTable:
    """The table of `service`, in force from `now_s` for `ttl_s` seconds.

    `last`: a table made by the same plan; what is said of an endpoint is taken from there where it is the same.
    """
    plan = draft.plan
    served = next(s for s in plan.fleet.services if s.name == service)
    return RoutingTable(
        service=service,
        epoch=number.epoch,
        version=number.version,
        issued_at_s=now_s,
        expires_at_s=now_s + ttl_s,
        fleet_version=plan.fleet.version,
        default_class=served.default_class,
        endpoints=tuple(_endpoints(draft, service, last)),
        routes=tuple(_route(draft, row) for row in plan.rows_of[service].tolist()),
        reason=reason[:2000],
        evidence_at_s=evidence_at_s,
        budgets=draft.spent,
        policies=plan.law.policies,
        held=draft.held.get(service, ""),
    )


def latency_ms(draft: Draft, service: str) -> Floats:
    """The p95 inside each endpoint that serves `service`, of its slowest flow, as tables say it; in their order."""
    slowest = draft.p95_ms[draft.plan.rows_of[service]].max(axis=0)
    out: Floats = np.round(slowest[draft.plan.served[service]], 3)
    return out


def _endpoints(draft: Draft, service: str, last: RoutingTable | None) -> Iterator[TableEndpoint]:
    columns = draft.plan.served[service].tolist()
    before = last.endpoints if last is not None else (None,) * len(columns)
    rps, price, replicas = capacity_rps(draft), draft.scores.parts["price"][0], draft.quoted.replicas
    for column, p95_ms, old in zip(columns, latency_ms(draft, service).tolist(), before, strict=True):
        endpoint, ready = draft.plan.fleet.endpoints[column], float(replicas[column])
        left_s = _left_by_s(draft, endpoint.name)
        new = _Now(_state(endpoint, draft, ready), float(rps[column]), float(price[column]), p95_ms, left_s)
        if old is not None and new == _now(old):
            yield old
        else:
            yield _endpoint(endpoint, service, new, ready)


def _left_by_s(draft: Draft, endpoint: str) -> float | None:
    notice = draft.leaving.get(endpoint)
    return leave_by_s(notice) if notice is not None else None


class _Now(NamedTuple):
    """What may differ from table to table."""

    state: EndpointState
    capacity_rps: float
    price_usd: float
    p95_ms: float
    leave_by_s: float | None


def _now(said: TableEndpoint) -> _Now:
    return _Now(said.state, said.capacity_rps, said.cost_usd_per_request, said.latency_p95_ms, said.leave_by_s)


def _endpoint(endpoint: Endpoint, service: str, now: _Now, replicas: float) -> TableEndpoint:
    return TableEndpoint(
        name=endpoint.name,
        url=endpoint.url,
        provider=endpoint.provider,
        region=endpoint.region,
        zone=endpoint.zone,
        jurisdiction=endpoint.jurisdiction,
        state=now.state,
        capacity_rps=now.capacity_rps,
        concurrency=round(endpoint.concurrency * replicas),
        cost_usd_per_request=now.price_usd,
        latency_p95_ms=now.p95_ms,
        continues=endpoint.continues,
        api=endpoint.api,
        model=endpoint.models.get(service, ""),
        health_path=endpoint.health_path,
        leave_by_s=now.leave_by_s,
        instance=endpoint.instance,
        market=endpoint.market,
        edge=endpoint.edge,
        parent=endpoint.parent,
        parent_country=endpoint.parent_country,
        certificates=endpoint.certificates,
    )


def _state(endpoint: Endpoint, draft: Draft, replicas: float) -> EndpointState:
    if replicas <= 0 or endpoint.name in draft.orders:
        return "drain"
    standing = draft.standings.get(endpoint.name)
    if standing is not None and not standing.usable:
        return "down"
    return "drain" if endpoint.name in draft.leaving else "ready"


def _route(draft: Draft, row: int) -> Route:
    plan, flow = draft.plan, draft.plan.flows[row]
    chosen = np.flatnonzero(draft.shares[row] > NOTHING).tolist()
    ranked = np.argsort(draft.scores.total_usd[row], kind="stable")
    next_best = ranked[draft.usable[row, ranked]][:FALLBACKS].tolist()
    return Route(
        origin=flow.origin,
        class_=flow.class_.name,
        tier=flow.class_.tier,
        slo_p95_ms=flow.class_.slo_p95_ms,
        endpoints=tuple(plan.names[c] for c in chosen),
        shares=_rounded(draft.shares[row, chosen]),
        fallbacks=tuple(plan.names[c] for c in next_best),
        reason=_why(draft, row),
        **_admit(draft, row),
        data_class=flow.class_.data_class,
        jurisdictions=flow.class_.jurisdictions,
        origin_country=plan.countries[flow.origin],
        tenant=flow.class_.tenant,
        purpose=flow.class_.purpose,
        complexity=flow.class_.complexity,
        simple_class=flow.class_.simple_class,
        simple_tokens=flow.class_.simple_tokens,
    )


def _admit(draft: Draft, row: int) -> dict[str, Any]:
    """Left out where all are admitted, as defaults are on the wire."""
    return {} if draft.admit is None or draft.admit[row] >= 1.0 else {"admit": float(draft.admit[row])}


def _why(draft: Draft, row: int) -> str:
    allowed = draft.plan.may[row]
    if not allowed.any():
        refs = ", ".join(draft.plan.law.closed_by(draft.plan.flows[row].key))
        return f"{NOWHERE}: {refs}"[:2000] if refs else NOWHERE
    names = [draft.plan.names[c] for c in np.flatnonzero(allowed)]
    left = [name for name in names if name not in draft.orders]
    if not left:
        return f"{DRAINED}; {words(names[0], draft.orders[names[0]])}"[:2000]
    standing = [draft.standings.get(name) for name in left]
    bad = [s is not None and not s.usable for s in standing]
    if all(bad):
        return LEAST_BAD
    return LEAVING if all(b or name in draft.leaving for b, name in zip(bad, left, strict=True)) else ""


def _rounded(shares: Floats) -> tuple[float, ...]:
    """Four digits that still add up to 1; seven where shares are small: what is left over must not double one."""
    digits = 4 if shares.min(initial=1.0) >= 0.05 else 7
    out = [round(float(share), digits) for share in shares]
    if out:
        largest = out.index(max(out))
        out[largest] = round(out[largest] + 1.0 - sum(out), digits)
    return tuple(out)


# ---------------------------------------------------------------- damp, differ


def damp(old: Floats, new: Floats, most: float = MOST_MOVED) -> Floats:
    """[F, E] as far from `old` towards `new` as moves at most the share `most` of each row.

    >>> damp(np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]]), 0.25).tolist()
    [[0.75, 0.25]]
    """
    moved = moved_share(old, new)[:, None]
    step = np.where(moved > most, most / np.maximum(moved, 1e-12), 1.0)
    out: Floats = old + step * (new - old)
    return out


def moved_share(old: Floats, new: Floats) -> Floats:
    """[F] the share of each row that lies elsewhere in `new`; 0..1. A row that was empty has moved nothing."""
    moved: Floats = np.where(old.sum(axis=1) > 0, np.abs(new - old).sum(axis=1) / 2.0, 0.0)
    return moved


def moves(old: RoutingTable, new: RoutingTable) -> dict[RouteKey, float]:
    """The share of each route in both tables that lies elsewhere in `new`."""
    before = {(r.origin, r.class_): dict(zip(r.endpoints, r.shares, strict=True)) for r in old.routes}
    out = {}
    for route in new.routes:
        was = before.get((route.origin, route.class_))
        if was:
            now = dict(zip(route.endpoints, route.shares, strict=True))
            out[route.origin, route.class_] = sum(max(0.0, was[name] - now.get(name, 0.0)) for name in was)
    return out


def news(old: RoutingTable | None, draft: Draft, service: str) -> bool:
    """Whether gateways should know before the heartbeat: of latencies, replicas, deadlines, of how much to shed.

    `old` has the same endpoints and routes.
    """
    if old is None:
        return True
    if any(e.leave_by_s != _left_by_s(draft, e.name) for e in old.endpoints):
        return True
    now_ms, served = latency_ms(draft, service), draft.plan.served[service]
    said_ms, said_rps = (np.array([getattr(e, f) for e in old.endpoints]) for f in ("latency_p95_ms", "capacity_rps"))
    if (np.abs(said_ms - now_ms) > NEWS * now_ms).any() or not np.allclose(said_rps, capacity_rps(draft)[served]):
        return True
    admits = [1.0] * len(old.routes) if draft.admit is None else draft.admit[draft.plan.rows_of[service]].tolist()
    return admits_differ([route.admit for route in old.routes], admits)


def capacity_rps(draft: Draft) -> Floats:
    """[E] of the replicas that are ready, as tables say it."""
    out: Floats = np.round(draft.plan.replica_rps * draft.quoted.replicas, 6)
    return out


def differs(old: RoutingTable | None, new: RoutingTable, by: float = DIFFERS) -> bool:
    """Whether gateways should hear of `new` at once: other endpoints, states or routes, or `by` of a route moved."""
    if old is None or (old.fleet_version, old.default_class, old.held) != (
        new.fleet_version, new.default_class, new.held
    ):  # fmt: skip
        return True
    ends = [tuple((e.name, e.url, e.state, e.capacity_rps) for e in table.endpoints) for table in (old, new)]
    keys = [tuple((r.origin, r.class_, bool(r.endpoints), r.reason) for r in table.routes) for table in (old, new)]
    admits = [[r.admit for r in table.routes] for table in (old, new)]
    if ends[0] != ends[1] or keys[0] != keys[1] or admits_differ(admits[0], admits[1], by):
        return True
    return max(moves(old, new).values(), default=0.0) >= by


def admits_differ(old: Sequence[float], new: Sequence[float], by: float = DIFFERS) -> bool:
    """Whether gateways should hear how much to shed: `by` more or less of a route, or none at all any more.

    >>> admits_differ([1.0, 0.5], [1.0, 0.51]), admits_differ([1.0, 0.99], [1.0, 1.0])
    (False, True)
    """
    return any(abs(a - b) >= by or (a < 1.0) != (b < 1.0) for a, b in zip(old, new, strict=True))


# ---------------------------------------------------------------- check


def check(
    table: RoutingTable,
    fleet: Fleet,
    law: Law,
    previous: RoutingTable | None = None,
    *,
    bounded: bool = True,
    drained: Collection[str] = (),
) -> None:
    """Nothing when `table` may be said. Raises TableRefused with the field, the value and the reason.

    `bounded`: at most MOST_MOVED of a route may have moved since `previous`; law, orders, health and a first table are
    free. `drained`: endpoints that an operator has drained; a route that may use no other is empty.
    """
    _check_head(table, fleet, previous)
    state_of = _check_endpoints(table, fleet)
    expected = {(o.name, c.name) for o in fleet.origins for s in fleet.services if s.name == table.service
                for c in s.classes}  # fmt: skip
    _check_policies(table, law)
    routed = [(r.origin, r.class_) for r in table.routes]
    if set(routed) != expected or len(routed) != len(expected):
        raise TableRefused("routes", sorted(set(routed) ^ expected), "there is not one route per origin and class")
    classes = {c.name: c for s in fleet.services if s.name == table.service for c in s.classes}
    country = {origin.name: origin.jurisdiction for origin in fleet.origins}
    for route in table.routes:
        _check_facts(route, classes[route.class_], country[route.origin])
        _check_route(route, table.service, law, state_of, drained)
    if previous is not None and bounded:
        for key, moved in moves(previous, table).items():
            if moved > MOST_MOVED + 1e-3:
                raise TableRefused(f"routes {key[1]}@{key[0]}", moved, f"more than {MOST_MOVED:.0%} moved at once")
    if (size := len(_size(table))) > MAX_VALUE_BYTES - ANCHOR_BYTES:
        raise TableRefused("table", size, f"is larger than {MAX_VALUE_BYTES} bytes: serve fewer classes per service")


def _check_head(table: RoutingTable, fleet: Fleet, previous: RoutingTable | None) -> None:
    service = next((s for s in fleet.services if s.name == table.service), None)
    if service is None:
        raise TableRefused("service", table.service, "is not in the fleet")
    if table.default_class not in {c.name for c in service.classes}:
        raise TableRefused("default_class", table.default_class, f"is no class of {table.service}")
    if table.expires_at_s <= table.issued_at_s:
        raise TableRefused("expires_at_s", table.expires_at_s, "is not after issued_at_s")
    if previous is not None and (table.epoch, table.version) <= (previous.epoch, previous.version):
        reason = f"is not after {previous.epoch}.{previous.version}"
        raise TableRefused("version", f"{table.epoch}.{table.version}", reason)


def _check_endpoints(table: RoutingTable, fleet: Fleet) -> dict[str, EndpointState]:
    known = {e.name: e for e in fleet.endpoints if table.service in e.services}
    state_of: dict[str, EndpointState] = {}
    for n, endpoint in enumerate(table.endpoints):
        if endpoint.name not in known:
            raise TableRefused(f"endpoints[{n}].name", endpoint.name, f"serves no {table.service} in the fleet")
        for part, value, told in zip(_DECLARED, _declared(endpoint), _declared(known[endpoint.name]), strict=True):
            if value != told:
                raise TableRefused(f"endpoints[{n}].{part}", value, f"the fleet says {told} of {endpoint.name}")
        if endpoint.model != (model := known[endpoint.name].models.get(table.service, "")):
            raise TableRefused(f"endpoints[{n}].model", endpoint.model, f"the fleet says {model} of {endpoint.name}")
        if endpoint.name in state_of:
            raise TableRefused(f"endpoints[{n}].name", endpoint.name, "is there twice")
        state_of[endpoint.name] = endpoint.state
    return state_of


def _check_policies(table: RoutingTable, law: Law) -> None:
    if table.policies != law.policies:
        names = [policy.name for policy in table.policies]
        raise TableRefused("policies", names, "are not the fleet's, without their preferences")


def _check_facts(route: Route, class_: RequestClass, country: str) -> None:
    """By these a gateway checks the law: they have to be the class's own."""
    for part, value, told in zip(_OF_CLASS, _of_class(route), _of_class(class_), strict=True):
        if value != told:
            raise TableRefused(f"routes {route.class_}@{route.origin}.{part}", value, f"the fleet says {told}")
    if route.origin_country != country:
        at = f"routes {route.class_}@{route.origin}.origin_country"
        raise TableRefused(at, route.origin_country, f"the fleet says {country}")


def _check_route(
    route: Route, service: str, law: Law, state_of: Mapping[str, EndpointState], drained: Collection[str]
) -> None:
    at, key = f"routes {route.class_}@{route.origin}", (service, route.origin, route.class_)
    for name in (*route.endpoints, *route.fallbacks):
        if name not in state_of:
            raise TableRefused(at, name, "is not among the table's endpoints")
        if not law.allows(key, name):
            raise TableRefused(at, name, f"is forbidden: {law.why_not(key, name)}")
        if name in drained:
            raise TableRefused(at, name, "is drained by an operator")
    lawful = law.allowed(key)
    allowed = [name for name in state_of if name in lawful and name not in drained]
    if not route.endpoints and allowed:
        raise TableRefused(at, (), f"is empty although {len(allowed)} endpoints are allowed")
    if route.endpoints and not adds_up(route):
        raise TableRefused(at, route.shares, "shares are not positive or do not add up to 1, one per endpoint")
    idle = [name for name in (*route.endpoints, *route.fallbacks) if state_of[name] != "ready"]
    if idle and any(state_of[name] == "ready" for name in allowed):
        raise TableRefused(at, idle[0], f"is {state_of[idle[0]]} while others are ready")


def adds_up(route: Route) -> bool:
    """Whether its shares are positive, one per endpoint, and add up to 1."""
    alike = len(route.shares) == len(route.endpoints) == len(set(route.endpoints))
    return alike and min(route.shares) > 0 and abs(sum(route.shares) - 1.0) <= 1e-6
