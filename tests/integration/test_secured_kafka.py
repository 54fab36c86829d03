"""SASL_SSL, SCRAM-SHA-512 and the authorizer on: each role works with just its rights, and says which one it lacks."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import aiohttp
import msgspec
import pytest
import pytest_asyncio
from aiohttp import web
from aiokafka import AIOKafkaProducer

from router_sync.keys import load_or_make, public_path
from streams.contract import topics
from streams.contract.records import EndpointHealth, GatewayStatus, RoutingTable
from streams.contract.rights import Operation, Right
from streams.runtime.access import client_options
from tests.integration.secured import (
    PREFIX,
    ROLES,
    Cluster,
    asked,
    lines_of,
    metrics_heard,
    password_of,
    ready,
    until,
    user_of,
)
from tradewind.embedded import Runtime
from tradewind.ports import free_port
from tradewind.processes import Child

pytestmark = [pytest.mark.kafka, pytest.mark.asyncio(loop_scope="module")]
FLEET = """\
fleet: rehearsal
version: 1
services:
  - name: chat
    default_class: interactive
    classes: [{name: interactive, slo_p95_ms: 400, tier: premium, data_class: public}]
origins:
  - {name: eu, jurisdiction: DE, demand_rps: 5, rtt_ms: {eu-west: 5}}
endpoints:
  - {name: one, url: "URL", services: [chat], provider: own, region: eu-west, zone: a, instance: box, jurisdiction: DE,
     grid_zone: DE, replicas: 1, capacity_rps: 50, concurrency: 16, price_usd_per_h: 1.0, latency_ms: 50}
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cluster(kafka_runtime: Runtime, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Cluster]:
    """A secured Kafka with the topics made by a user who may just do that."""
    made = Cluster(kafka_runtime, tmp_path_factory.mktemp("secured"))
    await made.start()
    try:
        await asyncio.gather(*(made.grant(role) for role in ROLES))
        code, out, err = await made.ran("admin", "topics", "create")
        assert code == 0, err
        assert out.count("created") == len(topics.TOPICS)
        yield made
    finally:
        await made.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
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


async def send_metric(cluster: Cluster, seq: int) -> None:
    """One observation of the endpoint, as the producer."""
    record = {
        "endpoint": "one", "service": "chat", "class": "interactive", "observer": "collector", "boot": 1, "seq": seq,
        "at_s": time.time(), "interval_s": 1.0, "requests": 3, "latency_ms": [41.0, 42.0, 43.0],
    }  # fmt: skip
    async with AIOKafkaProducer(**client_options(cluster.access("producer")), enable_idempotence=True) as producer:
        await producer.send_and_wait(topics.ENDPOINT_METRICS.full(PREFIX), msgspec.json.encode(record), key=b"one")


async def test_each_role_works_with_just_its_rights(cluster: Cluster, upstream: str) -> None:
    (cluster.folder / "fleet.yaml").write_text(FLEET.replace("URL", upstream))
    load_or_make(cluster.folder / "state" / "router.key")
    port, trust = free_port(), str(cluster.folder / "state" / "router.key.pub")
    words = ("gateway", "--origin", "eu", "--trust", trust, "--anonymous", "--port", str(port))
    gateway = cluster.child("gateway", *words)
    (streams, at), (router, _), (actuators, _), checked, published = await asyncio.gather(
        cluster.worker("streams"),
        cluster.worker("router"),
        cluster.worker("actuators"),
        cluster.ran("admin", "topics", "check"),
        cluster.ran("publisher", "fleet", "publish", "fleet.yaml"),
    )
    assert checked[0] == 0, checked
    assert published[0] == 0, published
    await send_metric(cluster, 1)
    await until(lambda: heard(cluster), streams)
    await until(lambda: ready(port), gateway)
    assert await post(port) == 200
    await until(lambda: reported(cluster), gateway)
    tables = [msgspec.json.decode(value, type=RoutingTable) for value in await cluster.read(topics.ROUTING_TABLE)]
    assert tables[-1].endpoints[0].name == "one"
    await planned(cluster)
    for child in (streams, router, actuators, gateway):
        assert lines_of(child, ["may not"]) == []
    await take_and_give_back(cluster, streams, at, gateway, port)
    await operated(cluster, trust)


async def post(port: int) -> int:
    url = f"http://127.0.0.1:{port}/v1/chat/completions"
    async with aiohttp.ClientSession() as http, http.post(url, json={"model": "chat"}) as answer:
        return answer.status


