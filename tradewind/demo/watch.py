"""An onlooker on the topics: what was said, when, and how long after the evidence.

old records | records of this run
────────────┼───────────────────► counted, timed
 "before"   └ ends, noted before anything is started
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition

from streams.contract import topics
from streams.contract.records import EndpointHealth, RoutingTable
from streams.runtime.access import client_options
from streams.runtime.clock import Clock
from streams.settings import Settings

_SILENCE_S = 5.0
"""Health speaks each second, so that much silence means that somebody is away."""
_CALM_S = 5.0
_KEPT = 5000
_STOP_S = 2.0
_WATCHED = (topics.ROUTING_TABLE, topics.ENDPOINT_HEALTH, topics.DEAD_LETTERS)


class Onlooker:
    """What an onlooker knows: the newest tables and health, counts, and why tables moved.

    Evidence from before `since_s`, unix seconds, is an older run's and is not timed. `say` hears a sentence when
    nothing is to be heard, or cannot be read, and another one when that is over.
    """

    def __init__(self, since_s: float = 0.0, say: Callable[[str], None] = lambda _: None) -> None:
        self.since_s, self.say = since_s, say
        self._heard_at_s: float | None = None
        self._away = False
        self._unread: dict[str, float] = {}
        """Topic to when something there could not be read last."""
        self.tables: dict[str, RoutingTable] = {}
        self.health: dict[str, EndpointHealth] = {}
        self.published = 0
        self.table_at_s: list[float] = []
        """When each table came, unix seconds."""
        self.history: deque[tuple[float, RoutingTable]] = deque(maxlen=_KEPT)
        """The last tables of this run, with when they came, unix seconds."""
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

    def listened(self, now_s: float, *, heard: bool) -> None:
        """Something was heard until `now_s`, or nothing; silence before the first word is no absence."""
        if self._heard_at_s is not None and now_s - self._heard_at_s >= _SILENCE_S and not self._away:
            self._away = True
            self.say(f"nothing was heard on the topics for {_SILENCE_S:.0f} s: the broker or the workers are away")
        if heard:
            if self._away and self._heard_at_s is not None:
                self.say(f"the topics are heard again, after {now_s - self._heard_at_s:.0f} s of silence")
            self._heard_at_s, self._away = now_s, False

    def misread(self, topic: str, why: str, now_s: float) -> None:
        """A message on `topic` could not be read."""
        if topic not in self._unread:
            self.say(f"the onlooker cannot read a record on {topic} ({why}) and passes over such records")
        self._unread[topic] = now_s

    def read(self, topic: str, now_s: float) -> None:
        """A message on `topic` was read."""
        if now_s - self._unread.get(topic, now_s) >= _CALM_S:
            del self._unread[topic]
            self.say(f"the onlooker can read what is said on {topic} again")

    def _count(self, before: RoutingTable | None, table: RoutingTable, now_s: float) -> None:
        self.published += 1
        self.table_at_s.append(now_s)
        self.history.append((now_s, table))
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
        **client_options(settings),
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
        await _stopped(consumer)


async def _stopped(consumer: Any) -> None:
    """Comes back when it is, or after two seconds: without a broker it may take long, or say that it was cancelled."""
    await asyncio.wait([asyncio.gather(consumer.stop(), return_exceptions=True)], timeout=_STOP_S)


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
        onlooker.listened(now_s(), heard=bool(fetched))
        for at, messages in fetched.items():
            for message in messages:
                _see(onlooker, names[at.topic], message.value, now_s(), old=message.offset < ends[at])


def _see(onlooker: Onlooker, topic: str, value: bytes | None, now_s: float, *, old: bool) -> None:
    try:
        if value is not None:
            onlooker.see(topic, value, now_s, old=old)
            onlooker.read(topic, now_s)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        onlooker.misread(topic, str(error), now_s)
