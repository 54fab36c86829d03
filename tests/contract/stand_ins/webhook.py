"""A receiver of Standard Webhooks that verifies what it gets, and remembers what it has carried out.

401 for a signature that is none of its secrets', in constant time; 400 for a timestamp more than five minutes off; a
second request under the same id changes nothing and is answered as the first was. Anything else on demand.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator
from typing import Any

from aiohttp import web

from tests.contract.stand_ins.listening import listening

TOLERANCE_S = 300


class Receiver:
    def __init__(self, *keys: bytes) -> None:
        self.keys = keys
        self.replicas: dict[str, int] = {}
        self.carried_out: list[str] = []
        """Ids, each once."""
        self.got: list[tuple[dict[str, str], bytes]] = []
        self.answers: list[tuple[int, dict[str, str], bytes]] = []
        """Status, headers and body of answers to give instead, in order."""
        self.url = ""

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[Receiver]:
        async with listening(self._answer) as self.url:
            yield self

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        body = await request.read()
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.got.append((headers, body))
        if self.answers:
            status, more, said = self.answers.pop(0)
            return web.Response(status=status, headers=more, body=said)
        if not verified(headers, body, self.keys, time.time()):
            return web.Response(status=401, text="no signature of ours")
        if request.method == "GET":
            count = self.replicas.get(request.query["pool"], 2)
            return web.json_response({"ready": count, "want": count, "more": "is ignored"})
        return self._take(headers, json.loads(body))

    def _take(self, headers: dict[str, str], said: dict[str, Any]) -> web.Response:
        assert headers["idempotency-key"] == headers["webhook-id"] == said["data"]["plan_id"]
        if headers["webhook-id"] not in self.carried_out:
            self.carried_out.append(headers["webhook-id"])
            self.replicas[said["data"]["pool"]] = said["data"]["want"]
        return web.Response(status=202)


def verified(headers: dict[str, str], body: bytes, keys: tuple[bytes, ...], now_s: float) -> bool:
    """Whether one of the signatures is by one of `keys`, and the message is of these minutes."""
    stamp = headers.get("webhook-timestamp", "0")
    if abs(now_s - int(stamp)) > TOLERANCE_S:
        return False
    signed = f"{headers.get('webhook-id')}.{stamp}.".encode() + body
    given = [one.removeprefix("v1,") for one in headers.get("webhook-signature", "").split(" ") if one[:3] == "v1,"]
    expected = [base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode() for key in keys]
    return any(hmac.compare_digest(one, other) for one in given for other in expected)
