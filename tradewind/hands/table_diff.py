"""What differs between two tables of a service, for a program and for a person."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

import msgspec

from router_sync.table import moves
from streams.contract.records import Route, RoutingTable, TableEndpoint
from tradewind.hands.tables import shares
from tradewind.hands.text import ago, columns, percent

LEAST_SHARE: Final = 0.0005
LEAST_PART: Final = 0.01
"""Costs, latencies and capacities that moved by a smaller part are not told."""
_LAW: Final = ("jurisdictions", "data_class", "tenant", "purpose", "origin_country", "complexity")
_ROUTE: Final = ("tier", "slo_p95_ms", "admit", *_LAW)


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One fact of the table, of an endpoint or of a route, before and after; None: it is not there."""

    of: str
    what: str
    was: Any
    now: Any


class RouteMoved(msgspec.Struct, frozen=True, kw_only=True):
    """A route whose shares lie elsewhere: how much of it, and endpoint to share before and after."""

    origin: str
    class_: str = msgspec.field(name="class")
    moved: float
    shares: dict[str, tuple[float, float]]


class TableDiff(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that differs. Of a table that only its decision is left of, `facts` are not known."""

    service: str
    a: str
    b: str
    apart_s: float
    facts: bool
    why: str
    states: tuple[Change, ...]
    routes: tuple[RouteMoved, ...]
    costs: tuple[Change, ...]
    latencies: tuple[Change, ...]
    law: tuple[Change, ...]
    other: tuple[Change, ...]


def diff(a: RoutingTable, b: RoutingTable) -> TableDiff:
    """What differs in `b` from `a`. A table without endpoints is one that only its shares are known of."""
    facts = bool(a.endpoints and b.endpoints)
    before, after = {e.name: e for e in a.endpoints}, {e.name: e for e in b.endpoints}
    both = [(before[name], after[name]) for name in after if name in before]
    return TableDiff(
        service=b.service, a=f"{a.epoch}.{a.version}", b=f"{b.epoch}.{b.version}",
        apart_s=round(b.issued_at_s - a.issued_at_s, 3), facts=facts, why=b.reason,
        states=tuple(_states(before, after)) if facts else (),
        routes=tuple(_routes(a, b)),
        costs=tuple(_moved(both, "cost_usd_per_request")),
        latencies=tuple(_moved(both, "latency_p95_ms")),
        law=tuple(_law(a, b)) if facts else (),
        other=tuple(_other(a, b, both)) if facts else (),
    )  # fmt: skip


def _states(before: dict[str, TableEndpoint], after: dict[str, TableEndpoint]) -> Iterator[Change]:
    for name in sorted(before.keys() | after.keys()):
        was, now = before.get(name), after.get(name)
        if (was and was.state) != (now and now.state):
            yield Change(of=name, what="state", was=was and was.state, now=now and now.state)


def _routes(a: RoutingTable, b: RoutingTable) -> Iterator[RouteMoved]:
    old = {(r.origin, r.class_): r for r in a.routes}
    new = {(r.origin, r.class_): r for r in b.routes}
    moved, keys = moves(a, b), old.keys() | new.keys()
    if not (a.endpoints and b.endpoints):
        keys = old.keys() & new.keys()  # a decision may not have named all of a route
    for key in sorted(keys):
        was, now = (shares(table[key]) if key in table else {} for table in (old, new))
        each = {
            name: (was.get(name, 0.0), now.get(name, 0.0))
            for name in sorted(was.keys() | now.keys())
            if abs(was.get(name, 0.0) - now.get(name, 0.0)) >= LEAST_SHARE
        }
        if each:
            yield RouteMoved(origin=key[0], class_=key[1], moved=round(moved.get(key, 1.0), 4), shares=each)


def _moved(both: list[tuple[TableEndpoint, TableEndpoint]], field: str) -> Iterator[Change]:
    for old, new in both:
        was, now = getattr(old, field), getattr(new, field)
        if abs(now - was) > LEAST_PART * max(abs(was), abs(now)):
            yield Change(of=old.name, what=field, was=was, now=now)


def _law(a: RoutingTable, b: RoutingTable) -> Iterator[Change]:
    """Policies by name, with their rules' ids; and what routes say of their requests."""
    old, new = {p.name: p for p in a.policies}, {p.name: p for p in b.policies}
    for name in sorted(old.keys() | new.keys()):
        if old.get(name) != new.get(name):
            was, now = ([rule.id for rule in one.rules] if one else None for one in (old.get(name), new.get(name)))
            yield Change(of=name, what="policy", was=was, now=now)
    yield from _of_routes(a, b, _LAW)


def _of_routes(a: RoutingTable, b: RoutingTable, fields: tuple[str, ...]) -> Iterator[Change]:
    old = {(r.origin, r.class_): r for r in a.routes}
    for route in b.routes:
        was: Route | None = old.get((route.origin, route.class_))
        for field in fields if was is not None else ():
            if getattr(was, field) != getattr(route, field):
                yield Change(
                    of=f"{route.class_}@{route.origin}", what=field, was=getattr(was, field), now=getattr(route, field)
                )


def _other(a: RoutingTable, b: RoutingTable, both: list[tuple[TableEndpoint, TableEndpoint]]) -> Iterator[Change]:
    for field in ("fleet_version", "default_class", "held"):
        if getattr(a, field) != getattr(b, field):
            yield Change(of="table", what=field, was=getattr(a, field), now=getattr(b, field))
    yield from _moved(both, "capacity_rps")
    yield from _of_routes(a, b, ("tier", "slo_p95_ms", "admit"))


# ---------------------------------------------------------------- for a person


def lines(found: TableDiff) -> Iterator[str]:
    """The difference for a terminal."""
    yield f"{found.service}  {found.a} -> {found.b}  ({ago(abs(found.apart_s))} apart)"
    yield f"  why {found.b}: {found.why or 'no reason given'}"
    if not found.facts:
        yield "  of one of them only shares are left: states, costs and law cannot be compared"
    yield from _table([("states", one.of, _word(one.was), _word(one.now)) for one in found.states])
    yield from route_lines(found.routes)
    yield from _table([("usd/request", one.of, f"{one.was:.3g}", f"{one.now:.3g}") for one in found.costs])
    yield from _table([("p95 ms", one.of, f"{one.was:.0f}", f"{one.now:.0f}") for one in found.latencies])
    yield from _table([("law", f"{one.of} {one.what}", _word(one.was), _word(one.now)) for one in found.law])
    yield from _table([("also", f"{one.of} {one.what}", _word(one.was), _word(one.now)) for one in found.other])
    if not any((found.states, found.routes, found.costs, found.latencies, found.law, found.other)):
        yield "  nothing else than the number and the time"


def route_lines(routes: Iterable[RouteMoved]) -> Iterator[str]:
    """Routes that moved, and what each endpoint has of them."""
    for route in routes:
        yield f"  {route.class_} from {route.origin}: {percent(route.moved)} of it moved"
        rows = [(name, percent(was), "->", percent(now)) for name, (was, now) in route.shares.items()]
        yield from columns(rows, "    ")


def _table(rows: list[tuple[str, str, str, str]]) -> list[str]:
    return columns([(what, of, was, "->", now) for what, of, was, now in rows], "  ")


def _word(value: Any) -> str:
    if value is None:
        return "not there"
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "none"
    return str(value) if value != "" else "nothing"
