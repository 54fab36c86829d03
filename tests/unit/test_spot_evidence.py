"""What pools showed of themselves, and what is made of it: losses, calm, neighbours, prices, dollars."""

from __future__ import annotations

import doctest
from math import exp, log

import pytest

import forecasting.capacity
import forecasting.plan.need
import forecasting.plan.situation
import forecasting.spot.cost
import forecasting.spot.hazard
import forecasting.spot.prices
from forecasting.spot.cost import risk_usd_per_h
from forecasting.spot.evidence import HALF_LIFE_S, Evidence
from forecasting.spot.hazard import FROZEN, hazard, signs
from forecasting.spot.ledger import LATE_S, Fact, Ledger
from forecasting.spot.prices import WEEK_S, Prices

HOUR_S = 3600.0
MODULES = (
    forecasting.capacity,
    forecasting.plan.need,
    forecasting.plan.situation,
    forecasting.spot.cost,
    forecasting.spot.hazard,
    forecasting.spot.prices,
)


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_examples_in_docstrings_run(module: object) -> None:
    found = doctest.testmod(module)  # type: ignore[arg-type]
    assert found.attempted > 0
    assert found.failed == 0


# ---------------------------------------------------------------- evidence


def stood(hours: float, ready: int = 4) -> Evidence:
    """A pool that came up at 0 and lost nothing."""
    return Evidence().reported(0.0, 0, 0).reported(0.0, ready, 0).reported(hours * HOUR_S, ready, 0)


def test_what_is_missing_of_what_was_wanted_is_a_loss_by_its_part_of_the_pool() -> None:
    lost = stood(1.0).reported(HOUR_S, 3, 0)
    assert lost.losses == pytest.approx(0.25)
    assert lost.lost_at_s == HOUR_S
    assert lost.calm_s(HOUR_S + 60) == 60


def test_what_was_planned_to_go_is_no_loss_and_what_goes_beyond_is() -> None:
    planned = stood(1.0).planned(HOUR_S, 2)
    assert planned.reported(HOUR_S + 30, 2, 0).losses == 0
    assert planned.reported(HOUR_S + 30, 1, 0).losses == pytest.approx(0.25)


def test_forty_that_fall_together_are_one_piece_of_evidence() -> None:
    assert stood(1.0, ready=40).reported(HOUR_S, 0, 0).losses == pytest.approx(1.0)


def test_exposure_is_the_time_in_which_there_was_something_to_lose() -> None:
    assert stood(2.0).exposure_h == pytest.approx(2.0, rel=0.03)
    gone = stood(2.0).reported(2 * HOUR_S, 0, 0)
    assert gone.aged(4 * HOUR_S).exposure_h < gone.exposure_h


def test_evidence_is_worth_half_after_its_half_life() -> None:
    lost = stood(1.0).reported(HOUR_S, 0, 0)
    assert lost.aged(HOUR_S + HALF_LIFE_S).losses == pytest.approx(lost.losses / 2)


def test_replicas_that_come_up_begin_a_calm_and_more_of_them_do_not() -> None:
    grown = stood(1.0, ready=2).reported(2 * HOUR_S, 4, 0)
    assert grown.up_since_s == 0.0
    assert grown.grew_at_s == 2 * HOUR_S
    back = grown.reported(3 * HOUR_S, 0, 0).reported(4 * HOUR_S, 1, 0)
    assert back.up_since_s == 4 * HOUR_S


def test_launches_that_failed_are_those_since_the_last_report() -> None:
    assert stood(1.0).reported(HOUR_S, 4, 7).failed_at_s == HOUR_S
    assert Evidence().reported(0.0, 4, 7).failed_at_s is None, "of those before nobody knows when"


def test_a_notice_counts_as_a_loss_where_no_actuator_reports() -> None:
    told = Evidence().declared(0.0, 2).noticed(HOUR_S, 0.5)
    assert (told.losses, told.lost_at_s) == (0.5, HOUR_S)
    seen = stood(1.0).noticed(HOUR_S, 0.5)
    assert (seen.losses, seen.lost_at_s) == (0.0, HOUR_S)


def test_an_actuators_word_is_better_than_the_fleets() -> None:
    assert stood(1.0).declared(2 * HOUR_S, 9).ready == 4


def test_evidence_goes_on_where_the_one_before_left_it() -> None:
    lost = stood(3.0).reported(3 * HOUR_S, 3, 2)
    record = lost.record(0.4)
    assert record is not None
    again = Evidence.of(record)
    assert hazard(signs(again, lost.at_s or 0.0), again) == hazard(signs(lost, lost.at_s or 0.0), lost)
    assert again.reported(4 * HOUR_S, 2, 2).losses > again.losses, "what went meanwhile is noticed"
    assert Evidence().record(None) is None


# ---------------------------------------------------------------- ledger


