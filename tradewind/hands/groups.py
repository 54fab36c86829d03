"""Consumer groups of the rooms: who works, and how far behind."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Mapping
from typing import Any, Final

from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import (
    GroupAuthorizationFailedError,
    GroupCoordinatorNotAvailableError,
    TopicAuthorizationFailedError,
)

from streams.contract.rights import group_of
from streams.runtime.access import client_options
from streams.settings import Settings
from tradewind.hands import kafka
from tradewind.hands.state import GroupState, Lag

ROOMS: Final = ("streams", "forecasting", "router", "actuators")


async def groups(consumer: Any, settings: Settings) -> tuple[GroupState, ...]:
    """The workers of each room and their lag by topic (its contract name). Raises as `kafka.answering` does."""
    admin = AIOKafkaAdminClient(**client_options(settings), request_timeout_ms=int(kafka.REACH_S * 1000))
    try:
        async with kafka.answering(settings):
            await admin.start()
        return tuple(await asyncio.gather(*(_group(admin, consumer, settings, room) for room in ROOMS)))
    finally:
        await admin.close()


async def _group(admin: Any, consumer: Any, settings: Settings, room: str) -> GroupState:
    name = group_of(settings.topic_prefix, room)
    async with kafka.answering(settings):
        try:
            [answer] = await admin.describe_consumer_groups([name])
            said = answer.to_object()["groups"][0]
            committed = await admin.list_consumer_group_offsets(name)
        except GroupCoordinatorNotAvailableError:
            return GroupState(room=room, group=name, state="Dead", members=0)  # nobody ever was in any group here
        except GroupAuthorizationFailedError:
            return GroupState(room=room, group=name, state=None, members=0)
        if said["error_code"]:
            return GroupState(room=room, group=name, state=None, members=0)
        lag = await _lag(consumer, settings, {place: at.offset for place, at in committed.items() if at.offset >= 0})
    return GroupState(room=room, group=name, state=said["state"], members=len(said["members"]), lag=lag)


async def _lag(consumer: Any, settings: Settings, committed: Mapping[TopicPartition, int]) -> tuple[Lag, ...]:
    by_topic: dict[str, list[TopicPartition]] = defaultdict(list)
    for place in committed:
        if place.topic.startswith(f"{settings.topic_prefix}."):
            by_topic[place.topic].append(place)
    lag = []
    for topic, places in sorted(by_topic.items()):
        behind: int | None = None
        try:
            ends = await consumer.end_offsets(places)
            behind = sum(max(0, ends[place] - committed[place]) for place in places)
        except TopicAuthorizationFailedError:
            pass  # who may look at the group need not see all it reads
        lag.append(Lag(topic=topic.removeprefix(f"{settings.topic_prefix}."), behind=behind))
    return tuple(lag)
