"""Answers that are refusals, in OpenAI's shape: {"error": {"message", "type", "param", "code"}}."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec
from aiohttp import web

HEADERS: Final = {"Content-Type": "application/json", "Server": "tradewind"}
"""Of whatever the gateway itself says."""


class Refusal(Exception):
    """A request is answered by the gateway itself. `status` 400..599, `code` a word for programs, `param` the field."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.param = status, code, message, param
        self.headers = dict(headers or {})

    def response(self, *, close: bool = False) -> web.Response:
        """The answer; with `close`, the connection ends after it (the rest of the request is not wanted)."""
        body = error_body(self.status, self.code, self.message, self.param)
        answer = web.Response(status=self.status, body=body, headers={**self.headers, **HEADERS})
        if close:
            answer.force_close()
        return answer


_TYPES: Final = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    451: "permission_error",
    429: "rate_limit_error",
}


def error_body(status: int, code: str, message: str, param: str | None = None) -> bytes:
    """JSON as OpenAI's clients expect it."""
    kind = _TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")
    return msgspec.json.encode({"error": {"message": message, "type": kind, "param": param, "code": code}})


def error_event(status: int, code: str, message: str) -> bytes:
    """The same inside a stream that has begun; no [DONE] follows."""
    return b"event: error\ndata: " + error_body(status, code, message) + b"\n\n"
