"""The capacity plan: how many replicas each pool should have, a cold start before they are needed.

    fold      the last words on demand, pools, prices, risks, health, notices, orders
    advance   what is the case now ─► an alarm? greedy at once │ the programme's answer ─► slow down, quick up ─► plans
    view      says the plans that changed
    question  the programme, beside the loop, when something moved

Up at once and without a cap on the step; down when it was not needed for five minutes. A fallen zone, a notice, a loss
or a surge is an alarm. Plans are of pools whose endpoints say `most_replicas`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import Any, Final

import numpy as np

from forecasting.plan.facts import Facts
from forecasting.plan.greedy import greedy
from forecasting.plan.lp import solve
from forecasting.plan.mix import FILL, Answer, Mix
from forecasting.plan.need import SHORT_S, reached, surging
from forecasting.plan.rates import Rates
from forecasting.plan.reason import reason
from forecasting.plan.reserve import Reserve
from forecasting.plan.site import Key, Law, Site, declared, site
from forecasting.plan.situation import Situation, situation, step
from forecasting.plan.steady import DOWN_S, Steady
from forecasting.spot.watch import Watch
from streams import signals
from streams.contract.errors import TradewindError
from streams.contract.records import CapacityPlan, Fleet
from streams.contract.topics import CAPACITY_PLAN, DEMAND
from streams.runtime.step import Heard, Question

DEAF_S: Final = 120.0
"""Nobody having spoken of demand for so long, nothing is let go."""
ASK_S: Final = 1.0
AGAIN_S: Final = 300.0
"""The programme is asked again after so long, whatever has changed."""
SAME: Final = 0.02
"""Demand and prices that moved by less ask nothing anew: replicas are whole, and headroom is wider."""


@dataclass(slots=True)
class PlanState:
    """What was heard, asked and planned."""

    watch: Watch = field(default_factory=Watch)
    facts: Facts = field(default_factory=Facts)
    rates: Rates = field(default_factory=Rates)
    reserve: Reserve = field(default_factory=Reserve)
    plans: dict[str, CapacityPlan] = field(default_factory=dict)
    """In force, by pool."""
    site: Site | None = None
    tried: Fleet | None = None
    """The fleet that `site` is of, or that could not be planned for."""
    began_at_s: float | None = None
    steady: Steady = field(default_factory=Steady)
    alarms: frozenset[str] = frozenset()
    surging: dict[int, int] = field(default_factory=dict)
    """Flow to the step of its surge."""
    method: str = ""
    serial: int = 0
    ask: Mix | None = None
    asked: Mix | None = None
    """Under way, or answered last."""
    asked_at_s: float = float("-inf")
    answer: Answer | None = None
    urgent: bool = False
    say: tuple[CapacityPlan, ...] = ()
    say_at_s: float = float("-inf")


class PlanCapacity:
    """The stage. `law` says who may use what; a late second costs `usd_per_s`; replicas are to be `fill` full."""

    def __init__(
        self, law: Law = declared, *, usd_per_s: float = 0.001, carbon_usd_per_kg: float = 0.1, fill: float = FILL
    ) -> None:
        self.law, self.usd_per_s, self.carbon_usd_per_kg, self.fill = law, usd_per_s, carbon_usd_per_kg, fill

    def empty(self) -> PlanState:
        """Nothing was heard."""
        return PlanState()

    def fold(self, state: PlanState, heard: Heard[Any]) -> PlanState:
        """Take words in. Plans heard are those in force, whoever made them, until this stage makes its own."""
        state.urgent = False
        if heard.topic == DEMAND.name:
            for said, stamp_s in zip(heard.records, heard.stamps_s.tolist(), strict=True):
                state.rates.fold(said, stamp_s)
            state.urgent = self._surges(state)
            return state
        if heard.topic == CAPACITY_PLAN.name and state.began_at_s is None:
            for plan in heard.records:
                _hear(state, plan)
        lost, gone = state.watch.fold(heard), state.facts.fold(heard)
        state.urgent = lost or gone
        return state

    def advance(self, state: PlanState, now_s: float) -> PlanState:
        """Plan."""
        state.watch.advance(now_s)
        state.facts.advance(now_s)
        self._settle_site(state)
        if state.site is None or not state.site.planned.any():
            return state
        if state.began_at_s is None:
            state.began_at_s = now_s
        state.reserve.learn(state.rates.take_toll(), _budgets(state.site))
        now = self._now(state, state.site, now_s)
        if (decided := _decided(state, now)) is not None:
            state.method = decided.method
            state.steady.add(now.site, decided, now_s)
        state.say, state.say_at_s = tuple(_plans(state, now, now_s)), now_s
        for plan in state.say:
            state.plans[plan.pool] = plan
            signals.event("capacity_planned", pool=plan.pool, want=plan.want, have=plan.have, reason=plan.reason)
        _wonder(state, now.mix, now_s)
        return state

    def urgent(self, state: PlanState) -> bool:
        """Losses, notices, a fallen endpoint, an operator's drain, a surge that begins."""
        return state.urgent

    def view(self, state: PlanState, now_s: float) -> Iterable[CapacityPlan]:
        """The plans that changed."""
        return state.say if now_s == state.say_at_s else ()

    def question(self, state: PlanState) -> Question | None:
        """The programme over the last situation, when it differs from the one solved last."""
        if state.ask is None:
            return None
        state.asked, state.ask = state.ask, None
        return Question(solve, (state.asked,))

    def answer(self, state: PlanState, answer: Answer) -> PlanState:
        """The state that knows an answer; of use if nothing else was asked meanwhile."""
        state.answer = answer
        signals.SOLVE_S.labels("capacity").observe(answer.solve_s)
        return state

    def _settle_site(self, state: PlanState) -> None:
        """Plan for the fleet in force. Where its law cannot be told nothing is planned: the plans in force stay."""
        fleet = state.watch.fleet
        if fleet is None or fleet is state.tried:
            return
        state.tried, state.site = fleet, None
        state.ask = state.asked = state.answer = None
        try:
            state.site = site(fleet, self.law, self.usd_per_s)
        except (TradewindError, ValueError, LookupError) as error:
            signals.event("fleet_not_planned", "error", version=fleet.version, reason=str(error))
            return
        state.alarms = frozenset()
        state.steady.keep(state.site)

    def _now(self, state: PlanState, site: Site, now_s: float) -> Situation:
        return situation(
            site,
            state.watch,
            state.facts,
            state.rates,
            state.plans,
            reserve=state.reserve.part,
            fill=self.fill,
            carbon_usd_per_kg=self.carbon_usd_per_kg,
            now_s=now_s,
        )

    def _surges(self, state: PlanState) -> bool:
        """Whether a flow surges that did not, or a surge has grown."""
        if state.site is None or not state.rates.settled:
            return False
        back = min(60 + SHORT_S, state.rates.known_s)
        seconds = state.rates.seconds([flow.key for flow in state.site.flows], back)
        last, busiest = state.surging, reached(seconds)
        state.surging = {n: step(busiest[n]) for n in np.flatnonzero(surging(seconds)).tolist()}
        return any(height > last.get(n, -1) for n, height in state.surging.items())


