"""One attempt at one endpoint: send, wait within deadlines, hand the answer through.

    connect ─► first byte ─► piece, piece … ─► end
       │            │            │ stall, truncated          nothing sent to the caller yet: Failed, and another may try
       └ connect    └ reset, first_byte_timeout, 5xx, 429    something sent: Failed with `trip.response` begun

Plain answers are held until whole, streams until their first event: up to there a break can be tried elsewhere.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from io import BytesIO
from typing import Any, Final

import aiohttp
from aiohttp import web
from multidict import CIMultiDict
from yarl import URL

from router_sync.client import LocalEndpoint, Pick
from router_sync.gateway.ask import CREDENTIALS, Upload, hop_by_hop
from router_sync.gateway.config import Deadlines, Limits
from router_sync.gateway.events import Events, tokens_of
from router_sync.gateway.handshake import Complaints, barred, why
from router_sync.gateway.refusal import Refusal
from router_sync.gateway.rename import answered_as, asked_as
from router_sync.gateway.resume import Journal, speaks
from router_sync.gateway.trip import CallerGone, Failed, Seen, Trip
from router_sync.gateway.upstream import Link, Upstreams
from router_sync.policy.headers import GUARD
from streams import signals

_KEPT_BACK: Final = frozenset(
    {
        "connection", "keep-alive", "proxy-authenticate", "trailer", "transfer-encoding", "upgrade", "content-length",
        "date", "server", "set-cookie",
    }
)  # fmt: skip
_LARGE: Final = 1 << 19
_READS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_KNOWN_URLS: Final = 10_000
_SHORT: Final = 200
_ENDS_WITH_DONE: Final = frozenset({"/v1/chat/completions", "/v1/completions"})
_FORMS_WITH_MODEL: Final = ("/v1/audio/", "/v1/images/", "/v1/videos")
"""Where a form has a field `model`; the form of a file or an upload has none."""


class Exchange:
    """Makes attempts over one pool of connections."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        limits: Limits,
        deadlines: Deadlines,
        upstreams: Upstreams,
        complaints: Complaints,
    ) -> None:
        self._session, self._limits, self._deadlines = session, limits, deadlines
        self._upstreams, self._complaints = upstreams, complaints
        self._timeout = aiohttp.ClientTimeout(total=None, sock_connect=deadlines.connect_s)
        self._tls_timeout = aiohttp.ClientTimeout(total=None, sock_connect=deadlines.connect_s + deadlines.tls_s)
        self._now = asyncio.get_running_loop().time
        self._urls: dict[tuple[str, str], URL] = {}
        self._waiting: dict[str, set[asyncio.Timeout]] = {}
        """Attempts by endpoint that have heard nothing yet."""
        self._elsewhere: dict[asyncio.Timeout, Callable[[], bool]] = {}
        """Whether such an attempt may be given up, because another endpoint can be asked."""

    def evacuate(self, endpoint: str) -> None:
        """The endpoint has fallen: who waits there for a first byte, and may ask another one, waits no longer."""
        for limit in tuple(self._waiting.get(endpoint, ())):
            if not limit.expired() and self._elsewhere[limit]():
                limit.reschedule(self._now())

    async def attempt(self, trip: Trip, pick: Pick, seen: Seen, elsewhere: Callable[[], bool]) -> web.StreamResponse:
        """The answer, sent or ready to be sent. Raises Failed, CallerGone, or Refusal when the caller is at fault.

        `elsewhere` says, when the endpoint falls, whether another one may be asked instead, and there is one.
        """
        seen.waiting = self._waiting.setdefault(pick.endpoint.name, set())
        try:
            async with asyncio.timeout_at(min(self._now() + self._first_byte_s(trip, pick), trip.until_s)) as limit:
                seen.waiting.add(limit)
                self._elsewhere[limit] = elsewhere
                try:
                    return await self._exchanged(trip, pick, seen, limit)
                finally:
                    seen.waiting.discard(limit)
                    del self._elsewhere[limit]
        except aiohttp.ConnectionTimeoutError:
            raise Failed("connect", f"no connection within {self._connect_s(pick)}") from None
        except TimeoutError:
            raise self._late(trip, seen) from None
        except (aiohttp.ClientError, OSError) as error:
            if isinstance(trip.ask.body, Upload) and trip.ask.body.fault is not None:
                raise trip.ask.body.fault from None
            if seen.first_s is None:
                link = self._upstreams.of(pick.endpoint)
                if (reason := why(error, pick.endpoint.name, link, self._complaints)) is not None:
                    raise Failed("connect", reason) from None
            raise Failed("reset" if seen.first_s is None else "truncated", type(error).__name__) from None

    async def _exchanged(self, trip: Trip, pick: Pick, seen: Seen, limit: asyncio.Timeout) -> web.StreamResponse:
        link, url = self._upstreams.of(pick.endpoint), self._url(pick.endpoint.url, trip)
        if (reason := barred(url, pick.endpoint.name, link, self._complaints)) is not None:
            raise Failed("connect", reason)
        async with self._session.request(
            trip.method,
            url,
            headers=_headers_for(trip, link),
            data=_data(self._body(trip, pick)),
            allow_redirects=False,
            ssl=link.tls,
            server_hostname=link.server_name,
            timeout=self._tls_timeout if url.scheme == "https" else self._timeout,
        ) as answer:
            _refuse_failure(answer)
            if answer.status == 451 and GUARD in answer.headers:
                raise self._forbidden(pick, answer.headers[GUARD])
            if answer.status == 401 and not link.passes and not trip.http:  # there it may be a user's password
                self._refused(pick, link)
            streams = answer.headers.get("Content-Type", "").startswith("text/event-stream")
            encoded = answer.headers.get("Content-Encoding", "identity").lower() != "identity"
            if trip.response is not None:
                _refuse_beginning(answer, streams and not encoded)
            if streams and not encoded and not trip.http:
                return await self._events(trip, pick, seen, answer, limit)
            # an encoded stream was not asked for, and cannot be looked into: it goes through as it is
            return await self._plain(trip, pick, seen, answer, limit, self._hold(trip, answer, streams))

    def unwelcome(self, endpoint: LocalEndpoint) -> None:
        """Tell the log that the endpoint refuses us, and how to mend that."""
        link = self._upstreams.of(endpoint)
        at = f"upstreams.{link.name or endpoint.name}"
        remedy = f"give it one it accepts in {at}.credential" if link.credential else f"give it a credential in {at}"
        self._complaints.tell("upstream_refuses_credential", endpoint.name, "it answered 401", remedy)

    def _refused(self, pick: Pick, link: Link) -> None:
        """401 although no caller's credentials were sent. Raises Failed if ours were: others may answer the same."""
        if link.credential:
            raise Failed("client_4xx", "it refuses the gateway's credential", unwelcome=True)
        self.unwelcome(pick.endpoint)

    def _forbidden(self, pick: Pick, rules: str) -> Failed:
        """Its guard does not let it process what the table sends it: one of the two is mistaken about the endpoint."""
        remedy = (
            "see that what the fleet says of the endpoint is what its guard says; until then it serves nobody of them"
        )
        self._complaints.tell("guard_refuses", pick.endpoint.name, rules[:_SHORT], remedy)
        signals.GUARDED.labels(pick.endpoint.name).inc()
        return Failed("client_4xx", f"its guard forbids it by {rules[:_SHORT]}", forbidden=True)

    def _body(self, trip: Trip, pick: Pick) -> bytes | Upload:
        """The body for this endpoint, which may call the model by another name."""
        body, model = trip.ask.body, pick.endpoint.model
        if not model or trip.http or not body:
            return body
        if isinstance(body, Upload):
            if body.json:
                raise _unchangeable(self._limits.max_body_bytes)
            if model != trip.service and _is_form_with_model(trip):
                raise _not_renamed(model)
            return body
        return asked_as(body, model)

    def _hold(self, trip: Trip, answer: aiohttp.ClientResponse, streams: bool) -> int:
        """How much of a plain answer is held, bytes: none of one that may go on for ever."""
        if streams or (trip.http and answer.content_length is None):
            return 0
        return self._limits.max_answer_bytes

    def _connect_s(self, pick: Pick) -> str:
        said = f"connect_s = {self._deadlines.connect_s:g} s"
        return f"{said} and tls_s = {self._deadlines.tls_s:g} s" if pick.endpoint.url.startswith("https") else said

    def _late(self, trip: Trip, seen: Seen) -> Exception:
        """What a deadline that passed means."""
        if seen.sending:
            return CallerGone()
        if isinstance(trip.ask.body, Upload) and not trip.request.content.is_eof():
            return Refusal(408, "request_too_slow", f"The upload stopped for body_s = {self._limits.body_s:g} s.")
        if seen.first_s is None:
            return Failed("first_byte_timeout", "no answer in time")
        return Failed("stall", f"nothing came for stall_s = {self._deadlines.stall_s:g} s, or total_s is over")

    def _first_byte_s(self, trip: Trip, pick: Pick) -> float:
        """By the class's SLO, and not below what this endpoint has needed lately.

        An answer that is not streamed comes when all of it is made: the SLO says nothing of it.
        """
        deadlines = self._deadlines
        if trip.method not in _READS and not trip.ask.stream:
            return deadlines.whole_s
        wanted = max(
            deadlines.first_byte_floor_s,
            deadlines.slo_factor * pick.route.slo_p95_ms / 1000.0,
            3.0 * pick.endpoint.peak_ms / 1000.0,
        )
        return min(deadlines.first_byte_s, wanted)

    def _url(self, base: str, trip: Trip) -> URL:
        where = (base, trip.path)
        url = self._urls.get(where)
        if url is None:
            base = base.rstrip("/")
            url = URL((base if trip.http else base.removesuffix("/v1")) + trip.path, encoded=True)
            # the paths of a plain service are without number, and would leave no room for OpenAI's few
            if not trip.http and len(self._urls) < _KNOWN_URLS and len(trip.path) < _SHORT:
                self._urls[where] = url
        return URL(f"{url}?{trip.query}", encoded=True) if trip.query else url

    # -- plain answers ------------------------------------------------------------------------------------------------

    async def _plain(
        self, trip: Trip, pick: Pick, seen: Seen, answer: aiohttp.ClientResponse, limit: asyncio.Timeout, hold: int
    ) -> web.StreamResponse:
        """The answer, held until whole; beyond `hold` bytes it is poured through."""
        content, pieces = answer.content, list[bytes]()
        while piece := await content.readany():
            self._alive(trip, seen, piece, limit)
            pieces.append(piece)
            if seen.bytes_out > hold:
                return await self._pour(trip, pick, seen, answer, limit, b"".join(pieces))
        body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        headers = self._headers(trip, pick, answer)
        if not trip.http and answer.status == 200 and _is_json(answer):
            seen.tokens = tokens_of(body)
            if pick.endpoint.model and "Content-Encoding" not in answer.headers:
                body = answered_as(body, pick.endpoint.model, trip.service)
        if trip.method == "HEAD" and answer.content_length is not None:
            headers["Content-Length"] = str(answer.content_length)  # of what a GET would get
        return web.Response(status=answer.status, body=body, headers=headers)

    async def _pour(
        self,
        trip: Trip,
        pick: Pick,
        seen: Seen,
        answer: aiohttp.ClientResponse,
        limit: asyncio.Timeout,
        begun: bytes,
    ) -> web.StreamResponse:
        """An answer too large to be held: from here on a break cannot be mended."""
        response = await self._begin(trip, pick, answer, seen, limit)
        await self._send(response, begun, trip, seen, limit)
        while piece := await answer.content.readany():
            self._alive(trip, seen, piece, limit)
            await self._send(response, piece, trip, seen, limit)
        return response

    # -- streams ------------------------------------------------------------------------------------------------------

    async def _events(
        self, trip: Trip, pick: Pick, seen: Seen, answer: aiohttp.ClientResponse, limit: asyncio.Timeout
    ) -> web.StreamResponse:
        events = Events()
        while piece := await answer.content.readany():
            self._alive(trip, seen, piece, limit)
            if whole := events.feed(piece):
                if pick.endpoint.model:
                    whole = answered_as(whole, pick.endpoint.model, trip.service)
                await self._say(trip, pick, seen, answer, limit, whole)
        seen.tokens = events.tokens()
        silent = trip.response is None or trip.turn.speaker < seen.attempt
        if silent or events.rest() or (trip.path in _ENDS_WITH_DONE and not events.done):
            raise Failed("truncated", "the stream ended before its end")
        assert trip.response is not None
        return trip.response

    async def _say(
        self,
        trip: Trip,
        pick: Pick,
        seen: Seen,
        answer: aiohttp.ClientResponse,
        limit: asyncio.Timeout,
        events: bytes,
    ) -> None:
        """Send whole events to the caller when it is this attempt's turn. Raises Moved when that is over."""
        if trip.response is not None and trip.turn.speaker < seen.attempt and not speaks(events):
            return  # the caller has an opening, and whoever speaks goes on until there is a word to follow
        if not trip.turn.free:
            limit.reschedule(trip.until_s)  # who is asked to go on has deadlines of its own
        await trip.turn.take(seen.attempt)
        response = trip.response or await self._begin_events(trip, pick, answer, seen, limit)
        await self._send(response, trip.journal.passing(events) if trip.journal else events, trip, seen, limit)

    async def _begin_events(
        self, trip: Trip, pick: Pick, answer: aiohttp.ClientResponse, seen: Seen, limit: asyncio.Timeout
    ) -> web.StreamResponse:
        trip.streams, trip.begun_s = True, self._now()
        if pick.endpoint.continues and isinstance(trip.ask.body, bytes):
            trip.journal = Journal.of(trip.path, trip.ask.body)
        return await self._begin(trip, pick, answer, seen, limit)

    # -- both ---------------------------------------------------------------------------------------------------------

    def _alive(self, trip: Trip, seen: Seen, piece: bytes, limit: asyncio.Timeout) -> None:
        now_s = self._now()
        if seen.first_s is None:
            seen.first_s = now_s
            seen.waiting.discard(limit)
        seen.bytes_out += len(piece)
        limit.reschedule(min(now_s + self._deadlines.stall_s, trip.until_s))

    async def _begin(
        self, trip: Trip, pick: Pick, answer: aiohttp.ClientResponse, seen: Seen, limit: asyncio.Timeout
    ) -> web.StreamResponse:
        response = web.StreamResponse(status=answer.status, headers=self._headers(trip, pick, answer))
        if answer.content_length is not None:
            response.content_length = answer.content_length
        seen.sending = True
        try:
            await response.prepare(trip.request)
        except ConnectionError:
            raise CallerGone from None
        seen.sending = False
        trip.response = response
        return response

    async def _send(
        self, response: web.StreamResponse, piece: bytes, trip: Trip, seen: Seen, limit: asyncio.Timeout
    ) -> None:
        """While the caller takes it, the endpoint is not to blame."""
        limit.reschedule(self._now() + self._limits.send_s)
        seen.sending = True
        try:
            await response.write(piece)
        except ConnectionError:
            raise CallerGone from None
        seen.sending = False
        limit.reschedule(min(self._now() + self._deadlines.stall_s, trip.until_s))

    def _headers(self, trip: Trip, pick: Pick, answer: aiohttp.ClientResponse) -> CIMultiDict[str]:
        headers: CIMultiDict[str] = CIMultiDict()
        hop = hop_by_hop(answer.headers)
        for name, value in answer.headers.items():
            lower = name.lower()
            if lower not in _KEPT_BACK and lower not in hop:
                headers.add(name, value)
        trip.stamp(pick, headers)
        return headers


