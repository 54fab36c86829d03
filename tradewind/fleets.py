"""Putting a fleet on its topic, so that every room learns of it without a restart."""

from __future__ import annotations

import msgspec
from aiokafka import AIOKafkaProducer

from streams.contract import topics
from streams.contract.records import Fleet
from streams.settings import Settings


async def publish(fleet: Fleet, settings: Settings) -> None:
    """Send `fleet` to the fleet topic, acknowledged by all replicas. Raises aiokafka's KafkaError when it cannot."""
    producer = AIOKafkaProducer(bootstrap_servers=settings.bootstrap_servers, acks="all", enable_idempotence=True)
    await producer.start()
    try:
        await producer.send_and_wait(
            topics.FLEET.full(settings.topic_prefix),
            msgspec.json.encode(fleet),
            key=topics.FLEET.key_of(fleet).encode(),
            headers=[("content-type", b"application/json"), ("ce_type", b"tradewind.fleet.v1")],
        )
    finally:
        await producer.stop()
