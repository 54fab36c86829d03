"""The breaker and the latency averages of one endpoint, on a clock of the test's own."""

from __future__ import annotations

import random
from math import exp

import pytest

from router_sync.client.breaker import Breaker
from router_sync.client.endpoint import LocalEndpoint
from streams.contract.records import ErrorKind, TableEndpoint


def breaker() -> Breaker:
    return Breaker(random.Random(1))


def endpoint() -> LocalEndpoint:
    described = TableEndpoint(
        name="a",
        url="http://a:1",
        provider="p",
        region="r",
        zone="z",
        jurisdiction="DE",
        capacity_rps=10,
        concurrency=8,
        cost_usd_per_request=0.0,
        latency_p95_ms=100,
    )
    return LocalEndpoint(described, random.Random(1))


def opened(at_s: float = 100.0) -> Breaker:
    one = breaker()
    for _ in range(3):
        one.hard(at_s)
    return one


def test_three_hard_failures_in_a_row_open_it_and_two_do_not() -> None:
    one = breaker()
    one.hard(100)
    one.hard(100)
    assert one.admits(100)
    one.hard(100)
    assert not one.admits(100)


def test_an_answer_between_failures_begins_the_row_anew() -> None:
    one = breaker()
    for _ in range(4):
        one.hard(100)
        one.hard(100)
        one.good(100)
    assert one.admits(100)


def test_a_success_rate_below_four_fifths_opens_it_from_twenty_answers_on() -> None:
    one = breaker()
    for i in range(19):
        one.throttled(100 + i / 10) if i % 3 == 0 else one.good(100 + i / 10)
    assert one.admits(102)
    one.throttled(102)
    assert not one.admits(102)


def test_what_happened_more_than_ten_seconds_ago_does_not_count_for_the_rate() -> None:
    one = breaker()
    for _ in range(19):
        one.throttled(100)
    one.throttled(111)
    assert one.admits(111)
    assert one.success_share(111) == 0.0
    assert one.success_share(130) == 1.0


def test_callers_own_mistakes_never_open_it() -> None:
    local = endpoint()
    for _ in range(100):
        local.failed(100, "client_4xx", local.begin())
    assert local.breaker.admits(100)
    assert local.in_flight == 0


def test_it_stays_open_about_a_second_and_then_lets_exactly_one_trial_through() -> None:
    one = opened(100)
    assert not one.admits(100.79)
    assert one.admits(101.21)
    assert one.enter()
    assert not one.admits(101.21)
    assert not one.enter()


def test_a_good_trial_closes_it() -> None:
    one = opened(100)
    one.good(102, one.enter())
    assert one.admits(102)
    assert not one.shut


def test_failed_trials_double_the_wait_up_to_thirty_seconds() -> None:
    one, now_s = opened(100), 100.0
    for expected in (2, 4, 8, 16, 30, 30):
        now_s = one.open_until_s
        one.hard(now_s, one.enter())
        assert 0.8 * expected <= one.open_until_s - now_s <= 1.2 * expected


def test_a_429_on_trial_neither_closes_it_nor_doubles_the_wait() -> None:
    one = opened(100)
    one.throttled(102, one.enter())
    assert one.shut
    assert 0.8 <= one.open_until_s - 102 <= 1.2


def test_a_trial_whose_caller_went_away_leaves_room_for_the_next_trial() -> None:
    one = opened(100)
    one.neutral(one.enter())
    assert one.admits(102)


def test_late_failures_of_requests_begun_before_do_not_prolong_the_opening() -> None:
    one = opened(100)
    until_s = one.open_until_s
    one.hard(100.5)
    assert one.open_until_s == until_s


def test_who_falls_again_soon_waits_longer_and_who_was_well_for_long_begins_anew() -> None:
    one = opened(100)
    one.good(102, one.enter())
    for _ in range(3):
        one.hard(103)
    assert one.open_until_s - 103 >= 1.6
    one.good(106, one.enter())
    for _ in range(3):
        one.hard(140)
    assert one.open_until_s - 140 <= 1.2


def test_a_probe_that_is_answered_allows_the_trial_at_once_but_closes_nothing() -> None:
    local = endpoint()
    for _ in range(3):
        local.failed(100, "connect", local.begin())
    assert not local.breaker.admits(100.1)
    local.probed(100.1, True)
    assert local.breaker.admits(100.1)
    assert local.breaker.shut


def test_probes_that_fail_open_it_without_any_request() -> None:
    local = endpoint()
    for at_s in (100, 101, 102):
        local.probed(at_s, False)
    assert not local.breaker.admits(102)


@pytest.mark.parametrize("kind", ["connect", "reset", "first_byte_timeout", "stall", "truncated", "http_5xx"])
def test_each_hard_kind_opens_it(kind: ErrorKind) -> None:
    local = endpoint()
    for _ in range(3):
        local.failed(100, kind, local.begin())
    assert not local.breaker.admits(100)


def test_the_peak_jumps_to_a_slower_answer_at_once() -> None:
    local = endpoint()
    local.observe(100, 50)
    local.observe(100.1, 900)
    assert local.peak_ms == 900


def test_the_peak_forgets_with_a_time_constant_of_ten_seconds() -> None:
    local = endpoint()
    local.observe(100, 900)
    local.observe(110, 100)
    assert local.peak_ms == pytest.approx(900 * exp(-1) + 100 * (1 - exp(-1)))


def test_the_usual_latency_is_the_plain_mean_of_the_first_answers() -> None:
    local = endpoint()
    for latency_ms in (100, 200, 300):
        local.observe(100, latency_ms)
    assert local.usual_ms == pytest.approx(200)


def test_slowness_is_one_when_unheard_of_and_drifts_back_to_one_in_silence() -> None:
    local = endpoint()
    assert local.slowness(100) == 1.0
    for _ in range(9):
        local.observe(100, 100)
    local.observe(100, 1000)
    assert local.slowness(100) > 5
    assert local.slowness(160) == pytest.approx(1.0, abs=0.02)
