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
from streams.contract.records import Fleet
from streams.runtime.assignor import Together, share_out
from streams.runtime.batch import Message
from streams.runtime.fetch import Fetched, Place
from streams.runtime.room import TP, Room
from streams.runtime.step import Out, Question
from tests.contract.counting import Counting, Pondering, metric, steps
from tests.contract.on_kafka import until

NAME = topics.ENDPOINT_METRICS.full("tradewind")


class Desk:
    """A room, what it sent, and a broker that answers `look` from `places`."""

    def __init__(self, stage: Counting | None = None, **places: Place) -> None:
        self.sent: list[Out] = []
        self.asked: list[Mapping[TP, float | None]] = []
        self.places = places
        self.room = Room(steps(stage, every_s=0.05), settings.Settings(), self.sent.extend, self.ask)

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


def urgent(seq: int) -> bytes:
    return msgspec.json.encode(metric("e", seq, time.time(), errors={"connect": 1}))


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


async def test_what_is_kept_is_not_read_again_and_what_went_is_forgotten() -> None:
    desk = Desk()
    await desk.room.own({(NAME, 0), (NAME, 1)}, desk.look)
    desk.hear(0, 0, 3, said(1), said(2), said(3))
    desk.places["p0"] = Place(0, 3, None)
    await desk.room.own({(NAME, 0), (NAME, 2)}, desk.look)
    assert [sorted(n for _, n in wanted) for wanted in desk.asked] == [[0, 1], [0, 2]]
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
    desk = Desk(p0=Place(0, 2, 2))
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
        (line,) = desk.room.lines
        line.wake.set()
        assert line.runner.tick(time.time()) == []
        desk.hear(0, 1, 2, urgent(1))
        assert len(desk.sent) == quiet
        assert not desk.room.ready
        desk.places["p0"] = Place(0, 2, None)
        await desk.room.own({(NAME, 0)}, desk.look)
        await until(lambda: len(desk.sent) > quiet)
        assert msgspec.json.decode(desk.sent[quiet].value or b"")["arrived"] == [2]
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running


async def test_a_paused_room_says_what_it_refuses_and_holds_evidence_and_answers() -> None:
    desk = Desk(stage=Pondering())
    await desk.room.own({(NAME, 0)}, desk.look)
    desk.hear(0, 0, 1, said(0))
    (line,) = desk.room.lines
    (_,) = line.runner.questions()
    desk.room.pause()
    desk.hear(0, 1, 3, urgent(1), b"bad")
    assert [out.topic for out in desk.sent] == [topics.DEAD_LETTERS.name]
    assert line.runner.answer(0, 4, time.time() + 1) == []
    desk.places["p0"] = Place(0, 3, None)
    await desk.room.own({(NAME, 0)}, desk.look)
    (view,) = line.runner.speak(time.time() + 2)
    said_now = msgspec.json.decode(view.value or b"")
    assert (said_now["arrived"], said_now["failed"]) == ([2], [4])


async def test_evidence_of_a_partition_that_went_while_paused_is_not_said() -> None:
    desk = Desk()
    await desk.room.own({(NAME, 0), (NAME, 1)}, desk.look)
    desk.room.pause()
    desk.hear(0, 0, 1, urgent(0))
    await desk.room.own({(NAME, 1)}, desk.look)
    (line,) = desk.room.lines
    assert line.runner.speak(time.time() + 1) == []


# ---------------------------------------------------------------- topics made anew


async def test_a_kept_partition_whose_topic_was_made_anew_is_read_anew() -> None:
    desk = Desk()
    await desk.room.own({(NAME, 0), (NAME, 1)}, desk.look)
    desk.hear(0, 0, 3, said(1), said(2), said(3))
    desk.hear(1, 0, 2, said(4), said(5))
    desk.places = {"p0": Place(0, 1, 3), "p1": Place(0, 2, None)}
    await desk.room.own({(NAME, 0), (NAME, 1)}, desk.look)
    assert (desk.room.position((NAME, 0)), desk.room.position((NAME, 1))) == (0, 2)
    assert desk.hear(0, 0, 1, b"bad") is None
    assert [out.topic for out in desk.sent] == [topics.DEAD_LETTERS.name], "what the old topic committed judges nothing"
    desk.hear(0, 1, 2, said(6))
    (line,) = desk.room.lines
    assert [len(line.runner.partitions[n].state.seen) for n in (0, 1)] == [1, 2]
    assert desk.room.committable() == {(NAME, 0): 2, (NAME, 1): 2}


async def test_an_end_before_our_place_is_believed_at_the_second_look_and_read_from_anew() -> None:
    desk = Desk()
    await desk.room.own({(NAME, 0), (NAME, 1)}, desk.look)
    desk.hear(0, 0, 3, said(1), said(2), said(3))
    desk.hear(1, 0, 2, said(4), said(5))
    ends = {(NAME, 0): 3, (NAME, 1): 2}
    assert not desk.room.measure(ends.get)
    ends[NAME, 0] = 2  # a new leader that does not know all yet
    assert not desk.room.measure(ends.get)
    ends[NAME, 0] = 3
    assert not desk.room.measure(ends.get)
    ends[NAME, 0] = 0
    assert not desk.room.measure(ends.get)
    assert desk.room.measure(ends.get)
    desk.places = {"p0": Place(0, 0, None), "p1": Place(0, 2, None)}
    assert await desk.room.renew(desk.look) == {(NAME, 0): 0}
    desk.hear(0, 0, 1, said(9))
    assert [desk.room.position((NAME, n)) for n in (0, 1)] == [1, 2]
    assert desk.room.ready


async def test_records_that_come_while_ends_are_looked_up_do_not_look_like_a_topic_made_anew() -> None:
    desk = Desk()
    await desk.room.own({(NAME, 0)}, desk.look)
    desk.hear(0, 0, 3, said(1), said(2), said(3))

    async def slow(wanted: Mapping[TP, float | None]) -> Mapping[TP, Place]:
        desk.hear(0, 3, 4, said(4))
        return {tp: Place(0, 3, None) for tp in wanted}

    assert await desk.room.renew(slow) == {}
    assert desk.room.position((NAME, 0)) == 4


async def test_a_paused_room_renews_nothing_for_the_rebalance_looks_itself() -> None:
    desk = Desk()
    await desk.room.own({(NAME, 0)}, desk.look)
    desk.room.pause()
    assert await desk.room.renew(desk.look) == {}
    assert len(desk.asked) == 1


async def test_shared_facts_made_anew_are_heard_from_their_beginning() -> None:
    desk = Desk()
    await desk.room.own({(NAME, 0)}, desk.look)

    def facts(version: int) -> Message:
        fleet = Fleet(version=version, services=(), origins=(), endpoints=())
        return Message(0, int(time.time() * 1000), b"default", msgspec.json.encode(fleet))

    (line,) = desk.room.lines
    desk.room.hear_shared(topics.FLEET, 0, [facts(1)])
    desk.room.hear_shared(topics.FLEET, 0, [facts(2)])
    assert line.runner.partitions[0].state.fleet == 1, "read again, as after a broker came back"
    desk.room.hear_shared(topics.FLEET, 0, [facts(2)], anew=True)
    assert line.runner.partitions[0].state.fleet == 2


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
