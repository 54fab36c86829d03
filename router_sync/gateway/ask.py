"""What a caller asks: the service, whether it streams, and the body to send on. Limits are kept here."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Final

import msgspec
from aiohttp import web
from aiohttp.web_protocol import RequestPayloadError
from multidict import CIMultiDict, CIMultiDictProxy

from router_sync.gateway.config import Limits
from router_sync.gateway.refusal import Refusal
from streams.contract.records import Api

MODEL_HEADER: Final = "x-tradewind-model"
KEY_HEADER: Final = "x-tradewind-session"
_OURS: Final = "x-tradewind-"
CREDENTIALS: Final = frozenset({"authorization", "api-key", "x-api-key", "x-goog-api-key"})
"""Where callers show who they are: to us."""
_NOT_PASSED: Final = CREDENTIALS | {
    "host", "connection", "keep-alive", "proxy-connection", "proxy-authorization", "te", "trailer", "expect",
    "transfer-encoding", "upgrade", "content-length", "cookie", "accept-encoding",
}  # fmt: skip
"""Hop by hop; our caller's credentials, which are no business of an endpoint; and encodings, which hide the end of a
stream from us."""
_DECODED: Final = frozenset({"gzip", "deflate", "br", "zstd"})
"""Content encodings of which the server has freed a body before it comes to us."""
_NONE: Final[frozenset[str]] = frozenset()


class _Body(msgspec.Struct, frozen=True):
    """The only fields of a body that are looked at."""

    model: str | None = None
    stream: bool | None = None


_decoder: Final = msgspec.json.Decoder(_Body)


class Upload:
    """A body that is streamed through once; `begun` when a part of it has left us."""

    def __init__(self, request: web.BaseRequest, limits: Limits) -> None:
        self.begun = False
        self.json = _is_json(request)
        self.sent = 0
        self.fault: Refusal | None = None
        """What the caller did wrong, when that is why no more comes."""
        self._request, self._limits = request, limits

    async def __aiter__(self) -> AsyncIterator[bytes]:
        content = self._request.content
        while True:
            try:
                piece = await asyncio.wait_for(content.readany(), self._limits.body_s)
            except RequestPayloadError as error:
                self.fault = unreadable(self._request, error)
                raise self.fault from None
            if not piece:
                return
            self.begun = True
            self.sent += len(piece)
            if self.sent > self._limits.max_upload_bytes:
                self.fault = too_large("max_upload_bytes", self._limits.max_upload_bytes)
                raise self.fault
            yield piece


class Ask(msgspec.Struct, frozen=True):
    """One request, read. `stream` as the caller says; `key` keeps a session at one endpoint."""

    model: str
    """The service."""
    stream: bool
    body: bytes | Upload
    key: str | None
    api: Api = "openai"


async def read(request: web.BaseRequest, limits: Limits) -> Ask:
    """The request's model and body. Raises Refusal 400, 408 or 413 that names the limit or the field."""
    _check_headers(request)
    named = request.headers.get(MODEL_HEADER)
    key = request.headers.get(KEY_HEADER)
    if named is not None and _is_upload(request, limits):
        if (request.content_length or 0) > limits.max_upload_bytes:
            raise too_large("max_upload_bytes", limits.max_upload_bytes)
        return Ask(named, False, Upload(request, limits), key)
    body = await _whole(request, limits)
    said = _parsed(body) if body and (named is None or _is_json(request)) else _Body()
    model = named or said.model
    if not model:
        raise Refusal(
            400, "missing_model", f"Name the model in the body's `model` or in {MODEL_HEADER}.", param="model"
        )
    return Ask(model, bool(said.stream), body, key)


async def read_http(request: web.BaseRequest, limits: Limits, service: str) -> Ask:
    """A request to a plain HTTP service: its body is nobody's business, and held only to be sent again.

    Raises Refusal 400, 408 or 413 that names the limit or the field.
    """
    _check_headers(request)
    if "websocket" in request.headers.get("Upgrade", "").lower():
        raise Refusal(501, "upgrade_not_supported", "Websockets do not go through this gateway.", param="Upgrade")
    stream = "text/event-stream" in request.headers.get("Accept", "")
    length, key = request.content_length, request.headers.get(KEY_HEADER)
    if not request.body_exists or (length is not None and length <= limits.max_body_bytes):
        return Ask(service, stream, await _whole(request, limits), key, "http")
    if (length or 0) > limits.max_upload_bytes:
        raise too_large("max_upload_bytes", limits.max_upload_bytes)
    return Ask(service, stream, Upload(request, limits), key, "http")


