"""Callers' connections before there is a request: how many, how long a head may take, what a broken one is told.

    connected ─► first byte … head whole ─► request ─► answered ─► idle ─► first byte …
       └──── header_s ────┘ else 408          └─ body_s, send_s ─┘  └ idle_s

Whoever sends a header every now and then would otherwise hold a connection for ever, outside of max_concurrent.
"""

from __future__ import annotations

import asyncio
from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import LineTooLong

from router_sync.gateway.address import too_long
from router_sync.gateway.config import Limits
from router_sync.gateway.refusal import Refusal, error_body


class Doorway(web.Server):
    """Listens on behalf of `handler`, within `limits`."""

    def __init__(self, handler: Any, limits: Limits) -> None:
        super().__init__(
            handler,
            handler_cancellation=True,
            access_log=None,
            keepalive_timeout=limits.idle_s,
            # one byte more where they are alike: which of the two was passed is told by its size
            max_line_size=limits.max_uri_bytes + (limits.max_uri_bytes == limits.max_header_bytes),
            max_field_size=limits.max_header_bytes,
            max_headers=limits.max_headers,
        )
        self.limits = limits
        self.open = 0
        """Connections."""

    def __call__(self) -> web.RequestHandler:
        return _Connection(self, loop=self._loop, **self._kwargs)


class _Connection(web.RequestHandler):
    """One caller's connection; parse errors are answered in OpenAI's shape and name the limit."""

    __slots__ = ("_doorway", "_head", "_let_in")

    def __init__(self, doorway: Doorway, **kwargs: Any) -> None:
        super().__init__(doorway, **kwargs)
        self._doorway = doorway
        self._let_in = False
        self._head: asyncio.TimerHandle | None = None
        """Runs while a head is awaited."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        limits, self._let_in = self._doorway.limits, True
        self._doorway.open += 1
        super().connection_made(transport)
        if self._doorway.open > limits.max_connections:
            limit = f"max_connections = {limits.max_connections}"
            says = f"{limit} connections are open. Close idle ones, or let the operator raise the limit."
            self._turn_away(503, "too_many_connections", says, "Retry-After: 1\r\n")
            return
        self._await_head()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._head_came()
        if self._let_in:
            self._let_in = False
            self._doorway.open -= 1
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        before = self._request_count
        super().data_received(data)
        if self._request_count != before:
            self._head_came()
        elif self._head is None and self._waiter is not None and not self._force_close:
            self._await_head()  # the beginning of another head, on a connection that was idle

    def _await_head(self) -> None:
        self._head = self._loop.call_later(self._doorway.limits.header_s, self._too_slow)

    def _head_came(self) -> None:
        if self._head is not None:
            self._head.cancel()
            self._head = None

    def _too_slow(self) -> None:
        self._head = None
        limit = f"header_s = {self._doorway.limits.header_s:g}"
        says = f"The request's headers did not arrive within {limit} s. Send them faster."
        self._turn_away(408, "request_too_slow", says)

    def _turn_away(self, status: int, code: str, message: str, headers: str = "") -> None:
        """Answer without a request, and close."""
        if self.transport is None:
            return
        body = error_body(status, code, message)
        reason = {408: "Request Timeout", 503: "Service Unavailable"}[status]
        head = (
            f"HTTP/1.1 {status} {reason}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
            f"Server: tradewind\r\n{headers}Connection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.force_close()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        if isinstance(exc, LineTooLong):
            if exc.args[1] == self.max_line_size:
                return too_long(self._doorway.limits.max_uri_bytes).response(close=True)
            says = f"A header line is longer than max_header_bytes = {self.max_field_size}. Shorten it, or raise it."
            return Refusal(431, "header_too_large", says).response(close=True)
        says = (message or "bad request").splitlines()[0][:200]
        if says.startswith("Too many headers"):
            says = f"The request has more headers than max_headers = {self.max_headers}. Send fewer, or raise it."
            return Refusal(431, "too_many_headers", says).response(close=True)
        return Refusal(status, "bad_request", f"The request could not be read: {says}").response(close=True)


class Site(web.TCPSite):
    """A port. With TLS a caller has `handshake_s` for the handshake: before its end no other limit counts."""

    def __init__(self, *args: Any, handshake_s: float, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._handshake_s = handshake_s

    async def start(self) -> None:
        if self._ssl_context is None:
            await super().start()
            return
        await web.BaseSite.start(self)
        server = self._runner.server
        assert server is not None
        self._server = await asyncio.get_running_loop().create_server(
            server,
            self._host,
            self._port,
            ssl=self._ssl_context,
            ssl_handshake_timeout=self._handshake_s,
            ssl_shutdown_timeout=1.0,
            backlog=self._backlog,
            reuse_address=self._reuse_address,
            reuse_port=self._reuse_port,
        )
