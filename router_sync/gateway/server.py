"""A gateway as one process: listens, follows, reports, probes; and ends without losing what is under way."""

from __future__ import annotations

import asyncio
import gc
import random
import signal
import ssl
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Final

import aiohttp
import msgspec
from aiohttp import web

from router_sync.client import FileSource, Follower, KafkaSource, Shelf, Source
from router_sync.client.source import hush_kafka
from router_sync.gateway.access import may_use, shown_by
from router_sync.gateway.address import is_http
from router_sync.gateway.config import GatewayConfig
from router_sync.gateway.doorway import Doorway, Site
from router_sync.gateway.exchange import Exchange
from router_sync.gateway.following import Following
from router_sync.gateway.handshake import Complaints
from router_sync.gateway.homes import Homes
from router_sync.gateway.kept import kept
from router_sync.gateway.probe import Prober
from router_sync.gateway.refusal import HEADERS, Refusal
from router_sync.gateway.relay import Relay, api_of
from router_sync.gateway.report import Reporter
from router_sync.gateway.sink import KafkaSink, Sink
from router_sync.gateway.trusted import Trusted
from streams import signals
from streams.contract.errors import Missing
from streams.contract.topics import SESSIONS
from streams.runtime import clock
from streams.runtime.clock import Clock

_KEEP_ALIVE_S: Final = 4.0
"""Less than any server keeps idle connections (uvicorn: 5 s), so that ours are rarely closed under a request."""
_FLUSH_S: Final = 5.0
_GC_EVERY: Final = 25_000
"""Objects more than before, not 700: some hundred requests' worth."""
_READS: Final = frozenset({"GET", "HEAD"})
_NOTHING: Final[Mapping[str, str]] = MappingProxyType({})
Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
Page = Callable[[], web.Response]


