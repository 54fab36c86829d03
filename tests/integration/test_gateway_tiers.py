"""The gateway when not all can be served: who is shed and what they hear, and where simple requests go."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from prometheus_client.parser import text_string_to_metric_families

from router_sync.gateway import Deadlines, Tiers
from streams.contract.records import Arrivals, Route, RoutingTable, Tier
from tests.integration.gateway_house import (
    ANSWER,
    Handler,
    House,
    answering,
    error,
    house,
    table,
    until,
    upstream,
)

TIERS: dict[str, tuple[Tier, float]] = {"chat": ("premium", 300.0), "batch": ("sheddable", 5000.0)}
CLASS = "x-tradewind-class"
PATIENT = Deadlines(connect_s=10.0)
"""A flood on a busy machine is not to fail for how long connecting takes."""


def route(class_: str, *ends: str, **more: Any) -> Route:
    tier, slo_ms = TIERS.get(class_, ("standard", 1000.0))
    shares = tuple(1 / len(ends) for _ in ends)
    return Route(origin="eu", class_=class_, tier=tier, slo_p95_ms=slo_ms, endpoints=ends, shares=shares, **more)


def tiered(urls: dict[str, str], *routes: Route, **more: Any) -> RoutingTable:
    """A table of these routes over endpoints that hold eight requests each."""
    return table(urls, dict.fromkeys(urls, 1 / len(urls)), routes=routes, **more)


def keyed(folder: Path, *classes: str) -> dict[str, Any]:
    """Fields of a gateway whose one caller, with the key k, may use `classes`."""
    digest = hashlib.sha256(b"k").hexdigest()
    keys = folder / "keys.yaml"
    keys.write_text(json.dumps({"keys": [{"sha256": digest, "tenant": "acme", "classes": classes}]}))
    return {"keys": keys, "anonymous": False}


async def asked(one: House, class_: str = "", headers: dict[str, str] | None = None, **body: Any) -> Any:
    wanted = {CLASS: class_} if class_ else {}
    return await one.ask(headers={"Authorization": "Bearer k", **wanted, **(headers or {})}, **body)


def counted(one: House, field: str) -> Counter[str]:
    """Of all arrivals reported so far, by class."""
    counts: Counter[str] = Counter()
    for record, _ in one.sink.records:
        if isinstance(record, Arrivals):
            counts.update(dict(zip(record.class_, getattr(record, field), strict=True)))
    return counts


async def metric(one: House, name: str, **labels: str) -> float:
    async with one.session.get(f"{one.url}/metrics") as answer:
        text = await answer.text()
    found = (sample for family in text_string_to_metric_families(text) for sample in family.samples)
    return sum(s.value for s in found if s.name == f"tradewind_{name}" and labels.items() <= s.labels.items())


async def test_the_share_that_a_table_lets_in_is_served_and_the_rest_hears_429(tmp_path: Path) -> None:
    async with upstream(answering()) as a:
        of = tiered({"a": a}, route("chat", "a"), route("batch", "a", admit=0.25))
        async with house(tmp_path, of, **keyed(tmp_path, "chat", "batch")) as one:
            before = await metric(one, "shed_total", why="table")
            told = [await asked(one, "batch") for _ in range(40)]
            assert sum(status == 200 for status, _, _ in told) in (9, 10, 11)
            assert all([(await asked(one, "chat"))[0] == 200 for _ in range(10)])
            status, headers, body = next(answer for answer in told if answer[0] != 200)
            assert status == 429
            assert error(body)["code"] == "shed"
            assert error(body)["type"] == "rate_limit_error"
            assert headers["retry-after"] in ("1", "2")
            assert (headers["x-tradewind-shed"], headers[CLASS]) == ("table", "batch")
            shed = sum(status == 429 for status, _, _ in told)
            await until(lambda: counted(one, "arrived")["chat"] == 10)
            assert counted(one, "arrived")["batch"] == 40
            assert counted(one, "shed") == Counter({"batch": shed})
            assert counted(one, "admitted")["batch"] == 40 - shed
            assert await metric(one, "shed_total", why="table") - before == shed


async def test_a_session_in_progress_is_served_while_new_ones_are_shed(tmp_path: Path) -> None:
    async with upstream(answering()) as a:
        full, half = (tiered({"a": a}, route("chat", "a", admit=share), version=n) for n, share in ((1, 1.0), (2, 0.5)))
        async with house(tmp_path, full, **keyed(tmp_path, "chat")) as one:
            kept = {"x-tradewind-session": "s1"}
            assert (await asked(one, headers=kept))[0] == 200
            await one.follow(half)
            new = [(await asked(one))[0] for _ in range(20)]
            assert 429 in new
            assert [(await asked(one, headers=kept))[0] for _ in range(5)] == [200] * 5


def limited(slots: int, takes_s: float, came: list[str] | None = None) -> Handler:
    """An endpoint that answers `slots` requests at a time, in the order in which they `came`."""
    room = asyncio.Semaphore(slots)

    async def handle(request: web.Request) -> web.StreamResponse:
        if came is not None:
            came.append(request.headers["x-kind"])
        async with room:
            await asyncio.sleep(takes_s)
        return web.Response(body=ANSWER, content_type="application/json")

    return handle


async def test_a_surge_of_batch_is_shed_before_premium_has_to_wait(tmp_path: Path) -> None:
    came: list[str] = []
    async with upstream(limited(8, 0.05, came)) as a:
        of = tiered({"a": a}, route("chat", "a"), route("batch", "a"))
        async with house(tmp_path, of, deadlines=PATIENT, **keyed(tmp_path, "chat", "batch")) as one:

            async def status_of(class_: str) -> int:
                status, headers, _ = await asked(one, class_, {"x-kind": class_})
                assert status == 200 or headers["x-tradewind-shed"] == "full"
                return int(status)

            assert [await status_of(class_) for class_ in ("chat", "batch") * 10] == [200] * 20
            came.clear()
            flood = [asyncio.create_task(status_of("batch")) for _ in range(200)]
            await asyncio.sleep(0)
            assert [await status_of("chat") for _ in range(5)] == [200] * 5
            statuses = Counter(await asyncio.gather(*flood))
            assert came.index("chat") < 100, "all 200 would have been before it"
            assert statuses[429] > 100
            assert statuses[200] >= 4
            assert [await status_of("batch") for _ in range(3)] == [200] * 3, "there is room again"


async def test_nothing_is_shed_here_where_ceilings_are_off(tmp_path: Path) -> None:
    async with upstream(limited(8, 0.01)) as a:
        of = tiered({"a": a}, route("chat", "a"), route("batch", "a"))
        fields = {"tiers": Tiers(ceilings=False), "deadlines": PATIENT, **keyed(tmp_path, "chat", "batch")}
        async with house(tmp_path, of, **fields) as one:
            told = await asyncio.gather(*(asked(one, "batch") for _ in range(50)))
            assert {status for status, _, _ in told} == {200}


async def test_how_full_a_route_is_stands_in_the_metrics(tmp_path: Path) -> None:
    async with upstream(limited(8, 0.5)) as a:
        of = tiered({"a": a}, route("chat", "a"), route("batch", "a"))
        async with house(tmp_path, of, **keyed(tmp_path, "chat", "batch")) as one:
            waiting = [asyncio.create_task(asked(one, "chat")) for _ in range(8)]
            await until(lambda: one.gateway.relay.in_flight == 8)
            await asyncio.sleep(0.05)  # longer than a measurement holds
            assert await metric(one, "route_saturation", service="m", **{"class": "batch"}) == pytest.approx(1.0)
            await asyncio.gather(*waiting)


async def test_simple_requests_go_to_the_edge_and_others_to_the_cloud(tmp_path: Path) -> None:
    async with upstream(answering()) as cloud, upstream(answering()) as edge:
        urls = {"cloud": cloud, "edge": edge}
        chat = route("chat", "cloud", simple_class="small", simple_tokens=100)
        async with house(tmp_path, tiered(urls, chat, route("small", "edge")), **keyed(tmp_path, "chat")) as one:

            async def served(length: int, class_: str = "", **body: Any) -> str:
                says = [{"role": "user", "content": "a" * length}]
                status, headers, _ = await asked(one, class_, messages=says, **body)
                assert status == 200
                assert headers[CLASS] == ("small" if headers["x-tradewind-endpoint"] == "edge" else "chat")
                return str(headers["x-tradewind-endpoint"])

            assert await served(200, max_tokens=50) == "edge"
            assert await served(208, max_tokens=50) == "cloud"
            assert await served(4, max_completion_tokens=500) == "cloud"
            assert await served(4) == "cloud", "who names no limit may get a long answer"
            assert await served(4, class_="chat", max_tokens=50) == "edge"
            status, _, body = await asked(one, "small")
            assert (status, error(body)["code"]) == (403, "class_not_allowed"), "it is not his to ask for"
            await until(lambda: counted(one, "arrived")["chat"] == 3)
            assert counted(one, "arrived") == Counter(chat=3, small=2)


async def test_a_gateway_may_assume_how_long_answers_without_a_limit_are(tmp_path: Path) -> None:
    async with upstream(answering()) as cloud, upstream(answering()) as edge:
        chat = route("chat", "cloud", simple_class="small", simple_tokens=100)
        of = tiered({"cloud": cloud, "edge": edge}, chat, route("small", "edge"))
        async with house(tmp_path, of, assumed_output_tokens=50, **keyed(tmp_path, "chat")) as one:
            assert (await asked(one))[1]["x-tradewind-endpoint"] == "edge"
            assert (await asked(one, max_tokens=500))[1]["x-tradewind-endpoint"] == "cloud"
