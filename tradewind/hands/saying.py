"""A word for the router, and the tables that show that it was heard."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from typing import Any, Final

import msgspec

from router_sync.sign import Trust
from streams.contract import topics
from streams.contract.errors import Missing, TableRefused
from streams.contract.topics import TOPIC_OF, Topic
from streams.runtime import cloudevents
from streams.settings import Settings
from tradewind.hands import kafka
from tradewind.hands.tables import Held, judged, newest

WAIT_S: Final = 10.0


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """The first table of a service that is as it was ordered, the one in force before, and after how long it came."""

    now: Held
    before: Held | None
    after_s: float


async def say(settings: Settings, record: msgspec.Struct, now_s: float) -> None:
    """Put `record` on its topic, acknowledged."""
    topic = TOPIC_OF[type(record)]
    key = topic.key_of(record)
    headers = cloudevents.headers(topic.name, source="tradewind-hands", event_id=f"{key}/{now_s:.6f}", now_s=now_s)
    async with kafka.sender(settings) as producer, kafka.answering(settings, operation="WRITE"):
        await producer.send_and_wait(
            topic.full(settings.topic_prefix), msgspec.json.encode(record), key=key.encode(), headers=headers
        )


async def forget(settings: Settings, topic: Topic, key: str) -> None:
    """A tombstone: whatever was said under `key` is over."""
    async with kafka.sender(settings) as producer, kafka.answering(settings, operation="WRITE"):
        await producer.send_and_wait(topic.full(settings.topic_prefix), None, key=key.encode())


async def seen(
    settings: Settings,
    order: msgspec.Struct,
    services: Collection[str],
    is_so: Callable[[Held], bool],
    clock: Callable[[], float],
    trust: Trust | None,
    wait: bool,
) -> list[Seen]:
    """Send `order`; with `wait` the tables of `services` that are as ordered: those in force, if they are so already.

    Raises Missing when Kafka does not take it, or no table is so within WAIT_S: then the order stands all the same.
    """
    async with kafka.reader(settings) as consumer:
        before = newest(await kafka.held(consumer, settings, topics.ROUTING_TABLE), trust).held
        place = await kafka.place_of(consumer, settings, topics.ROUTING_TABLE)
        consumer.seek(place, await kafka.begin(consumer, settings, place))
        sent_s = clock()
        await say(settings, order, sent_s)
        if not wait:
            return []
        found = {n: Seen(now=one, before=one, after_s=0.0) for n in services if (one := before.get(n)) and is_so(one)}
        try:
            async with asyncio.timeout(WAIT_S):
                while missing := set(services) - found.keys():
                    for record in (await consumer.getmany(place, timeout_ms=100)).get(place, []):
                        one = _good(record, trust)
                        if one is not None and (name := one.table.service) in missing - found.keys() and is_so(one):
                            found[name] = Seen(now=one, before=before.get(name), after_s=clock() - sent_s)
        except TimeoutError:
            raise _unseen(order, sorted(set(services) - found.keys())) from None
    return [found[name] for name in sorted(found)]


def _good(record: Any, trust: Trust | None) -> Held | None:
    try:
        return judged(record, trust)
    except TableRefused:
        return None


def _unseen(order: msgspec.Struct, services: list[str]) -> Missing:
    topic = TOPIC_OF[type(order)]
    return Missing(
        f"The order for {topic.key_of(order)} was sent, and no table for {', '.join(services)} has shown it within "
        f"{WAIT_S:g} s",
        "It stands, and is obeyed as soon as a router reads it: see `tradewind status`, and `tradewind "
        f"dead-letters list --topic {topic.name}` in case it was refused",
    )
