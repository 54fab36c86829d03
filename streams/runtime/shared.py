"""Inputs that every worker reads: all of them, outside the consumer group."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from streams import signals
from streams.contract.topics import Topic
from streams.runtime.access import client_options
from streams.runtime.batch import Messagelike
from streams.runtime.fetch import look
from streams.runtime.preflight import Seldom, words
from streams.runtime.step import Reads, Since
from streams.settings import Settings


class Hear(Protocol):
    """Takes what was read; `anew`: the topic's offsets have begun again."""

    def __call__(self, topic: Topic, partition: int, records: Sequence[Messagelike], *, anew: bool = False) -> None: ...


_AGAIN_S = 1.0


class SharedReader:
    """Reads `inputs` to their end in `start`, then goes on in `follow`; all is handed to `hear`."""

    def __init__(self, inputs: Sequence[Reads], settings: Settings, hear: Hear) -> None:
        self._settings, self._hear, self._seldom = settings, hear, Seldom()
        self._inputs: Mapping[str, Reads] = {r.topic.full(settings.topic_prefix): r for r in inputs}
        self._next: dict[Any, int] = {}
        """Partition to the offset after the last record handed on."""
        self._consumer = AIOKafkaConsumer(
            **client_options(settings),
            client_id="tradewind",
            enable_auto_commit=False,
            auto_offset_reset="earliest",
        )

    async def start(self, now_s: float) -> None:
        """Read up to the ends seen now. Raises KafkaError."""
        await self._consumer.start()
        # a shared topic is small and has one partition
        wanted = {(name, 0): self._since_s(reads, now_s) for name, reads in self._inputs.items()}
        self._consumer.assign([TopicPartition(*tp) for tp in wanted])
        places = await look(self._consumer, wanted)
        for tp, place in places.items():
            self._consumer.seek(TopicPartition(*tp), place.start)
        for tp, place in places.items():
            while await self._consumer.position(TopicPartition(*tp)) < place.end:
                await self._read(100)

    async def follow(self) -> None:
        """Hand on what comes, for ever; an unreachable broker is waited for."""
        while True:
            try:
                await self._read(1000)
            except KafkaError as error:
                reason = words(self._settings, error, "READ")
                if self._seldom.passes(reason):
                    signals.event("shared_read_failed", "warning", reason=reason)
                await asyncio.sleep(_AGAIN_S)

    async def stop(self) -> None:
        """Disconnect."""
        await self._consumer.stop()

    async def _read(self, timeout_ms: int) -> None:
        got: Mapping[Any, Sequence[Messagelike]] = await self._consumer.getmany(timeout_ms=timeout_ms)
        for partition, records in got.items():
            # the consumer goes back on its own only where its place is beyond the end: the topic was made anew
            anew = records[0].offset < self._next.get(partition, 0)
            if anew:
                signals.event("topic_made_anew", "warning", topic=partition.topic)
            self._next[partition] = records[-1].offset + 1
            self._hear(self._inputs[partition.topic].topic, partition.partition, records, anew=anew)

    @staticmethod
    def _since_s(reads: Reads, now_s: float) -> float | None:
        return now_s - reads.restore.seconds if isinstance(reads.restore, Since) else None
