"""The driver with a pretended send: times, limits, stops. And what summaries say."""

import asyncio
import random
import time

import numpy as np
import pytest

from tradewind.load import Arrivals, Counters, Outcome, Shot, Target, drive, phases, plan, quantile_ms, summarise
from tradewind.load.sender import request_body

EU = Target("eu", "chat", "http://eu", "k1", "m", weight=3.0, stream_share=0.25)
US = Target("us", "batch", "http://us", "k2", "m", weight=1.0, stream_share=0.0)


def shots(*at_s: float) -> list[Shot]:
    return [Shot(at, EU, False, 10, 5) for at in at_s]


async def answer(shot: Shot, late_ms: float) -> Outcome:
    return Outcome(shot.at_s, "eu", "chat", False, ok=True, late_ms=late_ms)


def test_a_plan_follows_weights_and_shares_and_repeats_with_its_seed() -> None:
    ones = np.ones(4000, dtype=np.int64)
    arrivals = Arrivals(np.arange(4000) / 10.0, ones, ones)
    planned = plan(arrivals, [EU, US], random.Random(5))
    assert planned == plan(arrivals, [EU, US], random.Random(5))
    to_eu = [shot for shot in planned if shot.target is EU]
    assert len(to_eu) / 4000 == pytest.approx(0.75, abs=0.03)
    assert sum(shot.stream for shot in to_eu) / len(to_eu) == pytest.approx(0.25, abs=0.03)
    assert not any(shot.stream for shot in planned if shot.target is US)


def test_a_plan_without_a_target_of_weight_is_refused() -> None:
    none = np.ones(0, dtype=np.int64)
    with pytest.raises(ValueError, match="give at least one with a weight above 0"):
        plan(Arrivals(np.ones(0), none, none), [], random.Random(1))


async def test_requests_leave_at_their_times_though_earlier_ones_are_still_open() -> None:
    left: list[float] = []
    started = time.monotonic()
    all_out = asyncio.Event()

    async def slow(shot: Shot, late_ms: float) -> Outcome:
        left.append(time.monotonic() - started)
        if len(left) == 3:
            all_out.set()
        await all_out.wait()
        return await answer(shot, late_ms)

    outcomes = await asyncio.wait_for(drive(shots(0.0, 0.05, 0.1), slow, monotonic_s=time.monotonic), 10.0)
    assert [one.at_s for one in outcomes] == [0.0, 0.05, 0.1]
    assert all(at >= due for at, due in zip(left, (0.0, 0.05, 0.1), strict=True))


async def test_beyond_the_limit_of_open_requests_the_next_is_counted_as_not_sent() -> None:
    counters = Counters()
    seen: list[Outcome] = []

    async def until_refused(shot: Shot, late_ms: float) -> Outcome:
        while not counters.not_sent:  # noqa: ASYNC110 - what is waited for is a plain number
            await asyncio.sleep(0.001)
        return await answer(shot, late_ms)

    outcomes = await drive(
        shots(0.0, 0.01, 0.02),
        until_refused,
        monotonic_s=time.monotonic,
        counters=counters,
        on_outcome=seen.append,
        open_max=2,
    )
    assert [one.error for one in outcomes] == [None, None, "not_sent"]
    assert (counters.due, counters.ok, counters.failed, counters.not_sent, counters.open) == (3, 2, 0, 1, 0)
    assert counters.errors == {"not_sent": 1}
    assert sorted(seen, key=lambda one: one.at_s) == outcomes


async def test_after_a_stop_nothing_is_sent_and_what_is_open_is_waited_for() -> None:
    stop = asyncio.Event()

    async def stopping(shot: Shot, late_ms: float) -> Outcome:
        stop.set()
        return await answer(shot, late_ms)

    outcomes = await asyncio.wait_for(drive(shots(0.0, 3600.0), stopping, monotonic_s=time.monotonic, stop=stop), 10.0)
    assert [one.ok for one in outcomes] == [True]


async def test_cancelled_it_leaves_no_request_open() -> None:
    counters = Counters()
    begun = asyncio.Event()

    async def endless(_: Shot, __: float) -> Outcome:
        begun.set()
        await asyncio.Event().wait()
        raise AssertionError

    running = asyncio.ensure_future(drive(shots(0.0), endless, monotonic_s=time.monotonic, counters=counters))
    await asyncio.wait_for(begun.wait(), 5.0)
    running.cancel()
    await asyncio.wait([running])
    assert running.cancelled()
    assert counters.open == 0


async def test_a_defect_in_send_is_raised() -> None:
    async def defective(_: Shot, __: float) -> Outcome:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await drive(shots(0.0), defective, monotonic_s=time.monotonic)


def test_a_body_asks_for_the_tokens_of_the_trace_and_long_prompts_are_cut() -> None:
    body = request_body(Shot(0.0, EU, True, 7_000, 13))
    assert len(body) < 4_300
    assert b'"max_tokens":13' in body
    assert b'"include_usage":true' in body
    assert b"stream" not in request_body(Shot(0.0, EU, False, 7, 13))


def outcome(at_s: float, total_ms: float | None, error: str | None = None) -> Outcome:
    return Outcome(at_s, "eu", "chat", False, ok=error is None, error=error, total_ms=total_ms)  # type: ignore[arg-type]


def test_phases_split_by_due_time_and_take_quantiles_of_good_answers_only() -> None:
    outcomes = [
        *(outcome(at, 10.0 * (at + 1)) for at in range(10)),
        outcome(10.0, 9_000.0, "http_5xx"),
        outcome(10.5, None, "not_sent"),
        outcome(20.0, 70.0),
    ]
    split = phases(outcomes, 10.0, 20.0)
    assert (split.before.requests, split.before.p50_ms, split.before.p95_ms) == (10, 50.0, 100.0)
    during = split.during
    assert (during.requests, during.ok, during.failed, during.not_sent, during.p95_ms) == (2, 0, 1, 1, None)
    assert (split.after.ok, split.after.p99_ms) == (1, 70.0)


def test_summaries_of_nothing_know_nothing() -> None:
    assert summarise([]).p95_ms is None
    assert quantile_ms([], 0.5) is None
    assert summarise([outcome(0.0, 5.0)], "ttft_ms").p50_ms is None