async def heard(cluster: Cluster) -> bool:
    """Whether health knows the endpoint."""
    said = [msgspec.json.decode(value, type=EndpointHealth) for value in await cluster.read(topics.ENDPOINT_HEALTH)]
    return any("one" in record.endpoint for record in said)


async def reported(cluster: Cluster) -> bool:
    """Whether the gateway told of its table and of what it was asked."""
    status = [msgspec.json.decode(value, type=GatewayStatus) for value in await cluster.read(topics.GATEWAY_STATUS)]
    arrivals = [value for partition in range(2) for value in await cluster.read(topics.ARRIVALS, partition)]
    return any(s.version is not None for s in status) and bool(arrivals)


async def take_and_give_back(cluster: Cluster, streams: Child, at: int, gateway: Child, port: int) -> None:
    """Rights that are taken while roles run are named in their logs; given back, the roles go on."""
    read = Right("topic", topics.ENDPOINT_METRICS.full(PREFIX), "READ")
    group = Right("group", f"{PREFIX}-streams", "READ")
    write = Right("topic", topics.ARRIVALS.full(PREFIX), "WRITE")
    table = Right("topic", topics.ROUTING_TABLE.full(PREFIX), "READ")
    taken = [(streams, "streams", read), (streams, "streams", group), (gateway, "gateway", table)]
    taken.append((gateway, "gateway", write))
    await asyncio.gather(*(cluster.take(role, right) for _, role, right in taken))
    await send_metric(cluster, 2)
    for child, _, right in taken:
        await until(partial(says, child, right, port), child)
    before = await metrics_heard(at)
    await asyncio.gather(*(cluster.grant(role, [right]) for _, role, right in taken))
    await send_metric(cluster, 3)
    await until(partial(back, gateway), gateway)

    async def goes_on() -> bool:
        return await metrics_heard(at) > before and await ready(at)

    await until(goes_on, streams)


async def planned(cluster: Cluster) -> None:
    """An operator plans by hand, and actuators that act nowhere say what they would do."""
    code, out, err = await cluster.ran(
        "operator", "capacity", "plan", "own/eu-west/a/box/on_demand", "--want", "1", "--json"
    )
    assert code == 0, err
    assert "dry run: would set it to 1" in json.loads(out)["capacity"]["note"]


async def operated(cluster: Cluster, trust: str) -> None:
    """What an operator does, with an operator's rights."""
    (code, out, err), (checked, _, _) = await asyncio.gather(
        cluster.ran("operator", "status", "--json", "--trust", trust),
        cluster.ran("operator", "topics", "check"),
    )
    # after the status, which is not well once nothing is left to serve
    drained, table, _ = await cluster.ran("operator", "drain", "one", "--force", "--json", "--trust", trust)
    assert (code, checked, drained) == (0, 0, 0), (out, err)
    groups = {group["room"]: group["members"] for group in json.loads(out)["groups"]}
    assert groups == {"streams": 1, "forecasting": 0, "router": 1, "actuators": 1}
    assert json.loads(table)["tables"][0]["moved"][0]["has"] == 0.0


async def says(child: Child, right: Right, port: int) -> bool:
    """Whether it named the right. A request each time: the last good table goes on, and there is something to tell."""
    assert await post(port) == 200
    named = f"may not {right.operation} the {right.resource} {right.name}"
    return bool(lines_of(child, [named, "kafka-acls.sh"]))


async def back(gateway: Child) -> bool:
    return bool(lines_of(gateway, ["table_source_back"]))


LACKS: list[tuple[str, list[Right], tuple[str, ...]]] = [
    (
        "streams",
        [
            Right("topic", f"{PREFIX}.endpoint-metrics.v1", "READ"),
            Right("topic", f"{PREFIX}.dead-letters.v1", "WRITE"),
        ],
        ("worker", "streams", "--port", "0"),
    ),
    ("router", [Right("group", f"{PREFIX}-router", "READ")], ("worker", "router", "--port", "0")),
    ("publisher", [Right("topic", f"{PREFIX}.fleet.v1", "WRITE")], ("fleet", "publish", "fleet.yaml")),
    ("admin", [Right("topic", f"{PREFIX}.", "DESCRIBE_CONFIGS", "prefixed")], ("topics", "check")),
]


