"""What is the case now: who may and can be used, at what price. Made from what was heard, before each view.

Allowed (law) ─► usable (orders; health, fail open to the least bad) ─► preferred (scores) ─► the problem to share out.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from router_sync.curves import Curves, Lesson
from router_sync.explore import Explorer
from router_sync.heard import HeardHealth
from router_sync.ladder import UNHEARD, Standing, ladder
from router_sync.layout import Bools, Floats, Layout
from router_sync.problem import LEAST_RPS, RESERVE, Problem
from router_sync.quotes import Quoted, Quotes
from router_sync.score import RATES, Duals, Rates, Scores, scores
from router_sync.ways import inside_ms, way_ms
from streams.contract.records import Interruption, Order

DEGRADED: Final = 0.5
"""Of its capacity is left to an endpoint that fails now and then."""
RAMP_S: Final = 10.0
RAMP_FROM: Final = 0.1
_EARLY: Final = 0.2
"""Of a step: so that a tick shortly before a step takes it, and no second table follows."""


@dataclass(frozen=True, slots=True)
class Knowledge:
    """What a situation is made of, besides the fleet."""

    health: HeardHealth
    rps: Floats
    """[F] demand to have room for."""
    usual_rps: Floats
    """[F] demand without its bursts: what is shed by."""
    quotes: Quotes = field(default_factory=Quotes)
    curves: Curves = field(default_factory=Curves)
    explorer: Explorer = field(default_factory=Explorer)
    shares: Floats | None = None
    """[F, E] in force."""
    load_rps: Floats | None = None
    """[F, E] of late, by the tables in force; None: nothing was shared out yet."""
    back_since_s: Mapping[str, float] = field(default_factory=dict)
    """Who came back, and when."""
    orders: Mapping[str, Order] = field(default_factory=dict)
    """Endpoint to the order that drains it now."""
    leaving: Mapping[str, Interruption] = field(default_factory=dict)
    """Endpoint to the notice that it is about to go."""
    fewer: Mapping[str, int] = field(default_factory=dict)
    """Endpoint to how many of its replicas are about to go."""
    rates: Rates = RATES
    duals: Duals | None = None
    reserve: float = RESERVE


@dataclass(frozen=True, slots=True)
class Situation:
    """One moment. Shapes: F flows, E endpoints."""

    plan: Layout
    standings: dict[str, Standing]
    gone: frozenset[str]
    """Endpoints that are down or drained."""
    scores: Scores
    quoted: Quoted
    p95_ms: Floats
    problem: Problem
    usual_rps: Floats
    ramp: Floats
    """[E] the share of any flow that each endpoint may get: less than all where it came back just now."""
    orders: Mapping[str, Order] = field(default_factory=dict)
    """Endpoint to the order that drains it now."""
    leaving: Mapping[str, Interruption] = field(default_factory=dict)
    """Endpoint to the notice that it is about to go."""
    held: Mapping[str, str] = field(default_factory=dict)
    """Service to by whose order its shares are held, and why."""

    @property
    def usable(self) -> Bools:
        """[F, E]"""
        return self.problem.may


def situation(plan: Layout, known: Knowledge, now_s: float) -> Situation:
    """The situation at `now_s`."""
    standings = _standings(plan, known.health, known.orders, now_s)
    quoted = _quoted(plan, known, now_s)
    ready = quoted.replicas > 0
    usable = _usable(plan, standings, known, ready)
    rps = np.maximum(known.rps, LEAST_RPS)
    capacity = plan.replica_rps * quoted.replicas
    curve = known.explorer.hopeful(plan, known.curves.curve(plan))
    priced = scores(plan, quoted, curve, capacity, rps, known.rates, known.duals, known.reserve)
    ramp = _most_share(plan, known.back_since_s, now_s)
    problem = Problem(
        demand_rps=rps,
        cost_usd=priced.total_usd,
        may=usable,
        capacity_rps=_left(plan, standings, usable, capacity),
        crowd_usd=priced.crowd_usd,
        most_share=np.minimum(ramp, known.explorer.trials(plan)),
        weight=plan.weight,
        kin=plan.kin,
        held=known.shares,
        reserve=known.reserve,
    )
    gone = {name for name, standing in standings.items() if not standing.usable}
    return Situation(
        plan=plan,
        standings=standings,
        gone=frozenset(gone | known.orders.keys() | known.leaving.keys()),
        scores=priced,
        quoted=quoted,
        p95_ms=measured_ms(plan, known),
        problem=problem,
        usual_rps=known.usual_rps,
        ramp=ramp,
        orders=known.orders,
        leaving=known.leaving,
    )


def _quoted(plan: Layout, known: Knowledge, now_s: float) -> Quoted:
    quoted = known.quotes.at(plan, now_s)
    fewer = np.array([known.fewer.get(name, 0) for name in plan.names], np.float64)
    # the last one stays: it is drained by a notice of its own
    return quoted._replace(replicas=np.maximum(quoted.replicas - fewer, np.minimum(quoted.replicas, 1.0)))


def measured_ms(plan: Layout, known: Knowledge) -> Floats:
    """[F, E] p95 inside each endpoint: measured at gateways, less the way there; declared where too little was."""
    inside = inside_ms(known.health.p95_ms(plan), way_ms(plan, known.load_rps))
    out: Floats = np.where(np.isnan(inside), plan.declared_ms, inside)
    return out


def lessons(plan: Layout, known: Knowledge) -> list[Lesson]:
    """What was measured of the endpoints of `plan`, the way there taken off."""
    met = [(row, said) for row, said in known.health.measured() if row[0] in plan.endpoint_at]
    way = way_ms(plan, known.load_rps)[[plan.endpoint_at[row[0]] for row, _ in met]]
    inside = inside_ms(np.array([said.measured_ms for _, said in met], np.float64), way)
    return [
        Lesson(row, p95_ms, said.whole_ms or p95_ms, said.rps, said.in_flight, said.tokens)
        for (row, said), p95_ms in zip(met, inside.tolist(), strict=True)
    ]


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


def _usable(plan: Layout, standings: Mapping[str, Standing], known: Knowledge, ready: Bools) -> Bools:
    """[F, E] allowed, not drained, not about to go and not down; where that leaves nothing to a flow, the least bad of
    what law and orders allow."""
    may = plan.may & [name not in known.orders for name in plan.names]
    stays = [name not in known.leaving for name in plan.names]
    usable = may & (ready & stays & [standings[name].usable for name in plan.names])
    for wider in _least_bad(plan, standings, ready):
        empty = ~usable.any(axis=1)
        if not empty.any():
            break
        usable[empty] = may[empty] & wider
    return usable


def _least_bad(plan: Layout, standings: Mapping[str, Standing], ready: Bools) -> Iterator[Bools]:
    """Columns to fail open to: about to go; down only by their neighbours; down; and those that have no replica."""
    yield ready & [standings[name].usable for name in plan.names]
    yield ready & [standings[name].own != "down" for name in plan.names]
    yield ready
    yield np.ones(len(plan.names), np.bool_)


def _left(plan: Layout, standings: Mapping[str, Standing], usable: Bools, capacity_rps: Floats) -> Floats:
    left = np.where([standings[name].verdict == "degraded" for name in plan.names], DEGRADED, 1.0)
    out: Floats = np.where(usable.any(axis=0), np.maximum(capacity_rps * left, LEAST_RPS), 0.0)
    return out
