"""Where reports go: Kafka through two producers, one that waits for company and one that does not; or a list.

    emit ──► urgent ──► queue ──► producer, linger 0 ms ──┐
         └─► others ──► queue ──► producer, linger 5 ms ──┴──► broker

A queue is bounded: while the broker is away its oldest reports are dropped and counted. A producer that is beyond help
is replaced; a report that no producer would take is dropped and counted, and holds up nobody. The default partitioner
of both producers is murmur2.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, Final, NamedTuple, Protocol

import msgspec
from aiokafka import AIOKafkaProducer
from aiokafka.errors import BrokerResponseError, KafkaError, KafkaTimeoutError, UnknownTopicOrPartitionError

from router_sync.gateway.kept import kept
from streams import signals
from streams.contract.errors import Stop
from streams.contract.topics import TOPIC_OF
from streams.runtime import cloudevents, preflight
from streams.runtime.access import Access, client_options, resolved

_encode: Final = msgspec.json.Encoder().encode
_LONGEST_WAIT_S: Final = 1.0
_AGAIN_S: Final = 0.1
_STOP_S: Final = 2.0
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
    """Reports to `kafka`, HOST:PORT where that is all. `source` names this gateway in the headers; `queue` bounds each
    lane.

    `producer` makes producers, from aiokafka's arguments. Raises BadSetting when a file `kafka` names is of no use.
    """

    def __init__(
        self,
        kafka: Access | str,
        prefix: str,
        source: str,
        *,
        queue: int = 10_000,
        producer: Callable[..., Any] = AIOKafkaProducer,
    ) -> None:
        self.dropped: dict[str, int] = {}
        self._prefix, self._source, self._number = prefix, source, 0
        self.told = preflight.Seldom(60.0)
        """What both lanes have said of one broker."""
        access = resolved(kafka)
        client_options(access)  # what cannot be used is told at once
        self._soon = _Lane(self, access, source, 0, queue, producer)
        self._batch = _Lane(self, access, source, 5, queue, producer)

    def emit(self, record: msgspec.Struct, now_s: float, *, urgent: bool = False) -> None:
        topic = TOPIC_OF[type(record)]
        self._number += 1
        key, event_id = topic.key_of(record).encode(), f"{self._source}/{now_s:.6f}/{self._number}"
        headers = cloudevents.headers(topic.name, source=self._source, event_id=event_id, now_s=now_s)
        report = _Report(topic.name, topic.full(self._prefix), key, _encode(record), headers)
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


class _Spoilt(Exception):
    """This producer takes nothing any more."""


class _Lane:
    """A bounded queue and the producer that empties it."""

    def __init__(
        self, sink: KafkaSink, access: Access, source: str, linger_ms: int, queue: int, producer: Callable[..., Any]
    ) -> None:
        self._sink, self._access, self._client, self._linger_ms = sink, access, source, linger_ms
        self._make = producer
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
        name = f"reports-{self._linger_ms}ms"
        self._task = asyncio.create_task(kept(name, self._run), name=name)

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
        while (producer := await self._connected()) is not None:
            try:
                await self._empty(producer)
            except _Spoilt as why:
                signals.event("producer_replaced", "warning", reason=str(why))
                await asyncio.sleep(_AGAIN_S)
            else:
                return
            finally:
                await _given_up(producer)

    async def _empty(self, producer: Any) -> None:
        while self._queue or not self._closing:
            if not self._queue:
                self._wake.clear()
                await self._wake.wait()
                continue
            await self._send(producer, self._queue[0])

    async def _connected(self) -> Any:
        wait_s = 0.2
        while not (self._closing and not self._queue):
            producer: Any = None
            try:
                producer = self._producer()
                await producer.start()
            except (KafkaError, OSError, TimeoutError, Stop) as error:
                signals.event("broker_away", "debug", reason=repr(error))
                if producer is not None:
                    await producer.stop()
                await self._say_if_refused(error)
            except asyncio.CancelledError:
                await producer.stop()
                raise
            else:
                return producer
            await asyncio.sleep(wait_s)
            wait_s = min(_LONGEST_WAIT_S, wait_s * 2)
        return None

    async def _say_if_refused(self, error: Exception) -> None:
        """Once a minute: a broker that is away comes back by itself, a name that is refused needs a human."""
        why = str(error) if isinstance(error, Stop) else await preflight.because(self._access)
        if why is not None and self._sink.told.passes(why):
            signals.event("reports_refused", "warning", reason=why)

    def _producer(self) -> Any:
        return self._make(
            **client_options(self._access),
            client_id=self._client,
            acks=1,
            linger_ms=self._linger_ms,
            request_timeout_ms=10_000,
            metadata_max_age_ms=30_000,
            retry_backoff_ms=50,
        )

    async def _send(self, producer: Any, report: _Report) -> None:
        """Hand one report to the producer; it stays first in the queue until the producer has room.

        Raises _Spoilt when the producer is beyond help.
        """
        try:
            sent = await producer.send(report.full, report.value, key=report.key, headers=report.headers)
        except Exception as error:  # noqa: BLE001 - whatever it is, the reports behind this one are to go on
            await self._not_sent(report, error)
            return
        self._leaves(report)
        sent.add_done_callback(lambda done: self._done(done, report))

    async def _not_sent(self, report: _Report, error: Exception) -> None:
        if _passes(error):
            signals.event("report_waits", "debug", reason=repr(error))
            await asyncio.sleep(_AGAIN_S)
            return
        if not isinstance(error, KafkaError) or isinstance(error, BrokerResponseError):  # too large, no such topic ...
            self._leaves(report)
            self._dropped(report, error)
        if not isinstance(error, BrokerResponseError):
            raise _Spoilt(repr(error))

    def _leaves(self, report: _Report) -> None:
        if self._queue and self._queue[0] is report:  # a full queue may have dropped it meanwhile
            self._queue.popleft()

    def _dropped(self, report: _Report, error: BaseException) -> None:
        self._sink.drop(report.topic)
        if (count := self._sink.dropped[report.topic]).bit_count() == 1:  # 1, 2, 4, 8 …
            reason = preflight.words(self._access, error, "WRITE", report.full)
            signals.event("report_dropped", "warning", topic=report.topic, reason=reason, count=count)

    def _done(self, done: asyncio.Future[Any], report: _Report) -> None:
        if done.cancelled():
            self._sink.drop(report.topic)
        elif (error := done.exception()) is not None:
            self._dropped(report, error)


async def _given_up(producer: Any) -> None:
    """What lies in the producer already goes with it after its own timeout."""
    try:
        await asyncio.wait_for(producer.stop(), _STOP_S)
    except (KafkaError, TimeoutError):
        pass
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise


def _passes(error: Exception) -> bool:
    """Whether the same report may be taken in a moment: the broker is away, or the producer full."""
    if isinstance(error, UnknownTopicOrPartitionError):
        return False  # after the ten seconds that aiokafka has waited for it
    return isinstance(error, KafkaTimeoutError | OSError | TimeoutError) or getattr(error, "retriable", False) is True
