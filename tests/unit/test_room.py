"""A room on one worker: what it reads from where, what it asks again for, what it may commit. No Kafka in here."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Mapping

import msgspec
import pytest

from streams import settings
from streams.contract import topics
from streams.runtime.assignor import Together, share_out
from streams.runtime.batch import Message
from streams.runtime.fetch import Fetched, Place
from streams.runtime.room import TP, Room
from streams.runtime.step import Out, Question
from tests.contract.counting import metric, steps
from tests.contract.on_kafka import until

NAME = topics.ENDPOINT_METRICS.full("tradewind")


class Desk:
    """A room, what it sent, and a broker that answers `look` from `places`."""

    def __init__(self, **places: Place) -> None:
        self.sent: list[Out] = []
        self.asked: list[Mapping[TP, float | None]] = []
        self.places = places
        self.room = Room(steps(every_s=0.05), settings.Settings(), self.sent.extend, self.ask)

    async def ask(self, question: Question) -> None:
        return None

    async def look(self, wanted: Mapping[TP, float | None]) -> Mapping[TP, Place]:
        self.asked.append(wanted)
        return {tp: self.places.get(f"p{tp[1]}", Place(0, 0, None)) for tp in wanted}

    def hear(self, number: int, start: int, upto: int, *values: bytes) -> int | None:
        stamp = int(time.time() * 1000)
        messages = [Message(start + i, stamp, b"k", value) for i, value in enumerate(values)]
        return self.room.hear("count", (NAME, number), Fetched(start, upto, messages))


def said(seq: int) -> bytes:
    return msgspec.json.encode(metric("e", seq, time.time()))


async def test_a_partition_is_read_from_where_its_step_says_and_is_silent_until_its_end() -> None:
    desk = Desk(p1=Place(start=10, end=12, committed=11))
    await desk.room.own({(NAME, 1)}, desk.look)
    [(tp, since_s)] = desk.asked[0].items()
    assert tp == (NAME, 1)
    assert since_s == pytest.approx(time.time() - 600, abs=5)
    assert (desk.room.position(tp), desk.room.ready, desk.room.held) == (10, False, {1})
    desk.hear(1, 10, 11, b"bad")
    assert (desk.room.ready, desk.sent) == (False, [])  # offset 10 was judged by an owner before us
    desk.hear(1, 11, 12, b"bad")
    assert desk.room.ready
    assert [out.topic for out in desk.sent] == [topics.DEAD_LETTERS.name]


async def test_a_compacted_end_counts_as_read() -> None:
    desk = Desk(p0=Place(0, 5, None))
    await desk.room.own({(NAME, 0)}, desk.look)
    desk.hear(0, 0, 1, said(1))
    assert not desk.room.ready
    desk.hear(0, 1, 5)
    assert desk.room.ready


async def test_what_is_kept_is_not_looked_up_again_and_what_went_is_forgotten() -> None:
    desk = Desk()
    await desk.room.own({(NAME, 0), (NAME, 1)}, desk.look)
    desk.hear(0, 0, 3, said(1), said(2), said(3))
    await desk.room.own({(NAME, 0), (NAME, 2)}, desk.look)
    assert [sorted(n for _, n in wanted) for wanted in desk.asked] == [[0, 1], [2]]
    assert [desk.room.position((NAME, n)) for n in (0, 1, 2)] == [3, None, 0]
    assert desk.hear(1, 0, 1, said(1)) is None
    assert desk.room.held == {0, 2}


async def test_a_hole_in_what_was_fetched_is_asked_for_again_once() -> None:
    desk = Desk()
    await desk.room.own({(NAME, 0)}, desk.look)
    assert desk.hear(0, 0, 2, said(0), said(1)) is None
    assert desk.hear(0, 5, 6, said(5)) == 2
    assert desk.room.position((NAME, 0)) == 2
    assert desk.hear(0, 5, 6, said(5)) is None  # still missing: it was deleted
    assert desk.room.position((NAME, 0)) == 6


async def test_only_what_is_folded_beyond_the_committed_offset_is_committed() -> None:
    desk = Desk(p0=Place(0, 0, 2))
    await desk.room.own({(NAME, 0)}, desk.look)
    desk.hear(0, 0, 1, said(0))
    assert desk.room.committable() == {}
    desk.hear(0, 1, 3, said(1), said(2))
    assert desk.room.committable() == {(NAME, 0): 3}
    desk.room.committed({(NAME, 0): 3})
    assert desk.room.committable() == {}


async def test_a_room_speaks_while_it_owns_and_not_while_it_is_paused() -> None:
    desk = Desk()
    running = asyncio.create_task(desk.room.run())
    try:
        await desk.room.own({(NAME, 0)}, desk.look)
        desk.hear(0, 0, 1, said(0))
        await until(lambda: len(desk.sent) >= 2)
        desk.room.pause()
        quiet = len(desk.sent)
        await asyncio.sleep(0.15)  # three ticks
        assert len(desk.sent) == quiet
        assert not desk.room.ready
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running


async def test_a_stage_that_raises_ends_the_room() -> None:
    desk = Desk()
    running = asyncio.create_task(desk.room.run())
    await desk.room.own({(NAME, 0)}, desk.look)
    with pytest.raises(ValueError, match="poison"):
        desk.hear(0, 0, 1, msgspec.json.encode(metric("poison", 1, time.time())))
    with pytest.raises(ExceptionGroup) as group:
        await running
    assert group.group_contains(ValueError, match="poison")


def test_numbers_are_shared_out_evenly_and_stay_where_they_are() -> None:
    assert share_out(range(5), {"a": [], "b": []}) == {"a": [0, 1, 2], "b": [3, 4]}
    assert share_out(range(4), {"a": [0, 1, 2, 3], "b": []}) == {"a": [0, 1], "b": [2, 3]}
    assert share_out(range(4), {"b": [2, 3]}) == {"b": [0, 1, 2, 3]}
    assert share_out(range(1), {"a": [], "b": [0]}) == {"a": [], "b": [0]}
    assert share_out(range(2), {"a": [0, 1], "z": [0, 1]}) == {"a": [0], "z": [1]}


def test_the_same_number_of_all_topics_goes_to_the_same_worker() -> None:
    class Cluster:
        def partitions_for_topic(self, topic: str) -> set[int]:
            return set(range({"wide": 6, "alsowide": 6, "narrow": 1, "alsonarrow": 1}[topic]))

    everything = ["wide", "alsowide", "narrow", "alsonarrow"]
    members = {
        name: Together(lambda held=held: held).metadata(everything) for name, held in (("a", []), ("b", [0]), ("c", []))
    }
    dealt = Together(list).assign(Cluster(), members)
    by_topic = {m: dict(given.assignment) for m, given in dealt.items()}
    assert all(given["wide"] == given["alsowide"] and len(given["wide"]) == 2 for given in by_topic.values())
    assert [m for m, given in by_topic.items() if given["narrow"] == [0] and given["alsonarrow"] == [0]] == ["b"]
