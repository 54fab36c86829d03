"""A gateway before real HTTP servers, for tests: servers that answer, fail or hang, tables, and what was reported."""

from __future__ import annotations

import asyncio
import json
import random
import socket
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
from aiohttp import web

from router_sync.client import Found
from router_sync.gateway import Gateway, GatewayConfig, ListSink, Probing
from router_sync.keys import load_or_make, public_path
from streams.contract.records import EndpointMetrics, Route, RoutingTable, TableEndpoint

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
ANSWER = json.dumps({"id": "1", "choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 7}}).encode()
CHAT = "/v1/chat/completions"
ASK = {"model": "m", "messages": []}
EVENT = b'data: {"choices":[{"delta":{"content":"hi"}}]}\n\n'
USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":4}}\n\n'
DONE = b"data: [DONE]\n\n"


class Tables:
    """A source one can put tables into."""

    def __init__(self) -> None:
        self.failures = 0
        self.why: str | None = None
        self.queue: asyncio.Queue[Found] = asyncio.Queue()

    async def records(self) -> AsyncIterator[Found]:
        while True:
            yield await self.queue.get()


@asynccontextmanager
async def upstream(
    handler: Handler, health: Handler | None = None, tls: ssl.SSLContext | None = None, path: str = "/v1/{rest:.*}"
) -> AsyncIterator[str]:
    """The address of a server that answers at `path` with `handler`."""

    async def well(_: web.Request) -> web.StreamResponse:
        return web.Response()

    app = web.Application(client_max_size=1 << 26)
    app.router.add_get("/health", health or well)
    app.router.add_route("*", path, handler)
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
        yield f"{'https' if tls else 'http'}://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def refusing() -> str:
    """An address where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


def table(
    urls: dict[str, str], shares: dict[str, float], of_endpoint: dict[str, Any] | None = None, **fields: Any
) -> RoutingTable:
    """A table of the service m; `of_endpoint`: more fields of each of its endpoints."""
    endpoints = tuple(
        TableEndpoint(
            name=name,
            url=url,
            provider="p",
            region=f"region-{name}",
            zone="z",
            jurisdiction="DE",
            capacity_rps=10,
            concurrency=8,
            cost_usd_per_request=0.0,
            latency_p95_ms=100,
            **(of_endpoint or {}),
        )
        for name, url in urls.items()
    )
    rest = tuple(name for name in urls if name not in shares)
    routes = tuple(
        Route(
            origin="eu",
            class_=class_,
            slo_p95_ms=300,
            endpoints=tuple(shares),
            shares=tuple(shares.values()),
            fallbacks=rest,
        )
        for class_ in ("chat", "batch")
    )
    usual: dict[str, Any] = {
        "service": "m",
        "epoch": 1,
        "version": 1,
        "issued_at_s": time.time(),
        "expires_at_s": time.time() + 300,
        "fleet_version": 1,
        "default_class": "chat",
        "endpoints": endpoints,
        "routes": routes,
    }
    return RoutingTable(**{**usual, **fields})


class House:
    """A gateway with its callers' session and its reports."""

    def __init__(self, gateway: Gateway, sink: ListSink, tables: Tables, folder: Path) -> None:
        self.gateway, self.sink, self.tables, self._folder = gateway, sink, tables, folder
        self.session = aiohttp.ClientSession()

    @property
    def url(self) -> str:
        return f"{'https' if self.gateway.config.tls else 'http'}://127.0.0.1:{self.gateway.port}"

    async def follow(self, of: RoutingTable) -> None:
        value, key = msgspec.json.encode(of), of.service.encode()
        await self.tables.queue.put(Found(key, value, load_or_make(self._folder / "key").seal(key, value)))
        await until(lambda: self._version(of.service) == of.version)

    def _version(self, service: str) -> int | None:
        held = self.gateway.following.follower.held.get(service)
        return held.table.version if held else None

    async def ask(self, **fields: Any) -> tuple[int, dict[str, str], bytes]:
        headers = fields.pop("headers", {})
        path = fields.pop("path", CHAT)
        async with self.session.post(self.url + path, json={**ASK, **fields}, headers=headers) as answer:
            return answer.status, {k.lower(): v for k, v in answer.headers.items()}, await answer.read()

    def metrics(self, endpoint: str, vantage: str = "gateway") -> list[EndpointMetrics]:
        told = [record for record, _ in self.sink.records if isinstance(record, EndpointMetrics)]
        return [record for record in told if record.endpoint == endpoint and record.vantage == vantage]


async def until(true: Callable[[], bool], within_s: float = 10.0) -> None:
    async with asyncio.timeout(within_s):
        while not true():  # noqa: ASYNC110 - what is waited for has no event of its own
            await asyncio.sleep(0.005)


@asynccontextmanager
async def house(
    folder: Path, of: RoutingTable | None = None, environ: Mapping[str, str] | None = None, **fields: Any
) -> AsyncIterator[House]:
    """A gateway that follows `of`, with a source and a sink one can look into."""
    load_or_make(folder / "key")
    usual: dict[str, Any] = {
        "origin": "eu",
        "port": 0,
        "trust": (public_path(folder / "key"),),
        "anonymous": True,
        "state_dir": folder,
        "probing": Probing(quiet_s=3600, every_s=3600),
        "report_every_s": 0.02,
        "status_every_s": 0.05,
        "drain_s": 1.0,
    }
    tables, sink = Tables(), ListSink()
    config = GatewayConfig(**{**usual, **fields})
    gateway = Gateway(config, source=tables, sink=sink, rng=random.Random(1), environ=environ or {})
    await gateway.start()
    one = House(gateway, sink, tables, folder)
    try:
        if of is not None:
            await one.follow(of)
        yield one
    finally:
        await one.session.close()
        await gateway.stop()


def answering(body: bytes = ANSWER, status: int = 200, **headers: str) -> Handler:
    async def handle(_: web.Request) -> web.StreamResponse:
        return web.Response(status=status, body=body, headers={"Content-Type": "application/json", **headers})

    return handle


def streaming(*pieces: bytes, then: str = "end") -> Handler:
    """Events, and then an end, a cut connection, or silence."""

    async def handle(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for piece in pieces:
            await response.write(piece)
            await asyncio.sleep(0.01)
        if then == "cut" and request.transport is not None:
            request.transport.close()
        if then == "silence":
            await asyncio.sleep(60)
        return response

    return handle


async def resetting(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def hanging(_: web.Request) -> web.StreamResponse:
    await asyncio.sleep(60)
    return web.Response()


async def half(request: web.Request) -> web.StreamResponse:
    """Half of an answer whose length was announced."""
    response = web.StreamResponse(headers={"Content-Type": "application/json", "Content-Length": "1000"})
    await response.prepare(request)
    await response.write(b"x" * 500)
    assert request.transport is not None
    request.transport.close()
    return response


def error(body: bytes) -> dict[str, Any]:
    said: dict[str, Any] = json.loads(body)["error"]
    assert set(said) == {"message", "type", "param", "code"}
    return said
