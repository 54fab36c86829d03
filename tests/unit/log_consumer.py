"""A consumer over the memory carrier's topics: what hands ask of Kafka, answered without one."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any, NamedTuple

import pytest
from aiokafka import TopicPartition

from streams.contract.topics import Topic
from streams.runtime.batch import Message
from streams.settings import Settings


class Record(NamedTuple):
    """A record as a consumer hands it out."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]


class LogConsumer:
    """Reads one-partition topics from lists of messages; offsets are those of the messages."""

    def __init__(self, settings: Settings, logs: Mapping[Topic, Iterable[Message]]) -> None:
        self._logs = {
            topic.full(settings.topic_prefix): [
                Record(topic.name, 0, m.offset, m.timestamp, m.key, m.value, tuple(m.headers)) for m in messages
            ]
            for topic, messages in logs.items()
        }
        self._at: dict[TopicPartition, int] = {}

    async def topics(self) -> set[str]:
        return set(self._logs)

    def assign(self, places: Iterable[TopicPartition]) -> None:
        self._at = dict.fromkeys(places, 0)

    async def beginning_offsets(self, places: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        return {place: log[0].offset if (log := self._logs[place.topic]) else 0 for place in places}

    async def end_offsets(self, places: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        return {place: log[-1].offset + 1 if (log := self._logs[place.topic]) else 0 for place in places}

    async def offsets_for_times(self, times: Mapping[TopicPartition, int]) -> dict[TopicPartition, Any]:
        return {
            place: next((r for r in self._logs[place.topic] if r.timestamp >= since_ms), None)
            for place, since_ms in times.items()
        }

    def seek(self, place: TopicPartition, offset: int) -> None:
        self._at[place] = offset

    async def position(self, place: TopicPartition) -> int:
        return self._at[place]

    async def getmany(self, place: TopicPartition, timeout_ms: int = 0) -> dict[TopicPartition, list[Record]]:
        found = [r for r in self._logs[place.topic] if r.offset >= self._at[place]][:7]
        if found:
            self._at[place] = found[-1].offset + 1
        return {place: found}


def answers(monkeypatch: pytest.MonkeyPatch, consumer: LogConsumer) -> None:
    """Let whoever opens a reader have `consumer`."""

    @contextlib.asynccontextmanager
    async def reader(settings: Settings) -> AsyncIterator[LogConsumer]:
        yield consumer

    monkeypatch.setattr("tradewind.hands.kafka.reader", reader)