class Gateway:
    """`await start()`, then `port` holds the real number; `await stop()` drains and leaves nothing behind.

    `sink` and `source` default to Kafka's, and then `sessions` too; a test hands in a `ListSink` and whatever yields
    tables or homes. `environ` has the credentials that the config refers to. Raises
    BadSetting for a file, key or credential that cannot be used.
    """

    def __init__(
        self,
        config: GatewayConfig,
        *,
        source: Source | None = None,
        sessions: Source | None = None,
        sink: Sink | None = None,
        rng: random.Random | None = None,
        now_s: Callable[[], float] = clock.now_s,
        environ: Mapping[str, str] = _NOTHING,
    ) -> None:
        self.config = config
        self.port = self.admin_port = 0
        self.sink = sink or KafkaSink(config.at, config.prefix, config.name, queue=config.queue_reports)
        self._rng = rng or random.Random()
        self._trusted = Trusted(config, environ, now_s)
        self._now_s = now_s
        self._shelf = Shelf(config.state_dir / "tables")
        self.following = Following(
            config.name,
            config.origin,
            source or _source(config),
            Follower(self._trusted.routers, self._shelf),
            self.sink,
            rng=self._rng,
            now_s=now_s,
            clock=clock.monotonic_s,
        )
        self._sessions = sessions or (_sessions(config, now_s) if source is None else None)
        self.homes = Homes(
            config.sessions, config.name, self.sink, self._trusted.session_key, self._sessions_in_sight, now_s
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
        complaints, upstreams = Complaints(), self._trusted.upstreams
        if unbound := upstreams.unbound():
            remedy = "give each `hosts`: else whoever may write the fleet (fleet.v1) says where its credential goes"
            signals.event("upstream_credential_unbound", "warning", upstreams=unbound, remedy=remedy)
        exchange = Exchange(self._session, config.limits, config.deadlines, upstreams, complaints)
        self._prober = Prober(
            config.probing, self._session, services.items, self.reporter, self._rng, upstreams, complaints,
            exchange.evacuate,
        )  # fmt: skip
        self.relay = Relay(
            config, services, self._trusted.access, exchange, self.reporter, self._prober, self._rng,
            self.homes if config.sessions.homes else None, self._now_s,
        )  # fmt: skip
        self.following.heeded_by += [self.relay.leaving.heed, self.homes.heed]
        self.following.restore()
        try:
            self.port = await self._listen(
                self._callers(), config.port, reuse_port=config.reuse_port, tls=self._trusted.tls
            )
            if config.admin_port is not None:
                self.admin_port = await self._listen(_showing(self._pages()), config.admin_port)
        except OSError:
            await self.stop()
            raise
        loops = {
            "following": self.following.run,
            "waiting": self.following.complain,
            "probing": self._prober.run,
            "leaving": self.relay.leaving.run,
            "reporting": self._report,
            "telling": self._tell,
            "watching": self._trusted.watch.run,
            "comparing": self._compare,
            "issuer": self._trusted.fetch,
            "homes": self._follow_homes,
        }
        self._tasks = [asyncio.create_task(kept(name, loop), name=name) for name, loop in loops.items()]
        signals.event(
            "gateway_listens", gateway=config.name, host=config.host, port=self.port, origin=config.origin,
            admin_port=self.admin_port or None, tls=config.tls is not None,
        )  # fmt: skip

    async def stop(self) -> None:
        """Stop listening, let requests finish for `drain_s`, send the last reports."""
        self.draining = True
        signals.event("gateway_drains", gateway=self.config.name, in_flight=self.relay.in_flight)
        for runner in self._runners:
            await runner.cleanup()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.reporter.flush(last=True)
        await self.sink.stop(_FLUSH_S)
        await self._session.close()
        await asyncio.to_thread(self._shelf.settle)
        signals.event(
            "gateway_stopped", gateway=self.config.name, lost_servable=self.relay.lost_servable,
            dropped=sum(self.sink.dropped.values()),
        )  # fmt: skip

    async def _listen(
        self, handle: Handler, port: int, *, reuse_port: bool = False, tls: ssl.SSLContext | None = None
    ) -> int:
        limits = self.config.limits
        runner = web.ServerRunner(Doorway(_answering(handle), limits), shutdown_timeout=self.config.drain_s)
        await runner.setup()
        self._runners.append(runner)
        site = Site(
            runner, self.config.host, port, reuse_port=reuse_port or None, backlog=1024, ssl_context=tls,
            handshake_s=limits.header_s,
        )  # fmt: skip
        await site.start()
        return int(runner.addresses[0][1])

    # -- what is asked ------------------------------------------------------------------------------------------------

    def _callers(self) -> Handler:
        """What callers get: the API, and our own pages where no other port is set aside for them."""
        pages = self._pages() if self.config.admin_port is None else {"/healthz": self._healthz}
        others = _showing(pages)

        async def handle(request: web.BaseRequest) -> web.StreamResponse:
            path = request.path
            if is_http(request):
                return await self.relay.handle_http(request)
            if not path.startswith("/v1/"):
                return await others(request)
            if path.startswith("/v1/models/") or path == "/v1/models":
                return self._models(request)
            return await self.relay.handle(request)

        return handle

    def _pages(self) -> dict[str, Page]:
        return {"/healthz": self._healthz, "/readyz": self._readyz, "/metrics": self._metrics}

    def _healthz(self) -> web.Response:
        return _json(200, {"ok": True})

    def _readyz(self) -> web.Response:
        """Ready with at least one table that has routes from here; an expired one still serves, and says so."""
        tables = self.following.ages()
        why = "it is about to end" if self.draining else self.following.why_not() or self._trusted.why_not()
        return _json(
            200 if why is None else 503,
            {
                "ready": why is None,
                "why": why,
                "draining": self.draining,
                "tables": tables,
                "expired": sorted(service for service, held in tables.items() if held["expired"]),
                "in_flight": self.relay.in_flight,
                "lost_servable": self.relay.lost_servable,
                "refused": self.following.follower.refusals(),
                "dropped": dict(self.sink.dropped),
            },
        )

    def _metrics(self) -> web.Response:
        self.following.gauge()
        for service, picker in self.following.pickers.items():
            for route in picker.routes(self.config.origin):
                value = self.relay.shedding.saturation(picker, route)
                signals.SATURATION.labels(service, route.class_).set(value)
            for local in picker.endpoints.values():
                signals.BREAKER_OPEN.labels(local.name).set(local.breaker.shut)
                signals.IN_FLIGHT.labels(local.name).set(self.reporter.standing(local.name).in_flight)
        return web.Response(body=signals.exposition(), headers={**HEADERS, "Content-Type": signals.CONTENT_TYPE})

    def _models(self, request: web.BaseRequest) -> web.Response:
        """The services this caller may use from here, as OpenAI lists models."""
        caller, origin = self._trusted.access.who(request.headers, shown_by(request)), self.config.origin
        if request.method not in _READS:
            raise Refusal(405, "method_not_allowed", f"{request.method} is not served.", headers={"Allow": "GET, HEAD"})
        models = [
            {"id": service, "object": "model", "created": int(picker.table.issued_at_s), "owned_by": "tradewind"}
            for service, picker in sorted(self.following.pickers.items())
            if api_of(picker) == "openai" and may_use(caller, picker.table.default_class, partial(picker.route, origin))
        ]
        if request.path.rstrip("/") == "/v1/models":
            return _json(200, {"object": "list", "data": models})
        wanted = request.path.removeprefix("/v1/models/")
        for model in models:
            if model["id"] == wanted:
                return _json(200, model)
        raise Refusal(404, "model_not_found", f"The model {wanted[:128]!r} does not exist.", param="model")

    # -- what is told -------------------------------------------------------------------------------------------------

    def _sessions_in_sight(self) -> bool:
        return self._sessions is not None and self._sessions.why is None

    async def _follow_homes(self) -> None:
        if self._sessions is not None:
            await self.homes.follow(self._sessions)

    async def _report(self) -> None:
        while True:
            await asyncio.sleep(self.config.report_every_s)
            self.reporter.flush()

    async def _compare(self, after_s: float = 10.0) -> None:
        """Say so when, by then, there are upstreams by names that no table knows: nobody gets their credentials."""
        await asyncio.sleep(after_s)
        ends = [local for picker in self.following.pickers.values() for local in picker.endpoints.values()]
        if ends and (unused := self._trusted.upstreams.unused(ends)):
            known = ", ".join(sorted({local.name for local in ends}))[:500]
            remedy = f"name an endpoint or a provider of the fleet; its endpoints are {known}"
            signals.event("upstreams_unused", "warning", upstreams=unused, remedy=remedy)

    async def _tell(self) -> None:
        while True:
            await asyncio.sleep(self.config.status_every_s)
            self.following.tell()


def _source(config: GatewayConfig) -> Source:
    if config.table_file is not None:
        return FileSource(config.table_file)
    return KafkaSource(config.at, config.prefix, client_id=config.name)


def _sessions(config: GatewayConfig, now_s: Clock) -> Source | None:
    """Where homes are learnt; nowhere without Kafka, or without homes."""
    if not config.sessions.homes or config.table_file is not None:
        return None
    return KafkaSource(
        config.at,
        config.prefix,
        client_id=f"{config.name}-sessions",
        topic=SESSIONS,
        since_s=lambda: now_s() - float(SESSIONS.retention_s or 0),
    )


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


def _showing(pages: Mapping[str, Page]) -> Handler:
    """A handler of `pages` by path, and of nothing else."""

    async def show(request: web.BaseRequest) -> web.StreamResponse:
        page = pages.get(request.path)
        if page is not None and request.method in _READS:
            return page()
        says = f"There is nothing at {request.path[:200]!r}; the API is below /v1, HTTP services below /services/NAME/."
        raise Refusal(404, "unknown_path", says)

    return show


def _answering(handle: Handler) -> Handler:
    """`handle` with refusals, and mistakes of our own, in OpenAI's shape."""

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        try:
            return await handle(request)
        except Refusal as refusal:
            return refusal.response(close=refusal.status in (408, 413, 414) or refusal.code == "unreadable_body")
        except Exception as error:  # noqa: BLE001 - a mistake of ours must not end as a bare 500 of the library
            signals.event("gateway_mistake", "error", path=request.path[:200], error=repr(error))
            return Refusal(500, "internal_error", "The gateway made a mistake; it is logged.").response()

    return answer


def _json(status: int, said: object) -> web.Response:
    return web.Response(status=status, body=msgspec.json.encode(said), headers=HEADERS)


async def serve(
    config: GatewayConfig,
    *,
    started: Callable[[Gateway], None] | None = None,
    environ: Mapping[str, str] = _NOTHING,
) -> None:
    """Run a gateway until SIGTERM or SIGINT, then drain. `started` is told once it listens."""
    hush_kafka()
    gateway, ended = Gateway(config, environ=environ), asyncio.Event()
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
    """`serve` in an event loop and a process of its own: what a command line calls."""
    from streams.settings import environment  # slow to import, and a gateway that is a part of a program needs none

    asyncio.run(serve(config, started=_settle, environ=environment()))


def examine(config: GatewayConfig, environ: Mapping[str, str]) -> None:
    """Nothing when a gateway could start with it: all files, keys and credentials it refers to can be used.

    Raises BadSetting, or whatever `Gateway` would. Nothing is listened on, and nobody is asked.
    """
    Trusted(config, environ, clock.now_s)


def _settle(_: Gateway) -> None:
    """Spare the collector what has been loaded and stays, and call it less: requests leave few cycles behind."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_GC_EVERY, 20, 100)
