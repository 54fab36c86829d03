"""The router: fleet, health and demand in; signed tables and decisions out.

    fold      the last word of each source
    advance   what is the case now ─► lost something? greedy at once │ an LP's answer? damped ─► draft, check, number
    view      says what advance made
    question  the LP, beside the loop, when something moved

Tables of all services come from one solve and share one (epoch, version).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Final, Literal, NamedTuple

import msgspec
import numpy as np

from router_sync.chain import anchored, linked
from router_sync.curves import Size
from router_sync.explain import considered, explain_change, unserved
from router_sync.fleet import misfits
from router_sync.greedy import greedy
from router_sync.heard import steadied
from router_sync.holding import Holding, holding, left, turned
from router_sync.holding import misdirected as misdirected_holds
from router_sync.layout import Floats, Layout
from router_sync.notices import astray, fewer, leaving, noticed
from router_sync.optimise import solve
from router_sync.orders import in_force, misdirected, told
from router_sync.problem import Method, Problem, Solution, completed, objective
from router_sync.quotes import Kind, Quotes
from router_sync.reserve import widest_loss
from router_sync.score import RATES, Rates
from router_sync.sign import Trust
from router_sync.situation import RAMP_S, Knowledge, Situation, lessons, situation
from router_sync.state import RouterState, known_down, next_number, outdated, restored, with_fleet, with_table
from router_sync.table import DIFFERS, Draft, Number, build, check, damp, differs, moved_share, news
from router_sync.tiers import admit, favoured
from streams import signals
from streams.contract.errors import TableRefused, shown
from streams.contract.records import Decision, Demand, EndpointHealth, Fleet, Interruption, RoutingTable
from streams.contract.topics import FLEET, INTERRUPTIONS, ORDERS, ROUTING_TABLE, TABLE_ORDERS
from streams.runtime.step import Heard, Question, Refusal

WORTH: Final = 0.005
"""Shares in force stay until others cost this much less."""
SAME: Final = 0.01
"""Inputs that moved by less than this share ask no new question."""
NOTED: Final = 0.05
"""Costs that moved by more than this share are asked about at once; by less, every DRIFT_S."""
DRIFT_S: Final = 10.0
ASK_S: Final = 0.5
"""Between two questions: the greedy shares bridge it, and an outage of many is not solved endpoint by endpoint."""
SETTLE_S: Final = 2.0
"""After its ramp an endpoint is followed this much longer, so that the last step is made too."""
CALM_S: Final = 5.0
"""Between moves for a gain below AT_ONCE."""
AT_ONCE: Final = 0.2
LOOK_S: Final = 30.0
"""Between two looks at what the loss of a zone would cost."""
PACE_S: Final = 1.0
"""Between two damped moves."""
Why = Literal["first", "fleet", "health", "order", "better", "ramp", "heartbeat"]


class Target(NamedTuple):
    """Shares to go to, who says so, and how freely they may move."""

    shares: Floats
    method: Method
    why: Why
    gap: float | None = None
    """Of an answer, to the bound; None: nobody solved for these shares."""

    @property
    def free(self) -> bool:
        """Law, orders, health and a first table move as far as they must."""
        return self.why in ("first", "fleet", "health", "order")


class Router:
    """The stage. `trust`: only tables these keys signed count for numbering; None: every table on the topic does."""

    def __init__(
        self,
        *,
        ttl_s: float = 300.0,
        heartbeat_s: float = 5.0,
        rates: Rates = RATES,
        carbon_kind: Kind = "average",
        trust: Trust | None = None,
    ) -> None:
        self.ttl_s, self.heartbeat_s, self.rates, self.trust = ttl_s, heartbeat_s, rates, trust
        self.carbon_kind: Kind = carbon_kind

    def empty(self) -> RouterState:
        """Nothing was heard; nothing is said until there is a fleet."""
        return RouterState(quotes=Quotes(self.carbon_kind))

    # ------------------------------------------------------------ heard

    def screen(self, state: RouterState, heard: Heard[Any]) -> Iterable[Refusal]:
        """Refuse fleets that do not fit together, that are others or older, orders for endpoints or of services that
        are not there, and tables that no trusted key signed."""
        fleet = state.plan.fleet if state.plan is not None else None
        if heard.topic == ORDERS.name:
            yield from misdirected(fleet, heard)
            return
        if heard.topic == INTERRUPTIONS.name:
            yield from astray(fleet, heard)
            return
        if heard.topic == TABLE_ORDERS.name:
            yield from misdirected_holds(fleet, heard)
            return
        for position, record in zip(heard.positions.tolist(), heard.records, strict=True):
            if heard.topic == FLEET.name:
                old = outdated(fleet, record)
                wrong = [*misfits(record)] if old is None else [old]
                yield from (Refusal(position, path, shown(value), why) for path, value, why in wrong)
                fleet = fleet if wrong else record
            elif heard.topic == ROUTING_TABLE.name and self.trust is not None:
                message = heard.batch.messages[position]
                try:
                    self.trust.verify(message.headers, message.key or b"", message.value or b"")
                except TableRefused as error:
                    yield Refusal(position, error.field, shown(error.value), error.reason)

    def fold(self, state: RouterState, heard: Heard[Any]) -> RouterState:
        """Take in fleets, orders, health, demand, and tables for their numbers."""
        state.urgent = False
        state.inputs[f"{heard.topic}/{heard.batch.partition}"] = heard.batch.next_offset
        if heard.topic == ORDERS.name:
            state.urgent = told(state.orders, heard)
            return state
        if heard.topic == TABLE_ORDERS.name:
            state.urgent = told(state.table_orders, heard)
            return state
        for record, stamp_s in zip(heard.records, heard.stamps_s.tolist(), strict=True):
            match record:
                case EndpointHealth():
                    state.urgent |= state.health.fold(record, stamp_s)
                case Demand():
                    state.demand.fold(record, stamp_s)
                case Fleet():
                    state.urgent |= with_fleet(state, record)
                case RoutingTable():
                    with_table(state, record)
                case Interruption():
                    state.urgent |= noticed(state.notices, record)
                case _:
                    state.urgent |= state.quotes.fold(record)
        return state

    def urgent(self, state: RouterState) -> bool:
        """An endpoint went down or came back, an operator gave an order, or the fleet changed."""
        return state.urgent

    # ------------------------------------------------------------ decided

    def advance(self, state: RouterState, now_s: float) -> RouterState:
        """Age what was heard, and make the next tables where something has to be said."""
        state.said, state.said_at_s = (), now_s
        state.health.advance(now_s)
        state.demand.advance(now_s)
        state.quotes.advance(now_s)
        if state.plan is None:
            return state
        _count_losses(state, state.plan, now_s)
        # inf: new in the fleet, which is first looked at now
        state.back_since_s = {e: min(at_s, now_s) for e, at_s in state.back_since_s.items()}
        now = self._situation(state, state.plan, now_s)
        newly_gone = now.gone - (state.gone if state.number else known_down(state.heard))
        if self._came_back(state, now, now_s):
            now = self._situation(state, state.plan, now_s)
        hold = holding(state, now, now_s)
        now = replace(now, held=hold.words)
        free = left(now, hold)
        target = _kept(state, hold, _target(state, free, now_s))
        state.gone, state.drained, state.held = now.gone, frozenset(now.orders), now.held
        if target is not None:
            self._adopt(state, now, target, newly_gone, now_s)
        else:
            self._beat(state, now, now_s)
        _wonder(state, free, now_s)
        _look_ahead(state, now, now_s)
        return state

    def view(self, state: RouterState, now_s: float) -> Iterable[msgspec.Struct]:
        """The tables and decisions made for this moment; mostly none."""
        return state.said if state.said_at_s == now_s else ()

    def _situation(self, state: RouterState, plan: Layout, now_s: float) -> Situation:
        rps = state.rps = steadied(state.rps, state.demand.rps(plan))
        usual = state.usual_rps = steadied(state.usual_rps, state.demand.usual_rps(plan))
        state.load.see(None if state.stale else state.shares, usual, now_s)
        known = Knowledge(
            health=state.health, rps=rps, usual_rps=usual, quotes=state.quotes, curves=state.curves,
            explorer=state.explorer, shares=state.shares, load_rps=state.load.rps, back_since_s=state.back_since_s,
            orders=in_force(state.orders, plan.endpoint_at, now_s), rates=self.rates,
            leaving=leaving(state.notices, plan.endpoint_at, now_s), fewer=fewer(state.notices, now_s),
            duals=state.budgets.duals(plan), reserve=state.reserve.share,
        )  # fmt: skip
        _learn(state, plan, known, now_s)
        now = situation(plan, known, now_s)
        if state.shares is not None and not state.stale:
            state.budgets.advance(plan, now.scores, state.shares * usual[:, None], now_s)
        return now

    def _came_back(self, state: RouterState, now: Situation, now_s: float) -> bool:
        """Note who came back and who has been back for long; whether anybody came back just now."""
        back = state.gone - now.gone
        kept = {
            e: at_s for e, at_s in state.back_since_s.items() if now_s - at_s <= RAMP_S + SETTLE_S and e not in now.gone
        }
        state.back_since_s = kept | dict.fromkeys(back, now_s)
        return bool(back)

    def _adopt(
        self, state: RouterState, now: Situation, target: Target, newly_gone: frozenset[str], now_s: float
    ) -> None:
        """Go to the target, as far as may be at once, and say so if gateways should hear of it."""
        held = None if state.stale else state.shares
        reached = target.shares if target.free or held is None else damp(held, target.shares)
        draft = _draft(state, now, reached)
        tables = self._tables(state, now, draft, now_s, _evidence(state, newly_gone))
        if not target.free and not any(differs(state.last.get(t.service), t) for t in tables):
            return
        if not self._checked(state, now, tables, bounded=not target.free):
            return
        if reached is not target.shares and (np.abs(reached - target.shares) > 1e-9).any():
            state.again_at_s = now_s + PACE_S
        state.shares, state.stale, state.moved_at_s = reached, False, now_s
        decisions = _decisions(state, now, draft, target, tables)
        self._say(state, tables, decisions, target.why, now_s)

    def _beat(self, state: RouterState, now: Situation, now_s: float) -> None:
        """Say the shares in force again with what is known now of latency: at the heartbeat, or when it is news."""
        if state.shares is None or state.stale:
            return
        draft = _draft(state, now, state.shares)
        due = now_s - state.last_at_s >= self.heartbeat_s - 1e-6
        names = [service.name for service in now.plan.fleet.services]
        if not due and not any(news(state.last.get(name), draft, name) for name in names):
            return
        quiet = sum(standing.verdict == "silent" for standing in now.standings.values())
        tail = f"; {quiet} endpoint{'s' * (quiet > 1)} silent, kept as they were" if quiet else ""
        tail += f"; drained: {', '.join(sorted(now.orders)[:8])}" if now.orders else ""
        number = next_number(state, now_s)
        tables = [build(draft, n, number, now_s, self.ttl_s, last=state.last.get(n)) for n in names]
        tables = [_saying(table, _change(state.last.get(table.service), table, now) + tail) for table in tables]
        if self._checked(state, now, tables, bounded=True):
            self._say(state, tables, (), "heartbeat", now_s)

    def _tables(
        self, state: RouterState, now: Situation, draft: Draft, now_s: float, evidence_at_s: float | None
    ) -> list[RoutingTable]:
        number = next_number(state, now_s)
        tables = []
        for service in now.plan.fleet.services:
            last = None if state.stale else state.last.get(service.name)
            table = build(draft, service.name, number, now_s, self.ttl_s, "", evidence_at_s, last)
            old = state.last.get(service.name) or state.heard.get(service.name)
            taken_over = "" if state.number or old is None else "taken over; "
            change = _change(old, table, now)
            holds = turned(old, now.held.get(service.name, ""))
            reason = taken_over + "; ".join((*unserved(draft, service.name, now.problem.demand_rps), *holds, change))
            tables.append(_saying(table, reason))
        return tables

    def _checked(self, state: RouterState, now: Situation, tables: list[RoutingTable], *, bounded: bool) -> bool:
        """Whether all tables may be said; gateways keep the last ones otherwise."""
        try:
            for table in tables:
                last, drained = state.last.get(table.service), now.orders.keys()
                check(table, now.plan.fleet, now.plan.law, last, bounded=bounded, drained=drained)
        except TableRefused as error:
            signals.event("table_not_published", "error", reason=str(error))
            return False
        return True

    def _say(
        self, state: RouterState, tables: list[RoutingTable], decisions: Iterable[Decision], why: Why, now_s: float
    ) -> None:
        decisions = [linked(decision, state.newest(decision.service)) for decision in decisions]
        tables = [anchored(table, state.last.get(table.service), decisions) for table in tables]
        state.number = Number(tables[0].epoch, tables[0].version)
        state.last = {table.service: table for table in tables}
        state.last_at_s = now_s
        state.said = (*tables, *decisions)
        for table in tables:
            signals.TABLES.labels(table.service, why).inc()
            signals.HELD.labels(table.service).set(bool(table.held))
            if why != "heartbeat":
                signals.event("table_published", service=table.service, epoch=table.epoch, version=table.version,
                              why=why, reason=table.reason)  # fmt: skip

    # ------------------------------------------------------------ thinking

    def question(self, state: RouterState) -> Question | None:
        """The LP over the last situation, when it differs from the one solved last.

        A question that fails is asked again, ASK_S later: its answer never came, so `asked` and `again_at_s` are what
        they were.
        """
        if state.ask is None:
            return None
        state.under_way, state.ask, state.asked_at_s = state.ask, None, state.ask_at_s
        return Question(solve, (state.under_way,))

    def answer(self, state: RouterState, answer: Solution) -> RouterState:
        """The state that knows a solution; whether it is of use, `advance` says."""
        if state.under_way is not None and state.under_way.serial == answer.serial:
            state.asked, state.answer, state.under_way = state.under_way, answer, None
            if state.asked_at_s >= state.again_at_s:
                state.again_at_s = math.inf
            if state.ask is not None and _alike(state.ask, state.asked):
                state.ask = None
        signals.SOLVE_S.labels(answer.method).observe(answer.solve_s)
        return state


# ---------------------------------------------------------------- decide


def _target(state: RouterState, now: Situation, now_s: float) -> Target | None:
    """Where shares should go now; None: they may stay."""
    problem = now.problem
    if state.shares is None:
        start = restored(now.plan, state.heard)
        return Target(completed(problem, greedy(problem, start)), "greedy", "first")
    if state.stale:
        return Target(completed(problem, greedy(problem, state.shares)), "greedy", "fleet")
    ordered = state.drained != now.orders.keys()
    why: Why = "order" if ordered else "health"
    if now.gone - state.gone or (state.shares[~problem.may] > 0).any() or _stranded(problem, state.shares):
        state.answer = None
        return Target(completed(problem, greedy(problem, state.shares)), "greedy", why)
    if now.gone != state.gone or ordered:
        # somebody came back: gateways should know, the LP says what for
        return Target(state.shares, "greedy", why)
    return _solved(state, now, state.shares, now_s)


def _kept(state: RouterState, hold: Holding, target: Target | None) -> Target | None:
    """`target` with held shares in their places; a target of its own where an order, or what is usable, moves them."""
    ordered = state.held != hold.words
    if target is None and state.shares is not None and (ordered or hold.moves(state.shares)):
        target = Target(state.shares, "greedy", "order" if ordered else "health")
    elif target is not None and ordered and not target.free and state.shares is not None:
        # an answer to what was asked before the order
        target = Target(state.shares, "greedy", "order")
    return None if target is None else target._replace(shares=hold.over(target.shares))


def _stranded(problem: Problem, shares: Floats) -> bool:
    """Whether a flow without a share may use something again."""
    return bool((problem.open.any(axis=1) & (shares.sum(axis=1) <= 0)).any())


def _solved(state: RouterState, now: Situation, held: Floats, now_s: float) -> Target | None:
    """The LP's shares, if they are of this situation and worth the move; a small gain waits for the last to settle."""
    solution, asked, state.answer = state.answer, state.asked, None
    if solution is None or asked is None or not np.array_equal(asked.may, now.problem.may):
        return None
    _measure(now.plan, asked, solution)
    shares = completed(now.problem, solution.shares)
    ramping = bool(state.back_since_s)
    gain = objective(asked, held) / max(objective(asked, shares), 1e-12) - 1.0
    # beyond capacity all shares cost alike, whom they serve is another matter
    favour = favoured(now.plan, held, shares, asked.demand_rps, asked.capacity_rps)
    better = favour > 0 or (favour == 0 and gain >= WORTH)
    if not (better or ramping) or moved_share(held, shares).max(initial=0.0) < DIFFERS:
        return None
    if not (ramping or favour) and gain < AT_ONCE and now_s < state.moved_at_s + CALM_S:
        state.again_at_s = state.moved_at_s + CALM_S
        return None
    return Target(shares, solution.method, "ramp" if ramping else "better", float(f"{solution.gap:.3g}"))


