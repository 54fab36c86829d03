"""An onlooker on the topics: what was said, when, and how long after the evidence."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition

from streams import signals
from streams.contract import topics
from streams.contract.records import EndpointHealth, RoutingTable
from streams.runtime.clock import Clock
from streams.settings import Settings

_WATCHED = (topics.ROUTING_TABLE, topics.ENDPOINT_HEALTH, topics.DEAD_LETTERS)


class Seat:
    """What an onlooker knows: the newest tables and health, counts, and why tables moved."""

    def __init__(self) -> None:
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

    def see(self, topic: str, value: bytes, now_s: float) -> None:
        """Take note of one message that arrived at `now_s`."""
        if topic == topics.DEAD_LETTERS.name:
            self.dead_letters += 1
        elif topic == topics.ENDPOINT_HEALTH.name:
            health = msgspec.json.decode(value, type=EndpointHealth)
            self.health[f"{health.source}/{health.part}"] = health
        elif topic == topics.ROUTING_TABLE.name:
            self._table(msgspec.json.decode(value, type=RoutingTable), now_s)

    def _table(self, table: RoutingTable, now_s: float) -> None:
        before = self.tables.get(table.service)
        self.published += 1
        self.table_at_s.append(now_s)
        self.tables[table.service] = table
        if before is None or _shares(before) != _shares(table) or _ready(before) != _ready(table):
            self.moves.append((now_s, table.version, table.reason))
        if before is not None and table.evidence_at_s is not None:
            gone = _ready(before) - _ready(table)
            self.evidence_ms += [(now_s - table.evidence_at_s) * 1000.0] * len(gone)


def _shares(table: RoutingTable) -> list[tuple[tuple[str, ...], tuple[float, ...]]]:
    return [(route.endpoints, route.shares) for route in table.routes]


def _ready(table: RoutingTable) -> frozenset[str]:
    return frozenset(e.name for e in table.endpoints if e.state == "ready")


async def watch(seat: Seat, settings: Settings, now_s: Clock) -> None:
    """Follow the topics from their ends, for ever; a broker that is away is waited for."""
    consumer = AIOKafkaConsumer(
        bootstrap_servers=settings.bootstrap_servers,
        enable_auto_commit=False,
        auto_offset_reset="latest",
        retry_backoff_ms=200,
    )
    await consumer.start()
    try:
        names = {t.full(settings.topic_prefix): t.name for t in _WATCHED}
        consumer.assign([TopicPartition(name, 0) for name in names])
        await _from_the_start(consumer, [name for name in names if names[name] == topics.ROUTING_TABLE.name])
        while True:
            fetched: dict[Any, list[Any]] = await consumer.getmany(timeout_ms=500)
            for at, messages in fetched.items():
                for message in messages:
                    _see(seat, names[at.topic], message.value, now_s())
    finally:
        await asyncio.shield(consumer.stop())


async def _from_the_start(consumer: Any, names: list[str]) -> None:
    await consumer.seek_to_beginning(*(TopicPartition(name, 0) for name in names))


def _see(seat: Seat, topic: str, value: bytes | None, now_s: float) -> None:
    try:
        if value is not None:
            seat.see(topic, value, now_s)
    except msgspec.MsgspecError as error:
        signals.event("onlooker_cannot_read", "warning", topic=topic, why=str(error))
