"""When streams leave: late, evenly, the longest first; and who is not moved at all."""

from __future__ import annotations

import asyncio
import random
from itertools import pairwise
from math import inf
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router_sync.gateway.leaving import AGAIN_S, MOST, Leaving, pace, window
from router_sync.gateway.trip import Trip
from streams.contract.records import RoutingTable, TableEndpoint


@given(st.floats(0, 1e6))
def test_moves_begin_and_end_within_the_notice(notice_s: float) -> None:
    first_s, last_s = window(notice_s)
    assert 0 <= first_s <= last_s <= notice_s
    assert notice_s - last_s <= 10.0
    assert notice_s < 2 or notice_s - last_s >= 1.0


@given(st.lists(st.floats(0, 100) | st.just(inf), max_size=20), st.floats(0, 50), st.floats(50, 100))
def test_the_pace_brings_all_who_would_outlast_it_away_by_the_last_moment(
    ends_s: list[float], now_s: float, last_s: float
) -> None:
    gap_s, late = pace(ends_s, now_s, last_s), sum(end_s >= last_s for end_s in ends_s)
    assert (gap_s is None) == (late == 0)
    assert gap_s is None or now_s + gap_s * late == pytest.approx(last_s)


class World:
    """A gateway's streams at endpoint a, and time that passes when it is told to."""

    def __init__(self, *runs_s: float, outcome: str = "moved") -> None:
        self.now_s, self.outcome = 0.0, outcome
        self.moved: list[tuple[float, float]] = []
        """(when, how long the stream would have run)."""
        self.leaving = Leaving(self.move, random.Random(1), now_s=lambda: self.now_s, unix_s=lambda: self.now_s)
        self.ends = {stream(self, run_s): run_s for run_s in runs_s}
        for trip in self.ends:
            self.leaving.enter("a", trip)

    async def move(self, trip: Trip, refused: set[str]) -> str:
        self.moved.append((self.now_s, self.ends[trip]))
        if self.outcome == "moved":
            self.leaving.leave("a", trip)
        return self.outcome

    def notice(self, by_s: float | None, issued_at_s: float = 0.0) -> None:
        endpoint = TableEndpoint(
            name="a", url="http://a:1", provider="p", region="r", zone="z", jurisdiction="DE", capacity_rps=1,
            concurrency=1, cost_usd_per_request=0, latency_p95_ms=1, state="drain", leave_by_s=by_s,
        )  # fmt: skip
        table = RoutingTable(
            service="m", epoch=1, version=1, issued_at_s=issued_at_s, expires_at_s=1e9, fleet_version=1,
            default_class="chat", endpoints=(endpoint,), routes=(),
        )  # fmt: skip
        self.leaving.heed(table)

    async def live(self, until_s: float) -> None:
        while self.now_s < until_s:
            self.leaving._wake.clear()
            wait_s = self.leaving._look("a")
            for _ in range(3):
                await asyncio.sleep(0)
            if self.leaving._wake.is_set():
                continue
            self.now_s += min(max(wait_s, 0.01), until_s - self.now_s + 0.01)
            for trip in [trip for trip, end_s in self.ends.items() if end_s <= self.now_s]:
                self.leaving.leave("a", trip)  # it ended by itself


def stream(world: World, run_s: float, *, at: str = "a", journal: bool = True) -> Trip:
    """A stream that runs at ten events a second until `run_s`; inf: nobody knows."""

    class Journal:
        @property
        def events(self) -> int:
            return round(10 * world.now_s) or 1

        def to_come(self) -> int | None:
            return None if run_s == inf else max(0, round(10 * run_s) - self.events)

    turn = SimpleNamespace(at=at, free=True)
    fake: Any = Fake(journal=Journal() if journal else None, turn=turn, begun_s=0.0)
    return cast(Trip, fake)


class Fake(SimpleNamespace):
    __hash__ = object.__hash__  # type: ignore[assignment]


async def test_streams_move_evenly_between_first_and_last_the_longest_first() -> None:
    world = World(*(100.0 + n for n in range(10)))
    world.notice(30.0)
    await world.live(30.0)
    when = [at_s for at_s, _ in world.moved]
    assert len(when) == 10
    assert [run_s for _, run_s in world.moved] == sorted((run_s for _, run_s in world.moved), reverse=True)
    assert 12.5 <= min(when) < 14.0
    assert max(when) <= 25.0
    gaps = [b - a for a, b in pairwise(when)]
    assert max(gaps) - min(gaps) < 0.2


async def test_who_ends_in_time_is_left_alone_and_the_pace_slackens_for_the_others() -> None:
    world = World(*[18.0] * 20, 100.0, 100.0)
    world.notice(30.0)
    await world.live(30.0)
    assert [run_s for _, run_s in world.moved] == [100.0, 100.0]
    assert world.moved[1][0] - world.moved[0][0] > 4.0


async def test_who_named_no_limit_is_taken_to_outlast_it() -> None:
    world = World(inf)
    world.notice(30.0)
    await world.live(26.0)
    assert len(world.moved) == 1


async def test_without_time_all_go_at_once_but_no_more_than_so_many_together() -> None:
    world = World(*[100.0] * (MOST + 5))
    world.notice(0.0)
    world.leaving._look("a")
    assert len(world.leaving._moving) == MOST
    await world.live(0.2)
    assert len(world.moved) == MOST + 5


async def test_a_move_that_was_refused_is_tried_again_a_second_later_and_one_that_cannot_be_is_not() -> None:
    for outcome, least, most in (("refused", 3, 5), ("stateful", 1, 1)):
        world = World(100.0, outcome=outcome)
        world.notice(0.0)
        await world.live(3.5 * AGAIN_S)
        assert least <= len(world.moved) <= most, outcome


async def test_streams_that_speak_elsewhere_or_cannot_be_continued_are_not_moved_from_here() -> None:
    world = World()
    for trip in (stream(world, 100.0, at="b"), stream(world, 100.0, journal=False)):
        world.ends[trip] = 100.0
        world.leaving.enter("a", trip)
    world.notice(0.0)
    await world.live(2.0)
    assert world.moved == []


async def test_of_two_clocks_the_one_that_leaves_less_time_counts() -> None:
    for ours_s, issued_s in ((1000.0, 1020.0), (1020.0, 1000.0)):
        world = World(inf)
        world.now_s = ours_s
        world.notice(1030.0, issued_at_s=issued_s)
        assert world.leaving._leaves["a"].until_s == ours_s + 10.0


async def test_a_notice_taken_back_is_forgotten_and_an_earlier_one_counts() -> None:
    world = World(100.0)
    world.notice(3600.0)
    world.notice(30.0)
    assert world.leaving._leaves["a"].until_s == 30.0
    world.notice(None)
    assert not world.leaving._leaves
    assert not world.leaving.count("a", "kept", "finished")