def _look_ahead(state: RouterState, now: Situation, now_s: float) -> None:
    """Now and then: what would be lost with the zone that carries most."""
    if state.shares is None or state.stale or now_s < state.looked_at_s + LOOK_S:
        return
    state.looked_at_s = now_s
    zone, lost_rps = widest_loss(now.plan, now.problem, state.shares)
    signals.RESERVE.set(state.reserve.share)
    signals.ZONE_LOSS.set(round(lost_rps, 3))
    if lost_rps > 0 and zone != state.exposed:
        signals.event("zone_loss_uncovered", "warning", zone=zone, unserved_rps=round(lost_rps, 3))
    state.exposed = zone if lost_rps > 0 else ""


def _measure(plan: Layout, asked: Problem, solution: Solution) -> None:
    unserved = np.maximum(0.0, 1.0 - solution.shares.sum(axis=1)) * asked.demand_rps
    for service in plan.fleet.services:
        rows = plan.rows_of[service.name]
        signals.GAP.labels(service.name).set(solution.greedy_gap)
        signals.UNSERVED.labels(service.name).set(round(float(unserved[rows].sum()), 6))


def _change(old: RoutingTable | None, new: RoutingTable, now: Situation) -> str:
    return explain_change(old, new, now.standings, now.orders, now.leaving)


