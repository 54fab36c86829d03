"""The load generator against real servers: what counts as an answer and what does not."""

import asyncio
import random
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from tradewind.load import SAMPLE, Counters, HttpSender, Outcome, Shot, Target, drive, load, plan
from tradewind.pretend import Endpoint, EndpointSettings, FaultOrder
from tradewind.pretend.ledger import read

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def shot(url: str, *, stream: bool, output_tokens: int = 12) -> Shot:
    return Shot(0.0, Target("eu", "chat", url, "key-1", "pretend-8b"), stream, 20, output_tokens)


@asynccontextmanager
async def endpoint(**fields: Any) -> AsyncIterator[Endpoint]:
    fast = {"base_ttft_ms": 2.0, "base_between_ms": 1.0, "chunk_ms": 3.0, "grace_s": 1.0}
    settings = EndpointSettings(name="a", **{**fast, **fields})
    started = Endpoint(settings, monotonic_s=time.monotonic, now_s=time.time)
    await started.start()
    try:
        yield started
    finally:
        await started.stop()


@asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_post("/v1/chat/completions", handler)
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def sent(one: Shot, **settings: float) -> Outcome:
    async with HttpSender(time.monotonic, **settings) as send:
        return await send(one)


def answering(body: bytes, status: int = 200, **headers: str) -> Handler:
    async def handle(_: web.Request) -> web.StreamResponse:
        return web.Response(status=status, body=body, headers=headers)

    return handle


async def test_good_answers_are_ok_and_a_streams_first_token_is_timed() -> None:
    async with endpoint(base_between_ms=5.0) as served:
        url = f"http://127.0.0.1:{served.port}"
        plain, stream = await sent(shot(url, stream=False)), await sent(shot(url, stream=True))
    assert (plain.ok, plain.status, plain.ttft_ms, plain.error) == (True, 200, None, None)
    assert stream.ok
    assert stream.ttft_ms is not None
    assert stream.total_ms is not None
    assert stream.total_ms - stream.ttft_ms > 30.0


@pytest.mark.parametrize("stream", [True, False])
async def test_an_answer_broken_off_is_a_failure_though_its_status_was_200(stream: bool) -> None:
    async with endpoint() as served:
        await served._faults.set(FaultOrder("breaking"))
        outcome = await sent(shot(f"http://127.0.0.1:{served.port}", stream=stream))
    assert (outcome.ok, outcome.status, outcome.error) == (False, 200, "truncated")


@pytest.mark.parametrize(
    ("stream", "body", "ok"),
    [
        (True, b'data: {"choices":[]}\n\ndata: [DONE]\n\n', True),
        (True, b'data: {"choices":[]}\n\n', False),
        (True, b'data: {"error":{"message":"gone"}}\n\ndata: [DONE]\n\n', False),
        (True, b": still here\n\n", False),
        (False, b'{"choices":[{}]}', True),
        (False, b'{"choices":[]}', False),
        (False, b'{"choices":[{}]', False),
        (False, b"", False),
    ],
)
async def test_only_a_whole_answer_counts(stream: bool, body: bytes, ok: bool) -> None:
    async with serving(answering(body)) as url:
        outcome = await sent(shot(url, stream=stream))
    assert (outcome.ok, outcome.error) == (ok, None if ok else "truncated")


@pytest.mark.parametrize(
    ("status", "kind"), [(500, "http_5xx"), (503, "http_5xx"), (429, "http_429"), (401, "client_4xx")]
)
async def test_a_status_is_a_kind_of_failure(status: int, kind: str) -> None:
    async with serving(answering(b"{}", status)) as url:
        outcome = await sent(shot(url, stream=True))
    assert (outcome.ok, outcome.status, outcome.error) == (False, status, kind)


async def test_what_a_gateway_sheds_is_told_apart_from_an_endpoint_that_throttles() -> None:
    async with serving(answering(b"{}", 429, **{"x-tradewind-shed": "table", "x-tradewind-class": "chat"})) as url:
        outcome = await sent(shot(url, stream=True))
    assert (outcome.ok, outcome.status, outcome.error, outcome.taken_as) == (False, 429, "shed", "chat")
    counters = Counters()
    counters.add(outcome)
    assert (counters.shed, counters.failed) == (1, 0)


async def test_an_endpoint_writes_down_whom_it_received_before_it_answers(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    async with endpoint(ledger=path) as one:
        url = f"http://127.0.0.1:{one.port}"
        assert (await sent(shot(url, stream=True))).ok
        assert (await sent(Shot(0.0, Target("us", "batch", url, "k", "no-such-model"), False, 20, 1))).status == 404
    assert [(received.origin, received.cls) for received in read(path)] == [("eu", "chat"), ("us", "batch")]
    assert all(abs(received.at_s - time.time()) < 60 for received in read(path))


async def test_the_gateways_headers_are_kept_and_the_key_is_sent() -> None:
    keys: list[str] = []

    async def handle(request: web.Request) -> web.StreamResponse:
        keys.append(request.headers["Authorization"])
        headers = {
            "x-tradewind-endpoint": "eu-west-a",
            "x-tradewind-region": "eu-west",
            "x-tradewind-attempts": "2",
            "x-tradewind-table": "1700.42",
            "x-tradewind-class": "quick",
        }
        return web.Response(body=b'{"choices":[{}]}', headers=headers)

    async with serving(handle) as url:
        outcome = await sent(shot(url, stream=False))
    assert keys == ["Bearer key-1"]
    told = (outcome.endpoint, outcome.region, outcome.attempts, outcome.table, outcome.taken_as)
    assert told == ("eu-west-a", "eu-west", 2, "1700.42", "quick")


async def test_silence_is_told_apart_before_and_within_an_answer() -> None:
    async def silent(_: web.Request) -> web.StreamResponse:
        await asyncio.Event().wait()
        raise AssertionError

    async def stalls(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b'data: {"choices":[]}\n\n')
        return await silent(request)

    async with serving(silent) as url:
        assert (await sent(shot(url, stream=True), silence_timeout_s=0.1)).error == "first_byte_timeout"
    async with serving(stalls) as url:
        assert (await sent(shot(url, stream=True), silence_timeout_s=0.5)).error == "stall"


async def test_a_refused_connection_and_one_cut_before_the_answer_are_told_apart() -> None:
    async def cut(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    async with serving(cut) as url:
        assert (await sent(shot(url, stream=False))).error == "reset"
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    assert (await sent(shot(f"http://127.0.0.1:{port}", stream=False))).error == "connect"


async def test_the_sample_driven_at_a_fleet_of_two_is_answered_whole() -> None:
    arrivals = load(SAMPLE, seconds=3, seed=1, mean_rps=40)
    async with endpoint(capacity_rps=200) as one, endpoint(capacity_rps=200) as two:
        targets = [
            Target(origin, "chat", f"http://127.0.0.1:{served.port}", "key", "pretend-8b")
            for origin, served in (("eu", one), ("us", two))
        ]
        counters = Counters()
        async with HttpSender(time.monotonic) as send:
            outcomes = await drive(
                plan(arrivals, targets, random.Random(1)), send, monotonic_s=time.monotonic, counters=counters
            )
    assert len(outcomes) == len(arrivals) == counters.ok > 60
    assert {one.origin for one in outcomes} == {"eu", "us"}
    assert {one.stream for one in outcomes} == {True, False}
