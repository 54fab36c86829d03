"""On a real Kafka: the same number of all inputs of a step is on the same worker, and stays there if it can."""

from __future__ import annotations

import dataclasses

import pytest

from streams.contract import topics
from streams.runtime.room import Room
from streams.runtime.step import Earliest, Reads, Step
from streams.runtime.worker import carried
from tests.contract.counting import Counting, steps
from tests.contract.on_kafka import fresh, until

pytestmark = pytest.mark.kafka
NARROW = (topics.ENDPOINT_HEALTH, topics.DEMAND, topics.CAPACITY, topics.GATEWAY_STATUS)


def wide_and_narrow() -> tuple[Step, ...]:
    [counting] = steps()
    wide = dataclasses.replace(counting, reads=(*counting.reads, Reads(topics.ARRIVALS, Earliest())))
    narrow = tuple(Reads(topic, Earliest()) for topic in NARROW)
    return wide, Step(name="router", reads=narrow, writes=(), stage=Counting())


def numbers(room: Room, topic: topics.Topic) -> set[int]:
    return {number for name, number in room.assigned if name.endswith(topic.name)}


async def test_topics_of_a_step_stay_together_and_kept_numbers_keep_their_state(kafka: str) -> None:
    mine = await fresh(kafka)
    async with carried(wide_and_narrow(), mine, "both") as first:
        await until(lambda: first.ready and len(first.held) == 4)
        states = {n: held.state for n, held in first.lines[0].runner.partitions.items()}
        async with carried(wide_and_narrow(), mine, "both") as second:
            await until(lambda: second.ready and first.ready and len(second.held) == 2 and len(first.held) == 2)
            assert first.held | second.held == {0, 1, 2, 3}
            assert first.held == {0, 1}
            for room in (first, second):
                assert numbers(room, topics.ENDPOINT_METRICS) == numbers(room, topics.ARRIVALS) == room.held
            for topic in NARROW:
                assert (numbers(first, topic), numbers(second, topic)) == ({0}, set())
            kept = first.lines[0].runner.partitions
            assert all(kept[n].state is states[n] for n in kept)
        await until(lambda: first.ready and len(first.held) == 4, 5.0)
