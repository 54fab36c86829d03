"""Putting a fleet on its topic, so that every room learns of it without a restart."""

from __future__ import annotations

import asyncio

import msgspec
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from router_sync.policy.likely import cautions
from streams import signals
from streams.contract import topics
from streams.contract.errors import BadSetting, Missing
from streams.contract.records import Fleet
from streams.runtime import admin, clock, cloudevents
from streams.runtime.access import client_options
from streams.settings import Settings

REACH_S = 10.0
TOLD = 20


async def publish(fleet: Fleet, settings: Settings) -> None:
    """Send `fleet` to the fleet topic, acknowledged by all replicas.

    Raises BadSetting when it is too long for the topic; Missing when Kafka cannot be reached, has no such topic, or
    does not acknowledge within ten seconds; Denied when it does not let us; TopicDiffers when the topic has another
    meaning.
    """
    value = value_of(fleet)
    warn(fleet)
    await admin.require(settings, [topics.FLEET], role="publisher")
    producer = AIOKafkaProducer(**client_options(settings), acks="all", enable_idempotence=True)
    try:
        async with asyncio.timeout(REACH_S):
            await producer.start()
            await producer.send_and_wait(
                topics.FLEET.full(settings.topic_prefix),
                value,
                key=topics.FLEET.key_of(fleet).encode(),
                headers=_headers(fleet, clock.now_s()),
            )
    except (KafkaError, OSError, TimeoutError) as error:
        raise Missing(
            f"Kafka at {settings.bootstrap_servers} did not take the fleet ({str(error) or 'no answer'})",
            "Check that it runs and lets this client write, then publish again",
        ) from None
    finally:
        await producer.stop()


def value_of(fleet: Fleet) -> bytes:
    """The fleet as its topic carries it. Raises BadSetting when that is too long for the topic."""
    value = msgspec.json.encode(fleet)
    if len(value) > topics.MAX_VALUE_BYTES:
        raise BadSetting(
            "fleet file",
            "fleet",
            f"{fleet.fleet}: {len(value)} bytes",
            f"At most {topics.MAX_VALUE_BYTES} fit on the topic: split it in fleets with a topic prefix each",
        )
    return value


def warn(fleet: Fleet) -> None:
    """Events for what can be used and is likely not meant; the fleet goes out all the same."""
    found = list(cautions(fleet))
    for path, value, remedy in found[:TOLD]:
        signals.event("fleet_caution", "warning", fleet=fleet.fleet, field=path, value=value, remedy=remedy)
    if len(found) > TOLD:
        signals.event("fleet_cautions", "warning", fleet=fleet.fleet, count=len(found), told=TOLD)


def _headers(fleet: Fleet, now_s: float) -> list[tuple[str, bytes]]:
    event_id = f"{fleet.fleet}/{fleet.version}/{now_s:.6f}"
    return cloudevents.headers(topics.FLEET.name, source="tradewind-fleet", event_id=event_id, now_s=now_s)
