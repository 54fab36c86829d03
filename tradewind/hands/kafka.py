"""Questions to Kafka, each with a deadline: what a topic holds, by whom; and a clear sentence when there is no answer.

No consumer group is joined and nothing is committed: looking changes nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import (
    GroupAuthorizationFailedError,
    KafkaConnectionError,
    KafkaError,
    TopicAuthorizationFailedError,
)

from streams.contract.errors import Denied, Missing, Stop
from streams.contract.rights import Operation, Resource, Right
from streams.contract.topics import MAX_VALUE_BYTES, Topic
from streams.runtime.access import Access, client_options
from streams.runtime.preflight import denied, lacking
from streams.settings import Settings

REACH_S: Final = 5.0
"""For any one answer."""
_DENIED: Final = (TopicAuthorizationFailedError, GroupAuthorizationFailedError)


class NoTopic(Missing):
    """Topics are not there, or may not be seen; `names` in full."""

    def __init__(self, settings: Settings, *names: str) -> None:
        several = len(names) > 1
        super().__init__(
            f"The topic{'s' * several} {', '.join(names)} {'do' if several else 'does'} not exist, "
            f"or {Access.of(settings).principal} may not see {'them' if several else 'it'}",
            "Run `tradewind topics create`, check --topic-prefix, or see `tradewind topics plan` for rights",
        )
        self.names = names


def hush() -> None:
    """That Kafka is away is said by us, once."""
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)


@contextlib.asynccontextmanager
async def answering(
    settings: Settings, seconds: float | None = None, operation: Operation = "READ"
) -> AsyncIterator[None]:
    """What is asked of Kafka within it is answered in time, `seconds` or else REACH_S.

    Raises Missing that says where Kafka should be; Denied when it lets nobody of this name in, or `operation` is not
    granted: with the lines that grant it.
    """
    try:
        async with asyncio.timeout(REACH_S if seconds is None else seconds):
            yield
    except _DENIED as error:
        raise _lacks(settings, error, operation) from None
    except (KafkaError, OSError, TimeoutError) as error:
        raise await _not_let_in(settings) or away(settings, error) from None


def away(settings: Settings, error: BaseException) -> Missing:
    """Kafka does not answer."""
    if isinstance(error, KafkaConnectionError):
        why = "nobody takes the connection"
    else:
        why = str(error).rstrip(". ") or f"no answer within {REACH_S:g} s"
    return Missing(
        f"Kafka cannot be reached at {settings.bootstrap_servers} ({why})",
        "Start it, or set TRADEWIND_BOOTSTRAP_SERVERS (--bootstrap-servers) to where it is",
    )


async def _not_let_in(settings: Settings) -> Stop | None:
    """What a broker that answers has against us: name, password, certificate; None: nothing, or it is away."""
    try:
        await lacking(Access.of(settings), ())
    except Stop as error:
        return error
    except (KafkaError, OSError, TimeoutError):
        return None
    return None


def _lacks(settings: Settings, error: KafkaError, operation: Operation) -> Denied:
    """Kafka names the topics or the group; the operation is what was tried."""
    named = error.args[0] if error.args else "?"
    names = [named] if isinstance(named, str) else sorted(named)
    resource: Resource = "group" if isinstance(error, GroupAuthorizationFailedError) else "topic"
    return denied(settings, [Right(resource, name, operation) for name in names])


@contextlib.asynccontextmanager
async def reader(settings: Settings) -> AsyncIterator[Any]:
    """A consumer in no group. Raises as `answering` does when Kafka cannot be reached."""
    consumer = AIOKafkaConsumer(
        **client_options(settings),
        client_id="tradewind-hands",
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        max_partition_fetch_bytes=4 * MAX_VALUE_BYTES,
        fetch_max_wait_ms=100,
        request_timeout_ms=int(REACH_S * 1000),
        retry_backoff_ms=100,
    )
    try:
        async with answering(settings):
            await consumer.start()
            await asyncio.sleep(0)  # its tasks have to have begun before `stop` may cancel them
        yield consumer
    finally:
        with contextlib.suppress(KafkaError, OSError):
            await consumer.stop()


@contextlib.asynccontextmanager
async def sender(settings: Settings) -> AsyncIterator[AIOKafkaProducer]:
    """A producer whose messages are acknowledged by all replicas, once each."""
    producer = AIOKafkaProducer(
        **client_options(settings),
        client_id="tradewind-hands",
        acks="all",
        enable_idempotence=True,
        request_timeout_ms=int(REACH_S * 1000),
        max_request_size=MAX_VALUE_BYTES + 65536,
    )
    try:
        async with answering(settings):
            await producer.start()
        yield producer
    finally:
        with contextlib.suppress(KafkaError, OSError):
            await producer.stop()


async def place_of(consumer: Any, settings: Settings, topic: Topic) -> TopicPartition:
    """The one partition of a narrow topic. Raises NoTopic when the topic is not there, or may not be seen."""
    name = topic.full(settings.topic_prefix)
    async with answering(settings):
        if name not in await consumer.topics():
            raise NoTopic(settings, name)
    return TopicPartition(name, 0)


async def begin(consumer: Any, settings: Settings, place: TopicPartition, since_s: float | None = None) -> int:
    """Stand at the first record of `place`, or at the first that is not older than `since_s` (unix seconds).

    The end comes back: the offset behind the last record there is now.
    """
    async with answering(settings):
        consumer.assign([place])
        begins, ends = await consumer.beginning_offsets([place]), await consumer.end_offsets([place])
        start = begins[place]
        if since_s is not None:
            found = (await consumer.offsets_for_times({place: int(max(0.0, since_s) * 1000)}))[place]
            start = ends[place] if found is None else found.offset
        consumer.seek(place, start)
    return int(ends[place])


async def records(consumer: Any, settings: Settings, place: TopicPartition, end: int) -> AsyncIterator[Any]:
    """The records of `place` from where `begin` stands up to `end`. Raises Missing when none comes for REACH_S."""
    while await consumer.position(place) < end:
        async with answering(settings):
            got: list[Any] = []
            while not got and await consumer.position(place) < end:
                got = (await consumer.getmany(place, timeout_ms=200)).get(place, [])
        for record in got:
            if record.offset < end:
                yield record


async def held(consumer: Any, settings: Settings, topic: Topic, since_s: float | None = None) -> list[Any]:
    """All records of a narrow topic now, or those not older than `since_s`."""
    place = await place_of(consumer, settings, topic)
    end = await begin(consumer, settings, place, since_s)
    return [record async for record in records(consumer, settings, place, end)]
