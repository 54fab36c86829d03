"""One pretend endpoint over HTTP: the OpenAI API on one port, faults on another that stays open when that closes."""

import asyncio
import os
import random
from collections.abc import Awaitable, Callable
from typing import NoReturn

import msgspec
from aiohttp import web

from tradewind.pretend import metrics, shape
from tradewind.pretend.engine import Engine, QueueFull, Run
from tradewind.pretend.faults import FaultOrder, FaultSwitch, parse_order
from tradewind.pretend.ledger import Ledger, Received
from tradewind.pretend.settings import CLASS_HEADER, HOST, ORIGIN_HEADER, EndpointSettings

DEAD_EXIT_CODE = 86
BODY_BYTES_MAX = 512 * 1024
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class _BrokenOff(Exception):
    """This connection is to be cut without another byte."""


class Endpoint:
    """After `await start()` `port` and `admin_port` are those it listens on; `await stop()` leaves nothing."""

    def __init__(
        self,
        settings: EndpointSettings,
        *,
        monotonic_s: Callable[[], float],
        now_s: Callable[[], float],
        exit_now: Callable[[int], None] = os._exit,
    ) -> None:
        self.port, self.admin_port = settings.port, settings.admin_port
        self._settings = settings
        self._rtt_ms = dict(settings.rtt_ms)
        self._now_s = now_s
        self._exit_now = exit_now
        self._engine = Engine(settings, random.Random(settings.seed), monotonic_s)
        self._faults = FaultSwitch(self._turn, monotonic_s)
        self._answers = 0
        self._ledger = Ledger(settings.ledger)
        self._runner = web.AppRunner(
            self._app(), access_log=None, handler_cancellation=True, shutdown_timeout=settings.grace_s
        )
        self._admin_runner = web.AppRunner(self._admin_app(), access_log=None, shutdown_timeout=1.0)
        self._site: web.TCPSite | None = None

    async def start(self) -> None:
        """Listen. OSError when a port is taken."""
        await self._runner.setup()
        await self._admin_runner.setup()
        try:
            await self._open()
            await web.TCPSite(self._admin_runner, HOST, self.admin_port, reuse_address=True).start()
        except OSError:
            await self.stop()
            raise
        self.admin_port = _port_of(self._admin_runner)

    async def stop(self) -> None:
        """Stop listening, let open requests finish for `grace_s`, close the rest."""
        await self._faults.close()
        await self._runner.cleanup()
        await self._admin_runner.cleanup()
        self._ledger.close()

    def _app(self) -> web.Application:
        app = web.Application(middlewares=[self._guard], client_max_size=BODY_BYTES_MAX)
        app.router.add_post("/v1/chat/completions", self._chat)
        app.router.add_get("/v1/models", self._models)
        app.router.add_get("/health", self._health)
        app.router.add_get("/metrics", self._metrics)
        return app

    def _admin_app(self) -> web.Application:
        app = web.Application(client_max_size=16 * 1024)
        app.router.add_get("/fault", self._get_fault)
        app.router.add_post("/fault", self._post_fault)
        return app

    # -- listening ----------------------------------------------------------------------------------------------------

    async def _open(self) -> None:
        site = web.TCPSite(self._runner, HOST, self.port, reuse_address=True, backlog=512)
        await site.start()
        self._site, self.port = site, _port_of(self._runner)

    async def _close(self) -> None:
        if self._site is not None:
            await self._site.stop()
            self._site = None
        server = self._runner.server
        for connection in server.connections if server is not None else ():
            if connection.transport is not None:
                connection.transport.abort()

    async def _turn(self, before: FaultOrder, after: FaultOrder) -> None:
        if after.kind == "refusing":
            await self._close()
        elif before.kind == "refusing":
            await self._open()

    # -- the API ------------------------------------------------------------------------------------------------------

    @web.middleware
    async def _guard(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        """Each path hangs when told to; what is refused is answered in OpenAI's shape."""
        try:
            await self._hang()
            return await handler(request)
        except _BrokenOff:
            _cut(request)
            return web.Response(status=503)  # never sent: the connection is gone
        except shape.Refusal as refusal:
            return _refused(refusal)
        except web.HTTPException as error:
            message = f"{request.method} {request.path[:200]}: {error.text or error.reason}"
            return _refused(shape.Refusal(error.status, message, "invalid_request_error"))

    async def _hang(self) -> None:
        if self._faults.order.kind == "hanging":
            await self._faults.changed()
            raise _BrokenOff

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        settings, origin = self._settings, request.headers.get(ORIGIN_HEADER, "")
        self._ledger.note(Received(self._now_s(), origin, request.headers.get(CLASS_HEADER, "")))
        if (rtt_ms := self._rtt_ms.get(origin)) is not None:
            await asyncio.sleep(rtt_ms / 1000.0)
        ask = shape.parse_ask(await request.read(), settings.models, settings.max_model_tokens)
        try:
            run = await self._engine.enter(ask.prompt_tokens, ask.output_limit)
        except QueueFull:
            self._refuse_full()
        try:
            return await (self._stream if ask.stream else self._plain)(request, ask, run)
        finally:
            self._engine.leave(run)

    def _refuse_full(self) -> NoReturn:
        message = f"{self._settings.queue_limit} requests wait already; try again later."
        raise shape.Refusal(429, message, "rate_limit_error", None, "rate_limit_exceeded")

    async def _plain(self, request: web.Request, ask: shape.Ask, run: Run) -> web.StreamResponse:
        await self._pass(run.ttft_s + (run.output_tokens - 1) * run.between_s)
        self._engine.first_token(run)
        body = shape.completion(self._next_id(), int(self._now_s()), ask, run.output_tokens, run.finish_reason)
        if self._faults.order.kind == "breaking":
            await self._send_half(request, body)
        run.done = True
        return web.Response(body=body, content_type="application/json")

    async def _send_half(self, request: web.Request, body: bytes) -> NoReturn:
        response = web.StreamResponse(headers={"Content-Type": "application/json", "Content-Length": str(len(body))})
        await response.prepare(request)
        await response.write(body[: len(body) // 2])
        raise _BrokenOff

    async def _stream(self, request: web.Request, ask: shape.Ask, run: Run) -> web.StreamResponse:
        chunks = shape.Chunks(self._next_id(), int(self._now_s()), ask)
        response = web.StreamResponse(
            headers={"Content-Type": "text/event-stream; charset=utf-8", "Cache-Control": "no-cache"}
        )
        await self._pass(run.ttft_s)
        await response.prepare(request)
        group = max(1, round(self._settings.chunk_ms / 1000.0 / run.between_s))
        sent = 0
        for number, start in enumerate(range(0, run.output_tokens, group)):
            count = min(group, run.output_tokens - start)
            if number:
                await self._pass(count * run.between_s)
            self._break_off(number)
            piece = chunks.tokens(start, count)
            if number == 0:
                self._engine.first_token(run)
                piece = chunks.opening() + piece
            sent = start + count
            if sent == run.output_tokens:
                piece += chunks.closing(sent, run.finish_reason)
            await response.write(piece)
        run.done = True
        return response

    def _break_off(self, chunks_sent: int) -> None:
        order = self._faults.order
        if order.kind == "breaking" and chunks_sent >= order.after_chunks:
            raise _BrokenOff

    async def _pass(self, seconds: float) -> None:
        """Let the time of some tokens pass, longer when slow, for ever when hanging."""
        await asyncio.sleep(seconds * self._faults.factor)
        await self._hang()

    def _next_id(self) -> str:
        self._answers += 1
        return f"chatcmpl-{self._settings.name}-{self._answers}"

    async def _models(self, _: web.Request) -> web.Response:
        body = shape.models_body(self._settings.models, int(self._now_s()))
        return web.Response(body=body, content_type="application/json")

    async def _health(self, _: web.Request) -> web.Response:
        return web.Response()

    async def _metrics(self, _: web.Request) -> web.Response:
        engine = self._engine
        text = metrics.render(
            engine.counts,
            self._settings.models[0],
            running=engine.running,
            waiting=engine.waiting,
            kv_cache_usage=engine.kv_cache_usage,
        )
        return web.Response(body=text.encode(), headers={"Content-Type": metrics.CONTENT_TYPE})

    # -- faults -------------------------------------------------------------------------------------------------------

    async def _get_fault(self, _: web.Request) -> web.Response:
        body = msgspec.json.encode({"name": self._settings.name, **msgspec.to_builtins(self._faults.state())})
        return web.Response(body=body, content_type="application/json")

    async def _post_fault(self, request: web.Request) -> web.StreamResponse:
        try:
            order = parse_order(await request.read())
        except ValueError as error:
            return _refused(shape.Refusal(400, str(error), "invalid_request_error"))
        if order.kind == "dead":
            return await self._die(request)
        try:
            await self._faults.set(order)
        except OSError as error:
            message = f"port {self.port} cannot be opened again ({error}); free it, then send the order again"
            return _refused(shape.Refusal(409, message, "server_error"))
        return await self._get_fault(request)

    async def _die(self, request: web.Request) -> web.StreamResponse:
        """Acknowledge, then go at once: who gave the order need not tell success from a broken connection."""
        body = msgspec.json.encode({"name": self._settings.name, "kind": "dead"})
        response = web.StreamResponse(headers={"Content-Type": "application/json", "Content-Length": str(len(body))})
        await response.prepare(request)
        await response.write_eof(body)
        self._exit_now(DEAD_EXIT_CODE)
        return response


def _port_of(runner: web.AppRunner) -> int:
    return int(runner.addresses[0][1])


def _refused(refusal: shape.Refusal) -> web.Response:
    headers = {"Retry-After": "1"} if refusal.status == 429 else None
    return web.Response(status=refusal.status, body=refusal.body(), content_type="application/json", headers=headers)


def _cut(request: web.Request) -> None:
    if request.transport is not None:
        request.transport.abort()
