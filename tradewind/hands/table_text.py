"""A table for a person, and for a program: routes with what stands behind each share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from router_sync.table import moves
from streams.contract.records import Route, RoutingTable, TableEndpoint
from tradewind.hands.tables import Held
from tradewind.hands.text import ago, at, columns, percent


def picked(table: RoutingTable, origin: str | None, class_: str | None) -> list[Route]:
    """The routes from `origin` and of `class_`; None: all."""
    return [r for r in table.routes if origin in (None, r.origin) and class_ in (None, r.class_)]


def as_json(held: Held, now_s: float, origin: str | None = None, class_: str | None = None) -> dict[str, Any]:
    """The table as one JSON object; ages are of `now_s`."""
    table = held.table
    said: dict[str, Any] = msgspec.to_builtins(table)
    by_name = {e.name: e for e in table.endpoints}
    said |= {
        "age_s": round(now_s - table.issued_at_s, 3),
        "expires_in_s": round(table.expires_at_s - now_s, 3),
        "expired": now_s >= table.expires_at_s,
        "signature": held.signature,
        "kid": held.kid,
        "reason": table.reason,
        "held": table.held,
        "endpoints": [_all_of(endpoint) for endpoint in table.endpoints],
        "routes": [_route(route, by_name) for route in picked(table, origin, class_)],
    }
    return said


def _all_of(endpoint: TableEndpoint) -> dict[str, Any]:
    """Its fields, defaults too: who reads JSON should not have to know them."""
    return {field: getattr(endpoint, field) for field in endpoint.__struct_fields__}


def _route(route: Route, by_name: dict[str, TableEndpoint]) -> dict[str, Any]:
    shares = [
        {
            "endpoint": name, "share": share, "region": by_name[name].region, "state": by_name[name].state,
            "cost_usd_per_request": by_name[name].cost_usd_per_request, "latency_p95_ms": by_name[name].latency_p95_ms,
        }
        for name, share in zip(route.endpoints, route.shares, strict=True)
        if name in by_name
    ]  # fmt: skip
    return {
        "origin": route.origin, "class": route.class_, "tier": route.tier, "slo_p95_ms": route.slo_p95_ms,
        "shares": shares, "fallbacks": list(route.fallbacks), "reason": route.reason,
    }  # fmt: skip


def lines(held: Held, now_s: float, origin: str | None = None, class_: str | None = None) -> Iterator[str]:
    """The table for a terminal."""
    table, left_s = held.table, held.table.expires_at_s - now_s
    ends = f"expires in {ago(left_s)}" if left_s > 0 else f"EXPIRED {ago(-left_s)} ago"
    signed = f"signature good (key {held.kid})" if held.kid else "signature not checked (no trusted key: --trust FILE)"
    yield f"{table.service}  table {table.epoch}.{table.version}  fleet version {table.fleet_version}"
    yield f"  said {ago(now_s - table.issued_at_s)} ago, {ends}, {signed}"
    yield f"  why: {table.reason or 'no reason given'}"
    if table.held:
        yield f"  HELD: {table.held}"
    yield from columns(_endpoints(table), "  ")
    by_name = {e.name: e for e in table.endpoints}
    for route in picked(table, origin, class_):
        yield f"  {route.class_} from {route.origin}  ({route.tier}, p95 below {route.slo_p95_ms:g} ms)"
        if route.reason:
            yield f"    {route.reason}"
        yield from columns(_shares(route, by_name), "    ") or ["    nowhere: gateways answer 503"]
        if others := [name for name in route.fallbacks if name not in route.endpoints]:
            yield f"    then {', '.join(others)}"


def _endpoints(table: RoutingTable) -> list[tuple[str, ...]]:
    head: tuple[str, ...] = ("endpoint", "state", "region", "jurisdiction", "capacity/s", "usd/request", "p95 ms")
    return [head] + [
        (e.name, e.state, f"{e.provider}/{e.region}", e.jurisdiction, f"{e.capacity_rps:g}",
         f"{e.cost_usd_per_request:.3g}", f"{e.latency_p95_ms:.0f}")
        for e in table.endpoints
    ]  # fmt: skip


def _shares(route: Route, by_name: dict[str, TableEndpoint]) -> list[tuple[str, ...]]:
    return [
        (percent(share).rjust(6), name, by_name[name].region, by_name[name].state,
         f"{by_name[name].cost_usd_per_request:.3g} usd", f"{by_name[name].latency_p95_ms:.0f} ms")
        for name, share in sorted(zip(route.endpoints, route.shares, strict=True), key=lambda pair: -pair[1])
    ]  # fmt: skip


def change(old: RoutingTable | None, held: Held) -> dict[str, Any]:
    """What a new table changed, for a program."""
    new = held.table
    moved = moves(old, new) if old is not None else {}
    was = {e.name: e.state for e in old.endpoints} if old is not None else {}
    return {
        "at_s": new.issued_at_s, "service": new.service, "epoch": new.epoch, "version": new.version,
        "reason": new.reason, "signature": held.signature,
        "states": {e.name: e.state for e in new.endpoints if was.get(e.name) != e.state},
        "moved": [
            {"origin": origin, "class": class_, "share": round(share, 4)}
            for (origin, class_), share in moved.items()
            if share >= 0.0005
        ],
    }  # fmt: skip


def change_line(said: dict[str, Any]) -> str:
    """`change` in one line."""
    share = max((route["share"] for route in said["moved"]), default=0.0)
    moved = f"  [up to {percent(share)} of a route moved]" if share else ""
    number = f"{said['epoch']}.{said['version']}"
    return f"{at(said['at_s'])}  {said['service']} {number}  {said['reason'] or 'no reason given'}{moved}"