def _headers_for(trip: Trip, link: Link) -> CIMultiDict[str]:
    """What goes to this endpoint: the caller's headers, with ours instead of his where both say something."""
    headers = trip.headers.copy()
    if link.passes:
        headers.extend((name, value) for name, value in trip.request.headers.items() if name.lower() in CREDENTIALS)
    headers.update(link.said())
    if link.tells:
        headers.update(trip.facts)
    return headers


def _unchangeable(limit: int) -> Refusal:
    says = (
        f"The request body is larger than max_body_bytes = {limit} bytes, and its model has to be changed on the way."
    )
    return Refusal(413, "request_too_large", f"{says} Send less, or raise the limit.")


def _is_form_with_model(trip: Trip) -> bool:
    kind = trip.request.headers.get("Content-Type", "").lower()
    return kind.startswith("multipart/") and trip.path.startswith(_FORMS_WITH_MODEL)


def _not_renamed(model: str) -> Refusal:
    says = f"The endpoint calls this model {model!r}, and `model` in a form is not changed on the way."
    return Refusal(400, "model_not_renamed", f"{says} Ask for a service that bears its model's name.", param="model")


def _is_json(answer: aiohttp.ClientResponse) -> bool:
    return answer.headers.get("Content-Type", "").startswith("application/json")


def _data(body: bytes | Upload) -> Any:
    if isinstance(body, Upload):
        return aiter(body)
    # bytes are written in one go, a file in pieces: a large one would hold up everybody else
    return BytesIO(body) if len(body) > _LARGE else body or None


def _refuse_failure(answer: aiohttp.ClientResponse) -> None:
    if answer.status >= 500:
        raise Failed("http_5xx", f"it answered {answer.status}")
    if answer.status == 429:
        raise Failed("http_429", "it is throttling", answer.headers.get("Retry-After"))


def _refuse_beginning(answer: aiohttp.ClientResponse, readable: bool) -> None:
    """The caller has the beginning of a stream already: only the rest of one may follow, no other answer."""
    if answer.status >= 400:
        raise Failed("client_4xx", f"it answered {answer.status} when asked to go on")
    if not readable or answer.status != 200:
        raise Failed("truncated", "it did not go on with the stream")