def _saying(table: RoutingTable, reason: str) -> RoutingTable:
    return msgspec.structs.replace(table, reason=reason[:2000])


def _draft(state: RouterState, now: Situation, shares: Floats) -> Draft:
    admitted = admit(now.plan, shares, now.usual_rps, now.problem.capacity_rps)
    return Draft(
        now.plan, shares, now.usable, now.standings, now.scores, now.quoted, now.p95_ms, admitted,
        state.budgets.spent(now.plan), now.orders, now.leaving, now.held,
    )  # fmt: skip


def _learn(state: RouterState, plan: Layout, known: Knowledge, now_s: float) -> None:
    """Every few seconds: what load does to latency; and who was slow, is well now, and may come back step by step."""
    if not state.curves.due(now_s):
        return
    replicas = known.quotes.at(plan, now_s).replicas
    sizes = {
        e.name: Size(e.concurrency * n, e.capacity_rps * n, e.latency_ms)
        for e, n in zip(plan.fleet.endpoints, replicas.tolist(), strict=True)
    }
    state.curves.learn(lessons(plan, known), sizes, now_s)
    well = state.explorer.advance(plan, state.curves.curve(plan, replicas), state.curves.measured_s, now_s)
    state.back_since_s = {**state.back_since_s, **dict.fromkeys(well, now_s)}


