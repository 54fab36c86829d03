"""The parts of the world, each by itself: demand, series, replicas, what is told, the length of steps, work, law."""

from __future__ import annotations

from math import inf
from typing import Any

import msgspec
import numpy as np
import pytest

from streams.contract.records import (
    Capacity,
    CapacityPlan,
    CarbonIntensity,
    Interruption,
    Origin,
    Policy,
    Release,
    RequestClass,
    Rule,
    SpotPrice,
)
from tests.replay.small_world import START_S, endpoint, fleet
from tradewind.world.demand import Arrivals, ByMinute, Curve, Curves, Surge
from tradewind.world.engine import Span, longer
from tradewind.world.ground import ground
from tradewind.world.law import forbidden
from tradewind.world.market import Market
from tradewind.world.pace import Pace
from tradewind.world.replicas import DRAIN_S, Lending, Replicas
from tradewind.world.series import Series, Stretch, steady, stretched
from tradewind.world.work import ANSWER_S, Load, Work


def rng(seed: int = 1) -> np.random.Generator:
    return np.random.default_rng(seed)


# ---------------------------------------------------------------- demand


def curves(**more: Any) -> Curves:
    told: dict[str, Any] = {"mean_rps": 50.0, "swing": 0.5, "peak_s": 14 * 3600.0, "noise": 0.1}
    return Curves(2, [Curve(0, **(told | more))], [Surge((0,), START_S + 600, START_S + 1200, 3.0, 60.0)], START_S,
                  86_400.0, rng())  # fmt: skip


def test_what_arrives_in_a_second_does_not_depend_on_how_steps_are_cut() -> None:
    fine, coarse = (Arrivals(curves(), START_S, rng(5)) for _ in range(2))
    seconds = [fine.between(START_S + n, START_S + n + 1) for n in range(3590, 3650)]
    assert np.sum(seconds, axis=0).tolist() == coarse.between(START_S + 3590, START_S + 3650).tolist()
    assert seconds[0][1] == 0, "a flow without a curve asks nothing"


def test_a_day_has_its_crest_where_it_is_said_and_a_surge_on_top_of_it() -> None:
    hours = START_S + np.arange(24.0) * 3600.0 + 1800.0
    rps = curves(noise=0.0).rps(hours)[0]
    assert int(rps.argmax()) in (13, 14)
    assert rps.max() == pytest.approx(75.0, rel=0.01)
    before, during, after = curves(noise=0.0).rps(START_S + np.array([599.0, 900.0, 1300.0]))[0]
    assert during / before == pytest.approx(3.0, rel=0.02)
    assert after == pytest.approx(before, rel=0.05)


def test_noise_changes_no_mean() -> None:
    rps = curves(noise=0.3, swing=0.0).rps(START_S + 1800.0 + np.arange(0, 80_000, 60.0))[0]
    assert rps.mean() == pytest.approx(50.0, rel=0.1)
    assert rps.std() > 5.0


def test_a_recorded_demand_is_on_a_line_between_its_minutes() -> None:
    recorded = ByMinute(np.array([[0.0, 60.0], [5.0, 5.0]]), START_S)
    assert recorded.rps(np.array([START_S + 30.0, START_S + 900.0])).tolist() == [[30.0, 60.0], [5.0, 5.0]]


# ---------------------------------------------------------------- series, market


def test_stretches_change_a_series_only_while_they_last() -> None:
    series = stretched(steady(2.0), [Stretch(10.0, 20.0, factor=3.0), Stretch(15.0, 30.0, most=4.0)])
    assert [series.at(at_s) for at_s in (0.0, 10.0, 15.0, 20.0, 30.0)] == [2.0, 6.0, 4.0, 2.0, 2.0]


@pytest.mark.parametrize(("at_s", "values"), [((), ()), ((0.0, 0.0), (1.0, 2.0)), ((0.0,), (1.0, 2.0))])
def test_a_series_that_does_not_grow_is_refused(at_s: tuple[float, ...], values: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="times that grow"):
        Series(at_s, values)


def market() -> Market:
    price = {0: stretched(steady(0.9), [Stretch(START_S + 600.0, START_S + 5000.0, factor=2.0)])}
    return Market(ground(fleet([endpoint("eu-west", "a", grid_zone="IE")])), rng(), price, {"IE": steady(300.0)})


def test_prices_are_told_when_they_change_and_each_hour() -> None:
    told = [(at_s - START_S, r) for at_s, r in market().told(START_S, START_S + 7200.0) if isinstance(r, SpotPrice)]
    assert [(at_s, r.price_usd_per_h) for at_s, r in sorted(told, key=lambda one: one[0])] == [
        (0.0, 0.9), (600.0, 1.8), (3600.0, 1.8), (5000.0, 0.9)]  # fmt: skip


