"""What a caller asks: the model, whether it streams, and the body to send on. Limits are kept here."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Final

import msgspec
from aiohttp import web
from multidict import CIMultiDict

from router_sync.gateway.config import Limits
from router_sync.gateway.refusal import Refusal

MODEL_HEADER: Final = "x-tradewind-model"
KEY_HEADER: Final = "x-tradewind-session"
_OURS: Final = "x-tradewind-"
_NOT_PASSED: Final = frozenset(
    {
        "host", "connection", "keep-alive", "proxy-connection", "proxy-authorization", "te", "trailer", "expect",
        "transfer-encoding", "upgrade", "content-length", "authorization", "api-key", "x-api-key", "cookie",
    }
)  # fmt: skip
"""Hop by hop, or our caller's credentials, which are no business of an endpoint."""


class _Body(msgspec.Struct, frozen=True):
    """The only fields of a body that are looked at."""

    model: str | None = None
    stream: bool | None = None


_decoder: Final = msgspec.json.Decoder(_Body)


class Upload:
    """A body that is streamed through once; `begun` when a part of it has left us."""

    def __init__(self, request: web.BaseRequest, limits: Limits) -> None:
        self.begun = False
        self.sent = 0
        self._request, self._limits = request, limits

    async def __aiter__(self) -> AsyncIterator[bytes]:
        content = self._request.content
        while True:
            piece = await asyncio.wait_for(content.readany(), self._limits.body_s)
            if not piece:
                return
            self.begun = True
            self.sent += len(piece)
            if self.sent > self._limits.max_upload_bytes:
                raise too_large("max_upload_bytes", self._limits.max_upload_bytes)
            yield piece


class Ask(msgspec.Struct, frozen=True):
    """One request, read. `stream` as the body says; `key` keeps a session at one endpoint."""

    model: str
    stream: bool
    body: bytes | Upload
    key: str | None


async def read(request: web.BaseRequest, limits: Limits) -> Ask:
    """The request's model and body. Raises Refusal 400, 408 or 413 that names the limit or the field."""
    named = request.headers.get(MODEL_HEADER)
    key = request.headers.get(KEY_HEADER)
    if named is not None and _is_upload(request, limits):
        if (request.content_length or 0) > limits.max_upload_bytes:
            raise too_large("max_upload_bytes", limits.max_upload_bytes)
        return Ask(named, False, Upload(request, limits), key)
    body = await _whole(request, limits)
    said = _parsed(body) if named is None or _is_json(request) else _Body()
    model = named or said.model
    if not model:
        raise Refusal(
            400, "missing_model", f"Name the model in the body's `model` or in {MODEL_HEADER}.", param="model"
        )
    return Ask(model, bool(said.stream), body, key)


def passed_headers(request: web.BaseRequest) -> CIMultiDict[str]:
    """The caller's headers that go on to an endpoint."""
    passed: CIMultiDict[str] = CIMultiDict()
    for name, value in request.headers.items():
        lower = name.lower()
        if lower not in _NOT_PASSED and not lower.startswith(_OURS):
            passed.add(name, value)
    return passed


def too_large(limit: str, value: int) -> Refusal:
    return Refusal(413, "request_too_large", f"The request body is larger than {limit} = {value} bytes.")


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
    if content.is_eof():  # came in one piece with its head, as small ones do
        pieces = [content.read_nowait()]
        if len(pieces[0]) > limits.max_body_bytes:  # in chunks, so that its head did not say
            raise too_large("max_body_bytes", limits.max_body_bytes)
    else:
        pieces = await _pieces(request, limits)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


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
        message = f"The request body did not arrive within body_s = {limits.body_s:g} s."
        raise Refusal(408, "request_too_slow", message) from None
    return pieces


def _parsed(body: bytes) -> _Body:
    try:
        return _decoder.decode(body)
    except msgspec.ValidationError as error:
        raise Refusal(400, "invalid_field", f"{error}.") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Refusal(400, "invalid_json", f"The request body is not JSON: {error}.") from None
