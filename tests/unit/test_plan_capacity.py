"""The capacity plan as a stage: alarms, benches, clamps, what is kept and what is let go, in words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import pytest

from forecasting.capacity import AGAIN_S, ASK_S, DEAF_S, PlanCapacity, PlanState
from forecasting.flow import steps
from forecasting.plan.facts import FORGET_S, LEAVES_S
from forecasting.plan.site import Law, declared
from forecasting.plan.situation import BENCH_S
from forecasting.plan.steady import DOWN_S
from streams.contract import records as r
from streams.contract import topics as t
from streams.runtime.batch import Batch, Message
from streams.runtime.step import Heard, Question
from streams.settings import load
from tests.replay.pools import endpoint, fleet

T0 = 1_763_938_800.0
OD = (endpoint("a", zone="eu-1a"), endpoint("b", zone="eu-1b", price_usd_per_h=1.1))
SPOT = tuple(endpoint(f"s{n}", market="spot", zone=f"eu-1{n}") for n in "abcd")


def heard(records: Sequence[msgspec.Struct], at_s: float, tombs: Sequence[str] = ()) -> Heard[Any]:
    topic = t.TOPIC_OF[type(records[0])] if records else t.ORDERS
    stamp = int((T0 + at_s) * 1000)
    said = [Message(n, stamp, topic.key_of(one).encode(), b"{}") for n, one in enumerate(records)]
    gone = [Message(len(said) + n, stamp, key.encode(), None) for n, key in enumerate(tombs)]
    return Heard(Batch(topic.name, 0, [*said, *gone]), np.arange(len(said)), list(records))


class Scene:
    """A stage and its state; seconds count from T0. Questions are answered only where a test says so."""

    def __init__(self, made: r.Fleet, law: Law = declared, rps: float | None = 40.0, **ready: int) -> None:
        self.stage = PlanCapacity(law, fill=1.0)
        self.state: PlanState = self.stage.empty()
        self.pool = {e.name: e.pool for e in made.endpoints}
        self.urgent = False
        self.hears(made)
        if rps is not None:
            self.demand(-200, 0, rps)
        for name, number in ready.items():
            self.saw(name, number, 0.0)

    def hears(self, *records: msgspec.Struct, at_s: float = 0.0, tombs: Sequence[str] = ()) -> Scene:
        self.state = self.stage.fold(self.state, heard(records, at_s, tombs))
        self.urgent = self.stage.urgent(self.state)
        return self

    def saw(self, name: str, ready: int, at_s: float, **more: Any) -> Scene:
        return self.hears(r.Capacity(pool=self.pool[name], at_s=T0 + at_s, ready=ready, **more), at_s=at_s)

    def demand(self, since_s: int, until_s: int, rps: float, class_: str = "interactive", shed: int = 0) -> Scene:
        return self.hears(*(
            r.Demand(source="0", at_s=T0 + n, service=("chat",), origin=("eu",), class_=(class_,), arrived=(int(rps),),
                     admitted=(int(rps) - shed,), shed=(shed,), failed=(0,))
            for n in range(since_s, until_s)
        ), at_s=until_s)  # fmt: skip

    def plans(self, now_s: float) -> dict[str, r.CapacityPlan]:
        self.state = self.stage.advance(self.state, T0 + now_s)
        names = {pool: name for name, pool in self.pool.items()}
        return {names[plan.pool]: plan for plan in self.stage.view(self.state, T0 + now_s)}

    def answers(self, now_s: float) -> dict[str, r.CapacityPlan]:
        """What is planned once the question under way is answered."""
        question = self.stage.question(self.state)
        assert question is not None
        self.state = self.stage.answer(self.state, question.ask(*question.given))
        return self.plans(now_s)

    def wants(self) -> dict[str, int]:
        names = {pool: name for name, pool in self.pool.items()}
        return {names[pool]: plan.want for pool, plan in self.state.plans.items()}


# ---------------------------------------------------------------- what is planned


def test_every_pool_that_may_be_planned_has_a_plan_at_first() -> None:
    fixed = msgspec.structs.replace(endpoint("c"), most_replicas=None, replicas=1)
    plans = Scene(fleet([*OD, fixed]), a=2).plans(1.0)
    # four are needed, and a part of demand that nobody has forecast: one is declared, two stand
    assert {name: (plan.want, plan.have) for name, plan in plans.items()} == {"a": (4, 2), "b": (0, 0)}
    assert "40 requests/s may come here now, 40 in 180 s, by the recent peak" in plans["a"].reason
    assert plans["a"].not_before_s == plans["a"].made_at_s == T0 + 1


def test_a_fleet_without_clamps_is_not_planned_for() -> None:
    scene = Scene(fleet([endpoint("a", most_replicas=None, replicas=3)]))
    assert scene.plans(1.0) == {}
    assert scene.stage.question(scene.state) is None


def test_equal_content_has_an_equal_id_and_other_content_another() -> None:
    first, same = (Scene(fleet(OD), a=2).plans(1.0)["a"] for _ in range(2))
    other = Scene(fleet(OD), a=3).plans(1.0)["a"]
    assert first.plan_id == same.plan_id
    assert other.plan_id != first.plan_id


def test_a_plan_that_stays_is_not_said_again() -> None:
    scene = Scene(fleet(OD), a=5)
    scene.plans(1.0)
    assert scene.answers(1.1) == {}
    assert scene.demand(0, 10, 40).plans(11.0) == {}


def test_what_an_actuator_launches_is_waited_for_and_what_nobody_launches_is_not() -> None:
    scene = Scene(fleet(OD), a=2, b=0)
    scene.plans(1.0)
    scene.saw("a", 2, 2.0, starting=3, plan_id="x")
    assert scene.answers(2.0) == {}
    assert scene.wants() == {"a": 5, "b": 0}


def test_the_measured_cold_start_is_looked_ahead_by() -> None:
    scene = Scene(fleet(OD), a=5).saw("a", 5, 1.0, cold_start_s=45.0)
    horizons = tuple(r.Horizon(ahead_s=s, rps={"0.5": rps, "0.95": rps}) for s, rps in ((60.0, 40.0), (300.0, 90.0)))
    scene.hears(r.DemandForecast(
        service="chat", origin="eu", class_="interactive", made_at_s=T0, model="m", horizons=horizons,
    ))  # fmt: skip
    assert scene.plans(1.0)["a"].want == 9, "b still takes three minutes"
    scene.saw("b", 0, 2.0, cold_start_s=45.0)
    assert "in 45 s" in scene.plans(400.0)["a"].reason if scene.plans(400.0) else True
    assert scene.state.plans[scene.pool["a"]].want == 9, "nothing is let go at once"


def test_law_of_the_roof_is_asked_and_where_it_fails_plans_stay_as_they_are() -> None:
    def law(made: r.Fleet) -> Any:
        if made.version > 1:
            raise ValueError("no such country")
        return np.array([[False, True]])

    scene = Scene(fleet(OD), law, a=5)
    assert {name: plan.want for name, plan in scene.plans(1.0).items()} == {"a": 5, "b": 5}
    scene.hears(fleet([OD[0]], version=2))
    assert scene.plans(2.0) == {}
    assert scene.wants() == {"a": 5, "b": 5}
    assert scene.stage.question(scene.state) is None


# ---------------------------------------------------------------- up at once, down slowly


def test_a_surge_is_urgent_and_planned_for_at_once_without_a_cap() -> None:
    scene = Scene(fleet(OD), a=5)
    scene.plans(1.0)
    scene.demand(0, 10, 40).demand(10, 13, 400)
    assert scene.urgent
    plan = scene.plans(13.0)["a"]
    assert plan.want >= 40
    assert "a surge is under way" in plan.reason
    assert "greedy" in plan.reason


def test_a_surge_half_a_minute_after_the_first_word_is_urgent_too() -> None:
    scene = Scene(fleet(OD), rps=None, a=5)
    scene.plans(1.0)
    scene.demand(0, 30, 40)
    assert not scene.urgent
    scene.plans(30.0)
    scene.demand(30, 33, 400)
    assert scene.urgent
    assert scene.plans(33.0)["a"].want >= 40


def test_what_was_needed_within_five_minutes_is_kept_and_then_let_go() -> None:
    scene = Scene(fleet(OD), a=10, b=0)
    scene.plans(1.0)
    scene.answers(1.1)
    for now_s in range(10, int(DOWN_S), 10):
        scene.demand(now_s - 10, now_s, 40)
        assert scene.plans(float(now_s)) == {}
    scene.demand(int(DOWN_S) - 10, int(DOWN_S) + 2, 40)
    assert scene.plans(DOWN_S + 2.0)["a"].want == 5


def test_where_nobody_speaks_of_demand_nothing_is_let_go() -> None:
    scene = Scene(fleet(OD), a=10)
    scene.plans(1.0)
    scene.answers(1.1)
    scene.saw("a", 10, DOWN_S + DEAF_S)
    assert scene.plans(DOWN_S + DEAF_S + 1.0) == {}


def test_a_worker_that_starts_anew_takes_nothing_away_and_keeps_the_reserve() -> None:
    held = r.CapacityPlan(
        pool=OD[0].pool, plan_id="x", made_at_s=T0 - 60, want=12, have=9, not_before_s=T0 - 60, reason="", reserve=1.4
    )
    scene = Scene(fleet(OD), a=9).hears(held)
    assert scene.plans(1.0).keys() == {"b"}
    assert scene.wants()["a"] == 12
    assert scene.state.reserve.part == pytest.approx(1.4, abs=0.01)


def test_what_was_shed_raises_the_reserve() -> None:
    scene = Scene(fleet(OD), a=5)
    scene.plans(1.0)
    before = scene.state.reserve.part
    scene.demand(0, 140, 40, shed=20).plans(141.0)
    assert scene.state.reserve.part > before


# ---------------------------------------------------------------- who is not counted on


def row(name: str, verdict: r.Verdict, at_s: float) -> r.EndpointHealth:
    return r.EndpointHealth(
        source="0", made_at_s=T0 + at_s, endpoint=(name,), service=("chat",), class_=("interactive",),
        verdict=(verdict,), reason=("",), observations=(9,), rps=(1.0,), p50_ms=(1.0,), p95_ms=(1.0,), p99_ms=(1.0,),
        ttft_p95_ms=(None,), in_flight=(None,), queue=(None,), age_s=(0.0,), first_error_at_s=(None,),
        last_ok_at_s=(None,),
    )  # fmt: skip


def test_a_fallen_endpoint_is_replaced_at_once_and_keeps_its_plan() -> None:
    scene = Scene(fleet(OD), a=5)
    scene.plans(1.0)
    scene.hears(row("a", "down", 2.0), at_s=2.0)
    assert scene.urgent
    plans = scene.plans(2.0)
    assert {name: plan.want for name, plan in plans.items()} == {"b": 5}
    assert scene.wants() == {"a": 5, "b": 5}
    scene.hears(row("a", "silent", 3.0), at_s=3.0)
    assert not scene.urgent
    scene.plans(3.0)
    assert "a" in scene.state.facts.down, "silence is no recovery"
    scene.hears(row("a", "up", 4.0), at_s=4.0).plans(4.0)
    assert scene.state.facts.down == {}


def test_the_fallen_that_nobody_speaks_of_are_counted_on_again() -> None:
    scene = Scene(fleet(OD), a=5).hears(row("a", "down", 2.0), at_s=2.0)
    scene.plans(3.0)
    scene.plans(3.0 + FORGET_S)
    assert scene.state.facts.down == {}


def test_where_half_of_a_zone_is_down_the_zone_is() -> None:
    ends = [endpoint(name, zone="eu-1z", instance=name) for name in "abcd"] + [endpoint("e")]
    scene = Scene(fleet(ends), a=2, b=2, c=2, d=2)
    scene.plans(1.0)
    plans = scene.hears(row("a", "down", 2.0), row("b", "down", 2.0), at_s=2.0).plans(2.0)
    assert {name: plan.want for name, plan in plans.items()} == {"e": 5}
    assert "c is in a zone that is down" not in plans["e"].reason


def test_a_notice_is_urgent_and_what_leaves_is_replaced() -> None:
    scene = Scene(fleet(OD), a=5)
    scene.plans(1.0)
    notice = r.Interruption(endpoint="a", kind="maintenance", notice_at_s=T0 + 2, deadline_at_s=T0 + 122)
    scene.hears(notice, at_s=2.0)
    assert scene.urgent
    assert scene.plans(2.0)["b"].want == 5
    assert scene.hears(notice, at_s=3.0).plans(3.0) == {}
    # an actuator that reports of the time after the deadline knows who is left
    scene.saw("a", 5, 130.0)
    scene.plans(131.0)
    assert scene.state.facts.gone(scene.state.site, scene.state.watch.capacity, T0 + 131) == {}  # type: ignore[arg-type]


def test_advice_is_no_notice() -> None:
    scene = Scene(fleet(OD), a=5)
    scene.plans(1.0)
    scene.hears(r.Interruption(endpoint="a", kind="rebalance", notice_at_s=T0 + 2), at_s=2.0)
    assert scene.plans(2.0) == {}


def test_a_notice_without_an_actuator_is_over_after_a_while() -> None:
    scene = Scene(fleet([msgspec.structs.replace(OD[0], replicas=5), OD[1]]))
    scene.hears(r.Interruption(endpoint="a", kind="stop", notice_at_s=T0, deadline_at_s=T0 + 30))
    assert scene.plans(1.0)["b"].want == 5
    scene.plans(31.0 + LEAVES_S)
    assert scene.state.facts.leaving == {}


def test_a_notice_for_some_replicas_takes_out_those_alone() -> None:
    scene = Scene(fleet([msgspec.structs.replace(OD[0], replicas=5), OD[1]]))
    scene.plans(0.5)
    scene.hears(r.Interruption(endpoint="a", kind="stop", notice_at_s=T0, deadline_at_s=T0 + 30, replicas=1))
    assert scene.urgent
    assert scene.plans(1.0) == {}, "one of five goes: nobody launches five"
    site, capacity = scene.state.site, scene.state.watch.capacity
    assert site is not None
    assert scene.state.facts.gone(site, capacity, T0 + 1) == {}
    assert scene.state.facts.fewer(site, capacity, T0 + 1) == {"a": 1}
    scene.plans(31.0 + LEAVES_S)
    assert scene.state.facts.parts == {}


def test_what_an_operator_drains_is_replaced_until_a_tombstone_or_its_time_ends_that() -> None:
    scene = Scene(fleet(OD), a=5)
    scene.plans(1.0)
    scene.hears(r.Order(endpoint="a", drain=True, at_s=T0 + 2), at_s=2.0)
    assert scene.urgent
    plans = scene.plans(2.0)
    assert plans["b"].want == 5
    scene.hears(at_s=3.0, tombs=["a"])
    assert scene.state.facts.orders == {}
    scene.hears(r.Order(endpoint="a", drain=True, at_s=T0 + 4, until_s=T0 + 10), at_s=4.0)
    site, capacity = scene.state.site, scene.state.watch.capacity
    assert site is not None
    assert scene.state.facts.gone(site, capacity, T0 + 5) == {"a": "drained"}
    assert scene.state.facts.gone(site, capacity, T0 + 11) == {}


# ---------------------------------------------------------------- benches


def test_a_spot_pool_that_lost_replicas_gets_no_launch_then_one_then_all() -> None:
    scene = Scene(fleet(SPOT), sa=3, sb=3, sc=3, sd=3)
    scene.plans(1.0)
    scene.saw("sa", 0, 10.0)
    assert scene.urgent
    plans = scene.plans(10.0)
    assert plans["sa"].want == 0
    assert f"benched for {BENCH_S:.0f} s more: it lost replicas" in plans["sa"].reason
    assert sum(scene.wants().values()) >= 6
    assert max(scene.wants().values()) <= sum(scene.wants().values()) - 4
    scene.demand(0, 620, 200)
    for name in ("sa", "sb", "sc", "sd"):
        scene.saw(name, scene.wants()[name], 615.0)
    scene.plans(620.0)
    scene.answers(622.0)
    assert scene.wants()["sa"] <= 1, "one launch, to try"
    scene.saw("sa", 1, 640.0)
    scene.plans(650.0)
    scene.answers(651.0)
    assert scene.wants()["sa"] > 1


def test_a_pool_that_cannot_launch_is_benched_whatever_its_market() -> None:
    scene = Scene(fleet(OD), a=2, b=0)
    assert scene.plans(1.0)["a"].want == 5
    scene.saw("a", 2, 5.0, failed=3)
    assert scene.urgent
    scene.plans(5.0)
    plans = scene.answers(6.0)
    assert scene.wants()["b"] >= 3
    assert "a launch failed" in {**scene.state.plans, **plans}[scene.pool["a"]].reason


def test_an_on_demand_pool_that_lost_replicas_is_not_benched() -> None:
    scene = Scene(fleet(OD), a=5)
    scene.plans(1.0)
    plan = scene.saw("a", 3, 10.0).plans(10.0)["a"]
    assert (plan.want, plan.have) == (5, 3)


def test_clamps_hold_whatever_was_decided() -> None:
    ends = [endpoint("a", least_replicas=2, most_replicas=3), endpoint("b", least_replicas=1, most_replicas=2)]
    scene = Scene(fleet(ends), rps=900.0, a=9, b=0)
    assert {name: plan.want for name, plan in scene.plans(1.0).items()} == {"a": 3, "b": 2}
    low = Scene(fleet(ends), rps=0.0, a=0, b=0)
    assert {name: plan.want for name, plan in low.plans(1.0).items()} == {"a": 2, "b": 1}


# ---------------------------------------------------------------- money


def test_a_dearer_price_or_dirtier_power_moves_what_is_launched() -> None:
    def asked(*words: msgspec.Struct) -> list[float]:
        ends = [endpoint("a", power_w=1000.0, grid_zone="DE"), endpoint("b", price_usd_per_h=1.01)]
        scene = Scene(fleet(ends))
        for word in words:
            scene.hears(word)
        scene.plans(1.0)
        assert scene.state.ask is not None
        return scene.state.ask.usd_per_h.tolist()

    pool = OD[0].pool
    price = r.SpotPrice(pool=endpoint("a").pool, price_usd_per_h=2.0, effective_at_s=T0, observed_at_s=T0)
    carbon = r.CarbonIntensity(
        grid_zone="DE", kind="average", basis="measured", carbon_g_per_kwh=400, valid_from_s=T0, valid_until_s=T0 + 9
    )
    forecast = msgspec.structs.replace(carbon, basis="forecast", carbon_g_per_kwh=900)
    risk = r.SpotRisk(
        pool=endpoint("b").pool, made_at_s=T0, hazard_per_h=1, low_per_h=1, high_per_h=1, risk_usd_per_h=0.5
    )
    assert pool
    assert asked() == pytest.approx([1.0, 1.01])
    assert asked(price) == pytest.approx([2.0, 1.01])
    assert asked(carbon, forecast) == pytest.approx([1.04, 1.01])
    assert asked(risk) == pytest.approx([1.0, 1.51])


# ---------------------------------------------------------------- thinking


def test_the_programme_is_asked_when_something_moved_and_after_a_while() -> None:
    scene = Scene(fleet(OD), a=5)
    scene.plans(1.0)
    assert isinstance(scene.stage.question(scene.state), Question)
    assert scene.stage.question(scene.state) is None
    scene.plans(1.0 + ASK_S)
    assert scene.stage.question(scene.state) is None
    scene.demand(0, 20, 60).plans(20.0)
    assert scene.stage.question(scene.state) is not None
    scene.plans(20.0 + AGAIN_S)
    assert scene.stage.question(scene.state) is not None


def test_an_answer_to_another_question_is_of_no_use() -> None:
    scene = Scene(fleet(OD), a=5)
    scene.plans(1.0)
    question = scene.stage.question(scene.state)
    assert question is not None
    answer = question.ask(*question.given)
    scene.hears(row("a", "down", 2.0), at_s=2.0).plans(2.0)
    scene.state = scene.stage.answer(scene.state, answer)
    assert scene.plans(2.1) == {}
    assert scene.wants() == {"a": 5, "b": 5}


def test_what_it_reads_is_what_it_folds() -> None:
    (step,) = (step for step in steps(load()) if step.name == "plan")
    assert {reads.topic.name for reads in step.reads} == {
        topic.name
        for topic in (
            t.FLEET, t.ORDERS, t.DEMAND, t.DEMAND_FORECAST, t.ENDPOINT_HEALTH, t.SPOT_PRICES, t.CARBON_INTENSITY,
            t.INTERRUPTIONS, t.SPOT_RISK, t.CAPACITY, t.CAPACITY_PLAN,
        )
    }  # fmt: skip
