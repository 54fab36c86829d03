"""Where the demo's actuators worker posts plans: a receiver of Standard Webhooks before the pretend cloud.

POST /plans              a plan, signed ─► 202: the pool is being set to it     401: no signature of ours
GET  /replicas?pool=…    signed ─► {"ready": 2, "starting": 4, "want": 6}       404: no such pool
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import secrets
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Final

import msgspec
from aiohttp import web

from router_sync.actuators.section import Actuators
from router_sync.actuators.webhook import PREFIX, WebhookEntry
from router_sync.gateway.secret import Reference
from streams.contract.records import Count
from streams.runtime.clock import Clock
from tradewind.config.actuators import written
from tradewind.demo.cloud import Cloud

HOST: Final = "127.0.0.1"
PORT: Final = 18098
OBSERVE_S: Final = 1.0
COOL_DOWN_S: Final = 30.0
_TOLERANCE_S: Final = 300.0
_BODY: Final = 64 << 10


class _Plan(msgspec.Struct, frozen=True):
    pool: str
    want: Count


class _Event(msgspec.Struct, frozen=True):
    data: _Plan


class Hook:
    """Answers for `cloud` whoever signs with `key`."""

    def __init__(self, cloud: Cloud, key: bytes, now_s: Clock) -> None:
        self._cloud, self._key, self._now_s = cloud, key, now_s

    def app(self) -> web.Application:
        """Its two paths."""
        app = web.Application(client_max_size=_BODY)
        app.router.add_post("/plans", self._post)
        app.router.add_get("/replicas", self._get)
        return app

    async def _post(self, request: web.Request) -> web.Response:
        body = await request.read()
        self._check(request.headers, body)
        try:
            plan = msgspec.json.decode(body, type=_Event).data
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise web.HTTPBadRequest(text=str(error)) from None
        self._known(plan.pool)
        self._cloud.set(plan.pool, plan.want)
        return web.Response(status=202)

    async def _get(self, request: web.Request) -> web.Response:
        self._check(request.headers, b"")
        machines = self._cloud.pools[self._known(request.query.get("pool", ""))]
        return web.json_response({"ready": machines.ready, "starting": len(machines.due_at_s), "want": machines.want})

    def _check(self, headers: Mapping[str, str], body: bytes) -> None:
        if not verified(headers, body, self._key, self._now_s()):
            raise web.HTTPUnauthorized(text="no signature of ours")

    def _known(self, pool: str) -> str:
        if pool not in self._cloud.pools:
            raise web.HTTPNotFound(text=f"no pool {pool[:200]}")
        return pool


def verified(headers: Mapping[str, str], body: bytes, key: bytes, now_s: float) -> bool:
    """Whether `key` has signed this, within the last five minutes: as standardwebhooks.com has it."""
    name, stamp = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    if not (name and stamp.isdecimal() and abs(now_s - int(stamp)) <= _TOLERANCE_S):
        return False
    wanted = base64.b64encode(hmac.digest(key, f"{name}.{stamp}.".encode() + body, hashlib.sha256))
    given = headers.get("webhook-signature", "").split()
    return any(hmac.compare_digest(wanted, one.removeprefix("v1,").encode()) for one in given)


@contextlib.asynccontextmanager
async def listening(cloud: Cloud, folder: Path, port: int, now_s: Clock) -> AsyncIterator[Path]:
    """A receiver on `port` while the context lasts; gives the file that an actuators worker needs to reach it."""
    key = secrets.token_bytes(32)
    runner = web.AppRunner(Hook(cloud, key, now_s).app(), access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        await web.TCPSite(runner, HOST, port).start()
        yield _configured(folder, key, port)
    finally:
        await runner.cleanup()


def _configured(folder: Path, key: bytes, port: int) -> Path:
    """Write the secret, and `actuators.yaml`: every pool is the hook's, and plans are carried out."""
    secret = folder.resolve() / "hook.secret"
    secret.touch(mode=0o600)
    secret.write_text(f"{PREFIX}{base64.b64encode(key).decode()}")
    entry = WebhookEntry(
        pool="*",
        url=f"http://{HOST}:{port}/plans",
        observe_url=f"http://{HOST}:{port}/replicas",
        secret=Reference(file=secret),
        observe_s=OBSERVE_S,
        cool_down_s=COOL_DOWN_S,
    )
    path = folder / "actuators.yaml"
    path.write_bytes(msgspec.json.encode(written(Actuators(mode="act", pools=(entry,)))))
    return path
