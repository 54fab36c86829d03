"""Gateway and a real Kafka: tables come, reports go, and the broker may be away before, between and after."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import msgspec
import pytest
from aiohttp import web
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from router_sync.gateway import Gateway, GatewayConfig
from router_sync.keys import load_or_make, public_path
from streams.contract.keys import partition_of
from streams.contract.records import EndpointMetrics, GatewayStatus, Route, RoutingTable, Session, TableEndpoint
from streams.contract.topics import ARRIVALS, ENDPOINT_METRICS, GATEWAY_STATUS, ROUTING_TABLE, SESSIONS, Topic
from tradewind.embedded import EmbeddedKafka, Runtime

pytestmark = pytest.mark.kafka
PARTITIONS = 4


async def make_topics(bootstrap: str, prefix: str, *more: Topic) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        wide = [NewTopic(topic.full(prefix), PARTITIONS, 1) for topic in (ENDPOINT_METRICS, ARRIVALS)]
        await admin.create_topics(
            wide + [NewTopic(topic.full(prefix), 1, 1) for topic in (ROUTING_TABLE, GATEWAY_STATUS, *more)]
        )
    finally:
        await admin.close()


class Router:
    """Publishes tables as the router does."""

    def __init__(self, bootstrap: str, prefix: str, folder: Path, url: str) -> None:
        self._bootstrap, self._topic, self._url = bootstrap, ROUTING_TABLE.full(prefix), url
        self.signer = load_or_make(folder / "key")

    async def publish(self, version: int, *, signed: bool = True, shares: dict[str, float] | None = None) -> None:
        value = msgspec.json.encode(self._table(version, shares or {"a": 1.0}))
        headers = self.signer.seal(b"m", value) if signed else []
        async with AIOKafkaProducer(bootstrap_servers=self._bootstrap, acks="all") as producer:
            await producer.send_and_wait(self._topic, value, key=b"m", headers=headers)

    def _table(self, version: int, shares: dict[str, float]) -> RoutingTable:
        now_s = time.time()
        endpoint = TableEndpoint(
            name="a",
            url=self._url,
            provider="p",
            region="r",
            zone="z",
            jurisdiction="DE",
            capacity_rps=10,
            concurrency=8,
            cost_usd_per_request=0.0,
            latency_p95_ms=100,
        )
        endpoints = tuple(msgspec.structs.replace(endpoint, name=name) for name in ("a", "b"))
        others = tuple(e.name for e in endpoints if e.name not in shares)
        route = Route(
            origin="eu",
            class_="chat",
            slo_p95_ms=300,
            endpoints=tuple(shares),
            shares=tuple(shares.values()),
            fallbacks=others,
        )
        return RoutingTable(
            service="m",
            epoch=1,
            version=version,
            issued_at_s=now_s,
            expires_at_s=now_s + 300,
            fleet_version=1,
            default_class="chat",
            endpoints=endpoints,
            routes=(route,),
        )


@asynccontextmanager
async def upstream() -> AsyncIterator[str]:
    async def handle(_: web.BaseRequest) -> web.StreamResponse:
        return web.json_response({"ok": True})

    runner = web.ServerRunner(web.Server(handle))
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def gateway(bootstrap: str, prefix: str, folder: Path, name: str = "gateway-1") -> AsyncIterator[Gateway]:
    config = GatewayConfig(
        name=name,
        origin="eu",
        port=0,
        bootstrap_servers=bootstrap,
        prefix=prefix,
        trust=(public_path(folder / "key"),),
        anonymous=True,
        state_dir=folder,
        report_every_s=0.05,
        status_every_s=0.2,
    )
    one = Gateway(config)
    await one.start()
    try:
        yield one
    finally:
        await one.stop()


def version(of: Gateway) -> int | None:
    held = of.following.follower.held.get("m")
    return held.table.version if held else None


async def until(true: Callable[[], bool], within_s: float = 30.0) -> None:
    async with asyncio.timeout(within_s):
        while not true():  # noqa: ASYNC110 - what is waited for has no event of its own
            await asyncio.sleep(0.01)


async def ask(of: Gateway) -> int:
    url = f"http://127.0.0.1:{of.port}/v1/chat/completions"
    async with aiohttp.ClientSession() as session, session.post(url, json={"model": "m"}) as answer:
        return answer.status


async def heard(
    bootstrap: str, topic: str, partition: int, enough: Callable[[bytes], bool]
) -> tuple[bytes, bytes, dict[str, bytes]]:
    """(key, value, headers) of the first record that is `enough`."""
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, auto_offset_reset="earliest")
    await consumer.start()
    try:
        consumer.assign([TopicPartition(topic, partition)])
        async with asyncio.timeout(30):
            while True:
                message = await consumer.getone()
                if enough(message.value or b""):
                    return message.key or b"", message.value or b"", dict(message.headers)
    finally:
        await consumer.stop()


async def test_a_gateway_follows_the_topic_past_a_rogue_record_and_its_reports_arrive(
    kafka: str, tmp_path: Path
) -> None:
    prefix = "gateway-follows"
    await make_topics(kafka, prefix)
    async with upstream() as url:
        router = Router(kafka, prefix, tmp_path, url)
        for number in (1, 2):
            await router.publish(number)
        await router.publish(9, signed=False)
        async with gateway(kafka, prefix, tmp_path) as one:
            await until(lambda: version(one) == 2)
            assert await ask(one) == 200
            started_s = time.monotonic()
            await router.publish(3)
            await until(lambda: version(one) == 3)
            assert time.monotonic() - started_s < 5.0
            where = partition_of("a", PARTITIONS)  # of murmur2, as the stages expect
            key, value, headers = await heard(kafka, ENDPOINT_METRICS.full(prefix), where, lambda v: b"latency_ms" in v)
            record = msgspec.json.decode(value, type=EndpointMetrics)
            assert (key, record.endpoint, record.class_, record.requests) == (b"a", "a", "chat", 1)
            assert headers["ce_type"] == b"tradewind.endpoint-metrics.v1"
            status = GATEWAY_STATUS.full(prefix)
            key, value, _ = await heard(kafka, status, 0, lambda v: b'"version":3' in v)
            said = msgspec.json.decode(value, type=GatewayStatus)
            assert key == b"gateway-1/m"
            assert said.refused == {"signature": 1}
            assert said.dropped == {}
            gone = partition_of("gateway-1", PARTITIONS)
            assert (await heard(kafka, ARRIVALS.full(prefix), gone, lambda v: b'"arrived":[1]' in v))[0] == b"gateway-1"


@pytest.mark.chaos
async def test_a_killed_broker_leaves_the_gateway_serving_and_after_its_restart_all_goes_on(
    kafka_runtime: Runtime, tmp_path: Path
) -> None:
    prefix = "gateway-outlives"
    async with EmbeddedKafka(kafka_runtime, tmp_path / "kafka", port=None) as broker, upstream() as url:
        where = broker.bootstrap_servers
        await make_topics(where, prefix)
        router = Router(where, prefix, tmp_path, url)
        await router.publish(1)
        async with gateway(where, prefix, tmp_path) as one:
            await until(lambda: version(one) == 1 and any((tmp_path / "tables").glob("*.table")))
            broker.kill()
            for _ in range(20):
                assert await ask(one) == 200
            async with gateway(where, prefix, tmp_path) as fresh:  # started while the broker is away
                assert await ask(fresh) == 200
                await broker.start()
                await router.publish(2)
                await until(lambda: version(one) == 2 and version(fresh) == 2)
            place = partition_of("a", PARTITIONS)
            await heard(where, ENDPOINT_METRICS.full(prefix), place, lambda v: b"latency_ms" in v)
            assert await ask(one) == 200


async def served(of: Gateway, session: str) -> str:
    url = f"http://127.0.0.1:{of.port}/v1/chat/completions"
    headers = {"x-tradewind-session": session}
    async with aiohttp.ClientSession() as http, http.post(url, json={"model": "m"}, headers=headers) as answer:
        assert answer.status == 200
        return answer.headers["x-tradewind-endpoint"]


async def test_gateways_share_homes_and_one_that_starts_later_learns_them(kafka: str, tmp_path: Path) -> None:
    prefix = "gateway-homes"
    await make_topics(kafka, prefix, SESSIONS)
    async with upstream() as url:
        router = Router(kafka, prefix, tmp_path, url)
        await router.publish(1, shares={"a": 1.0})
        async with gateway(kafka, prefix, tmp_path) as one, gateway(kafka, prefix, tmp_path, "gateway-2") as two:
            await until(lambda: version(one) == version(two) == 1)
            await until(lambda: one._sessions_in_sight() and two._sessions_in_sight())
            assert {await served(one, f"s{n}") for n in range(5)} == {"a"}
            await until(lambda: len(two.homes) == 5)
            _, value, _ = await heard(kafka, SESSIONS.full(prefix), 0, lambda _: True)
            assert msgspec.json.decode(value, type=Session).gateway == "gateway-1"
            await router.publish(2, shares={"b": 1.0})
            await until(lambda: version(one) == version(two) == 2)
            assert {await served(two, f"s{n}") for n in range(5)} == {"a"}
            assert await served(two, "a new one") == "b"
        async with gateway(kafka, prefix, tmp_path, "gateway-3") as fresh:
            await until(lambda: len(fresh.homes) == 6)
            assert [await served(fresh, name) for name in ("s1", "a new one", "another")] == ["a", "b", "b"]


async def test_without_the_topic_of_sessions_homes_are_a_gateways_own(
    kafka: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    prefix = "gateway-homeless"
    await make_topics(kafka, prefix)
    async with upstream() as url:
        router = Router(kafka, prefix, tmp_path, url)
        await router.publish(1)
        async with gateway(kafka, prefix, tmp_path) as one:
            await until(lambda: version(one) == 1 and one._sessions is not None and one._sessions.failures >= 3)
            assert await served(one, "s") == "a"
            await router.publish(2, shares={"b": 1.0})
            await until(lambda: version(one) == 2)
            assert await served(one, "s") == "a"
            assert one.sink.dropped == {}
    away = [record for record in caplog.records if record.getMessage() == "sessions_source_away"]
    assert len(away) == 1
    assert "does not exist" in str(getattr(away[0], "fields", {}))
