"""What stands in examples/ works as it is printed in the documentation: each one as a process, on a real Kafka."""

from __future__ import annotations

import asyncio
import contextlib
import re
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import msgspec
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from router_sync.fleet import BadFleet
from router_sync.keys import load_or_make, public_path
from streams.contract.keys import partition_of
from streams.contract.records import EndpointMetrics, Route, RoutingTable, TableEndpoint
from streams.contract.topics import ENDPOINT_METRICS, ROUTING_TABLE
from streams.runtime import admin
from streams.settings import Settings
from tradewind.config.whole import parse

REPO = Path(__file__).parents[2]
EXAMPLES = REPO / "examples"
RECORDED = REPO / "tests/golden/otlp_metrics.json"


@pytest.fixture
async def settings(kafka: str) -> Settings:
    """Topics of a prefix of this test's own."""
    made = Settings(bootstrap_servers=kafka, topic_prefix=f"examples-{uuid4().hex[:8]}")
    await admin.create(made)
    return made


@contextlib.asynccontextmanager
async def running(name: str, *words: str | Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """An example as a process, killed at the end."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, EXAMPLES / name, *words, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.communicate()


async def sent(settings: Settings, endpoint: str, count: int) -> list[EndpointMetrics]:
    """The first records on the partition that is the endpoint's by murmur2."""
    consumer = AIOKafkaConsumer(bootstrap_servers=settings.bootstrap_servers, auto_offset_reset="earliest")
    async with asyncio.timeout(30), consumer:
        place = partition_of(endpoint, settings.wide_partitions)
        consumer.assign([TopicPartition(ENDPOINT_METRICS.full(settings.topic_prefix), place)])
        messages = [await consumer.getone() for _ in range(count)]
    assert {message.key for message in messages} == {endpoint.encode()}
    return [msgspec.json.decode(message.value or b"", type=EndpointMetrics) for message in messages]


@pytest.mark.kafka
async def test_the_producer_sends_a_record_that_keeps_the_contract_to_its_partition(settings: Settings) -> None:
    async with running("produce_metrics.py", settings.bootstrap_servers, settings.topic_prefix) as process:
        async with asyncio.timeout(30):
            out, err = await process.communicate()
    assert process.returncode == 0, err
    assert out.startswith(f"sent to {settings.topic_prefix}.endpoint-metrics.v1, partition ".encode())
    (record,) = await sent(settings, "eu-west-a", 1)
    assert (record.service, record.class_, record.requests, record.errors) == (
        "llama-3-8b",
        "interactive",
        12,
        {"http_5xx": 1},
    )
    assert len(record.latency_ms) == record.requests - 1


def table(now_s: float) -> RoutingTable:
    endpoint = TableEndpoint(
        name="eu-west-a", url="http://127.0.0.1:1", provider="p", region="eu-west", zone="z", jurisdiction="IE",
        capacity_rps=10, concurrency=8, cost_usd_per_request=0.0, latency_p95_ms=100,
    )  # fmt: skip
    route = Route(origin="eu", class_="interactive", slo_p95_ms=300, endpoints=("eu-west-a",), shares=(1.0,))
    return RoutingTable(
        service="chat", epoch=1, version=2, issued_at_s=now_s, expires_at_s=now_s + 300, fleet_version=1,
        default_class="interactive", endpoints=(endpoint,), routes=(route,), reason="first table",
    )  # fmt: skip


@pytest.mark.kafka
async def test_the_subscriber_prints_a_signed_table_and_its_picks_and_nothing_of_a_rogue_one(
    settings: Settings, tmp_path: Path
) -> None:
    signer, topic = load_or_make(tmp_path / "router.key"), ROUTING_TABLE.full(settings.topic_prefix)
    rogue = msgspec.json.encode(msgspec.structs.replace(table(time.time()), version=9, reason="rogue"))
    value = msgspec.json.encode(table(time.time()))
    async with AIOKafkaProducer(bootstrap_servers=settings.bootstrap_servers, acks="all") as producer:
        await producer.send_and_wait(topic, rogue, key=b"chat")
        await producer.send_and_wait(topic, value, key=b"chat", headers=signer.seal(b"chat", value))
    words = (public_path(tmp_path / "router.key"), settings.bootstrap_servers, settings.topic_prefix)
    async with running("follow_table.py", *words) as process, asyncio.timeout(30):
        assert process.stdout is not None
        lines = [(await process.stdout.readline()).decode() for _ in range(2)]
    assert lines == ["chat 1.2: first table\n", "  interactive@eu -> eu-west-a\n"]


@pytest.mark.kafka
async def test_the_bridge_turns_what_a_collector_wrote_into_metrics_and_says_what_it_skips(settings: Settings) -> None:
    topic = f"{settings.topic_prefix}-otlp"
    client = AIOKafkaAdminClient(bootstrap_servers=settings.bootstrap_servers)
    await client.start()
    try:
        await client.create_topics([NewTopic(topic, 1, 1)])
    finally:
        await client.close()
    async with AIOKafkaProducer(bootstrap_servers=settings.bootstrap_servers, acks="all") as producer:
        await producer.send_and_wait(topic, b"no OTLP")
        await producer.send_and_wait(topic, RECORDED.read_bytes())
    async with running("otel_bridge.py", settings.bootstrap_servers, settings.topic_prefix, topic) as process:
        good, bad = await sent(settings, "eu-west-a", 2)
        skipped = await skips(process, 2)
    assert (good.requests, good.errors, bad.requests, bad.errors) == (11, {}, 1, {"http_5xx": 1})
    assert (good.observer, good.boot, good.seq, bad.seq) == (f"otel:{topic}/0", 1, 0, 1)
    assert skipped == {"skipped: unreadable", "skipped: no tradewind.endpoint or tradewind.service"}


async def skips(process: asyncio.subprocess.Process, count: int) -> set[str]:
    """What the bridge says it skips; aiokafka's own words on a group that is new are passed over."""
    found: set[str] = set()
    assert process.stderr is not None
    async with asyncio.timeout(30):
        while len(found) < count:
            line = (await process.stderr.readline()).decode().strip()
            found |= {line} if line.startswith("skipped: ") else set()
    return found


def test_the_example_configuration_is_good() -> None:
    told = subprocess.run(
        [sys.executable, "-m", "tradewind", "config", "check", EXAMPLES / "tradewind.yaml"],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert (told.returncode, told.stderr) == (0, "")
    assert "is good: 6 endpoints, 1 service, 3 origins" in told.stdout


def test_what_stands_in_the_comments_of_the_example_lacks_nothing_but_its_files() -> None:
    text = re.sub(r"(?m)^(  +)# (?!api:)(  )?(?=[\w-]+:)", r"\1\2", (EXAMPLES / "tradewind.yaml").read_text("utf-8"))
    assert "\n  upstreams:" in text
    assert "\n    gcp: {credential" in text
    with pytest.raises(BadFleet) as bad:
        parse(text, Path("tradewind.yaml"))
    assert len(bad.value.problems) > 5
    assert [str(p) for p in bad.value.problems if "There is no " not in str(p)] == []