def _count_losses(state: RouterState, plan: Layout, now_s: float) -> None:
    """Of the seconds that are over: what was lost of what arrived, for the reserve."""
    for key, counts in state.demand.closed:
        row = plan.flow_at.get(key)
        if row is not None:
            shed = 0 if plan.flows[row].class_.tier == "sheddable" else counts.shed
            state.reserve.count(counts.arrived, counts.failed + shed)
    state.demand.closed.clear()
    state.reserve.advance(min(s.error_budget for s in plan.fleet.services), now_s)


def _evidence(state: RouterState, newly_gone: frozenset[str]) -> float | None:
    """When the failure of those newly gone was first seen."""
    first = [
        said.first_error_at_s
        for name in newly_gone
        if (said := state.health.down.get(name)) is not None and said.first_error_at_s is not None
    ]
    return min(first, default=None)


def _decisions(
    state: RouterState, now: Situation, draft: Draft, target: Target, tables: Iterable[RoutingTable]
) -> list[Decision]:
    unserved = _unserved(now.problem, draft.shares)
    return [
        Decision(
            service=table.service,
            epoch=table.epoch,
            version=table.version,
            made_at_s=table.issued_at_s,
            reason=table.reason,
            method=target.method,
            inputs=dict(sorted(state.inputs.items())),
            considered=considered(draft, table.service, now.problem, unserved),
            gap=target.gap,
        )
        for table in tables
    ]


