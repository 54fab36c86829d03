"""A worker's own small server: /metrics, /healthz, /readyz."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable

from aiohttp import web

from streams import signals
from streams.contract.errors import Missing


@contextlib.asynccontextmanager
async def served(host: str, port: int, ready: Callable[[], bool]) -> AsyncIterator[int]:
    """Serves while the context lasts; yields the port, a free one for 0.

    /healthz answers 200 while the loop runs, /readyz 200 or 503 by `ready`. Raises Missing when the port is taken.
    """

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=signals.exposition(), headers={"Content-Type": signals.CONTENT_TYPE})

    async def healthz(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def readyz(_: web.Request) -> web.Response:
        return web.Response(text="ready\n") if ready() else web.Response(text="not ready\n", status=503)

    app = web.Application()
    app.add_routes([web.get("/metrics", metrics), web.get("/healthz", healthz), web.get("/readyz", readyz)])
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port)
        try:
            await site.start()
        except OSError as error:
            raise Missing(
                f"Port {port} on {host} cannot be listened on ({error.strerror})", "Free it, or choose another port"
            ) from None
        bound = runner.addresses[0][1]
        signals.event("metrics_served", host=host, port=bound)
        yield bound
    finally:
        await runner.cleanup()
