"""Helpers of tests on a real Kafka: topics of one's own, sending, reading back, waiting for a condition."""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import Any

import msgspec
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from streams import settings
from streams.contract.topics import Topic
from streams.runtime import admin
from streams.settings import Settings

encode = msgspec.json.encode


async def fresh(bootstrap: str, **more: Any) -> Settings:
    """Settings with a prefix of their own, topics made."""
    mine = settings.load(
        bootstrap_servers=bootstrap,
        topic_prefix=f"t{uuid.uuid4().hex[:10]}",
        wide_partitions=4,
        session_timeout_s=2.0,
        heartbeat_s=0.3,
        commit_interval_s=0.2,
        **more,
    )
    await admin.create(mine)
    return mine


@contextlib.asynccontextmanager
async def producer(mine: Settings) -> AsyncIterator[AIOKafkaProducer]:
    made = AIOKafkaProducer(bootstrap_servers=mine.bootstrap_servers, acks="all", enable_idempotence=True, linger_ms=5)
    await made.start()
    try:
        yield made
    finally:
        await made.stop()


async def send(mine: Settings, messages: Iterable[tuple[Topic, bytes, bytes | None]]) -> None:
    """Send in order and wait until all are with the broker."""
    async with producer(mine) as made:
        for topic, key, value in messages:
            await made.send(topic.full(mine.topic_prefix), value, key=key)
        await made.flush()


async def read_all(mine: Settings, topic: Topic) -> list[Any]:
    """Everything on `topic` now, partition by partition."""
    reader = AIOKafkaConsumer(bootstrap_servers=mine.bootstrap_servers, auto_offset_reset="earliest")
    await reader.start()
    try:
        name, count = topic.full(mine.topic_prefix), mine.wide_partitions if topic.width == "wide" else 1
        partitions = [TopicPartition(name, number) for number in range(count)]
        reader.assign(partitions)
        ends = await reader.end_offsets(partitions)
        records: list[Any] = []
        for partition in partitions:
            while await reader.position(partition) < ends[partition]:
                for got in (await reader.getmany(timeout_ms=1000)).values():
                    records += got
        return sorted(records, key=lambda record: (record.partition, record.offset))
    finally:
        await reader.stop()


async def until(condition: Callable[[], Any], deadline_s: float = 20.0) -> Any:
    """The first true value of `condition` (awaited if need be); fails after `deadline_s`."""
    ends_at_s = time.monotonic() + deadline_s
    while True:
        value = condition()
        if asyncio.iscoroutine(value):
            value = await value
        if value:
            return value
        assert time.monotonic() < ends_at_s, f"not within {deadline_s} s: {condition}"
        await asyncio.sleep(0.05)


def latest_by_key(records: Sequence[Any]) -> dict[bytes, Any]:
    """The last JSON value of each key."""
    return {record.key: msgspec.json.decode(record.value) for record in records}
