"""The embedded broker's folder stays below its bound, and one that an earlier version left is taken up again."""

from __future__ import annotations

import asyncio
import tarfile
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from streams.contract.topics import DEAD_LETTERS, FLEET, TOPICS
from tradewind.embedded import EmbeddedKafka, Runtime
from tradewind.embedded.disk import most_bytes, partition_bytes
from tradewind.embedded.folder import MARK
from tradewind.embedded.properties import INDEX_BYTES, MIB, SEGMENT_BYTES

V1 = Path(__file__).parents[1] / "golden" / "state" / "v1"
KEEPS = 17 * MIB
"""Of a partition here: a segment and a little, so that a few hundred megabytes go soon."""
WRITTEN = 160


def test_the_topics_of_the_contract_fit_into_five_gigabytes_and_the_bound_grows_with_partitions() -> None:
    assert 4e9 < most_bytes() < 5e9
    wide = [topic for topic in TOPICS if topic.width == "wide"]
    assert most_bytes(wide_partitions=8) - most_bytes() == 4 * sum(map(partition_bytes, wide))
    assert partition_bytes(DEAD_LETTERS) > 2**30 > partition_bytes(FLEET)


def folder_bytes(folder: Path) -> int:
    """What the files in it take on disk; files come and go meanwhile."""
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_blocks * 512
        except FileNotFoundError:
            continue
    return total


async def topic_without_delay(bootstrap: str, name: str) -> None:
    """A topic whose files go as soon as they may; by default Kafka waits five seconds more."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        config = {"cleanup.policy": "delete", "file.delete.delay.ms": "100"}
        await admin.create_topics([NewTopic(name, num_partitions=1, replication_factor=1, topic_configs=config)])
    finally:
        await admin.close()


@pytest.mark.kafka
async def test_five_times_what_a_partition_may_keep_leaves_the_folder_below_its_bound(
    kafka_runtime: Runtime, tmp_path: Path
) -> None:
    async with EmbeddedKafka(kafka_runtime, tmp_path, port=None, retention_bytes=KEEPS) as broker:
        empty = folder_bytes(tmp_path)
        await topic_without_delay(broker.bootstrap_servers, "flood")
        async with AIOKafkaProducer(bootstrap_servers=broker.bootstrap_servers, max_request_size=2 * MIB) as producer:
            sent = [await producer.send("flood", b"x" * (MIB - 1024)) for _ in range(WRITTEN)]
            await asyncio.gather(*sent)
        most = empty + KEEPS + SEGMENT_BYTES + 2 * INDEX_BYTES
        async with asyncio.timeout(25):
            while folder_bytes(tmp_path) > most:  # noqa: ASYNC110 - Kafka looks each ten seconds
                await asyncio.sleep(0.1)
        first, end = await offsets(broker.bootstrap_servers, "flood")
        assert end == WRITTEN
        assert 0 < first <= WRITTEN - 17, "the newest are kept"


async def offsets(bootstrap: str, topic: str) -> tuple[int, int]:
    consumer, place = AIOKafkaConsumer(bootstrap_servers=bootstrap), TopicPartition(topic, 0)
    await consumer.start()
    try:
        first, end = await consumer.beginning_offsets([place]), await consumer.end_offsets([place])
        return first[place], end[place]
    finally:
        await consumer.stop()


@pytest.mark.kafka
async def test_a_folder_of_the_first_version_is_taken_up_with_its_records(
    kafka_runtime: Runtime, tmp_path: Path
) -> None:
    with tarfile.open(V1 / "embedded-kafka.tar.gz") as old:
        old.extractall(tmp_path, filter="data")
    assert not (tmp_path / MARK).exists()
    async with EmbeddedKafka(kafka_runtime, tmp_path, port=None) as broker:
        assert (tmp_path / MARK).exists()
        consumer = AIOKafkaConsumer(bootstrap_servers=broker.bootstrap_servers, auto_offset_reset="earliest")
        await consumer.start()
        try:
            consumer.assign([TopicPartition("kept", 0)])
            async with asyncio.timeout(20):
                records = [(await consumer.getone()).value for _ in range(3)]
        finally:
            await consumer.stop()
    assert records == [b"record 0", b"record 1", b"record 2"]