def passed_headers(request: web.BaseRequest) -> CIMultiDict[str]:
    """The caller's headers that go on to an endpoint; it is asked for an answer without a content encoding.

    A body that came compressed goes on as it was before that, and is not called compressed any more. A name with an
    underscore does not go on: many servers read x_team as x-team, and it would pass for what only we may say.
    """
    passed: CIMultiDict[str] = CIMultiDict({"Accept-Encoding": "identity"})
    hop = hop_by_hop(request.headers)
    for name, value in request.headers.items():
        lower = name.lower()
        if lower in _NOT_PASSED or lower.startswith(_OURS) or lower in hop or "_" in lower:
            continue
        if lower != "content-encoding" or value.strip().lower() not in _DECODED:
            passed.add(name, value)
    return passed


def hop_by_hop(headers: CIMultiDictProxy[str]) -> frozenset[str]:
    """Names, in lower case, of the headers that `Connection` says are for the next hop only (RFC 9110, 7.6.1)."""
    if "Connection" not in headers:
        return _NONE
    return frozenset(name.strip().lower() for said in headers.getall("Connection") for name in said.split(","))


def too_large(limit: str, value: int) -> Refusal:
    remedy = (
        f"Send less, name the model in the header {MODEL_HEADER} so that it is streamed, or raise the limit."
        if limit == "max_body_bytes"
        else "Send less, or raise the limit."
    )
    return Refusal(413, "request_too_large", f"The request body is larger than {limit} = {value} bytes. {remedy}")


def unreadable(request: web.BaseRequest, error: Exception) -> Refusal:
    """A 400 for a body that is not as its headers say; what is left of it is not waited for."""
    request.content.feed_eof()
    encoding = request.headers.get("Content-Encoding")
    says = f"its Content-Encoding {encoding[:64]!r}" if encoding else "its headers"
    reason = (str(error).splitlines() or ["broken off"])[0][:200]
    return Refusal(400, "unreadable_body", f"The request body is not as {says} says: {reason}.")


def _check_headers(request: web.BaseRequest) -> None:
    """Refusal 400 for a header whose bytes are no text: it can neither be hashed nor sent on."""
    if all(map(str.isascii, request.headers.values())):
        return
    for name, value in request.headers.items():
        try:
            value.encode()
        except UnicodeEncodeError:
            named = name[:64].lower()
            raise Refusal(400, "invalid_header", f"The header {named} is not UTF-8.", param=named) from None


def _is_json(request: web.BaseRequest) -> bool:
    return "json" in request.headers.get("Content-Type", "json")


def _is_upload(request: web.BaseRequest, limits: Limits) -> bool:
    """Whether the body is to be streamed: it is no JSON, or too large (or of unknown length) to be held."""
    length = request.content_length
    return request.body_exists and (not _is_json(request) or length is None or length > limits.max_body_bytes)


async def _whole(request: web.BaseRequest, limits: Limits) -> bytes:
    if not request.body_exists:
        return b""
    if (request.content_length or 0) > limits.max_body_bytes:
        raise too_large("max_body_bytes", limits.max_body_bytes)
    content = request.content
    try:
        # most come in one piece with their heads
        pieces = [content.read_nowait()] if content.is_eof() else await _pieces(request, limits)
    except RequestPayloadError as error:
        raise unreadable(request, error) from None
    if len(pieces) == 1:
        if len(pieces[0]) > limits.max_body_bytes:  # in chunks or compressed, so that its head did not say
            raise too_large("max_body_bytes", limits.max_body_bytes)
        return pieces[0]
    return b"".join(pieces)


async def _pieces(request: web.BaseRequest, limits: Limits) -> list[bytes]:
    pieces, size = [], 0
    try:
        async with asyncio.timeout(limits.body_s):
            while piece := await request.content.readany():
                pieces.append(piece)
                size += len(piece)
                if size > limits.max_body_bytes:
                    raise too_large("max_body_bytes", limits.max_body_bytes)
    except TimeoutError:
        message = f"The request body did not arrive within body_s = {limits.body_s:g} s. Send it faster."
        raise Refusal(408, "request_too_slow", message) from None
    return pieces


def _parsed(body: bytes) -> _Body:
    try:
        return _decoder.decode(body)
    except RecursionError:
        raise Refusal(400, "invalid_json", "The request body is nested too deeply.") from None
    except msgspec.ValidationError as error:
        raise Refusal(400, "invalid_field", f"{error}.") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Refusal(400, "invalid_json", f"The request body is not JSON: {error}.") from None