def test_carbon_is_told_as_measured_and_as_forecast_for_a_day_ahead() -> None:
    told = [r for _, r in market().told(START_S, START_S + 1800.0) if isinstance(r, CarbonIntensity)]
    measured = [r for r in told if r.basis == "measured"]
    ahead = [r for r in told if r.basis == "forecast"]
    assert [r.carbon_g_per_kwh for r in measured] == [300.0]
    assert len(ahead) == 24
    assert ahead[0].valid_from_s == START_S + 3600.0
    assert all(r.carbon_g_per_kwh == pytest.approx(300.0, rel=0.4) for r in ahead)
    assert market().usd_per_h(START_S + 700.0).tolist() == [1.8]


# ---------------------------------------------------------------- replicas


def replicas(lending: Lending | None = None, **more: Any) -> Replicas:
    there = ground(fleet([endpoint("eu-west", "b", **more)]))
    return Replicas(there, {} if lending is None else {0: lending}, rng())


def plan(want: int, not_before_s: float = START_S) -> CapacityPlan:
    return CapacityPlan(pool="aws/eu-west/eu-west-b/g6.xlarge/spot", plan_id=f"p{want}", made_at_s=START_S, want=want,
                        have=2, not_before_s=not_before_s, reason="more is expected")  # fmt: skip


def test_a_plan_is_obeyed_from_its_time_on_and_replicas_are_ready_a_cold_start_later() -> None:
    of = replicas()
    of.obey(plan(4, START_S + 100.0))
    for at_s in range(0, 100, 10):
        of.advance(START_S + at_s)
    assert (of.pools[0].ready, of.pools[0].starting) == (2, [])
    of.advance(START_S + 100.0)
    ready_s = list(of.pools[0].starting)
    assert len(ready_s) == 2
    assert of.pools[0].billed == 4, "what starts is paid for"
    assert all(30.0 < at_s - START_S - 100.0 < 120.0 for at_s in ready_s)
    assert of.next_s(START_S + 100.0) == min(ready_s)
    of.advance(max(ready_s))
    assert (of.pools[0].ready, of.pools[0].starting) == (4, [])


def test_a_plan_is_kept_within_an_endpoints_limits_and_receipted() -> None:
    of = replicas(least_replicas=1, most_replicas=3)
    assert [c.ready for c in of.capacity(START_S)] == [2]
    of.obey(plan(9))
    of.advance(START_S)
    assert len(of.pools[0].starting) == 1
    of.obey(plan(0))
    of.advance(START_S + 1.0)
    assert (of.pools[0].ready, of.pools[0].starting) == (1, []), "who starts is called off first"
    (said,) = of.capacity(START_S + 1.0)
    assert isinstance(said, Capacity)
    assert (said.ready, said.starting, said.plan_id) == (1, 0, "p0")
    assert list(of.capacity(START_S + 2.0)) == [], "nothing new is not said again"


def test_who_is_not_wanted_any_more_drains_and_is_paid_for_until_then() -> None:
    of = replicas()
    of.obey(plan(1))
    of.advance(START_S)
    assert (of.pools[0].ready, of.pools[0].billed) == (1, 2)
    of.advance(START_S + DRAIN_S)
    assert of.pools[0].billed == 1


def test_a_lost_zone_gives_notice_takes_all_and_lends_again() -> None:
    most = stretched(steady(inf), [Stretch(START_S + 300.0, START_S + 600.0, most=0.0)])
    of = replicas(Lending(most, notice_s=120.0))
    ((at_s, notice),) = of.notices(START_S, START_S + 300.0)
    assert isinstance(notice, Interruption)
    assert (at_s, notice.deadline_at_s) == (START_S + 180.0, START_S + 300.0)
    of.advance(START_S + 299.0)
    assert of.pools[0].ready == 2
    of.advance(START_S + 300.0)
    assert of.pools[0].billed == 0
    for n in range(0, 300, 10):
        of.advance(START_S + 300.0 + n)
    assert of.pools[0].failed == 5, "a launch is tried again each minute"
    of.advance(START_S + 600.0)
    assert len(of.pools[0].starting) == 2


def test_cold_starts_are_measured_once_there_were_some() -> None:
    of = replicas(most_replicas=20)
    assert of.pools[0].measured_s() is None
    of.obey(plan(12))
    of.advance(START_S)
    measured = of.pools[0].measured_s()
    assert measured is not None
    assert 60.0 < measured < 110.0


# ---------------------------------------------------------------- pace


def test_steps_are_short_after_something_happened_and_longer_by_and_by() -> None:
    pace, at_s, steps = Pace([START_S + 1000.0], START_S), START_S, []
    while at_s < START_S + 1100.0:
        steps.append(pace.step_s(at_s))
        at_s += steps[-1]
    assert steps[:10] == [1] * 10
    assert 60 in steps
    assert sum(steps) == 1100
    reached = np.cumsum(steps).tolist()
    assert 1000 in reached, "no step goes beyond what is known to happen"
    assert steps[reached.index(1000) + 1] == 1


def test_steps_lie_on_multiples_of_themselves_and_end_where_something_is_due() -> None:
    pace = Pace([], START_S - 10_000.0)
    assert pace.step_s(START_S) == 60
    assert pace.step_s(START_S + 20.0) == 20
    assert pace.step_s(START_S + 7.0) == 1
    assert pace.step_s(START_S, START_S + 22.5) == 20
    assert pace.step_s(START_S, START_S + 0.2) == 1
    assert pace.step_s(START_S, strained=True) == 5
    pace.disturb(START_S)
    assert pace.step_s(START_S) == 1


