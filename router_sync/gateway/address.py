"""What a request is addressed to: /v1 is OpenAI's API, its body names the service; a plain HTTP service is named here.

PUT /services/embed-index/collections/7?wait=1          ─►  PUT /collections/7?wait=1
PUT /collections/7?wait=1   x-tradewind-service: …      ─►  the same
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import unquote

from aiohttp import web

from router_sync.gateway.refusal import Refusal

SERVICE_HEADER: Final = "x-tradewind-service"
SERVICES: Final = "/services/"
METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE", "POST", "PATCH"})
IDEMPOTENT: Final = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE"})
"""Sending them twice does what sending them once does (RFC 9110, 9.2.2)."""
_OPENAI: Final = re.compile(r"/v1(?:/[A-Za-z0-9_:@+-][A-Za-z0-9_.:@+-]*)+")
"""No empty parts and none that begins with a dot: nothing climbs out of /v1."""


def openai_path(request: web.BaseRequest) -> str:
    """The path below /v1. Raises Refusal 404."""
    path = request.path
    if _OPENAI.fullmatch(path) is None or ".." in path:
        message = f"There is nothing at {path[:200]!r}; the API is below /v1, HTTP services below {SERVICES}NAME/."
        raise Refusal(404, "unknown_path", message)
    return path


def is_http(request: web.BaseRequest) -> bool:
    """Whether a plain HTTP service is meant."""
    return SERVICE_HEADER in request.headers or request.path.startswith(SERVICES)


def http_service(request: web.BaseRequest) -> tuple[str, str]:
    """(service, path as it came). Raises Refusal 400 for a path that could climb out of the endpoint's."""
    path = request.rel_url.raw_path
    named = request.headers.get(SERVICE_HEADER)
    if named is None:
        name, _, rest = path.removeprefix(SERVICES).partition("/")
        named, path = unquote(name), f"/{rest}"
    parts = unquote(path).replace("\\", "/").split("/")
    climbs = any(part in (".", "..") or part.startswith("..;") for part in parts)  # servlets read ..;x as ..
    if not path.isascii() or not path.startswith("/") or climbs:
        raise Refusal(400, "invalid_path", "The path has to be ASCII, without . and .. in it.")
    return named, path


def check_length(request: web.BaseRequest, limit: int) -> None:
    """Refusal 414 for a path and query beyond `limit` bytes."""
    if len(request.raw_path) > limit:
        raise too_long(limit)


def too_long(limit: int) -> Refusal:
    message = f"The path and query are longer than max_uri_bytes = {limit}. Send it in a body, or raise the limit."
    return Refusal(414, "uri_too_long", message)
