"""What a router knows, has decided and has said; and how fleets and tables on the topic change that."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec
import numpy as np

from router_sync.budgets import Budgets
from router_sync.curves import Curves
from router_sync.explore import Explorer
from router_sync.heard import HeardDemand, HeardHealth
from router_sync.layout import Floats, Layout, layout
from router_sync.notices import Notices
from router_sync.problem import Problem, Solution
from router_sync.quotes import Quotes
from router_sync.reserve import Reserve
from router_sync.table import Number
from router_sync.ways import Load
from streams.contract.records import Fleet, Order, RoutingTable, TableOrder


@dataclass(slots=True)
class RouterState:
    """What one router knows, has decided and has said."""

    health: HeardHealth = field(default_factory=HeardHealth)
    demand: HeardDemand = field(default_factory=HeardDemand)
    orders: dict[str, Order] = field(default_factory=dict)
    """Endpoint to the order that drains it; its time may be over."""
    notices: Notices = field(default_factory=dict)
    """Their time may be over."""
    drained: frozenset[str] = frozenset()
    """Endpoints drained when tables were decided last."""
    table_orders: dict[str, TableOrder] = field(default_factory=dict)
    """Service to the order that holds its table; its time may be over."""
    held: Mapping[str, str] = field(default_factory=dict)
    """Service to by whose order its table was held when tables were decided last."""
    plan: Layout | None = None
    inputs: dict[str, int] = field(default_factory=dict)
    """topic/partition to the next offset."""
    number: Number | None = None
    """Of the last table; None: this router has said none yet."""
    heard: dict[str, RoutingTable] = field(default_factory=dict)
    """Service to the highest table on the topic, whoever said it."""
    last: dict[str, RoutingTable] = field(default_factory=dict)
    """Service to the last table of ours, and the content that gateways have."""
    last_at_s: float = 0.0
    shares: Floats | None = None
    """[F, E] in force."""
    stale: bool = True
    """`shares` are not of this plan."""
    moved_at_s: float = -math.inf
    rps: Floats | None = None
    """[F] the demand that is decided by."""
    usual_rps: Floats | None = None
    """[F] the demand that is shed by."""
    quotes: Quotes = field(default_factory=Quotes)
    curves: Curves = field(default_factory=Curves)
    explorer: Explorer = field(default_factory=Explorer)
    budgets: Budgets = field(default_factory=Budgets)
    reserve: Reserve = field(default_factory=Reserve)
    looked_at_s: float = -math.inf
    """When the loss of a zone was last thought through."""
    exposed: str = ""
    """The zone whose loss could not be covered then; empty: none."""
    load: Load = field(default_factory=Load)
    """Who used what of late."""
    gone: frozenset[str] = frozenset()
    back_since_s: dict[str, float] = field(default_factory=dict)
    serial: int = 0
    ask: Problem | None = None
    """To be asked."""
    ask_at_s: float = -math.inf
    asked_at_s: float = -math.inf
    """When the question under way, or else the last one, was thought of."""
    under_way: Problem | None = None
    """Being solved."""
    asked: Problem | None = None
    """Answered last."""
    answer: Solution | None = None
    again_at_s: float = math.inf
    """When to ask again whatever the inputs, until that is answered: shares were damped on their way."""
    urgent: bool = False
    said: tuple[msgspec.Struct, ...] = ()
    said_at_s: float = -1.0

    def newest(self, service: str) -> RoutingTable | None:
        """The table of `service` in force, as far as is known: ours, or one that was heard beyond it."""
        known = [table for table in (self.last.get(service), self.heard.get(service)) if table is not None]
        return max(known, key=lambda table: (table.epoch, table.version), default=None)


Misfit = tuple[str, object, str]
"""Field, value, reason."""


def outdated(held: Fleet | None, fleet: Fleet) -> Misfit | None:
    """What is wrong with `fleet` where `held` is in force; None: it may follow it.

    One fleet under one topic prefix, and its versions only grow: which record came last is chance.
    """
    if held is None:
        return None
    if fleet.fleet != held.fleet:
        return (
            "fleet",
            fleet.fleet,
            f"is not {held.fleet}, which this prefix carries: publish it under a prefix of its own",
        )
    if fleet.version < held.version:
        return "version", fleet.version, f"is older than {held.version}, which is in force: publish a higher version"
    return None


def with_fleet(state: RouterState, fleet: Fleet) -> bool:
    """Plan for `fleet` from now on, keeping the shares of pairs that are still there.

    False: it is the same, or outdated.
    """
    held = state.plan.fleet if state.plan is not None else None
    if held == fleet or outdated(held, fleet) is not None:
        return False
    plan = layout(fleet)
    if state.plan is not None and state.shares is not None:
        state.shares = _carried(state.plan, plan, state.shares)
    if state.plan is not None:
        new = set(plan.names) - set(state.plan.names)
        state.back_since_s |= dict.fromkeys(new, math.inf)
        state.curves.keep(plan.endpoint_at)
    state.plan, state.stale, state.load, state.rps, state.usual_rps = plan, True, Load(), None, None
    state.ask = state.under_way = state.asked = state.answer = None
    return True


def _carried(old: Layout, new: Layout, shares: Floats) -> Floats:
    """[F, E] of the new plan: shares of pairs that are in both."""
    out = np.zeros(new.may.shape)
    both = [name for name in new.names if name in old.endpoint_at]
    to, came = [new.endpoint_at[n] for n in both], [old.endpoint_at[n] for n in both]
    for key, row in new.flow_at.items():
        if key in old.flow_at:
            out[row, to] = shares[old.flow_at[key], came]
    return out


def with_table(state: RouterState, table: RoutingTable) -> None:
    """Remember the highest table of each service."""
    known = state.heard.get(table.service)
    if known is None or (table.epoch, table.version) > (known.epoch, known.version):
        state.heard[table.service] = table
        if state.number is None:
            state.budgets.restore(table.budgets)


def next_number(state: RouterState, now_s: float) -> Number:
    """One version further; a new epoch at take-over, and when another router was heard beyond ours."""
    last, seen = state.number, max(((t.epoch, t.version) for t in state.heard.values()), default=(-1, 0))
    if last is None:
        return Number(max(seen[0] + 1, int(now_s)), 1)
    if seen > (last.epoch, last.version):
        return Number(seen[0] + 1, 1)
    return Number(last.epoch, last.version + 1)


def restored(plan: Layout, heard: Mapping[str, RoutingTable]) -> Floats:
    """[F, E] shares of the tables on the topic: a router that takes over moves nobody without need."""
    out = np.zeros(plan.may.shape)
    for service, table in heard.items():
        for route in table.routes:
            row = plan.flow_at.get((service, route.origin, route.class_))
            for name, share in zip(route.endpoints, route.shares, strict=False):
                if row is not None and name in plan.endpoint_at:
                    out[row, plan.endpoint_at[name]] = share
    return out


def known_down(heard: Mapping[str, RoutingTable]) -> frozenset[str]:
    """Endpoints that the router before this one knew to be down: their failure is no news."""
    return frozenset(e.name for table in heard.values() for e in table.endpoints if e.state == "down")