# ---------------------------------------------------------------- work


def work(**more: Any) -> Work:
    told: dict[str, Any] = {
        "job": "j", "flow": 0, "requests": 600, "submitted_at_s": START_S, "deadline_at_s": START_S + 3600.0,
        "rps": 10.0,
    }  # fmt: skip
    return Work(ground(fleet()), [Load(**(told | more))])


def sent(of: Work, from_s: int, until_s: int, every_s: int = 10) -> list[int]:
    """What is sent step by step."""
    steps = [Span(START_S + n, START_S + n + every_s) for n in range(from_s, until_s, every_s)]
    return [sum(count for due in of.due(step).values() for _, count in due) for step in steps]


def release(now_s: float, *, released: bool) -> Release:
    return Release(
        job="j", service="chat", made_at_s=now_s, release_at_s=now_s, released=released, usd_per_request=1e-5,
        now_usd_per_request=2e-5, reason="cheaper at night",
    )  # fmt: skip


def test_a_job_that_nobody_answers_is_begun_at_once() -> None:
    of = work()
    first = sent(of, 0, 300)
    assert first[: int(ANSWER_S) // 10] == [0] * 12
    assert sum(first) == 600
    assert of.jobs["j"].begun == "unanswered"


def test_a_job_waits_for_the_word_and_is_sent_at_its_own_rate() -> None:
    of = work()
    of.hear(release(START_S, released=False), START_S)
    assert sum(sent(of, 0, 1000)) == 0
    of.hear(release(START_S + 1000.0, released=True), START_S + 1000.0)
    assert sent(of, 1000, 1060) == [100] * 6
    assert of.jobs["j"].begun == "released"


def test_a_job_that_could_not_be_done_any_later_begins_without_the_word() -> None:
    of = work()
    of.hear(release(START_S, released=False), START_S)
    assert sum(sent(of, 0, 3500)) == 0
    assert sum(sent(of, 3500, 3600)) == 600
    assert of.jobs["j"].begun == "last moment"


# ---------------------------------------------------------------- law


def may(policy: Policy | None, **more: Any) -> bool:
    class_ = RequestClass(name="private", slo_p95_ms=300.0, data_class="personal", tenant="acme")
    origin = Origin(name="europe", jurisdiction="DE", rtt_ms={})
    end = endpoint("eu-west", "a", **more)
    return forbidden([policy] if policy else [], "chat", origin, class_, end) is None


def rules(*of: Rule, default: Any = "allow") -> Policy:
    return Policy(name="p", default=default, rules=of)


def test_the_second_reading_of_the_law_knows_services_and_jurisdictions() -> None:
    assert may(None)
    assert not may(None, services=("image",))
    american = RequestClass(name="c", slo_p95_ms=1.0, jurisdictions=("US",))
    origin = Origin(name="o", jurisdiction="US", rtt_ms={})
    assert forbidden([], "chat", origin, american, endpoint("eu-west", "a"))
    assert not forbidden([], "chat", origin, american, endpoint("us-east", "a"))


def test_denial_wins_requirements_bind_and_the_default_closes() -> None:
    deny = Rule(id="d", deny={"market": ("on_demand",)})
    require = Rule(id="r", when={"data_class": ("personal",)}, require={"country": ("IE", "SE"), "place": ("cloud",)})
    allow = Rule(id="a", allow={"provider": ("aws",)})
    assert not may(rules(allow, deny))
    assert may(rules(require))
    assert not may(rules(require), edge=True)
    assert may(rules(allow, default="deny"))
    assert not may(rules(Rule(id="a", allow={"provider": ("gcp",)}), default="deny"))
    assert not may(rules(default="deny"))


def test_a_rule_concerns_whom_it_names_and_not_whom_it_spares() -> None:
    deny = Rule(id="d", when={"origin_country": ("DE",)}, unless={"tenant": ("acme",), "tier": ("standard",)},
                deny={"provider": ("aws",)})  # fmt: skip
    assert may(rules(deny)), "spared, whole"
    assert not may(rules(msgspec.structs.replace(deny, unless={"tenant": ("acme",), "tier": ("premium",)})))
    assert may(rules(msgspec.structs.replace(deny, when={"origin_country": ("US",)}, unless={})))
    assert not may(rules(Rule(id="c", require={"certificate": ("pci-dss",)})))
    assert may(rules(Rule(id="c", require={"certificate": ("pci-dss",)})), certificates=("iso-27001", "pci-dss"))


def test_the_share_of_slow_answers_follows_the_lognormal() -> None:
    drawn = 100.0 * np.exp(0.25 * rng().standard_normal(200_000))
    for limit in (90.0, 120.0, 160.0):
        assert longer(100.0, limit) == pytest.approx(float((drawn > limit).mean()), abs=0.005)
