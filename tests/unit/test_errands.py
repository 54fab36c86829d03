"""Errands of a stage: run beside the loop, one at a time on each, and what they bring is folded in and said."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterable
from typing import Any

import msgspec
import pytest

from streams import settings
from streams.contract import topics
from streams.runtime.batch import Message
from streams.runtime.fetch import Fetched, Place
from streams.runtime.memory import MemoryCarrier
from streams.runtime.room import Room
from streams.runtime.step import Errand, Out
from tests.contract.counting import Counting, Counts, metric, steps
from tests.contract.on_kafka import until

NAME = topics.ENDPOINT_METRICS.full("tradewind")


class Sending(Counting):
    """Counting; for each endpoint heard an errand that brings its length, summed up in `failed`."""

    def __init__(self) -> None:
        self.wanted: dict[str, int] = {}

    def fold(self, state: Counts, heard: Any) -> Counts:
        state = super().fold(state, heard)
        self.wanted |= {record.endpoint: heard.batch.partition for record in heard.records}
        return state

    def errands(self, state: Counts) -> Iterable[Errand]:
        return [Errand(name, len(name)) for name, number in self.wanted.items() if state.source.endswith(f"/{number}")]

    def brought(self, state: Counts, errand: Errand, what: int) -> Counts:
        self.wanted.pop(errand.on, None)
        state.squares += what
        return state


class Desk:
    """A room with hands that wait until they are let go."""

    def __init__(self) -> None:
        self.stage = Sending()
        self.sent: list[Out] = []
        self.running: dict[str, asyncio.Event] = {}
        self.ends: dict[int, int] = {}
        self.room = Room(steps(self.stage, every_s=0.05), settings.Settings(), self.sent.extend, self.ask, self.act)

    async def ask(self, _: Any) -> None: ...

    async def act(self, errand: Errand) -> int:
        go = self.running[errand.on] = asyncio.Event()
        try:
            await go.wait()
        finally:
            del self.running[errand.on]
        return int(errand.what)

    async def own(self, *numbers: int) -> None:
        async def look(wanted: Any) -> Any:
            return {tp: Place(0, self.ends.get(tp[1], 0), None) for tp in wanted}

        await self.room.own({(NAME, number) for number in numbers}, look)

    def hear(self, number: int, offset: int, *endpoints: str) -> None:
        values = [msgspec.json.encode(metric(name, offset + n, time.time())) for n, name in enumerate(endpoints)]
        self.ends[number] = offset + len(values)
        messages = [Message(offset + n, int(time.time() * 1000), b"k", value) for n, value in enumerate(values)]
        self.room.hear("count", (NAME, number), Fetched(offset, offset + len(values), messages))

    @property
    def brought(self) -> int:
        said = [msgspec.json.decode(out.value or b"") for out in self.sent if out.topic == topics.DEMAND.name]
        return max((one["failed"][0] for one in said), default=0)


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    made = Desk()
    running = asyncio.create_task(made.room.run())
    yield made
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running


async def test_errands_are_under_way_together_and_each_is_told_when_it_is_done(desk: Desk) -> None:
    await desk.own(0)
    desk.hear(0, 0, "a", "bb")
    await until(lambda: desk.running.keys() == {"a", "bb"})
    desk.running["bb"].set()
    await until(lambda: desk.brought == 2)
    assert desk.running.keys() == {"a"}, "one that hangs holds up no other"
    desk.running["a"].set()
    await until(lambda: desk.brought == 3)


async def test_on_whom_an_errand_is_under_way_no_second_one_is_sent(desk: Desk) -> None:
    await desk.own(0)
    desk.hear(0, 0, "a")
    await until(lambda: "a" in desk.running)
    first = desk.running["a"]
    desk.hear(0, 1, "a")
    said = len(desk.sent)
    await until(lambda: len(desk.sent) > said + 2)
    assert desk.running["a"] is first
    first.set()
    await until(lambda: desk.brought == 1)


async def test_when_a_partition_goes_its_errands_are_called_off_and_others_go_on(desk: Desk) -> None:
    await desk.own(0, 1)
    desk.hear(0, 0, "a")
    desk.hear(1, 0, "bb")
    await until(lambda: desk.running.keys() == {"a", "bb"})
    await desk.own(1)
    await until(lambda: desk.running.keys() == {"bb"})
    desk.running["bb"].set()
    await until(lambda: desk.brought == 2)


async def test_a_paused_room_sends_nobody_and_keeps_what_is_brought(desk: Desk) -> None:
    await desk.own(0)
    desk.hear(0, 0, "a")
    await until(lambda: "a" in desk.running)
    desk.room.pause()
    desk.running["a"].set()
    await until(lambda: not desk.running)
    desk.hear(0, 1, "bb")
    (line,) = desk.room.lines
    assert line.runner.errands() == []
    assert desk.brought == 0
    await desk.own(0)
    await until(lambda: desk.brought == 1 and "bb" in desk.running)


async def test_a_stage_with_errands_and_nobody_to_run_them_is_a_mistake_found_at_once() -> None:
    desk = Desk()
    with pytest.raises(ValueError, match="nobody to run them"):
        Room(steps(desk.stage), settings.Settings(), desk.sent.extend, desk.ask)


def test_in_memory_errands_come_back_at_once_with_the_virtual_time() -> None:
    times: list[float] = []

    def act(errand: Errand, now_s: float) -> int:
        times.append(now_s)
        return int(errand.what)

    now_s = 1_800_000_000.0
    carrier = MemoryCarrier(steps(Sending()), now_s=now_s, act=act)
    for n, name in enumerate(("a", "bb", "ccc")):
        carrier.send(topics.ENDPOINT_METRICS, name, msgspec.json.encode(metric(name, n, now_s)))
    carrier.run_until(now_s + 1)
    said = [msgspec.json.decode(m.value or b"") for m in carrier.said(topics.DEMAND)]
    assert sum({one["source"]: one["failed"][0] for one in said}.values()) == 6
    assert all(now_s <= at_s <= now_s + 1 for at_s in times)
