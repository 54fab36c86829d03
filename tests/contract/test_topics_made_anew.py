"""On a real Kafka: a worker goes on hearing when a topic it reads is deleted and made again."""

from __future__ import annotations

import time
from collections.abc import Iterable

import pytest
from aiokafka.admin import AIOKafkaAdminClient

from streams.contract import topics
from streams.contract.topics import Topic
from streams.runtime import admin
from streams.runtime.worker import carried
from streams.settings import Settings
from tests.contract.counting import metric, steps
from tests.contract.on_kafka import encode, fresh, latest_by_key, read_all, send, until
from tests.contract.test_carriers_agree import facts

pytestmark = pytest.mark.kafka


async def remade(mine: Settings, these: Iterable[Topic]) -> None:
    client = AIOKafkaAdminClient(bootstrap_servers=mine.bootstrap_servers)
    await client.start()
    try:
        names = [topic.full(mine.topic_prefix) for topic in these]
        await client.delete_topics(names)

        async def gone() -> bool:
            return not set(names) & set(await client.list_topics())

        await until(gone)
    finally:
        await client.close()
    await until(lambda: admin.create(mine))


def numbered(first: int, count: int) -> list[tuple[Topic, bytes, bytes | None]]:
    now_s = time.time()
    return [
        (topics.ENDPOINT_METRICS, f"e{i % 17}".encode(), encode(metric(f"e{i % 17}", i, now_s)))
        for i in range(first, first + count)
    ]


async def test_what_is_said_on_a_topic_made_anew_is_heard_and_its_facts_too(kafka: str) -> None:
    mine = await fresh(kafka)
    async with carried(steps(), mine, "streams") as room:
        await until(lambda: room.ready)
        await send(mine, [*facts(1), *facts(1), *numbered(0, 400)])
        await until(lambda: _said(mine, 400, 1))
        await remade(mine, (topics.ENDPOINT_METRICS, topics.FLEET))
        await until(lambda: room.ready and not any(at for line in room.lines for at in line.at.values()))
        await send(mine, [*facts(2), *numbered(1000, 40)])
        await until(lambda: _said(mine, 40, 2), 40.0)


async def _said(mine: Settings, arrived: int, fleet: int) -> bool:
    said = latest_by_key(await read_all(mine, topics.DEMAND)).values()
    return sum(s["arrived"][0] for s in said) == arrived and {s["shed"][0] for s in said} == {fleet}
