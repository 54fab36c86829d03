"""A gateway as one process: listens, follows, reports, probes; and ends without losing what is under way."""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import Awaitable, Callable
from typing import Final

import aiohttp
import msgspec
from aiohttp import web
from aiohttp.http_exceptions import LineTooLong

from router_sync.client import FileSource, Follower, KafkaSource, Shelf, Source
from router_sync.client.source import hush_kafka
from router_sync.gateway.access import load_access
from router_sync.gateway.config import GatewayConfig
from router_sync.gateway.exchange import Exchange
from router_sync.gateway.following import Following
from router_sync.gateway.probe import Prober
from router_sync.gateway.refusal import HEADERS, Refusal
from router_sync.gateway.relay import Relay
from router_sync.gateway.report import Reporter
from router_sync.gateway.sink import KafkaSink, Sink
from router_sync.keys import load_trust
from streams import signals
from streams.contract.errors import Missing
from streams.runtime import clock

_KEEP_ALIVE_S: Final = 4.0
"""Less than any server keeps idle connections (uvicorn: 5 s), so that ours are rarely closed under a request."""
_FLUSH_S: Final = 5.0
Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class Gateway:
    """`await start()`, then `port` holds the real number; `await stop()` drains and leaves nothing behind.

    `sink` and `source` default to Kafka's; a test hands in a `ListSink` and whatever yields tables.
    """

    def __init__(
        self,
        config: GatewayConfig,
        *,
        source: Source | None = None,
        sink: Sink | None = None,
        rng: random.Random | None = None,
        now_s: Callable[[], float] = clock.now_s,
    ) -> None:
        self.config = config
        self.port = self.admin_port = 0
        self.sink = sink or KafkaSink(config.bootstrap_servers, config.prefix, config.name, queue=config.queue_reports)
        self._rng = rng or random.Random()
        self._access = load_access(config.keys, anonymous=config.anonymous)
        self._now_s = now_s
        self.following = Following(
            config.name,
            source or _source(config),
            Follower(load_trust(*config.trust), Shelf(config.state_dir / "tables")),
            self.sink,
            rng=self._rng,
            now_s=now_s,
            clock=clock.monotonic_s,
        )
        self.draining = False
        self._tasks: list[asyncio.Task[None]] = []
        self._runners: list[web.ServerRunner] = []

    async def start(self) -> None:
        """Listen and follow. OSError when a port is taken; a broker that is away is waited for in the background."""
        config = self.config
        await self.sink.start()
        self._session = _session(config)
        self.reporter = Reporter(self.sink, config.name, config.origin, int(self._now_s() * 1000), self._now_s)
        services = self.following.pickers
        exchange = Exchange(self._session, config.limits, config.deadlines)
        self._prober = Prober(
            config.probing, self._session, services.items, self.reporter, self._rng, exchange.evacuate
        )
        self.relay = Relay(config, services, self._access, exchange, self.reporter, self._prober)
        self.following.restore()
        try:
            self.port = await self._listen(self._handle, config.port, reuse_port=config.reuse_port)
            if config.admin_port is not None:
                self.admin_port = await self._listen(self._admin, config.admin_port)
        except OSError:
            await self.stop()
            raise
        loops = (self.following.run(), self._prober.run(), self._report(), self._tell())
        self._tasks = [asyncio.create_task(loop) for loop in loops]
        signals.event("gateway_listens", gateway=config.name, host=config.host, port=self.port, origin=config.origin)

    async def stop(self) -> None:
        """Stop listening, let requests finish for `drain_s`, send the last reports."""
        self.draining = True
        for runner in self._runners:
            await runner.cleanup()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.reporter.flush(last=True)
        await self.sink.stop(_FLUSH_S)
        await self._session.close()

    async def _listen(self, handle: Handler, port: int, *, reuse_port: bool = False) -> int:
        limits = self.config.limits
        server = _Server(
            _answering(handle),
            handler_cancellation=True,
            access_log=None,
            keepalive_timeout=limits.idle_s,
            max_line_size=limits.max_header_bytes,
            max_field_size=limits.max_header_bytes,
            max_headers=limits.max_headers,
        )
        runner = web.ServerRunner(server, shutdown_timeout=self.config.drain_s)
        await runner.setup()
        self._runners.append(runner)
        await web.TCPSite(runner, self.config.host, port, reuse_port=reuse_port or None, backlog=1024).start()
        return int(runner.addresses[0][1])

    # -- what is asked ------------------------------------------------------------------------------------------------

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.path.startswith("/v1/") and not request.path.startswith("/v1/models"):
            return await self.relay.handle(request)
        return await self._admin(request)

    async def _admin(self, request: web.BaseRequest) -> web.StreamResponse:
        page = {"/healthz": self._healthz, "/readyz": self._readyz, "/metrics": self._metrics}.get(request.path)
        if page is not None and request.method in ("GET", "HEAD"):
            return page()
        if request.path.startswith("/v1/models"):
            return self._models(request)
        raise Refusal(404, "unknown_path", f"There is nothing at {request.path[:200]!r}; the API is below /v1.")

    def _healthz(self) -> web.Response:
        return _json(200, {"ok": True})

    def _readyz(self) -> web.Response:
        """Ready with at least one table; an expired one still serves, and says so."""
        tables = self.following.ages()
        ready = bool(tables) and not self.draining
        return _json(
            200 if ready else 503,
            {
                "ready": ready,
                "draining": self.draining,
                "tables": tables,
                "expired": sorted(service for service, held in tables.items() if held["expired"]),
                "in_flight": self.relay.in_flight,
                "lost_servable": self.relay.lost_servable,
                "refused": {service: dict(counts) for service, counts in self.following.follower.refused.items()},
                "dropped": dict(self.sink.dropped),
            },
        )

    def _metrics(self) -> web.Response:
        self.following.gauge()
        for picker in self.following.pickers.values():
            for local in picker.endpoints.values():
                signals.BREAKER_OPEN.labels(local.name).set(local.breaker.shut)
                signals.IN_FLIGHT.labels(local.name).set(self.reporter.standing(local.name).in_flight)
        return web.Response(body=signals.exposition(), headers={**HEADERS, "Content-Type": signals.CONTENT_TYPE})

    def _models(self, request: web.BaseRequest) -> web.Response:
        """The services this caller's origin has routes for, as OpenAI lists models."""
        self._access.who(request.headers)
        models = [
            {"id": service, "object": "model", "created": int(picker.table.issued_at_s), "owned_by": "tradewind"}
            for service, picker in sorted(self.following.pickers.items())
        ]
        if request.path.rstrip("/") == "/v1/models":
            return _json(200, {"object": "list", "data": models})
        wanted = request.path.removeprefix("/v1/models/")
        for model in models:
            if model["id"] == wanted:
                return _json(200, model)
        raise Refusal(404, "model_not_found", f"The model {wanted[:128]!r} does not exist.", param="model")

    # -- what is told -------------------------------------------------------------------------------------------------

    async def _report(self) -> None:
        while True:
            await asyncio.sleep(self.config.report_every_s)
            self.reporter.flush()

    async def _tell(self) -> None:
        while True:
            await asyncio.sleep(self.config.status_every_s)
            self.following.tell()


