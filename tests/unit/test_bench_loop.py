"""What the loop's bench reports of a silence."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from aiokafka import TopicPartition

from bench.loop import Onlooker, rewind
from streams.contract import topics
from streams.contract.records import EndpointHealth


def nothing_of(source: str) -> bytes:
    columns = dict.fromkeys(EndpointHealth.__struct_fields__[4:], ())
    optional = {"errors", "late", "duplicates"}
    kept = {name: column for name, column in columns.items() if name not in optional}
    return msgspec.json.encode(EndpointHealth(source=source, made_at_s=1.0, **kept))  # type: ignore[arg-type]


def test_a_source_that_never_spoke_again_is_the_longest_silence() -> None:
    seat = Onlooker()
    for source, at_s in (("m/0", 0.0), ("m/1", 0.0), ("m/0", 3.0), ("m/0", 4.0)):
        seat.see(topics.ENDPOINT_HEALTH.full("tradewind"), nothing_of(source), at_s)
    assert seat.longest_gap_s(5.0) == 5.0, "of m/1, which is silent still"
    seat.see(topics.ENDPOINT_HEALTH.full("tradewind"), nothing_of("m/1"), 5.5)
    assert seat.longest_gap_s(6.0) == 5.5
    seat.forget_gaps()
    assert seat.longest_gap_s(6.0) == 2.0, "of m/0 since 4 s"


class Racing:
    """A consumer whose reset to the end, under way since `assign`, undoes every seek but one to an offset."""

    def __init__(self, begins: dict[TopicPartition, int]) -> None:
        self.begins, self.at = begins, dict.fromkeys(begins, -1)

    def assign(self, partitions: list[TopicPartition]) -> None:
        assert set(partitions) == set(self.begins)

    async def beginning_offsets(self, partitions: list[TopicPartition]) -> dict[TopicPartition, int]:
        return {at: self.begins[at] for at in partitions}

    async def seek_to_beginning(self, *_: Any) -> None:
        """Lost against the reset."""

    def seek(self, at: TopicPartition, offset: int) -> None:
        self.at[at] = offset


def test_the_bench_reads_its_topics_from_their_first_offset_whatever_else_is_under_way() -> None:
    begins = {TopicPartition("table", 0): 7, TopicPartition("health", 0): 0}
    consumer = Racing(begins)
    asyncio.run(rewind(consumer, list(begins)))
    assert consumer.at == begins
