"""Table orders: shares that an operator holds, and what law, health, drains and the fleet still move of them.

    the order's routes ─► on the plan: what was held ─► what may be used now, ramps ─► held shares
                                                          │
                                                          └─ nothing of it may be used: the flow is free meanwhile

Held flows are taken out of the problem, with the capacity they use: the others are shared out over what is left.
What is held is held whatever it costs, also where demand outgrows it: gateways shed then, and the decision says so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
import numpy as np

from router_sync.layout import Bools, Floats, Layout
from router_sync.orders import in_force, meant
from router_sync.problem import LEAST_RPS, Problem
from router_sync.situation import Situation
from router_sync.state import Misfit, RouterState
from router_sync.table import adds_up
from streams.contract.errors import shown
from streams.contract.records import Fleet, Route, RoutingTable, TableOrder
from streams.runtime.step import Heard, Refusal

MOVED: Final = 1e-3
"""Held shares lie elsewhere than they should when so much of a flow does."""


@dataclass(frozen=True, slots=True)
class Holding:
    """What orders hold now. Shapes: F flows, E endpoints."""

    rows: Bools
    """[F] flows whose shares are held."""
    shares: Floats
    """[F, E] those shares; rows that are not held are zeros."""
    words: Mapping[str, str]
    """Service to by whose order, and why."""

    def over(self, shares: Floats) -> Floats:
        """[F, E] `shares` with the held ones in their places."""
        return np.where(self.rows[:, None], self.shares, shares) if self.rows.any() else shares

    def moves(self, shares: Floats) -> bool:
        """Whether held shares have to go elsewhere than `shares` has them."""
        return bool(self.rows.any() and (np.abs(shares - self.over(shares)).sum(axis=1) > 2 * MOVED).any())


# ---------------------------------------------------------------- refused


def misdirected(fleet: Fleet | None, heard: Heard[Any]) -> Iterator[Refusal]:
    """Orders whose key is not their service, that contradict themselves, or that hold nothing of a known fleet."""
    for position, order in zip(heard.positions.tolist(), heard.records, strict=True):
        key = heard.batch.messages[position].key or b""
        if key != order.service.encode():
            yield Refusal(position, "key", shown(key[:128]), f"is not the order's service, {order.service}")
            continue
        for field, value, reason in unfit(order, fleet):
            yield Refusal(position, field, shown(value), reason)
            break


def unfit(order: TableOrder, fleet: Fleet | None) -> Iterator[Misfit]:
    """What is wrong with `order` by itself, and where `fleet` is in force."""
    for (origin, class_), count in Counter((r.origin, r.class_) for r in order.routes).items():
        if count > 1:
            yield "routes", f"{class_}@{origin}", "is there twice: name each origin and class once"
    for n, route in enumerate(order.routes):
        if route.endpoints and not adds_up(route):
            yield f"routes[{n}].shares", route.shares, "are not positive or do not add up to 1, one per endpoint"
    if fleet is None:
        return
    services = {service.name: service for service in fleet.services}
    if (service := services.get(order.service)) is None:
        yield "service", order.service, f"is not in the fleet{meant(order.service, services)}"
    elif order.routes and not any(fitting(route, order.service, fleet) for route in order.routes):
        classes = ", ".join(c.name for c in service.classes)
        reason = f"none of them fits the fleet: origin, class ({classes}) and endpoints have to be in it"
        yield "routes", f"{order.routes[0].class_}@{order.routes[0].origin}", reason


def fitting(route: Route, service: str, fleet: Fleet) -> tuple[str, ...]:
    """The endpoints of `route` that the fleet still has for it; none when its origin or class is gone."""
    classes = {c.name for s in fleet.services if s.name == service for c in s.classes}
    if route.class_ not in classes or all(route.origin != origin.name for origin in fleet.origins):
        return ()
    serving = {e.name for e in fleet.endpoints if service in e.services}
    return tuple(name for name in route.endpoints if name in serving)


# ---------------------------------------------------------------- held


def holding(state: RouterState, now: Situation, now_s: float) -> Holding:
    """What orders hold at `now_s`. An order without routes holds those of the table in force when it is first met."""
    for service, order in state.table_orders.items():
        if not order.routes and (table := state.newest(service)) is not None:
            state.table_orders[service] = msgspec.structs.replace(order, routes=table.routes)
    orders = in_force(state.table_orders, now.plan.rows_of, now_s)
    if not orders:
        return Holding(np.zeros(len(now.plan.flows), np.bool_), np.zeros(now.plan.may.shape), {})
    wanted = wished(now.plan, orders)
    shares = within(now.problem, wanted, now.ramp)
    rows: Bools = shares.sum(axis=1) > 0
    return Holding(rows, shares, {name: _said(now.plan, order, rows, wanted) for name, order in orders.items()})


def wished(plan: Layout, orders: Mapping[str, TableOrder]) -> Floats:
    """[F, E] the shares that `orders` name, of pairs that are in the plan."""
    out = np.zeros(plan.may.shape)
    for service, order in orders.items():
        for route in order.routes:
            row = plan.flow_at.get((service, route.origin, route.class_))
            for name, share in zip(route.endpoints, route.shares, strict=False):
                if row is not None and name in plan.endpoint_at:
                    out[row, plan.endpoint_at[name]] = share
    return out


def within(problem: Problem, wanted: Floats, ramp: Floats) -> Floats:
    """[F, E] `wanted` over what may be used now, in proportion; a row of zeros where none of it may be.

    Endpoints that come back have at most what their `ramp` [E] says; what that leaves goes to the others in proportion.
    """
    kept = np.where(problem.open, wanted, 0.0)
    kept /= np.maximum(kept.sum(axis=1, keepdims=True), 1e-12)
    most = ramp[None, :]
    for _ in range(int((ramp < 1.0).sum())):  # each round fills one more up to its most, or is the last
        capped = np.minimum(kept, most)
        room = np.where(kept < most, capped, 0.0)
        missing, left = 1.0 - capped.sum(axis=1, keepdims=True), room.sum(axis=1, keepdims=True)
        fits = (missing > 1e-12) & (left > 1e-12)
        kept = np.where(fits, capped + room * missing / np.maximum(left, 1e-12), kept)
        if not fits.any():
            break
    return kept


def words(order: TableOrder) -> str:
    """By whom a table is held, at which number, until when and why, as one phrase.

    >>> words(TableOrder(service="chat", hold=True, of="1000.3", by="ann", reason="bad deploy", at_s=0, until_s=60))
    'held at 1000.3 by ann until 1970-01-01 00:01:00Z: bad deploy'
    """
    said = f"held{f' at {order.of}' if order.of else ''} by {order.by or 'an operator'}"
    if order.until_s is not None:
        said += f" until {datetime.fromtimestamp(order.until_s, UTC):%Y-%m-%d %H:%M:%S}Z"
    return f"{said}: {order.reason}"[:1900] if order.reason else said


def _said(plan: Layout, order: TableOrder, rows: Bools, wanted: Floats) -> str:
    """`words`, and of how many routes nothing can be held now."""
    mine = plan.rows_of[order.service]
    lost = int((wanted[mine].any(axis=1) & ~rows[mine]).sum())
    return f"{words(order)}; nothing is left of {lost} of its routes" if lost else words(order)


def turned(old: RoutingTable | None, held: str) -> Iterator[str]:
    """What a new table says of holding that the last one did not."""
    before = old.held if old is not None else ""
    if held != before:
        yield held or "held no more"


def left(now: Situation, hold: Holding) -> Situation:
    """The situation that is left to decide: held flows weigh nothing, and what they use of endpoints is gone.

    An endpoint that they fill keeps a crumb of capacity: it is not closed, it is full.
    """
    if not hold.rows.any():
        return now
    problem = now.problem
    load = hold.shares.T @ problem.demand_rps
    capacity = np.maximum(problem.capacity_rps - load, np.minimum(LEAST_RPS, problem.capacity_rps))
    demand = np.where(hold.rows, LEAST_RPS, problem.demand_rps)
    return replace(now, problem=replace(problem, demand_rps=demand, capacity_rps=capacity))
