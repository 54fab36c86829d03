"""What is the case now: who may and can be used, at what price. Made from what was heard, before each view.

Allowed (law) ─► usable (orders; health, fail open to the least bad) ─► preferred (scores) ─► the problem to share out.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from router_sync.heard import HeardHealth
from router_sync.ladder import UNHEARD, Standing, ladder
from router_sync.layout import Bools, Floats, Layout
from router_sync.problem import LEAST_RPS, Problem
from router_sync.score import Scores, scores
from streams.contract.records import Order

DEGRADED: Final = 0.5
"""Of its capacity is left to an endpoint that fails now and then."""
RAMP_S: Final = 10.0
RAMP_FROM: Final = 0.1
MEASURED_S: Final = 60.0
"""Latencies are measured over this long: what used an endpoint within it is in them."""
_EARLY: Final = 0.2
"""Of a step: so that a tick shortly before a step takes it, and no second table follows."""
_FLOOR_MS: Final = 0.5
"""Of a measured p95 at least this share is the endpoint's own, whatever the way to it."""


@dataclass(frozen=True, slots=True)
class Situation:
    """One moment. Shapes: F flows, E endpoints."""

    plan: Layout
    standings: dict[str, Standing]
    gone: frozenset[str]
    """Endpoints that are down or drained."""
    scores: Scores
    p95_ms: Floats
    problem: Problem
    orders: Mapping[str, Order] = field(default_factory=dict)
    """Endpoint to the order that drains it now."""
    held: Mapping[str, str] = field(default_factory=dict)
    """Service to by whose order its shares are held, and why."""

    @property
    def usable(self) -> Bools:
        """[F, E]"""
        return self.problem.may


def situation(
    plan: Layout,
    health: HeardHealth,
    demand_rps: Floats,
    shares: Floats | None,
    back_since_s: Mapping[str, float],
    usd_per_s: float,
    now_s: float,
    used_s: Floats | None = None,
    orders: Mapping[str, Order] | None = None,
) -> Situation:
    """The situation at `now_s`.

    `shares` are those in force, `back_since_s` says who came back and when, `used_s` [F, E] who used what when;
    `orders`: endpoint to the order that drains it now.
    """
    orders = orders or {}
    if used_s is None:
        used_s = used(plan, shares, demand_rps, None, now_s)
    standings = _standings(plan, health, orders, now_s)
    rps = np.maximum(demand_rps, LEAST_RPS)
    p95_ms = _inside_ms(plan, health.p95_ms(plan), used_s >= now_s - MEASURED_S)
    priced = scores(plan, p95_ms, usd_per_s)
    usable = _usable(plan, standings, orders)
    problem = Problem(
        demand_rps=rps,
        cost_usd=priced.total_usd,
        may=usable,
        capacity_rps=_capacity(plan, standings, usable),
        crowd_usd=priced.crowd_usd,
        most_share=_most_share(plan, back_since_s, now_s),
        weight=plan.weight,
        kin=plan.kin,
        held=shares,
    )
    gone = frozenset(name for name, standing in standings.items() if not standing.usable or name in orders)
    return Situation(plan, standings, gone, priced, p95_ms, problem, orders)


def _standings(plan: Layout, health: HeardHealth, orders: Mapping[str, Order], now_s: float) -> dict[str, Standing]:
    """What is to be made of each endpoint. The drained stand for themselves: being worked on, they say nothing of
    their neighbours."""
    said = health.standings(now_s)
    judged = ladder([e for e in plan.fleet.endpoints if e.name not in orders], said)
    return {name: judged[name] if name in judged else said.get(name, UNHEARD) for name in plan.names}


def _most_share(plan: Layout, back_since_s: Mapping[str, float], now_s: float) -> Floats:
    """[E] the share of any flow that each endpoint may get."""
    most = np.ones(len(plan.names))
    for name, since_s in back_since_s.items():
        if name in plan.endpoint_at:
            most[plan.endpoint_at[name]] = _ramp(now_s - since_s)
    return most


def _ramp(since_s: float) -> float:
    """The share of any flow that an endpoint gets that came back `since_s` ago; in tenths, so in few tables."""
    tenths = math.floor(10.0 * min(since_s, RAMP_S) / RAMP_S + _EARLY)
    return min(1.0, max(RAMP_FROM, tenths / 10.0))


def used(plan: Layout, shares: Floats | None, rps: Floats, before_s: Floats | None, now_s: float) -> Floats:
    """[F, E] when each flow last had a real part in the load of each endpoint; -inf: never."""
    last = np.full(plan.may.shape, -math.inf) if before_s is None else before_s
    if shares is None:
        return last
    load = shares * np.maximum(rps, LEAST_RPS)[:, None]
    out: Floats = np.where(load > 0.05 * load.sum(axis=0), now_s, last)
    return out


def _inside_ms(plan: Layout, measured_ms: Floats, in_use: Bools) -> Floats:
    """[F, E] p95 inside each endpoint: measured at gateways, less the way there; declared where too little was.

    The longest way among the origins that use an endpoint is taken off, never more than half: else the traffic that
    an outage sends round the world would make its refuge look slow, and move on.
    """
    way_ms = np.where(in_use, plan.rtt_ms, 0.0).max(axis=0, initial=0.0)
    inside = np.maximum(measured_ms - way_ms, _FLOOR_MS * measured_ms)
    out: Floats = np.where(np.isnan(inside), plan.declared_ms, inside)
    return out


def _usable(plan: Layout, standings: Mapping[str, Standing], orders: Mapping[str, Order]) -> Bools:
    """[F, E] allowed, not drained and not down; where that leaves nothing to a flow, the least bad of what law and
    orders allow."""
    ready = plan.capacity_rps > 0
    may = plan.may & [name not in orders for name in plan.names]
    usable = may & (ready & [standings[name].usable for name in plan.names])
    for wider in _least_bad(plan, standings, ready):
        empty = ~usable.any(axis=1)
        if not empty.any():
            break
        usable[empty] = may[empty] & wider
    return usable


def _least_bad(plan: Layout, standings: Mapping[str, Standing], ready: Bools) -> Iterator[Bools]:
    """Columns to fail open to: down only by their neighbours; down; and those that have no replica."""
    yield ready & [standings[name].own != "down" for name in plan.names]
    yield ready
    yield np.ones(len(plan.names), np.bool_)


def _capacity(plan: Layout, standings: Mapping[str, Standing], usable: Bools) -> Floats:
    left = np.where([standings[name].verdict == "degraded" for name in plan.names], DEGRADED, 1.0)
    out: Floats = np.where(usable.any(axis=0), np.maximum(plan.capacity_rps * left, LEAST_RPS), 0.0)
    return out
