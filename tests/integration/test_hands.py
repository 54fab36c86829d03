"""An operator's hands on a real Kafka: a router and its gateway run, she drains, looks, replays, and is told."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from aiohttp import web
from typer.testing import CliRunner

from router_sync import flow as router_flow
from router_sync.gateway import Gateway, GatewayConfig
from router_sync.keys import load_or_make, public_path
from streams import flow as streams_flow
from streams.contract import topics
from streams.contract.records import EndpointMetrics, Fleet, Order, RoutingTable
from streams.runtime.worker import carried
from streams.settings import Settings, load
from tests.contract.on_kafka import fresh, read_all, send, until
from tests.unit.router_fleet import endpoint, fleet
from tradewind.cli import app

pytestmark = pytest.mark.kafka
A, B = "eu-west-a", "us-east-a"


class Operator:
    """Types commands, in a shell whose environment names this Kafka, this prefix and this state folder."""

    def __init__(self, mine: Settings) -> None:
        self._where = ("--bootstrap-servers", mine.bootstrap_servers, "--topic-prefix", mine.topic_prefix)

    async def types(self, *words: str) -> tuple[int, Any]:
        """Exit status, and what was printed as JSON."""
        result = await asyncio.to_thread(CliRunner().invoke, app, [*words, *self._where, "--json"])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result.exit_code, json.loads(result.stdout)


@pytest.fixture
async def mine(kafka: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Topics and a state folder of one's own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TRADEWIND_STATE_DIR", str(tmp_path))
    return await fresh(kafka, state_dir=tmp_path, table_heartbeat_s=1.0)


@contextlib.asynccontextmanager
async def router(mine: Settings, known: Fleet) -> AsyncIterator[None]:
    """A router that has said its first table."""
    await publish(mine, known)
    signer = load_or_make(mine.state_dir / "router.key")
    async with carried(router_flow.steps(mine, signer), mine, "router"):
        await until(lambda: read_all(mine, topics.ROUTING_TABLE))
        yield


async def publish(mine: Settings, known: Fleet) -> None:
    await send(mine, [(topics.FLEET, known.fleet.encode(), msgspec.json.encode(known))])


def two(url: str = "http://127.0.0.1:1", version: int = 1, **urls: str) -> Fleet:
    places = {A: "eu-west", B: "us-east"}
    return fleet(
        endpoints=[endpoint(name, at, url=urls.get(name[:2], url)) for name, at in places.items()], version=version
    )


async def newest(mine: Settings) -> RoutingTable:
    return msgspec.json.decode((await read_all(mine, topics.ROUTING_TABLE))[-1].value, type=RoutingTable)


def users_of(table: RoutingTable, name: str) -> list[str]:
    return [route.class_ for route in table.routes if name in (*route.endpoints, *route.fallbacks)]


async def test_a_drained_endpoint_leaves_the_table_within_two_seconds_and_undrained_it_comes_back(
    mine: Settings,
) -> None:
    she = Operator(mine)
    async with router(mine, two()):
        assert users_of(await newest(mine), A)
        code, told = await she.types("drain", A, "--reason", "new driver", "--by", "ann", "--for", "1h")
        [table] = told["tables"]
        assert (code, table["after_ms"] < 2000) == (0, True)
        assert table["reason"].startswith("eu-west-a is drained by ann: new driver")
        assert sum(route["others"].get(B, 0.0) for route in table["moved"]) > 0
        assert not users_of(await newest(mine), A)
        code, told = await she.types("drain", A, "--for", "2h", "--by", "ben")
        assert (code, told["tables"][0]["after_ms"]) == (0, 0.0)  # the table in force has it so already

        code, told = await she.types("table", "show")
        [shown] = told["tables"]
        assert (code, shown["signature"]) == (0, "good")
        assert {e["name"]: e["state"] for e in shown["endpoints"]} == {A: "drain", B: "ready"}
        assert [order["by"] for order in (await she.types("status"))[1]["orders"]] == ["ben"]

        with_nothing = await asyncio.to_thread(CliRunner().invoke, app, ["drain", B, *she._where])
        assert "Nothing but us-east-a can serve chat/interactive, chat/batch" in str(with_nothing.exception)
        assert users_of(await newest(mine), B)

        code, told = await she.types("undrain", A)
        assert (code, told["tables"][0]["after_ms"] < 2000) == (0, True)
        assert all(e.state == "ready" for e in (await newest(mine)).endpoints)


async def test_with_force_the_last_endpoint_is_drained_too_and_the_table_says_what_is_lost(mine: Settings) -> None:
    async with router(mine, two()):
        she = Operator(mine)
        await she.types("drain", A)
        code, told = await she.types("drain", B, "--force")
        assert code == 0
        assert "every allowed endpoint is drained, 20 requests/s unserved" in told["tables"][0]["reason"]
        assert not any(route.endpoints for route in (await newest(mine)).routes)
        assert (await she.types("undrain", B))[0] == 0
        assert users_of(await newest(mine), B)


async def test_an_order_for_an_endpoint_that_left_the_fleet_can_be_ended(mine: Settings) -> None:
    async with router(mine, two()):
        she = Operator(mine)
        await she.types("drain", A)
        await publish(mine, fleet(endpoints=[endpoint(B, "us-east")], version=2))
        await until(lambda: _of_version(mine, 2))
        code, told = await she.types("undrain", A)
        assert (code, told["tables"]) == (0, [])
        await publish(mine, two(version=3))
        await until(lambda: _of_version(mine, 3))
        assert users_of(await newest(mine), A)


async def test_a_notice_drains_at_once_says_by_when_to_leave_and_an_earlier_one_counts(mine: Settings) -> None:
    async with router(mine, two()):
        she = Operator(mine)
        code, told = await she.types("notice", A, "--kind", "maintenance", "--in", "1h")
        [table] = told["tables"]
        assert (code, table["after_ms"] < 2000) == (0, True)
        assert re.search(rf"{A} leaves in 35\d\d s: maintenance notice|leaves in 3600 s", table["reason"])
        assert {route["has"] for route in table["moved"]} == {0.0}
        code, told = await she.types("notice", A, "--in", "30s", "--reason", "spot i-0abc")
        assert (code, told["tables"][0]["after_ms"] < 2000) == (0, True)
        of = next(e for e in (await newest(mine)).endpoints if e.name == A)
        assert (of.state, of.leave_by_s) == ("drain", told["deadline_at_s"])
        code, told = await she.types("notice", B, "--kind", "rebalance", "--in", "2m")
        assert (code, told["tables"]) == (0, [])
        assert users_of(await newest(mine), B)
        nowhere = await asyncio.to_thread(CliRunner().invoke, app, ["notice", "eu-west-z", *she._where])
        assert "eu-west-a" in str(nowhere.exception)


async def test_what_a_cloud_says_to_a_machine_drains_its_endpoint(mine: Settings) -> None:
    async def metadata(request: web.BaseRequest) -> web.StreamResponse:
        said = "TRUE" if request.path.endswith("/preempted") else "NONE"
        return web.Response(text=said, headers={"Metadata-Flavor": "Google"})

    runner = web.ServerRunner(web.Server(metadata))
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        async with router(mine, two()):
            asks = ("collect", "interruptions", "--provider", "gcp", "--endpoint", A, "--metadata-url", url, "--once")
            code, told = await Operator(mine).types(*asks)
            [said] = told["said"]
            assert (code, told["answered"], said["kind"]) == (0, True, "preempt")
            assert said["deadline_at_s"] - said["notice_at_s"] == pytest.approx(30.0, abs=1.0)
            await until(lambda: _leaves(mine, A))
    finally:
        await runner.cleanup()


async def _leaves(mine: Settings, name: str) -> bool:
    return any(e.name == name and e.leave_by_s is not None for e in (await newest(mine)).endpoints)


async def _of_version(mine: Settings, version: int) -> bool:
    return (await newest(mine)).fleet_version == version


# ---------------------------------------------------------------- requests under way


class Upstream:
    """An endpoint that answers when it is told to."""

    def __init__(self) -> None:
        self.asked, self.go = 0, asyncio.Event()
        self.url = ""

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.method == "GET":
            return web.Response(text="well")
        self.asked += 1
        await self.go.wait()
        return web.json_response({"from": self.url})

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        runner = web.ServerRunner(web.Server(self._answer))
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            yield
        finally:
            self.go.set()
            await runner.cleanup()


async def test_a_request_under_way_on_a_drained_endpoint_is_finished_and_new_ones_go_elsewhere(
    mine: Settings, tmp_path: Path
) -> None:
    eu, us = Upstream(), Upstream()
    async with eu.serving(), us.serving(), router(mine, two(eu=eu.url, us=us.url)):
        gateway = Gateway(_gateway(mine, tmp_path))
        await gateway.start()
        try:
            async with aiohttp.ClientSession() as http:

                async def ask() -> Any:
                    url = f"http://127.0.0.1:{gateway.port}/v1/chat/completions"
                    async with http.post(url, json={"model": "chat"}) as answer:
                        return answer.status, await answer.json()

                await until(lambda: "chat" in gateway.following.pickers)
                under_way = asyncio.create_task(ask())
                await until(lambda: eu.asked + us.asked)
                name, busy, other = (A, eu, us) if eu.asked else (B, us, eu)
                assert (await Operator(mine).types("drain", name))[0] == 0
                await until(lambda: gateway.following.pickers["chat"].endpoints[name].state == "drain")
                other.go.set()
                assert [await ask() for _ in range(5)] == [(200, {"from": other.url})] * 5
                assert not under_way.done()
                busy.go.set()
                assert await under_way == (200, {"from": busy.url})
                assert busy.asked == 1
        finally:
            await gateway.stop()


def _gateway(mine: Settings, folder: Path) -> GatewayConfig:
    return GatewayConfig(
        origin="eu", port=0, bootstrap_servers=mine.bootstrap_servers, prefix=mine.topic_prefix,
        trust=(public_path(folder / "router.key"),), anonymous=True, state_dir=folder / "gw", status_every_s=0.2,
    )  # fmt: skip


# ---------------------------------------------------------------- dead letters


async def test_a_refused_order_is_listed_and_shown_and_never_sent_over_newer_ones(mine: Settings) -> None:
    she = Operator(mine)
    async with router(mine, fleet(endpoints=[endpoint(B, "us-east")])):
        order = msgspec.json.encode(Order(endpoint=A, drain=True, by="ann", at_s=time.time()))
        await send(mine, [(topics.ORDERS, A.encode(), order)])
        await until(lambda: read_all(mine, topics.DEAD_LETTERS))
        code, told = await she.types("dead-letters", "list", "--topic", "orders.v1", "--since", "1h")
        [listed] = told["letters"]
        assert (code, told["count"], listed["field"]) == (0, 1, "endpoint")
        assert "is not in the fleet" in listed["reason"]
        place = listed["place"]
        _, shown = await she.types("dead-letters", "show", place)
        assert shown["value"] == order.decode()
        assert (await she.types("dead-letters", "list", "--topic", "fleet.v1"))[1]["count"] == 0

        code, told = await she.types("dead-letters", "replay", place, "--yes", "--again")
        assert (code, told["letters"][0]["fate"]) == (1, "not raw input")
        assert "give the order anew" in told["letters"][0]["says"]
        assert len(await read_all(mine, topics.ORDERS)) == 1


async def test_refused_metrics_are_sent_again_once_to_where_it_was_said_and_what_is_left_out_is_counted(
    mine: Settings,
) -> None:
    she, name = Operator(mine), "endpoint-metrics.v1"
    async with carried(streams_flow.steps(mine), mine, "streams"):
        await send(mine, [(topics.ENDPOINT_METRICS, key, b"{") for key in (b"one", b"two")])
        await until(lambda: _letters(mine, 2))
    code, told = await she.types("dead-letters", "replay", "--topic", name, "--limit", "1")
    assert (code, told["dry_run"], told["older_left_out"]) == (1, True, 1)
    [one] = told["letters"]
    assert one["fate"] == "would be sent"
    assert len(await read_all(mine, topics.ENDPOINT_METRICS)) == 2

    code, told = await she.types("dead-letters", "replay", one["place"], "--yes")
    assert (code, told["older_left_out"], told["letters"][0]["fate"]) == (0, 0, "sent")
    found = await read_all(mine, topics.ENDPOINT_METRICS)
    [again] = [record for record in found if topics.REPLAYED_FROM in dict(record.headers)]
    assert (again.key.decode(), again.value, f"{again.topic}/{again.partition}") == (one["key"], b"{", one["to"])
    assert dict(again.headers)[topics.REPLAYED_FROM] == one["place"].encode()

    code, told = await she.types("dead-letters", "replay", one["place"], "--yes")
    assert (code, told["letters"][0]["fate"]) == (1, "replayed before")
    assert len(await read_all(mine, topics.ENDPOINT_METRICS)) == 3


async def _letters(mine: Settings, count: int) -> bool:
    return len(await read_all(mine, topics.DEAD_LETTERS)) >= count


# ---------------------------------------------------------------- how it is


def measured(name: str) -> tuple[topics.Topic, bytes, bytes]:
    now_s = time.time()
    record = EndpointMetrics(
        endpoint=name, service="chat", class_="interactive", observer="gw", boot=1, seq=int(now_s * 1e6), at_s=now_s,
        last_ok_at_s=now_s, latency_ms=(20.0,),
    )  # fmt: skip
    return topics.ENDPOINT_METRICS, name.encode(), msgspec.json.encode(record)


async def test_status_is_0_while_all_is_well_and_1_with_the_reason_when_the_router_is_gone(mine: Settings) -> None:
    she = Operator(mine)
    async with carried(streams_flow.steps(mine), mine, "streams"):
        async with router(mine, two()):

            async def well() -> Any:
                await send(mine, [measured(name) for name in (A, B)])
                code, told = await she.types("status")
                verdicts = {e["endpoint"]: e["verdict"] for e in told["endpoints"]}
                return told if (code, verdicts) == (0, {A: "up", B: "up"}) else None

            told = await until(well)
            assert [(t["service"], t["signature"]) for t in told["tables"]] == [("chat", "good")]
            lag = {group["room"]: group["lag"] for group in told["groups"] if group["members"]}
            assert lag.keys() == {"streams", "router"}
            assert any(one["topic"] == "endpoint-metrics.v1" for one in lag["streams"])
            code, told = await she.types("doctor")
            states = {check["name"]: check["state"] for check in told["checks"]}
            assert code == 0, [check for check in told["checks"] if check["state"] == "fail"]
            asked = ("kafka", "topics", "rights", "clock", "tables", "router key")
            assert {states[name] for name in asked} == {"ok"}
        code, told = await she.types("status")
        assert code == 1
        assert any("no worker of router runs" in wrong for wrong in told["wrong"])


async def test_topics_that_are_not_there_are_one_sentence_and_the_doctor_s_remedy(kafka: str, mine: Settings) -> None:
    she = Operator(load(bootstrap_servers=kafka, topic_prefix="t-nothing-here"))
    code, told = await she.types("status")
    assert code == 1
    assert len([wrong for wrong in told["wrong"] if "do not exist" in wrong]) == 1
    code, told = await she.types("doctor")
    remedy = {check["name"]: check.get("remedy") for check in told["checks"]}
    assert (code, remedy["topics"]) == (1, "Run `tradewind topics create`")
