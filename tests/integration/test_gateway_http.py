"""Plain HTTP services through the gateway: any method and path, repeated only where that does no harm."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from yarl import URL

from router_sync.gateway import Limits, Probing
from router_sync.gateway.secret import Reference
from router_sync.gateway.upstream import Upstream
from tests.integration.gateway_house import (
    CHAT,
    House,
    answering,
    error,
    house,
    refusing,
    resetting,
    streaming,
    table,
    until,
    upstream,
)

HTTP = {"api": "http"}
ANY = "/{rest:.*}"


async def echo(request: web.Request) -> web.StreamResponse:
    body = await request.read()
    said = {"method": request.method, "path": request.raw_path, "body": body.decode(), "type": request.content_type}
    return web.json_response(said, headers={"x-trace": request.headers.get("x-trace", "")})


async def fetch(one: House, method: str, path: str, **sent: Any) -> tuple[int, dict[str, str], bytes]:
    async with one.session.request(method, URL(one.url + path, encoded=True), **sent) as answer:
        return answer.status, {k.lower(): v for k, v in answer.headers.items()}, await answer.read()


@pytest.mark.parametrize("method", ["GET", "PUT", "POST", "PATCH", "DELETE", "OPTIONS"])
async def test_any_method_path_query_and_body_go_on_as_they_came(tmp_path: Path, method: str) -> None:
    async with (
        upstream(echo, path=ANY) as a,
        house(tmp_path, table({"a": f"{a}/base"}, {"a": 1}, HTTP)) as one,
    ):
        sent: dict[str, Any] = {"data": b"x=1", "headers": {"x-trace": "7", "Content-Type": "text/x"}}
        said = {"method": method, "path": "/base/c%2Fd/7?wait=%261", "body": "x=1", "type": "text/x"}
        status, headers, body = await fetch(one, method, "/services/m/c%2Fd/7?wait=%261", **sent)
        assert (status, json.loads(body)) == (200, said)
        assert (headers["x-trace"], headers["x-tradewind-endpoint"]) == ("7", "a")
        sent["headers"]["x-tradewind-service"] = "m"
        status, _, body = await fetch(one, method, "/c%2Fd/7?wait=%261", **sent)
        assert (status, json.loads(body)) == (200, said)


async def test_a_head_says_how_long_the_answer_would_be(tmp_path: Path) -> None:
    async with (
        upstream(answering(b"x" * 77), path=ANY) as a,
        house(tmp_path, table({"a": a}, {"a": 1}, HTTP)) as one,
    ):
        status, headers, body = await fetch(one, "HEAD", "/services/m/file")
        assert (status, headers["content-length"], body) == (200, "77", b"")


@pytest.mark.parametrize(
    ("method", "times"), [("GET", 1), ("HEAD", 1), ("OPTIONS", 1), ("PUT", 1), ("DELETE", 1), ("POST", 0), ("PATCH", 0)]
)
async def test_only_idempotent_requests_go_to_another_endpoint_when_one_broke_off(
    tmp_path: Path, method: str, times: int
) -> None:
    asked: list[str] = []

    async def count(request: web.Request) -> web.StreamResponse:
        asked.append(request.method)
        return web.Response()

    async with (
        upstream(resetting, path=ANY) as a,
        upstream(count, path=ANY) as b,
        house(tmp_path, table({"a": a, "b": b}, {"a": 1.0}, HTTP)) as one,
    ):
        # the path of a generation means nothing here
        status, _, _ = await fetch(one, method, f"/services/m{CHAT}", data=b"x")
    assert len(asked) == times
    assert status == (200 if times else 502)


@pytest.mark.parametrize(
    ("method", "others", "expected"), [("POST", 1, (200, "a")), ("PUT", 0, (200, "a")), ("PUT", 1, (200, "b"))]
)
async def test_who_waits_at_an_endpoint_that_falls_leaves_it_only_where_he_may_ask_another(
    tmp_path: Path, method: str, others: int, expected: tuple[int, str]
) -> None:
    release, waiting = asyncio.Event(), asyncio.Event()

    async def crashing(request: web.Request) -> web.StreamResponse:
        if request.path == "/crash":
            return await resetting(request)
        waiting.set()
        await release.wait()
        return web.Response()

    async with upstream(crashing, path=ANY) as a, upstream(echo, path=ANY) as b:
        urls = {"a": a, **({"b": b} if others else {})}
        async with house(tmp_path, table(urls, {"a": 1.0}, HTTP)) as one:
            slow = asyncio.create_task(fetch(one, method, "/services/m/slow", data=b"x"))
            await waiting.wait()
            while not one.gateway.following.pickers["m"].endpoints["a"].breaker.shut:
                await fetch(one, "POST", "/services/m/crash", data=b"x")
            if expected[1] == "a":
                release.set()
            status, headers, _ = await slow
            assert (status, headers["x-tradewind-endpoint"]) == expected


async def test_a_users_wrong_password_is_between_him_and_the_service(tmp_path: Path) -> None:
    upstreams = {"default": Upstream(credential=Reference(env="KEY"), header="x-gateway")}
    async with (
        upstream(answering(b"no", 401), path=ANY) as a,
        upstream(echo, path=ANY) as b,
        house(tmp_path, table({"a": a, "b": b}, {"a": 1.0}, HTTP), {"KEY": "k"}, upstreams=upstreams) as one,
    ):
        for _ in range(4):
            status, headers, body = await fetch(one, "POST", "/services/m/login", data=b"x")
            assert (status, headers["x-tradewind-endpoint"], body) == (401, "a", b"no")
        assert one.gateway.following.pickers["m"].endpoints["a"].breaker.streak == 0
        assert not one.gateway.relay._exchange._urls  # such paths are not kept: there are too many


async def test_any_request_goes_elsewhere_when_no_connection_was_made(tmp_path: Path) -> None:
    async with (
        upstream(echo, path=ANY) as b,
        house(tmp_path, table({"a": refusing(), "b": b}, {"a": 1.0}, HTTP)) as one,
    ):
        status, headers, _ = await fetch(one, "POST", "/services/m/jobs", data=b"x")
        assert (status, headers["x-tradewind-endpoint"]) == (200, "b")


async def test_an_answer_of_unknown_length_comes_through_piece_by_piece(tmp_path: Path) -> None:
    release = asyncio.Event()

    async def lines(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        await response.prepare(request)
        await response.write(b"1\n")
        await release.wait()
        await response.write(b"2\n")
        return response

    async with (
        upstream(lines, path=ANY) as a,
        house(tmp_path, table({"a": a}, {"a": 1}, HTTP)) as one,
        one.session.get(f"{one.url}/services/m/events") as answer,
    ):
        assert await answer.content.readany() == b"1\n"
        release.set()
        assert await answer.read() == b"2\n"


async def test_an_event_stream_that_breaks_off_is_a_broken_connection_and_is_not_continued(tmp_path: Path) -> None:
    event = b'data: {"choices":[{"delta":{"content":"hi"}}]}\n\n'
    continues = {**HTTP, "continues": True}
    async with (
        upstream(streaming(event, then="cut"), path=ANY) as a,
        upstream(streaming(event), path=ANY) as b,
        house(tmp_path, table({"a": a, "b": b}, {"a": 1.0}, continues)) as one,
        one.session.post(one.url + f"/services/m{CHAT}", json={"messages": []}) as answer,
    ):
        with pytest.raises(aiohttp.ClientPayloadError):
            await answer.read()


async def test_an_event_stream_ends_as_its_server_ends_it(tmp_path: Path) -> None:
    async with (
        upstream(streaming(b"data: 1\n\n", b"data: 2"), path=ANY) as a,
        house(tmp_path, table({"a": a}, {"a": 1}, HTTP)) as one,
    ):
        assert (await fetch(one, "GET", f"/services/m{CHAT}"))[2] == b"data: 1\n\ndata: 2"


async def test_a_body_too_large_to_be_held_is_streamed_and_tried_once(tmp_path: Path) -> None:
    async def body() -> AsyncIterator[bytes]:
        for _ in range(3):
            yield b"x" * 1000

    limits = Limits(max_body_bytes=100, max_upload_bytes=4000)
    async with (
        upstream(echo, path=ANY) as a,
        house(tmp_path, table({"a": a}, {"a": 1}, HTTP), limits=limits) as one,
    ):
        assert (await fetch(one, "PUT", "/services/m/file", data=body()))[0] == 200
        status, _, said = await fetch(one, "PUT", "/services/m/file", data=b"x" * 5000)
        assert status == 413
        assert "max_upload_bytes = 4000" in error(said)["message"]


async def test_what_is_not_meant_for_a_plain_service_is_told_so(tmp_path: Path) -> None:
    async with upstream(echo, path=ANY) as a, house(tmp_path, table({"a": a}, {"a": 1}, HTTP)) as one:
        await one.follow(table({"a": a}, {"a": 1}, service="model"))
        websocket = {"Upgrade": "websocket", "Connection": "Upgrade"}
        cases: list[tuple[str, str, dict[str, Any], int, str]] = [
            ("POST", CHAT, {"json": {"model": "m"}}, 404, "/services/m/"),
            ("GET", "/services/model/metrics", {}, 404, "below /v1"),
            ("GET", "/services/nobody/x", {}, 404, "'nobody'"),
            ("GET", "/services/m/../../x", {}, 400, "without . and .."),
            ("GET", "/services/m/%2e%2e/x", {}, 400, "without . and .."),
            ("GET", "/services/m/a%5c..%5cx", {}, 400, "without . and .."),
            ("GET", "/services/m/a/..%3Bx/y", {}, 400, "without . and .."),
            ("TRACE", "/services/m/x", {}, 405, "TRACE"),
            ("GET", "/services/m/x", {"headers": websocket}, 501, "Websockets"),
        ]
        for method, path, sent, expected, names in cases:
            status, _, body = await fetch(one, method, path, **sent)
            assert (status, names in error(body)["message"]) == (expected, True), path
        async with one.session.get(f"{one.url}/v1/models") as answer:
            assert [model["id"] for model in (await answer.json())["data"]] == ["model"]


async def test_an_endpoint_is_probed_at_its_own_path(tmp_path: Path) -> None:
    asked: list[str] = []

    async def note(request: web.Request) -> web.StreamResponse:
        asked.append(request.path)
        return web.Response(status=503)

    async with upstream(note, path=ANY) as a:
        of = table({"a": f"{a}/base"}, {"a": 1}, {**HTTP, "health_path": "/ready?deep=1"})
        async with house(tmp_path, of, probing=Probing(quiet_s=0.01, every_s=0.02)) as one:
            await until(lambda: bool(one.metrics("a", "probe")))
            assert one.metrics("a", "probe")[0].errors == {"http_5xx": 1}
    assert set(asked) == {"/base/ready"}
