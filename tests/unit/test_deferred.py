"""Deferred work: it waits for a cheaper or greener hour where one is known, and is never late."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest

from router_sync.hours import HeardCosts
from router_sync.layout import layout
from router_sync.market import spare_rps
from router_sync.release import Slots, Wish
from streams.contract.records import CarbonIntensity, SpotPrice
from streams.contract.topics import CARBON_INTENSITY, DEFERRED, RELEASES
from tests.unit.deferred_world import NOON_S, H, Night, alone, carbon, green_fleet, job
from tests.unit.router_fleet import endpoint, fleet, request_class

DIRTY_THEN_GREEN = {0: 500.0, 1: 480.0, 2: 450.0, 3: 90.0, 4: 100.0, 5: 300.0, 6: 400.0}


def test_a_job_waits_for_the_greenest_hour_before_its_deadline_and_is_told_so_at_once() -> None:
    night = Night(green_fleet())
    night.say(*carbon(DIRTY_THEN_GREEN), job())
    night.until(0.001)
    [plan] = night.words()
    assert (plan.released, plan.release_at_s) == (False, NOON_S + 3 * H)
    assert plan.usd_per_request < plan.now_usd_per_request
    assert plan.reason == "18 % cheaper than at once; carbon by forecast"
    night.until(2.99)
    assert night.released_h() is None
    night.until(6.0)
    assert night.released_h() == pytest.approx(3.0, abs=0.001)
    assert len(night.words()) == 2


def test_dollars_decide_a_cheaper_spot_price_elsewhere_does_not_change_when_but_what() -> None:
    night = Night(green_fleet(market="spot", instance="gpu"))
    pools = {e.pool for e in green_fleet(market="spot", instance="gpu").endpoints}
    prices = [SpotPrice(pool=p, price_usd_per_h=0.18, effective_at_s=NOON_S, observed_at_s=NOON_S) for p in pools]
    night.say(*prices, *carbon(DIRTY_THEN_GREEN), job())
    night.until(0.001)
    [plan] = night.words()
    assert plan.release_at_s == NOON_S + 3 * H
    # 0.18 $/h and 5 kW at 90 g/kWh x 0.1 $/kg, over 100 requests/s
    assert plan.usd_per_request == pytest.approx((0.18 + 5 * 90 * 1e-3 * 0.1) / 3600 / 100)


def test_without_forecasts_the_same_hour_of_the_last_days_is_expected() -> None:
    night = Night(green_fleet())
    past = {hour - 24 * day: grams for day in (1, 2) for hour, grams in DIRTY_THEN_GREEN.items()}
    night.say(*carbon(past, basis="measured"), job())
    night.until(0.001)
    [plan] = night.words()
    assert plan.release_at_s == NOON_S + 3 * H
    assert plan.reason.endswith("carbon as in the same hour of the last days")


@pytest.mark.parametrize("grams", [{}, dict.fromkeys(range(7), 300.0), {0: 100.0, 1: 300.0, 2: 500.0}])
def test_where_nothing_is_known_to_be_gained_a_job_goes_at_once(grams: dict[int, float]) -> None:
    night = Night(green_fleet())
    night.say(*carbon(grams), job())
    night.until(0.001)
    assert night.released_h() == pytest.approx(0.0, abs=0.001)
    assert night.words()[0].reason == "nothing is known to be gained by waiting"


def test_without_a_fleet_it_goes_in_time_all_the_same() -> None:
    night = Night()
    night.say(job(within_s=2 * H))
    night.until(2.0)
    assert night.released_h() == pytest.approx(2.0 - 300 / H, abs=0.001)
    assert night.words()[0].reason == "latest safe start; what it costs is not known"


def test_a_green_hour_that_comes_too_late_is_not_waited_for() -> None:
    night = Night(green_fleet())
    # 1.8 M requests at 130 spare ones a second: near four hours, and a quarter more to be safe
    night.say(*carbon(DIRTY_THEN_GREEN), job(requests=1_800_000))
    night.until(6.0)
    assert night.released_h() < 1.2


def test_a_job_that_cannot_be_through_in_time_goes_at_once() -> None:
    night = Night(green_fleet())
    night.say(*carbon(DIRTY_THEN_GREEN), job(requests=10**9))
    night.until(0.001)
    assert night.released_h() == pytest.approx(0.0, abs=0.001)
    assert night.words()[0].reason == "latest safe start"


def test_no_job_waits_longer_than_its_class_may() -> None:
    night = Night(green_fleet(defer_s=1.5 * H))
    night.say(*carbon(DIRTY_THEN_GREEN), job())
    night.until(6.0)
    assert night.released_h() <= 1.5 + 0.001


def test_a_better_hour_that_becomes_known_moves_the_plan_and_a_like_one_does_not() -> None:
    night = Night(green_fleet())
    night.say(*carbon(DIRTY_THEN_GREEN), job())
    night.until(0.1)
    night.say(*carbon({4: 89.0}))
    night.until(0.2)
    assert [w.release_at_s for w in night.words()] == [NOON_S + 3 * H]
    night.say(*carbon({2: 10.0}))
    night.until(0.3)
    assert [w.release_at_s for w in night.words()] == [NOON_S + 3 * H, NOON_S + 2 * H]
    night.until(6.0)
    assert night.released_h() == pytest.approx(2.0, abs=0.001)
    assert {w.now_usd_per_request for w in night.words()} == {night.words()[0].now_usd_per_request}


def test_jobs_share_what_is_spare_one_begins_when_those_before_it_should_be_through() -> None:
    night = Night(green_fleet())
    spare = spare_rps(layout(green_fleet())).sum()
    third = int(spare * H / 3)
    night.say(*carbon(DIRTY_THEN_GREEN), *(job(f"job-{n}", third) for n in range(4)))
    night.until(6.0)
    hours = [night.released_h(f"job-{n}") for n in range(4)]
    assert hours == pytest.approx([3.0, 3.0 + 1 / 3, 3.0 + 2 / 3, 4.0], abs=0.01)


def test_work_under_way_is_room_that_is_not_there() -> None:
    night = Night(green_fleet())
    spare = spare_rps(layout(green_fleet())).sum()
    night.say(job("first", int(spare * H / 2)))
    night.until(0.1)
    night.say(job("second", 1000, at_s=NOON_S + 0.1 * H))
    night.until(1.0)
    assert night.released_h("first") == pytest.approx(0.0, abs=0.001)
    assert night.released_h("second") == pytest.approx(0.5, abs=0.01)
    assert night.words("second")[0].reason == "begins when those before it are through"


def test_a_job_that_is_taken_back_is_not_released_and_makes_room() -> None:
    night = Night(green_fleet())
    spare = spare_rps(layout(green_fleet())).sum()
    night.say(*carbon(DIRTY_THEN_GREEN), job("a", int(spare * H)), job("b", 1000))
    night.until(0.1)
    assert night.words("b")[-1].release_at_s > NOON_S + 3 * H
    night.cancel("a")
    night.until(6.0)
    assert night.released_h("a") is None
    assert night.released_h("b") == pytest.approx(3.0, abs=0.001)


def test_a_job_handed_in_again_later_is_another_and_the_same_record_again_is_not() -> None:
    night = Night(green_fleet())
    night.say(job())
    night.until(0.1)
    night.say(job())
    night.until(1.0)
    assert night.released_h() == pytest.approx(0.0, abs=0.001)
    night.say(job(at_s=NOON_S + H))
    night.until(1.1)
    assert [w.released for w in night.words()] == [True, True]


def test_a_submitter_whose_clock_runs_ahead_is_released_once() -> None:
    night = Night(green_fleet())
    night.say(job(at_s=NOON_S + 60.0))
    night.until(1.0)
    assert len(night.words()) == 1


def test_a_plan_that_is_read_back_late_takes_no_word_to_begin_back() -> None:
    night = Night(green_fleet())
    night.say(job(at_s=NOON_S + 60.0))
    night.until(0.001)
    [word] = night.words()
    night.say(msgspec.structs.replace(word, released=False))
    night.until(1.0)
    assert [w.released for w in night.words()] == [True, False], "the second is what was put there by hand"


def test_only_endpoints_that_law_allows_count() -> None:
    kinds = (request_class(), request_class("nightly", defer_s=24 * H, jurisdictions=("US",)))
    ends = (
        endpoint("eu-west-a", grid_zone="IE", power_w=5000.0),
        endpoint("us-east-a", "us-east", grid_zone="VA", power_w=5000.0),
    )
    night = Night(fleet(kinds, ends))
    night.say(
        *carbon({0: 500.0, 1: 10.0, 2: 500.0}), *carbon({0: 500.0, 1: 500.0, 2: 10.0}, zone="VA"), job(within_s=4 * H)
    )
    night.until(4.0)
    assert night.released_h() == pytest.approx(2.0, abs=0.001)


def test_a_class_without_a_lawful_replica_goes_at_its_latest_safe_start() -> None:
    night = Night(green_fleet(replicas=0))
    night.say(job(within_s=2 * H))
    night.until(2.0)
    assert night.released_h() == pytest.approx(2.0 - 300 / H, abs=0.001)


def test_the_marginal_series_counts_where_no_average_is_known() -> None:
    night = Night(green_fleet())
    night.say(*carbon(DIRTY_THEN_GREEN, kind="marginal"), job())
    night.until(0.001)
    assert night.words()[0].release_at_s == NOON_S + 3 * H


@pytest.mark.parametrize(
    ("more", "field", "reason"),
    [
        ({"service": "chatt"}, "service", "did you mean chat?"),
        ({"class_": "nightl"}, "class", "did you mean nightly?"),
        ({"origin": "mars"}, "origin", "is not in the fleet"),
        ({"within_s": 40 * 24 * H}, "deadline_at_s", "more than 28 days"),
    ],
)
def test_jobs_that_fit_nothing_are_dead_letters(more: dict[str, Any], field: str, reason: str) -> None:
    night = Night(green_fleet())
    night.until(0.001)
    night.say(job(**more))
    night.until(1.0)
    [(told, why)] = night.dead()
    assert told == field
    assert reason in why
    assert night.words() == []


def test_a_job_under_another_name_and_an_intensity_of_no_time_are_dead_letters() -> None:
    night = Night(green_fleet())
    night.carrier.send(DEFERRED, "other", msgspec.json.encode(job()))
    never = msgspec.structs.replace(carbon({0: 1.0})[0], valid_until_s=NOON_S)
    night.carrier.send(CARBON_INTENSITY, CARBON_INTENSITY.key_of(never), msgspec.json.encode(never))
    night.until(1.0)
    assert {field for field, _ in night.dead()} == {"key", "valid_until_s"}


def test_a_fleet_that_does_not_fit_or_is_older_changes_no_plan() -> None:
    night = Night(msgspec.structs.replace(green_fleet(), version=5))
    night.say(*carbon(DIRTY_THEN_GREEN), job())
    night.until(0.1)
    night.say(msgspec.structs.replace(green_fleet(defer_s=1.0), version=4))
    night.say(msgspec.structs.replace(green_fleet(), version=6, endpoints=(endpoint("x", services=("image",)),)))
    night.until(6.0)
    assert night.released_h() == pytest.approx(3.0, abs=0.001)


def test_a_worker_that_takes_over_goes_on_where_the_last_one_stopped() -> None:
    night = Night(green_fleet())
    night.say(*carbon(DIRTY_THEN_GREEN), job(), job("early", within_s=0.2 * H))
    night.until(1.0)
    said = len(night.carrier.said(RELEASES))
    other = Night(green_fleet(), now_s=NOON_S + H)
    for topic in (DEFERRED, RELEASES, CARBON_INTENSITY):
        for message in night.carrier.said(topic):
            other.carrier.send(topic, message.key or b"", message.value)
    other.until(6.0)
    assert other.released_h("early") == night.released_h("early")
    assert other.released_h() == pytest.approx(3.0, abs=0.001)
    assert len(other.carrier.said(RELEASES)) == said + 1


def test_released_jobs_are_forgotten_a_day_after_their_deadline() -> None:
    night = Night(green_fleet())
    night.say(job())
    night.until(40.0)
    [runner] = [reader.runner for reader in night.carrier._readers]
    state = runner.partitions[0].state
    assert (state.jobs, state.words) == ({}, {})


def test_of_more_jobs_than_can_be_planned_at_once_the_most_pressing_are_and_none_is_late(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("router_sync.deferred.WORK", 1)
    night = Night(green_fleet(), tick_s=10.0)
    night.say(*carbon(DIRTY_THEN_GREEN), *(job(f"job-{n:02}", 1000, within_s=(4 + n / 20) * H) for n in range(40)))
    night.until(0.1)
    assert {f"job-{n:02}" for n in range(40) if night.words(f"job-{n:02}")} == {f"job-{n:02}" for n in range(20)}
    night.until(6.0)
    hours = [night.released_h(f"job-{n:02}") for n in range(40)]
    assert hours == pytest.approx([3.05] * 40, abs=0.1)


# ---------------------------------------------------------------- parts


def test_hours_are_means_weighted_by_time_and_forecasts_are_replaced_by_the_last_word() -> None:
    heard = HeardCosts()
    half = CarbonIntensity(
        grid_zone="IE", kind="average", basis="forecast", carbon_g_per_kwh=100, valid_from_s=0, valid_until_s=1800
    )
    for record in (half, msgspec.structs.replace(half, carbon_g_per_kwh=300, valid_from_s=1800, valid_until_s=3600)):
        heard.fold_carbon(record)
    assert heard.carbon("IE", [0], 0)[0].carbon_g_per_kwh == 200
    heard.fold_carbon(msgspec.structs.replace(half, carbon_g_per_kwh=200))
    assert heard.carbon("IE", [0, 5], 0)[0].carbon_g_per_kwh == 250
    assert heard.carbon("IE", [0, 5], 0)[1].source == "last"
    assert heard.carbon("FR", [0], 0)[0].source == "unknown"
    heard.fold_carbon(msgspec.structs.replace(half, carbon_g_per_kwh=10, valid_from_s=9 * H, valid_until_s=10 * H))
    assert [hour.carbon_g_per_kwh for hour in heard.carbon("IE", [0, 8, 9, 20], 0)] == [250, 250, 10, 10]
    heard.advance(12 * H)
    assert heard.carbon("IE", [12], 12)[0].source == "unknown"


def test_of_too_many_series_new_ones_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("router_sync.hours.SERIES", 1)
    heard = HeardCosts()
    for record in (*carbon({0: 5.0}), *carbon({0: 5.0}, zone="FR"), *carbon({1: 6.0})):
        heard.fold_carbon(record)
    assert heard.forecast.keys() == {("IE", "average")}


def test_a_price_that_was_in_force_before_does_not_replace_one_that_came_after() -> None:
    heard = HeardCosts()
    price = SpotPrice(pool="p", price_usd_per_h=2.0, effective_at_s=10, observed_at_s=20)
    assert heard.fold_price(price)
    assert not heard.fold_price(price)
    assert not heard.fold_price(msgspec.structs.replace(price, price_usd_per_h=1.0, effective_at_s=5))
    assert heard.prices["p"].price_usd_per_h == 2.0


def test_a_job_takes_the_cheapest_of_each_hour_and_pays_the_mean() -> None:
    ahead = Slots(np.array([0.0, H]), np.array([H, H]), np.array([[1.0, 3.0], [5.0, 2.0]]), np.array([1.0, 1.0]))
    wish = Wish(job(requests=5400, at_s=0.0, within_s=3 * H), np.ones(2), np.zeros(2), 2 * H, None)
    cost, through = alone(ahead, wish)
    # from 0 on: an hour of 1 $, and 1800 of 3 $; from the second hour on: 3600 of 2 $ and 1800 of 5 $
    assert cost.tolist() == pytest.approx([(3600 * 1 + 1800 * 3) / 5400, (3600 * 2 + 1800 * 5) / 5400])
    assert through.tolist() == pytest.approx([H * 5400 / 7200, H + H * 5400 / 7200])
    large = Wish(job(requests=10_800, at_s=0.0, within_s=3 * H), np.ones(2), np.zeros(2), 2 * H, None)
    cost, through = alone(ahead, large)
    assert cost[0] == pytest.approx((3600 + 3 * 3600 + 2 * 3600) / 10_800)
    assert np.isinf(cost[1])
    assert through[0] == pytest.approx(H + H / 2)


def test_spare_is_what_declared_demand_leaves_below_the_headroom_and_never_nothing() -> None:
    assert spare_rps(layout(green_fleet())).tolist() == pytest.approx([85.0 - 20.0] * 2)
    crowded = msgspec.structs.replace(
        green_fleet(), origins=tuple(msgspec.structs.replace(o, demand_rps=900.0) for o in green_fleet().origins)
    )
    assert spare_rps(layout(crowded)).tolist() == pytest.approx([5.0] * 2)