def test_a_plan_that_is_heard_after_its_effect_still_explains_it() -> None:
    ledger = Ledger()
    for fact in (
        Fact(0.0, "1 reported", 4),
        Fact(50.0, "1 reported", 2, plan_id="b"),
        Fact(40.0, "4 planned", 2, plan_id="b"),
    ):
        ledger.add(fact)
    assert ledger.evidence(60.0).losses == 0


def test_at_the_same_moment_a_report_comes_first_unless_it_bears_the_plans_receipt() -> None:
    for receipt, losses in (("", 0.5), ("b", 0.0)):
        ledger = Ledger()
        ledger.add(Fact(0.0, "1 reported", 4))
        ledger.add(Fact(50.0, "4 planned", 2, plan_id="b"))
        ledger.add(Fact(50.0, "1 reported", 2, plan_id=receipt))
        assert ledger.evidence(50.0).losses == pytest.approx(losses), receipt


def test_facts_settle_once_none_can_come_before_them() -> None:
    ledger = Ledger()
    ledger.add(Fact(0.0, "1 reported", 4))
    ledger.add(Fact(100.0, "1 reported", 3))
    before = ledger.evidence(130.0)
    ledger.settle(130.0)
    assert [fact.at_s for fact in ledger.pending] == [100.0]
    assert ledger.evidence(130.0) == before
    ledger.settle(100.0 + LATE_S)
    assert ledger.pending == []


# ---------------------------------------------------------------- hazard


def test_a_loss_elsewhere_in_the_region_and_in_the_zone_raises_the_hazard_and_fades() -> None:
    pool = stood(5.0)
    now_s = 5 * HOUR_S
    alone = hazard(signs(pool, now_s), pool).per_h
    region = hazard(signs(pool, now_s, region_lost_at_s=now_s), pool).per_h
    zone = hazard(signs(pool, now_s, zone_lost_at_s=now_s), pool).per_h
    long_ago = hazard(signs(pool, now_s, region_lost_at_s=0.0), pool).per_h
    assert region / alone == pytest.approx(exp(FROZEN.region))
    assert zone / alone == pytest.approx(exp(FROZEN.zone))
    assert alone < long_ago < 1.01 * alone


def test_a_price_above_its_median_and_an_advice_raise_it_within_bounds() -> None:
    pool, now_s = stood(5.0), 5 * HOUR_S
    usual = hazard(signs(pool, now_s), pool).per_h
    assert hazard(signs(pool, now_s, price_ratio=1.5), pool).per_h / usual == pytest.approx(1.5**FROZEN.price)
    assert hazard(signs(pool, now_s, price_ratio=50), pool).per_h / usual == pytest.approx(2.0**FROZEN.price)
    advised = pool.advised(now_s)
    assert hazard(signs(advised, now_s), advised).per_h / usual == pytest.approx(exp(FROZEN.advised))


def test_the_longer_it_is_calm_the_lower_the_hazard_and_the_interval_narrows() -> None:
    seen = [(hazard(signs(stood(h), h * HOUR_S), stood(h))) for h in (0.1, 1.0, 10.0, 100.0)]
    assert [h.per_h for h in seen] == sorted((h.per_h for h in seen), reverse=True)
    assert all(h.low_per_h < h.per_h < h.high_per_h for h in seen)
    often = stood(1.0)
    for n in range(20):
        often = often.reported((2 + n) * HOUR_S, 0, 0).reported((2 + n) * HOUR_S + 60, 4, 0)
    many, few = hazard(signs(often, 22 * HOUR_S), often), seen[1]
    assert log(many.high_per_h / many.low_per_h) < log(few.high_per_h / few.low_per_h)


def test_risk_costs_two_cold_starts_and_what_goes_unserved_if_the_reserve_is_gone() -> None:
    assert risk_usd_per_h(0.5, 2.0, 360.0, 10.0, 0.0) == pytest.approx(0.5 * 2 * 0.1 * 2.0)
    twice = 1 - exp(-0.5 * 0.1)
    assert risk_usd_per_h(0.5, 0.0, 360.0, 10.0, 0.001) == pytest.approx(0.5 * 360 * 10 * 0.001 * twice)


# ---------------------------------------------------------------- prices


def test_the_median_is_over_time_and_over_a_week() -> None:
    prices = Prices()
    prices.add(0.0, 5.0)
    prices.add(WEEK_S, 1.0)
    prices.add(WEEK_S + 10, 9.0)
    assert prices.now(WEEK_S + 5) == 1.0
    assert prices.median(WEEK_S + 20) == 5.0
    assert prices.median(2.4 * WEEK_S) == 9.0
    assert prices.now(-1.0) is None


def test_a_later_word_on_the_same_time_holds_and_a_median_comes_back_after_a_restart() -> None:
    prices = Prices(usual=3.0)
    assert prices.median(0.0) == 3.0
    prices.add(100.0, 4.0)
    prices.add(100.0, 6.0)
    assert prices.changes == [(100.0, 6.0)]
    assert prices.median(200.0) == 3.0