def _unserved(problem: Problem, shares: Floats) -> Floats:
    """[F] the share of each flow's demand beyond the capacity of where it goes; all of it where it goes nowhere."""
    load = shares.T @ problem.demand_rps
    over = np.where(load > problem.capacity_rps, 1.0 - problem.capacity_rps / np.maximum(load, 1e-12), 0.0)
    out: Floats = shares @ over + (shares.sum(axis=1) <= 0)
    return out


def _wonder(state: RouterState, now: Situation, now_s: float) -> None:
    """Ask the LP when the situation has moved since it was asked last, or when only half the way was gone."""
    if state.shares is None or state.stale or not _due(state, now.problem, now_s):
        return
    state.serial += 1
    state.ask, state.ask_at_s = replace(now.problem, serial=state.serial), now_s


def _due(state: RouterState, problem: Problem, now_s: float) -> bool:
    if now_s < state.asked_at_s + ASK_S:
        return False
    if state.asked is None or now_s >= state.again_at_s or not _alike(state.asked, problem, NOTED):
        return True
    return now_s >= state.asked_at_s + DRIFT_S and not _alike(state.asked, problem)


def _alike(one: Problem, other: Problem, cost: float = SAME) -> bool:
    """Whether two problems differ so little that their answers would not; costs by at most the share `cost`."""
    if not np.array_equal(one.may, other.may):
        return False
    fields = (("demand_rps", SAME), ("cost_usd", cost), ("capacity_rps", SAME), ("most_share", SAME))
    return all(_near(getattr(one, name), getattr(other, name), most) for name, most in fields)


def _near(one: Floats, other: Floats, most: float) -> bool:
    """As np.allclose for finite numbers, in a tenth of its time: it is asked at each tick."""
    return bool((np.abs(one - other) <= 1e-12 + most * np.abs(other)).all())
