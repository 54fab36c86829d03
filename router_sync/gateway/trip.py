"""One request on its way through, and how an attempt at an endpoint may end."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from aiohttp import web
from multidict import CIMultiDict

from router_sync.client import Pick
from router_sync.gateway.access import CLASS_HEADER
from router_sync.gateway.ask import Ask
from router_sync.gateway.blame import Blame
from router_sync.gateway.events import UNKNOWN, Tokens
from router_sync.gateway.resume import Journal
from router_sync.gateway.sessions import Session
from router_sync.gateway.turn import Turn
from streams.contract.records import ErrorKind


class Failed(Exception):
    """This attempt failed. `retry_after` as a throttling endpoint said.

    `unwelcome`: the endpoint refuses this gateway, not the caller; nobody else should be sent there for a while.
    `forbidden`: its guard refuses the request by law, and has not processed it.
    """

    def __init__(
        self,
        kind: ErrorKind,
        why: str,
        retry_after: str | None = None,
        *,
        unwelcome: bool = False,
        forbidden: bool = False,
    ) -> None:
        super().__init__(why)
        self.kind, self.why, self.retry_after = kind, why, retry_after
        self.unwelcome, self.forbidden = unwelcome, forbidden


class CallerGone(Exception):
    """The caller hung up, or takes nothing any more."""


class Trip:
    """One request on its way through: what was asked, what was tried, what was sent."""

    __slots__ = (
        "ask", "begun_s", "blame", "class_", "facts", "headers", "journal", "method", "path", "query", "request",
        "response", "service", "session", "streams", "table", "tried", "turn", "until_s",
    )  # fmt: skip

    def __init__(
        self,
        request: web.BaseRequest,
        ask: Ask,
        class_: str,
        table: str,
        headers: CIMultiDict[str],
        path: str,
        until_s: float,
    ) -> None:
        self.request, self.ask, self.class_, self.headers, self.until_s = request, ask, class_, headers, until_s
        # as it came: decoded, a %26 would part it anew and a %0d%0a would end the line
        self.method, self.path, self.query = request.method, path, request.rel_url.raw_query_string
        self.service, self.table = ask.model, table
        self.session: Session | None = None
        self.facts: Mapping[str, str] = {}
        """What law asks of the request, as headers for a guard at the endpoint."""
        self.tried: list[str] = []
        self.blame: Blame | None = None
        """Set when an endpoint has answered 5xx."""
        self.response: web.StreamResponse | None = None
        """Set when something has been sent to the caller."""
        self.streams = False
        """The response is a stream of events."""
        self.journal: Journal | None = None
        """What has gone out, where an answer that breaks off can go on elsewhere."""
        self.begun_s = 0.0
        """When a stream began to go out."""
        self.turn = Turn()

    @property
    def http(self) -> bool:
        """A plain HTTP service: its paths and bodies mean nothing to us."""
        return self.ask.api == "http"

    def stamp(self, pick: Pick, headers: CIMultiDict[str]) -> None:
        """Say in `headers` who served."""
        headers["x-tradewind-endpoint"] = pick.endpoint.name
        headers["x-tradewind-region"] = pick.endpoint.region
        headers[CLASS_HEADER] = self.class_
        headers["x-tradewind-table"] = self.table
        headers["x-tradewind-attempts"] = str(len(self.tried))
        headers["Server"] = "tradewind"
        if pick.endpoint.model and not self.http:
            headers["x-tradewind-model"] = pick.endpoint.model


class Seen:
    """What one attempt saw."""

    __slots__ = ("attempt", "bytes_out", "first_s", "held", "sending", "tokens", "waiting")

    def __init__(self, attempt: int = 1) -> None:
        self.attempt = attempt
        """Its number among those at the same answer."""
        self.first_s: float | None = None
        self.held = 0
        """Requests in flight from here at the endpoint when this one was sent, itself among them."""
        self.sending = False
        self.bytes_out = 0
        self.tokens: Tokens = UNKNOWN
        self.waiting: set[asyncio.Timeout] = set()