def _source(config: GatewayConfig) -> Source:
    if config.table_file is not None:
        return FileSource(config.table_file)
    return KafkaSource(config.bootstrap_servers, config.prefix, client_id=config.name)


def _session(config: GatewayConfig) -> aiohttp.ClientSession:
    """One pool to all endpoints. Deadlines are ours; nothing is decoded, stored or followed on the way."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEP_ALIVE_S, ttl_dns_cache=30),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=config.deadlines.connect_s),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
        max_line_size=32 << 10,
        max_field_size=32 << 10,
    )


def _answering(handle: Handler) -> Handler:
    """`handle` with refusals, and mistakes of our own, in OpenAI's shape."""

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        try:
            return await handle(request)
        except Refusal as refusal:
            return refusal.response(close=refusal.status in (408, 413))
        except Exception as error:  # noqa: BLE001 - a mistake of ours must not end as a bare 500 of the library
            signals.event("gateway_mistake", "error", path=request.path[:200], error=repr(error))
            return Refusal(500, "internal_error", "The gateway made a mistake; it is logged.").response()

    return answer


class _Protocol(web.RequestHandler):
    """A connection whose parse errors are answered in OpenAI's shape and name the limit."""

    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        if isinstance(exc, LineTooLong):
            limit = f"max_header_bytes = {self.max_field_size}"
            return Refusal(431, "header_too_large", f"A header line is longer than {limit}.").response(close=True)
        says = (message or "bad request").splitlines()[0][:200]
        return Refusal(status, "bad_request", f"The request could not be read: {says}").response(close=True)


class _Server(web.Server):
    def __call__(self) -> web.RequestHandler:
        return _Protocol(self, loop=self._loop, **self._kwargs)


def _json(status: int, said: object) -> web.Response:
    return web.Response(status=status, body=msgspec.json.encode(said), headers=HEADERS)


async def serve(config: GatewayConfig, *, started: Callable[[Gateway], None] | None = None) -> None:
    """Run a gateway until SIGTERM or SIGINT, then drain. `started` is told once it listens."""
    hush_kafka()
    gateway, ended = Gateway(config), asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    try:
        await gateway.start()
    except OSError as error:
        what = f"{config.host}:{config.port} cannot be listened on ({error.strerror})"
        raise Missing(what, "Free it, or set another port.") from None
    try:
        if started is not None:
            started(gateway)
        await ended.wait()
    finally:
        await gateway.stop()


def run(config: GatewayConfig) -> None:
    """`serve` in an event loop of its own: what a command line calls."""
    asyncio.run(serve(config))
