"""What is needed: rates by the second, minute and day, surges and their slope, forecasts, the reserve's tuning."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from forecasting.plan.need import LASTED_S, STALE_S, UNSURE, need, reached, slope, surging
from forecasting.plan.rates import GAP_S, MOST, Rates
from forecasting.plan.reserve import GAIN, LEAST, WORST, Reserve
from forecasting.plan.reserve import MOST as MOST_RESERVE
from forecasting.plan.site import Key, declared, site
from streams.contract import records as r
from tests.replay.pools import endpoint, fleet

T0 = 1_763_938_800.0
KEY: Key = ("chat", "eu", "interactive")


def slot(
    at_s: float, arrived: int, *, shed: int = 0, slot_s: float = 1.0, source: str = "0", key: Key = KEY
) -> r.Demand:
    return r.Demand(
        source=source, at_s=T0 + at_s, slot_s=slot_s, service=(key[0],), origin=(key[1],), class_=(key[2],),
        arrived=(arrived,), admitted=(arrived - shed,), shed=(shed,), failed=(0,),
    )  # fmt: skip


def told(rates: Rates, *slots: r.Demand) -> Rates:
    for one in slots:
        rates.fold(one, one.at_s + one.slot_s)
    return rates


def steady(seconds: int, rps: int = 10, **more: Any) -> Rates:
    return told(Rates(), *(slot(float(n), rps, **more) for n in range(seconds)))


# ---------------------------------------------------------------- rates


def test_the_last_word_on_a_slot_holds_and_sources_are_added_up() -> None:
    rates = told(Rates(), slot(0.0, 3), slot(0.0, 5), slot(0.0, 2, source="1"), slot(1.0, 1))
    assert rates.seconds([KEY], 1).tolist() == [[7.0]]


def test_long_slots_are_spread_over_their_seconds_and_short_ones_are_added() -> None:
    rates = told(Rates(), slot(0.0, 50, slot_s=5.0), slot(5.0, 1, slot_s=0.5), slot(5.5, 2, slot_s=0.5), slot(6.0, 0))
    assert rates.seconds([KEY], 6).tolist() == [[10.0, 10.0, 10.0, 10.0, 10.0, 3.0]]


def test_minutes_are_closed_and_their_mean_is_steady() -> None:
    rates = told(Rates(), *(slot(float(n), 10 if n < 120 else 40) for n in range(320)))
    # the first minute was heard in part only
    assert rates.steady_rps([KEY])[0] == pytest.approx((10 + 3 * 40) / 4)
    assert rates.peak_rps([KEY])[0] == 40.0
    assert rates.steady_rps([("chat", "eu", "other")])[0] == 0.0


def test_a_gap_forgets_the_seconds_and_keeps_the_minutes() -> None:
    rates = steady(200)
    told(rates, slot(200 + 2 * GAP_S, 7), slot(201 + 2 * GAP_S, 7))
    assert rates.seconds([KEY], 3).tolist() == [[0.0, 0.0, 7.0]]
    assert rates.steady_rps([KEY])[0] == 10.0
    assert not rates.settled


def test_old_slots_and_those_from_the_future_are_left_out() -> None:
    rates = steady(200)
    before = rates.seconds([KEY], 60)
    rates.fold(slot(10.0, 99), T0 + 200)
    rates.fold(slot(900.0, 99), T0 + 200)
    assert np.array_equal(rates.seconds([KEY], 60), before)


def test_keys_beyond_what_is_kept_apart_are_left_out() -> None:
    rates = Rates(row_of={("s", "o", str(n)): n for n in range(MOST)})
    rates._grow(MOST)
    assert told(rates, slot(0.0, 5), slot(1.0, 5)).seconds([KEY], 1)[0, 0] == 0.0


def test_what_was_shed_is_told_once_by_minute() -> None:
    rates = steady(200, 10, shed=1)
    (first, second) = rates.take_toll()
    assert first == second == {KEY: (600.0, 60.0)}
    assert rates.take_toll() == []


# ---------------------------------------------------------------- surges


def seconds(*parts: tuple[int, float]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """One flow: so many seconds at so many requests each."""
    return np.concatenate([np.full(n, rps) for n, rps in parts])[None]


def test_twice_as_busy_as_its_minute_is_a_surge_and_a_handful_of_requests_is_not() -> None:
    assert surging(seconds((60, 10.0), (3, 100.0)))[0]
    assert not surging(seconds((60, 10.0), (6, 15.0)))[0]
    assert not surging(seconds((60, 0.1), (6, 2.0)))[0]


def test_chance_is_no_surge_in_an_hour_of_a_hundred_flows() -> None:
    rng = np.random.default_rng(5)
    for rps in (0.5, 2.0, 10.0):
        arrived = rng.poisson(rps, (100, 3600)).astype(np.float64)
        assert not any(surging(arrived[:, n - 60 : n]).any() for n in range(60, 3600)), rps


def test_one_odd_second_is_no_level() -> None:
    assert reached(seconds((60, 10.0), (1, 500.0)))[0] == 10.0
    assert reached(seconds((60, 10.0), (2, 500.0)))[0] == 500.0


def test_a_step_has_no_slope_and_a_climb_has() -> None:
    for since in range(1, 40):
        assert slope(seconds((81, 10.0), (since, 100.0))[:, -81:])[0] < 0.6, since
    climb = np.concatenate((np.full(60, 10.0), 10.0 + 40.0 * np.arange(LASTED_S + 10)))[None]
    assert slope(climb)[0] == pytest.approx(40.0, rel=0.2)


# ---------------------------------------------------------------- need

SITE = site(fleet([endpoint("a")]), declared, 0.001)
BATCH = r.RequestClass(name="batch", slo_p95_ms=60_000, tier="sheddable", defer_s=3600)


def forecast(made_at_s: float, **medians: float) -> Mapping[Key, r.DemandForecast]:
    horizons = tuple(
        r.Horizon(ahead_s=float(ahead[1:]), rps={"0.5": rps, "0.95": 2 * rps}) for ahead, rps in medians.items()
    )
    return {
        KEY: r.DemandForecast(
            service="chat", origin="eu", class_="interactive", made_at_s=T0 + made_at_s, model="m", horizons=horizons
        )
    }


def test_before_anything_was_heard_the_declared_demand_is_needed() -> None:
    found = need(SITE, Rates(), {}, 300.0, T0)
    assert found.now.tolist() == found.ahead.tolist() == [1.0]


def test_without_a_forecast_the_busiest_of_ten_minutes_is_ahead() -> None:
    rates = told(Rates(), *(slot(float(n), 30 if 120 <= n < 180 else 10) for n in range(400)))
    found = need(SITE, rates, {}, 300.0, T0 + 400)
    assert (found.now[0], found.ahead[0], found.foretold[0]) == (10.0, 30.0, False)
    assert found.unsure[0] == pytest.approx(UNSURE * 30.0)


def test_the_highest_median_up_to_a_cold_start_ahead_is_needed_and_never_less_than_now() -> None:
    rates, made = steady(400), 390.0
    said = forecast(made, _300=20.0, _600=30.0, _1800=90.0)
    for cold_start_s, ahead in ((60.0, 20.0), (300.0, 20.0), (400.0, 30.0), (600.0, 30.0), (1800.0, 90.0)):
        found = need(SITE, rates, said, cold_start_s, T0 + 400)
        assert (found.ahead[0], found.unsure[0]) == (ahead, ahead), cold_start_s
    assert need(SITE, rates, forecast(made, _300=2.0), 300.0, T0 + 400).ahead[0] == 10.0


def test_an_old_forecast_is_none() -> None:
    assert not need(SITE, steady(400), forecast(0.0, _300=20.0), 300.0, T0 + STALE_S + 1).foretold[0]


def test_a_surge_is_what_it_reached_at_once_and_what_it_would_grow_to_once_it_lasts() -> None:
    rates = told(steady(300), *(slot(300.0 + n, 100) for n in range(3)))
    found = need(SITE, rates, {}, 300.0, T0 + 303)
    assert found.surge[0]
    assert found.ahead[0] == 100.0
    climb = told(steady(300), *(slot(300.0 + n, 20 * n) for n in range(40)))
    found = need(SITE, climb, {}, 300.0, T0 + 340)
    assert found.ahead[0] == pytest.approx(20 * 38 + 300 * 20, rel=0.2)


def test_at_first_nothing_is_a_surge() -> None:
    assert not need(SITE, steady(20, 100), {}, 300.0, T0 + 20).surge[0]


def test_work_that_may_wait_needs_its_days_mean() -> None:
    both = site(fleet([endpoint("a")], [r.RequestClass(name="interactive", slo_p95_ms=400), BATCH]), declared, 0.001)
    key = ("chat", "eu", "batch")
    rates = told(Rates(), *(slot(float(n), 100 if n >= 540 else 10, key=key) for n in range(570)))
    found = need(both, rates, {}, 300.0, T0 + 570)
    assert both.waits.tolist() == both.ballast.tolist() == [False, True]
    assert found.now[1] == found.ahead[1] == pytest.approx(10.0)
    assert (found.unsure[1], found.surge[1]) == (0.0, False)


# ---------------------------------------------------------------- reserve


def test_a_day_within_budget_lowers_the_reserve_and_what_was_missed_raises_it() -> None:
    reserve = Reserve()
    reserve.learn([{KEY: (600.0, 0.0)}] * 1440, {KEY: 0.001})
    assert reserve.part == pytest.approx(0.9)
    reserve.learn([{KEY: (600.0, 6.0)}], {KEY: 0.001})
    assert reserve.part == pytest.approx(0.9 + 9 * GAIN)


def test_where_what_is_missed_is_the_budget_the_reserve_stays() -> None:
    reserve = Reserve(1.3)
    reserve.learn([{KEY: (1000.0, 1.0)}] * 500, {KEY: 0.001})
    assert reserve.part == pytest.approx(1.3)


def test_the_reserve_is_bounded_and_so_is_what_one_minute_can_do() -> None:
    reserve = Reserve()
    reserve.learn([{KEY: (600.0, 600.0)}], {KEY: 1e-6})
    assert reserve.part == pytest.approx(1.0 + GAIN * (WORST - 1))
    reserve.learn([{KEY: (600.0, 600.0)}] * 1000, {KEY: 1e-6})
    assert reserve.part == MOST_RESERVE
    reserve.learn([{KEY: (600.0, 0.0)}] * 100_000, {KEY: 0.001})
    assert reserve.part == LEAST


def test_of_several_services_the_worst_off_counts_and_ballast_counts_not() -> None:
    reserve, other, batch = Reserve(), ("draw", "eu", "interactive"), ("chat", "eu", "batch")
    minute = {KEY: (600.0, 0.0), other: (600.0, 6.0), batch: (600.0, 600.0)}
    reserve.learn([minute], {KEY: 0.001, other: 0.001})
    assert reserve.part == pytest.approx(1.0 + 9 * GAIN)
    reserve.learn([{}], {KEY: 0.001})
    assert reserve.part == pytest.approx(1.0 + 9 * GAIN)
