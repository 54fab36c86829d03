"""Where tables come from: the compacted topic, or a file. A source never ends by itself and never verifies.

It outlives a broker that is away: it tries again for ever, a little slower each time, and counts.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, Final, Protocol

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from router_sync.client.shelf import Found, unpack
from streams import signals
from streams.contract.errors import Stop
from streams.contract.rights import Right
from streams.contract.topics import MAX_VALUE_BYTES, ROUTING_TABLE, Topic
from streams.runtime import preflight
from streams.runtime.access import Access, client_options, resolved
from streams.runtime.clock import Clock

_FIRST_WAIT_S: Final = 0.2
_LONGEST_WAIT_S: Final = 1.0
_PATIENT_S: Final = 30.0
_MOST_BACK: Final = 100_000
_POLL_MS: Final = 1000
_QUIET_POLLS: Final = 3
_ANSWER_S: Final = 3.0
_KEPT: Final = 8
"""Records kept per key while catching up: one that must not be followed does not hide the good one before it."""


class Source(Protocol):
    """Records of the routing-table topic, oldest first, for ever."""

    failures: int
    """How often it had to begin again."""
    why: str | None
    """What keeps it from its records now; None while it has them in sight."""

    def records(self) -> AsyncIterator[Found]: ...


class _NotThere(OSError):
    """What is followed is not there now, and may come."""


class _Away:
    """Tells of an absence once when it begins and once when it ends."""

    def __init__(self, source: str, what: str = "table") -> None:
        self._source, self._what = source, what
        self._reason: str | None = None

    def begins(self, reason: str) -> None:
        if reason != self._reason:
            again = {} if self._reason is None else {"before": self._reason}
            signals.event(f"{self._what}_source_away", "warning", source=self._source, reason=reason, **again)
        self._reason = reason

    def ends(self) -> None:
        if self._reason is not None:
            signals.event(f"{self._what}_source_back", source=self._source, was_away_because=self._reason)
        self._reason = None


class KafkaSource:
    """All services' tables from `kafka`: no consumer group, from the start, skipping to each key's last.

    `kafka` says how to get in, or is HOST:PORT where that is all. Another `topic` of one partition is followed from the
    unix seconds that `since_s` says, all its records one by one, but no more than the last `_MOST_BACK` that are there.
    Raises BadSetting when a file `kafka` names is of no use.
    """

    def __init__(
        self,
        kafka: Access | str,
        prefix: str,
        *,
        client_id: str = "tradewind-gateway",
        topic: Topic = ROUTING_TABLE,
        since_s: Clock | None = None,
    ) -> None:
        self.failures = 0
        self.why: str | None = "no broker has been reached yet"
        self._access, self._client_id = resolved(kafka), client_id
        client_options(self._access)  # what cannot be used is told at once
        tables = topic is ROUTING_TABLE
        self._away = _Away(self._access.bootstrap_servers, "table" if tables else topic.name.partition(".")[0])
        self._place = TopicPartition(topic.full(prefix), 0)
        self._since_s, self._longest_wait_s = since_s, _LONGEST_WAIT_S if tables else _PATIENT_S

    async def records(self) -> AsyncIterator[Found]:
        """Found records; after an outage it goes on where it was."""
        wait_s, position = _FIRST_WAIT_S, None
        while True:
            consumer = None
            try:
                consumer = self._consumer()
                await consumer.start()
                await self._check_topic(consumer)
                consumer.assign([self._place])
                async for found in self._read(consumer, position):
                    wait_s = _FIRST_WAIT_S
                    yield found
                    position = await consumer.position(self._place)
            except (KafkaError, OSError, TimeoutError, Stop) as error:
                self.failures += 1
                self.why = await self._reason(error)
                self._away.begins(self.why)
            finally:
                with contextlib.suppress(KafkaError, OSError):
                    if consumer is not None:
                        await consumer.stop()
            await asyncio.sleep(wait_s)
            wait_s = min(self._longest_wait_s, wait_s * 2)

    async def _reason(self, error: Exception) -> str:
        """`error` in words: that we are not let in, or may not read the topic, where it is that."""
        if isinstance(error, KafkaError | _NotThere):
            may_read = Right("topic", self._place.topic, "READ")
            if (denied := await preflight.because(self._access, [may_read])) is not None:
                return denied
        return str(error) or type(error).__name__

    def _consumer(self) -> Any:
        return AIOKafkaConsumer(
            **client_options(self._access),
            client_id=self._client_id,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            max_partition_fetch_bytes=4 * MAX_VALUE_BYTES,
            fetch_max_wait_ms=500,
            request_timeout_ms=10_000,
            metadata_max_age_ms=30_000,
            retry_backoff_ms=100,
        )

    async def _read(self, consumer: Any, position: int | None) -> AsyncIterator[Found]:
        ends = await consumer.end_offsets([self._place])
        begins = await consumer.beginning_offsets([self._place])
        end, begin = ends[self._place], begins[self._place]
        # a position beyond the end: the broker came back empty, so everything there is new
        known = position is not None and begin <= position <= end
        consumer.seek(self._place, position if known else await self._first(consumer, begin, end))
        self.why = None
        self._away.ends()
        for found in await self._last_per_key(consumer, end) if self._since_s is None else ():
            yield found
        quiet = 0
        while True:
            messages = await self._some(consumer)
            quiet = 0 if messages else quiet + 1
            if quiet >= _QUIET_POLLS:
                quiet = 0
                await self._check_broker(consumer)
            for message in messages:
                yield _found(message)

    async def _first(self, consumer: Any, begin: int, end: int) -> int:
        """The offset to begin at."""
        if self._since_s is None:
            return begin
        found = (await consumer.offsets_for_times({self._place: int(self._since_s() * 1000)}))[self._place]
        return end if found is None else max(int(found.offset), end - _MOST_BACK)

    async def _check_topic(self, consumer: Any) -> None:
        if self._place.topic not in await consumer.topics():
            raise _NotThere(f"the topic {self._place.topic} does not exist: run `tradewind topics create`")

    async def _check_broker(self, consumer: Any) -> None:
        """aiokafka waits for a lost broker without a word; who asks it something hears of it."""
        try:
            await asyncio.wait_for(consumer.end_offsets([self._place]), _ANSWER_S)
        except TimeoutError:
            raise OSError(f"no answer from {self._access.bootstrap_servers} for {_ANSWER_S:g} s") from None

    async def _last_per_key(self, consumer: Any, end: int) -> list[Found]:
        kept: dict[bytes, deque[Found]] = {}
        while await consumer.position(self._place) < end:
            for message in await self._some(consumer):
                found = _found(message)
                kept.setdefault(found.key, deque(maxlen=_KEPT)).append(found)
        return [found for last in kept.values() for found in last]

    async def _some(self, consumer: Any) -> list[Any]:
        fetched: Mapping[Any, list[Any]] = await consumer.getmany(self._place, timeout_ms=_POLL_MS)
        return fetched.get(self._place, [])


def _found(message: Any) -> Found:
    return Found(message.key or b"", message.value or b"", list(message.headers))


class FileSource:
    """A table in a file as `shelf.pack` writes it; read again whenever the file changes."""

    def __init__(self, path: Path, *, every_s: float = 0.2) -> None:
        self.failures = 0
        self.why: str | None = None
        self._away = _Away(str(path))
        self._path, self._every_s = path, every_s

    async def records(self) -> AsyncIterator[Found]:
        """The file's record now and after each change. A file that is not there, or not whole, is waited for."""
        seen: tuple[int, int, int] | None = None
        while True:
            mark = _mark(self._path)
            if mark is None:
                self._is_away(f"{self._path} is not there, or may not be read")
                seen = None
            elif mark != seen:
                seen = mark
                if (found := self._load()) is not None:
                    yield found
            await asyncio.sleep(self._every_s)

    def _load(self) -> Found | None:
        try:
            found = unpack(self._path.read_bytes())
        except (OSError, ValueError) as error:
            self._is_away(f"{self._path} holds no table: {error}")
            return None
        self.why = None
        self._away.ends()
        return found

    def _is_away(self, reason: str) -> None:
        if reason != self.why:
            self.failures += 1
        self.why = reason
        self._away.begins(reason)


def _mark(path: Path) -> tuple[int, int, int] | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_ino, stat.st_mtime_ns, stat.st_size


def hush_kafka() -> None:
    """aiokafka logs each attempt at a broker that is away; ours is one line per outage."""
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
