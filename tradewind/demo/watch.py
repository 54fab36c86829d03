"""An onlooker on the topics: what was said, when, and how long after the evidence.

old records | records of this run
────────────┼───────────────────► counted, timed
 "before"   └ ends, noted before anything is started
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Mapping
from typing import Any

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition

from streams import signals
from streams.contract import topics
from streams.contract.records import EndpointHealth, RoutingTable
from streams.runtime.clock import Clock
from streams.settings import Settings

_WATCHED = (topics.ROUTING_TABLE, topics.ENDPOINT_HEALTH, topics.DEAD_LETTERS)


class Onlooker:
    """What an onlooker knows: the newest tables and health, counts, and why tables moved.

    Evidence from before `since_s`, unix seconds, is an older run's and is not timed.
    """

    def __init__(self, since_s: float = 0.0) -> None:
        self.since_s = since_s
        self.tables: dict[str, RoutingTable] = {}
        self.health: dict[str, EndpointHealth] = {}
        self.published = 0
        self.table_at_s: list[float] = []
        """When each table came, unix seconds."""
        self.dead_letters = 0
        self.evidence_ms: list[float] = []
        """One figure per endpoint that left a table for a failure: first failed attempt to table record."""
        self.moves: deque[tuple[float, int, str]] = deque(maxlen=200)
        """(unix seconds, version, why) of each table that changed."""

    def see(self, topic: str, value: bytes, now_s: float, *, old: bool = False) -> None:
        """Take note of one message that arrived at `now_s`; an `old` table is only what the next is compared with."""
        if topic == topics.ROUTING_TABLE.name:
            table = msgspec.json.decode(value, type=RoutingTable)
            if not old:
                self._count(self.tables.get(table.service), table, now_s)
            self.tables[table.service] = table
        elif topic == topics.ENDPOINT_HEALTH.name:
            health = msgspec.json.decode(value, type=EndpointHealth)
            self.health[f"{health.source}/{health.part}"] = health
        elif topic == topics.DEAD_LETTERS.name:
            self.dead_letters += 1

    def _count(self, before: RoutingTable | None, table: RoutingTable, now_s: float) -> None:
        self.published += 1
        self.table_at_s.append(now_s)
        if before is None or _shares(before) != _shares(table) or _ready(before) != _ready(table):
            self.moves.append((now_s, table.version, table.reason))
        if before is not None and table.evidence_at_s is not None and table.evidence_at_s >= self.since_s:
            gone = _ready(before) - _ready(table)
            self.evidence_ms += [(now_s - table.evidence_at_s) * 1000.0] * len(gone)


def _shares(table: RoutingTable) -> list[tuple[tuple[str, ...], tuple[float, ...]]]:
    return [(route.endpoints, route.shares) for route in table.routes]


def _ready(table: RoutingTable) -> frozenset[str]:
    return frozenset(e.name for e in table.endpoints if e.state == "ready")


@contextlib.asynccontextmanager
async def watching(onlooker: Onlooker, settings: Settings, now_s: Clock) -> AsyncIterator[asyncio.Task[None]]:
    """Follow the topics while the context lasts, from what they hold when it is entered; a broker that is away is
    waited for.

    The task that is given never ends by itself; should it fail, it holds the error.
    """
    consumer = AIOKafkaConsumer(
        bootstrap_servers=settings.bootstrap_servers,
        enable_auto_commit=False,
        auto_offset_reset="latest",
        retry_backoff_ms=200,
    )
    following: asyncio.Task[None] | None = None
    try:
        await consumer.start()
        names = {t.full(settings.topic_prefix): t.name for t in _WATCHED}
        ends = await _placed(consumer, names)
        following = asyncio.create_task(_follow(consumer, onlooker, names, ends, now_s))
        yield following
    finally:
        if following is not None:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
        await asyncio.shield(consumer.stop())


async def _placed(consumer: Any, names: Mapping[str, str]) -> dict[TopicPartition, int]:
    """Where each topic ends now. Tables are read from the beginning, since the last of them is still in force."""
    watched = [TopicPartition(name, 0) for name in names]
    consumer.assign(watched)
    begins: dict[TopicPartition, int] = await consumer.beginning_offsets(watched)
    ends: dict[TopicPartition, int] = await consumer.end_offsets(watched)
    for at in watched:  # `seek_to_beginning` may lose against the reset that `assign` has under way
        consumer.seek(at, (begins if names[at.topic] == topics.ROUTING_TABLE.name else ends)[at])
    return ends


async def _follow(
    consumer: Any, onlooker: Onlooker, names: Mapping[str, str], ends: Mapping[TopicPartition, int], now_s: Clock
) -> None:
    while True:
        fetched: dict[TopicPartition, list[Any]] = await consumer.getmany(timeout_ms=500)
        for at, messages in fetched.items():
            for message in messages:
                _see(onlooker, names[at.topic], message.value, now_s(), old=message.offset < ends[at])


def _see(onlooker: Onlooker, topic: str, value: bytes | None, now_s: float, *, old: bool) -> None:
    try:
        if value is not None:
            onlooker.see(topic, value, now_s, old=old)
    except msgspec.MsgspecError as error:
        signals.event("onlooker_cannot_read", "warning", topic=topic, why=str(error))
