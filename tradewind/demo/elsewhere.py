"""A Kafka that is not the demo's own: a prefix apart from everybody's, and no fleet beside another one.

Under one prefix all workers share groups and topics; a demo there would publish its pretend fleet to real routers.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence
from pathlib import Path

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from streams.contract import topics
from streams.contract.errors import BadSetting
from streams.runtime import admin
from streams.runtime.access import client_options
from streams.settings import Settings
from tradewind.demo.pretend_fleet import STATE

_REACH_S = 10.0
_APART = "tradewind-demo-"


def apart(settings: Settings, folder: Path, *, keep: bool) -> Settings:
    """`settings` with a topic prefix of this run's own, unless one was given by flag or environment.

    With `keep` it is the prefix of the last run in `folder`, where there was one.
    """
    if "topic_prefix" in settings.model_fields_set:
        return settings
    prefix = (_last_prefix(folder) if keep else None) or f"{_APART}{secrets.token_hex(4)}"
    return settings.model_copy(update={"topic_prefix": prefix})


def _last_prefix(folder: Path) -> str | None:
    try:
        noted = msgspec.json.decode((folder / STATE).read_bytes(), type=dict[str, object])
    except (OSError, msgspec.MsgspecError):
        return None
    prefix = noted.get("topic_prefix")
    return prefix if isinstance(prefix, str) and prefix.startswith(_APART) else None


async def refuse_other_fleets(settings: Settings, fleet: str) -> None:
    """Comes back when the fleet topic holds no fleet but `fleet`; raises BadSetting when it does."""
    if others := await _fleets(settings) - {fleet}:
        raise BadSetting(
            "flag or environment TRADEWIND_TOPIC_PREFIX",
            "--topic-prefix",
            settings.topic_prefix,
            f"It carries the fleet {', '.join(sorted(others))}, which a demo must not disturb: choose another, or none",
        )


async def _fleets(settings: Settings) -> set[str]:
    """Names of the fleets on the topic now; none where there is no such topic. Raises Missing when Kafka is away."""
    if any(difference.field == "missing" for difference in await admin.check(settings, [topics.FLEET])):
        return set()
    at = TopicPartition(topics.FLEET.full(settings.topic_prefix), 0)
    consumer = AIOKafkaConsumer(**client_options(settings), enable_auto_commit=False)
    try:
        await consumer.start()
        consumer.assign([at])
        begin, end = (await consumer.beginning_offsets([at]))[at], (await consumer.end_offsets([at]))[at]
        consumer.seek(at, begin)  # `seek_to_beginning` may lose against the reset that `assign` has under way
        held: dict[bytes | None, bytes | None] = {}
        while await consumer.position(at) < end:
            for message in (await consumer.getmany(timeout_ms=200)).get(at, []):
                held[message.key] = message.value
        return {(key or b"").decode(errors="replace") for key, value in held.items() if value is not None}
    finally:
        await consumer.stop()


async def remove(settings: Settings, names: Sequence[str]) -> bool:
    """Delete the topics `names`; False when Kafka would not, or was not to be reached within ten seconds."""
    client = AIOKafkaAdminClient(**client_options(settings))
    try:
        async with asyncio.timeout(_REACH_S):
            await client.start()
            answer = await client.delete_topics(list(names))
        return not any(code for _, code, *_ in answer.topic_error_codes)
    except (KafkaError, OSError, TimeoutError):
        return False
    finally:
        await client.close()
