"""Where reports go: Kafka through two producers, one that waits for company and one that does not; or a list.

    emit ──► urgent ──► queue ──► producer, linger 0 ms ──┐
         └─► others ──► queue ──► producer, linger 5 ms ──┴──► broker

A queue is bounded: while the broker is away its oldest reports are dropped and counted. The default partitioner of
both producers is murmur2.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple, Protocol

import msgspec
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from streams import signals
from streams.contract.topics import TOPIC_OF

_encode: Final = msgspec.json.Encoder().encode
_LONGEST_WAIT_S: Final = 1.0
_JSON: Final = b"application/json"
Headers = list[tuple[str, bytes]]


class Sink(Protocol):
    """Takes reports and never waits. `dropped` counts by topic what could not be kept."""

    dropped: dict[str, int]

    def emit(self, record: msgspec.Struct, now_s: float, *, urgent: bool = False) -> None: ...
    async def start(self) -> None: ...
    async def stop(self, within_s: float) -> None: ...


class ListSink:
    """A sink that keeps everything in `records` as (record, urgent)."""

    def __init__(self) -> None:
        self.records: list[tuple[msgspec.Struct, bool]] = []
        self.dropped: dict[str, int] = {}

    def emit(self, record: msgspec.Struct, now_s: float, *, urgent: bool = False) -> None:
        self.records.append((record, urgent))

    async def start(self) -> None: ...

    async def stop(self, within_s: float) -> None: ...


class _Report(NamedTuple):
    topic: str
    full: str
    key: bytes
    value: bytes
    headers: Headers


class KafkaSink:
    """Reports to `bootstrap_servers`. `source` names this gateway in the headers; `queue` bounds each lane."""

    def __init__(self, bootstrap_servers: str, prefix: str, source: str, *, queue: int = 10_000) -> None:
        self.dropped: dict[str, int] = {}
        self._prefix, self._source, self._number = prefix, source, 0
        self._soon = _Lane(self, bootstrap_servers, source, 0, queue)
        self._batch = _Lane(self, bootstrap_servers, source, 5, queue)

    def emit(self, record: msgspec.Struct, now_s: float, *, urgent: bool = False) -> None:
        topic = TOPIC_OF[type(record)]
        self._number += 1
        key = topic.key_of(record).encode()
        report = _Report(topic.name, topic.full(self._prefix), key, _encode(record), self._headers(topic.name, now_s))
        (self._soon if urgent else self._batch).put(report)

    async def start(self) -> None:
        """Begin; a broker that is away is waited for in the background."""
        self._soon.start()
        self._batch.start()

    async def stop(self, within_s: float) -> None:
        """Send what is queued, at most for `within_s`; the rest is dropped and counted."""
        await asyncio.gather(self._soon.stop(within_s), self._batch.stop(within_s))

    def drop(self, topic: str, count: int = 1) -> None:
        self.dropped[topic] = self.dropped.get(topic, 0) + count
        signals.REPORTS_DROPPED.labels(topic).inc(count)

    def _headers(self, topic: str, now_s: float) -> Headers:
        return [
            ("content-type", _JSON),
            ("ce_specversion", b"1.0"),
            ("ce_type", f"tradewind.{topic}".encode()),
            ("ce_source", self._source.encode()),
            ("ce_id", f"{self._source}/{now_s:.6f}/{self._number}".encode()),
            ("ce_time", datetime.fromtimestamp(now_s, UTC).isoformat(timespec="milliseconds").encode()),
        ]


class _Lane:
    """A bounded queue and the producer that empties it."""

    def __init__(self, sink: KafkaSink, servers: str, source: str, linger_ms: int, queue: int) -> None:
        self._sink, self._servers, self._client, self._linger_ms = sink, servers, source, linger_ms
        self._queue: deque[_Report] = deque()
        self._limit = queue
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._closing = False

    def put(self, report: _Report) -> None:
        if len(self._queue) >= self._limit:
            self._sink.drop(self._queue.popleft().topic)
        self._queue.append(report)
        self._wake.set()

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name=f"reports-{self._linger_ms}ms")

    async def stop(self, within_s: float) -> None:
        self._closing = True
        self._wake.set()
        if self._task is not None:
            _, late = await asyncio.wait([self._task], timeout=within_s)
            for task in late:
                task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        while self._queue:
            self._sink.drop(self._queue.popleft().topic)

    async def _run(self) -> None:
        producer = await self._connected()
        if producer is None:
            return
        try:
            while self._queue or not self._closing:
                if not self._queue:
                    self._wake.clear()
                    await self._wake.wait()
                    continue
                await self._send(producer, self._queue[0])
        finally:
            # what lies in the producer already is given up with it after its own timeout
            with contextlib.suppress(KafkaError, asyncio.CancelledError, TimeoutError):
                await asyncio.wait_for(producer.stop(), 2.0)

    async def _connected(self) -> Any:
        wait_s = 0.2
        while not (self._closing and not self._queue):
            producer = self._producer()
            try:
                await producer.start()
            except (KafkaError, OSError, TimeoutError) as error:
                signals.event("broker_away", "debug", reason=repr(error))
                await producer.stop()
            except asyncio.CancelledError:
                await producer.stop()
                raise
            else:
                return producer
            await asyncio.sleep(wait_s)
            wait_s = min(_LONGEST_WAIT_S, wait_s * 2)
        return None

    def _producer(self) -> Any:
        return AIOKafkaProducer(
            bootstrap_servers=self._servers,
            client_id=self._client,
            acks=1,
            linger_ms=self._linger_ms,
            request_timeout_ms=10_000,
            metadata_max_age_ms=30_000,
            retry_backoff_ms=50,
        )

    async def _send(self, producer: Any, report: _Report) -> None:
        """Hand one report to the producer; it stays first in the queue until the producer has room."""
        try:
            sent = await producer.send(report.full, report.value, key=report.key, headers=report.headers)
        except (KafkaError, OSError, TimeoutError) as error:
            signals.event("report_waits", "debug", reason=repr(error))
            await asyncio.sleep(0.1)
            return
        if self._queue and self._queue[0] is report:
            self._queue.popleft()
        sent.add_done_callback(lambda done: self._done(done, report.topic))

    def _done(self, done: asyncio.Future[Any], topic: str) -> None:
        if done.cancelled() or done.exception() is not None:
            self._sink.drop(topic)
