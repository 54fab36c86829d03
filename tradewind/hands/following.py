"""New records of the table topic as they come. A broker that goes away is waited for, and said to be away once."""

from __future__ import annotations

from collections.abc import AsyncIterator

from router_sync.client import Found, KafkaSource
from streams.runtime.access import Access
from streams.settings import Settings
from tradewind.hands import kafka


async def follow(settings: Settings) -> AsyncIterator[Found]:
    """What the topic holds, the last records of each key, then what comes, for ever.

    Raises as `kafka.answering` does when Kafka, or the topic, is not there to begin with.
    """
    from streams.contract.topics import ROUTING_TABLE

    async with kafka.reader(settings) as consumer:
        await kafka.place_of(consumer, settings, ROUTING_TABLE)
    source = KafkaSource(Access.of(settings), settings.topic_prefix, client_id="tradewind-watch")
    async for found in source.records():
        yield found
