"""Laws of deferred work, whatever waits, whatever is forecast: in time, in room, never dearer than at once."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router_sync.layout import layout
from router_sync.market import spare_rps
from router_sync.release import Booking, Plan, Slots, Wish, latest_safe_s, need_s, plans, slots
from streams.contract.records import CarbonIntensity, Deferred
from streams.contract.topics import CARBON_INTENSITY, DEFERRED, RELEASES
from tests.unit.deferred_world import NOON_S, H, Night, alone, carbon, green_fleet, job

LAW = settings(max_examples=80, deadline=None)
TICK_S = 30.0
SPARE_RPS = float(spare_rps(layout(green_fleet())).sum())

grams = st.dictionaries(st.integers(0, 12), st.floats(0, 900), max_size=12)


@st.composite
def jobs(draw: st.DrawFn, most: int = 5) -> list[Deferred]:
    """Small and large ones, with little and much time, some of them hopeless."""
    return [
        job(
            f"job-{n}", draw(st.integers(1, int(SPARE_RPS * H * draw(st.sampled_from([0.01, 0.5, 3.0, 20.0]))))),
            within_s=draw(st.floats(60.0, 12 * H)), at_s=NOON_S + draw(st.floats(0, 2 * H)),
        )
        for n in range(draw(st.integers(1, most)))
    ]  # fmt: skip


@st.composite
def markets(draw: st.DrawFn) -> tuple[Slots, list[Wish]]:
    """Any hours, any groups of endpoints, any law, and jobs that may use some of them."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    now_s = NOON_S + draw(st.floats(0, H))
    starts, widths, hours = slots(now_s, NOON_S + 12 * H)
    groups = draw(st.integers(1, 4))
    ahead = Slots(starts, widths, rng.uniform(1e-6, 1e-4, (len(hours), groups)), rng.uniform(1, 100, groups))
    wishes = []
    for one in draw(jobs()):
        may = (rng.random(groups) < 0.7).astype(float)
        may[rng.integers(groups)] = 1.0
        latest_s = latest_safe_s(one, need_s(one.requests, float(ahead.spare_rps @ may)), 24 * H)
        held_s = draw(st.one_of(st.none(), st.floats(NOON_S, NOON_S + 12 * H)))
        wishes.append(Wish(one, may, rng.uniform(0, 1e-6, groups), latest_s, held_s))
    return ahead, wishes


@LAW
@given(markets())
def test_a_plan_begins_no_earlier_than_now_no_later_than_is_safe_and_costs_no_more_than_at_once(
    market: tuple[Slots, list[Wish]],
) -> None:
    ahead, wishes = market
    now_s = float(ahead.starts_s[0])
    found = dict(plans(ahead, (), wishes))
    for wish in wishes:
        plan = found[wish.job.job]
        assert now_s <= plan.at_s <= max(now_s, wish.latest_s)
        assert plan.usd <= plan.now_usd * (1 + 1e-9)
        assert np.isfinite([plan.usd, plan.now_usd]).all()


@LAW
@given(markets())
def test_what_is_booked_is_there_and_is_booked_once(market: tuple[Slots, list[Wish]]) -> None:
    ahead, wishes = market
    booking = Booking(ahead)
    for wish in wishes:
        before = booking.free.sum()
        booking.plan(wish)
        assert (booking.free >= -1e-6).all()
        taken = before - booking.free.sum()
        assert taken <= wish.job.requests * (1 + 1e-9) + 1e-6
        closed = wish.may == 0
        assert (booking.free[:, closed] <= booking.whole[:, closed]).all()


@LAW
@given(markets())
def test_a_job_alone_that_starts_in_time_is_through_in_time(market: tuple[Slots, list[Wish]]) -> None:
    ahead, wishes = market
    for wish in wishes:
        if wish.latest_s <= wish.job.submitted_at_s:
            continue  # it was handed in too late
        _, through_s = alone(ahead, wish)
        safe = np.flatnonzero(ahead.starts_s[: len(through_s)] <= wish.latest_s)
        finite = safe[np.isfinite(through_s[safe])]
        assert (through_s[finite] <= wish.job.deadline_at_s + 1e-6).all()


@LAW
@given(markets())
def test_the_start_is_the_cheapest_there_is_or_nearly(market: tuple[Slots, list[Wish]]) -> None:
    ahead, [wish, *_] = market
    cost, through_s = alone(ahead, wish)
    plan: Plan = Booking(ahead).plan(wish)
    fits = (through_s <= wish.job.deadline_at_s) & (ahead.starts_s[: len(cost)] <= wish.latest_s)
    if fits.any():
        assert plan.usd <= cost[fits].min() * 1.01 + 1e-15


# ---------------------------------------------------------------- the stage, hour by hour


def lived(waiting: list[Deferred], forecasts: list[CarbonIntensity], ticks: list[float]) -> Night:
    night = Night(green_fleet(), tick_s=TICK_S)
    night.say(*forecasts)
    for one in sorted(waiting, key=lambda one: one.submitted_at_s):
        night.carrier.run_until(max(night.carrier.now_s, one.submitted_at_s))
        night.say(one)
    for hours in sorted(ticks):
        if NOON_S + hours * H > night.carrier.now_s:
            night.until(hours)
    night.until(16.0)
    return night


quick = settings(max_examples=30, deadline=None)


@quick
@given(jobs(3), grams)
def test_each_job_is_released_once_after_its_submission_and_by_its_latest_safe_start(
    waiting: list[Deferred], forecasts: dict[int, float]
) -> None:
    night = lived(waiting, carbon(forecasts), [])
    for one in waiting:
        at_s = NOON_S + (night.released_h(one.job) or -1.0) * H
        latest_s = latest_safe_s(one, need_s(one.requests, SPARE_RPS), 24 * H)
        assert one.submitted_at_s <= at_s <= max(latest_s, one.submitted_at_s) + TICK_S + 1.0, "within a tick"


@quick
@given(jobs(3), grams, st.lists(st.floats(0, 16), max_size=4))
def test_the_same_is_said_however_time_is_cut(
    waiting: list[Deferred], forecasts: dict[int, float], ticks: list[float]
) -> None:
    once, cut = (lived(waiting, carbon(forecasts), at).carrier.said(RELEASES) for at in ([], ticks))
    assert [(m.timestamp, m.key, m.value) for m in cut] == [(m.timestamp, m.key, m.value) for m in once]


@quick
@given(jobs(3), grams, st.floats(0.1, 14))
def test_a_restart_at_any_time_releases_each_job_at_the_time_it_would_have_been(
    waiting: list[Deferred], forecasts: dict[int, float], hours: float
) -> None:
    whole = lived(waiting, carbon(forecasts), [])
    at_s = NOON_S + hours * H
    after = Night(green_fleet(), now_s=at_s, tick_s=TICK_S)
    for topic in (DEFERRED, RELEASES, CARBON_INTENSITY):
        for message in whole.carrier.said(topic):
            if message.timestamp <= at_s * 1000:
                after.carrier.send(topic, message.key or b"", message.value)
    handed_in = {one.job for one in waiting if one.submitted_at_s <= at_s - 1.0}
    after.until(16.0)
    for name in handed_in:
        told = {word.release_at_s for word in after.words(name) if word.released}
        assert len(told) == 1
    alone = [one for one in waiting if one.job in handed_in]
    if len(waiting) == 1 and alone:
        assert after.released_h(alone[0].job) == pytest.approx(whole.released_h(alone[0].job), abs=(TICK_S + 1) / H)