async def test_a_role_that_lacks_a_right_ends_with_one_sentence_that_names_it_and_its_remedy(cluster: Cluster) -> None:
    (cluster.folder / "fleet.yaml").write_text(FLEET.replace("URL", "http://127.0.0.1:1"))
    await asyncio.gather(*(cluster.take(role, right) for role, rights, _ in LACKS for right in rights))
    try:
        ends = await asyncio.gather(*(cluster.ran(role, *words) for role, _, words in LACKS))
    finally:
        await asyncio.gather(*(cluster.grant(role, rights) for role, rights, _ in LACKS))
    for (role, rights, _), (code, out, err) in zip(LACKS, ends, strict=True):
        user, last = f"User:{user_of(role)}", err.splitlines()[-1]
        assert (code, out) == (1, ""), (role, code, out, err)
        assert last.startswith(f"tradewind: On Kafka {user}, in the role {role}, may not "), last
        assert all(f"{right.operation} " in last and right.name in last for right in rights)
        assert last.count(f"kafka-acls.sh --bootstrap-server {cluster.broker.bootstrap_servers}") == len(rights)
        assert f"--allow-principal {user} --operation" in last
        assert "Traceback" not in err


async def test_who_may_look_and_not_make_topics_is_told_so(cluster: Cluster) -> None:
    looks: list[Operation] = ["DESCRIBE", "DESCRIBE_CONFIGS"]
    await cluster.grant("auditor", [Right("topic", "fresh.", operation, "prefixed") for operation in looks])
    code, out, err = await cluster.ran("auditor", "topics", "create", "--topic-prefix", "fresh")
    assert (code, out) == (1, "")
    assert "User:auditor may not CREATE topics fresh.*. Grant it: kafka-acls.sh" in err.splitlines()[-1]


async def test_a_wrong_password_and_a_wrong_authority_are_told_apart_from_a_broker_that_is_away(
    cluster: Cluster, tmp_path: Path
) -> None:
    wrong = tmp_path / "wrong"
    wrong.touch(0o600)
    wrong.write_text("not-it-c0ffee\n")
    port = cluster.broker.port
    (code, _, err), (_, _, stranger), (_, _, mechanism), (_, _, elsewhere) = await asyncio.gather(
        cluster.ran("streams", "worker", "streams", "--port", "0", sasl_password_file=wrong),
        cluster.ran("admin", "topics", "check", tls_ca_file=""),
        cluster.ran("admin", "topics", "check", sasl_mechanism="PLAIN"),
        cluster.ran("admin", "topics", "check", bootstrap_servers=f"localhost:{port}"),
    )
    assert code == 1
    assert "Authentication failed for user streams (SCRAM-SHA-512)" in err.splitlines()[-1]
    assert f"what sasl_password_file ({wrong}) holds" in err.splitlines()[-1]
    assert "was not accepted (unable to get local issuer certificate)" in stranger.splitlines()[-1]
    assert "does not take sasl_mechanism PLAIN" in mechanism
    assert "certificate is not valid for 'localhost'" in elsewhere
    assert "not-it-c0ffee" not in err


async def test_a_gateway_that_is_not_let_in_says_why_and_keeps_trying(cluster: Cluster) -> None:
    load_or_make(cluster.folder / "some.key")
    port, path = free_port(), cluster.folder / "gateway.password"
    good = path.read_text() if path.exists() else password_of("gateway")
    path.touch(0o600)
    path.write_text("not-it-c0ffee")
    trust = str(public_path(cluster.folder / "some.key"))
    words = ("gateway", "--name", "gw-2", "--origin", "eu", "--trust", trust, "--anonymous", "--port", str(port))
    gateway = cluster.child("gateway", *words, log="gateway-2.log")
    await until(partial(told, gateway, "table_source_away", "Authentication failed for user gateway"), gateway)
    status, why = await asked(port, "/readyz")
    assert status == 503
    assert "Authentication failed for user gateway" in why
    assert "not-it-c0ffee" not in gateway.log.read_text() + why
    path.write_text(good)
    await until(partial(told, gateway, "table_source_back"), gateway)


async def told(child: Child, *words: str) -> bool:
    return bool(lines_of(child, words))


async def test_no_password_is_in_any_log(cluster: Cluster) -> None:
    logs = cluster.logs()
    assert any(name.endswith("ran.log") for name in logs)
    for name, text in logs.items():
        for role in (*ROLES, "root"):
            assert password_of(role).encode() not in text, name