def _budgets(where: Site) -> dict[Key, float]:
    """Of the flows that reserves are for: what gives way for others has none."""
    budget_of = {service.name: service.error_budget for service in where.fleet.services}
    flows = zip(where.flows, where.ballast.tolist(), strict=True)
    return {flow.key: budget_of[flow.service] for flow, gives_way in flows if not gives_way}


def _hear(state: PlanState, plan: CapacityPlan) -> None:
    known = state.plans.get(plan.pool)
    if known is None or plan.made_at_s >= known.made_at_s:
        state.plans[plan.pool] = plan
        newest = max(state.plans.values(), key=lambda p: (p.made_at_s, p.pool))
        state.reserve.part = newest.reserve


def _decided(state: PlanState, now: Situation) -> Answer | None:
    """What to go by from now on: greedy at an alarm and at first, else the programme's answer to the last question;
    None: what was decided last. An answer that is a little old takes nothing away at once: see `DOWN_S`."""
    new, answer = now.alarms - state.alarms, state.answer
    state.alarms, state.answer = now.alarms, None
    if new or not state.steady.decided:
        state.asked = None
        return greedy(now.mix)
    fits = answer is not None and state.asked is not None and answer.serial == state.asked.serial
    return answer if fits else None


def _wonder(state: PlanState, mix: Mix, now_s: float) -> None:
    """Ask the programme when the situation has moved since it was asked last, or that was long ago."""
    if now_s < state.asked_at_s + ASK_S:
        return
    if state.asked is None or now_s >= state.asked_at_s + AGAIN_S or not _alike(state.asked, mix):
        state.serial += 1
        state.ask, state.asked_at_s = replace(mix, serial=state.serial), now_s


def _alike(one: Mix, other: Mix) -> bool:
    """Whether two questions differ so little that their answers would not."""
    if not np.array_equal(one.may, other.may):
        return False
    exact, close = ("ready", "starting", "least", "most"), ("now", "ahead", "unsure", "usd_per_h")
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in exact) and all(
        np.allclose(getattr(one, name), getattr(other, name), rtol=SAME, atol=1e-3) for name in close
    )


def _plans(state: PlanState, now: Situation, now_s: float) -> Iterable[CapacityPlan]:
    """Of each pool that is planned, when it differs from the one in force, or replicas of it went.

    What was needed is not known for DOWN_S after the start, nor when nobody speaks of demand.
    """
    newest, began_s = state.rates.newest, state.began_at_s or now_s
    blind = newest is None or now_s > newest + DEAF_S or now_s < began_s + DOWN_S
    wants = state.steady.wants(now, state.plans, now_s, blind=blind)
    for pool, rows in now.site.rows_of.items():
        want, have, held = round(float(wants[rows].sum())), now.stocks[pool].ready, state.plans.get(pool)
        went = held is not None and have < min(held.have, want)
        if now.site.planned[rows].any() and (held is None or held.want != want or went):
            yield CapacityPlan(
                pool=pool,
                plan_id=_plan_id(pool, want, have),
                made_at_s=now_s,
                want=want,
                have=have,
                not_before_s=now_s,
                reason=reason(now, pool, want, state.method),
                reserve=round(state.reserve.part, 4),
            )


def _plan_id(pool: str, want: int, have: int) -> str:
    """Equal content, equal id.

    >>> _plan_id("aws/eu/eu-a/g6/spot", 3, 2) == _plan_id("aws/eu/eu-a/g6/spot", 3, 2)
    True
    """
    return f"{want}-{blake2b(f'{pool} {want} {have}'.encode(), digest_size=8).hexdigest()}"
