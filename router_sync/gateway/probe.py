"""GET the health of endpoints that say nothing, so that the fallen can come back and the idle do not fail unseen.

A first failure, of a request or of a probe, is checked by two probes at once: one broken connection is no outage, and
three failures in a row, which are evidence, need not wait for three callers.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable
from functools import partial
from typing import NamedTuple

import aiohttp
from yarl import URL

from router_sync.client import LocalEndpoint, Picker
from router_sync.gateway.config import Probing
from router_sync.gateway.handshake import Complaints, barred, why
from router_sync.gateway.kept import kept
from router_sync.gateway.report import Reporter
from router_sync.gateway.upstream import Upstreams
from streams import signals
from streams.contract.records import Api, ErrorKind


class _Service(NamedTuple):
    name: str
    class_: str
    local: LocalEndpoint


class Prober:
    """One task per endpoint while it runs. `pickers` gives the pickers in force by service; `fallen` is told of each
    endpoint whose breaker is open."""

    def __init__(
        self,
        config: Probing,
        session: aiohttp.ClientSession,
        pickers: Callable[[], Iterable[tuple[str, Picker]]],
        reporter: Reporter,
        rng: random.Random,
        upstreams: Upstreams,
        complaints: Complaints,
        fallen: Callable[[str], None] = lambda _endpoint: None,
    ) -> None:
        self._config, self._session, self._pickers, self._reporter = config, session, pickers, reporter
        self._fallen = fallen
        self._timeout = aiohttp.ClientTimeout(total=None, sock_connect=config.timeout_s)
        self._rng, self._upstreams, self._complaints = rng, upstreams, complaints
        self._running: dict[str, asyncio.Task[None]] = {}
        self._checks: set[asyncio.Task[None]] = set()
        self._asked: set[str] = set()

    async def run(self) -> None:
        """Probe until cancelled."""
        try:
            while True:
                self._keep_watch()
                await asyncio.sleep(self._config.every_s)
        finally:
            await self._end([*self._running.values(), *self._checks])

    def suspect(self, endpoint: str) -> None:
        """A hard failure was seen: when it is the first, look twice, now."""
        if self._reporter.standing(endpoint).streak == 1:
            for _ in range(2):
                self._begin(endpoint)

    def ask(self, endpoint: str) -> None:
        """It may be ill: look once, now, unless somebody is looking."""
        if endpoint not in self._asked:
            self._asked.add(endpoint)
            self._begin(endpoint).add_done_callback(lambda _: self._asked.discard(endpoint))

    def _begin(self, endpoint: str) -> asyncio.Task[None]:
        check = asyncio.create_task(self._check(endpoint))
        self._checks.add(check)
        check.add_done_callback(self._checks.discard)
        return check

    async def _check(self, endpoint: str) -> None:
        try:
            await self._probe(endpoint)
        except Exception as error:  # noqa: BLE001 - the watch will look again; what failed here is to be seen
            signals.event("probe_mistake", "error", endpoint=endpoint, error=repr(error))

    def _keep_watch(self) -> None:
        names = {name for _, picker in self._pickers() for name in picker.endpoints}
        for name in names - self._running.keys():
            task = f"probe-{name}"
            self._running[name] = asyncio.create_task(kept(task, partial(self._watch, name)), name=task)
        for name in self._running.keys() - names:
            self._running.pop(name).cancel()

    async def _watch(self, endpoint: str) -> None:
        while True:
            await asyncio.sleep(self._config.every_s * self._rng.uniform(0.8, 1.2))
            if self._wanted(endpoint):
                await self._probe(endpoint)

    def _wanted(self, endpoint: str) -> bool:
        """Whether nobody has heard of it lately, or it is held to be down here or by the table."""
        now_s = asyncio.get_running_loop().time()
        services = self._services(endpoint)
        if self._reporter.standing(endpoint).streak > 0:
            return True
        if any(s.local.state == "down" or s.local.breaker.shut for s in services):
            return True
        return all(now_s - s.local.heard_at_s >= self._config.quiet_s for s in services)

    async def _probe(self, endpoint: str) -> None:
        services = self._services(endpoint)
        if not services:
            return
        first = self._reporter.standing(endpoint).streak == 0
        kind = await self._ask(services[0].local)
        now_s = asyncio.get_running_loop().time()
        for service in services:
            service.local.probed(now_s, kind is None)
        if any(service.local.breaker.shut for service in services):
            self._fallen(endpoint)
        # one report: it speaks of the endpoint, whatever the service
        self._reporter.probed(endpoint, services[0].name, services[0].class_, kind)
        if kind is not None and first:
            self.suspect(endpoint)

    async def _ask(self, local: LocalEndpoint) -> ErrorKind | None:
        """What is wrong; None when it is alive. It is asked as it is with requests: same credential, same TLS."""
        link = self._upstreams.of(local)
        url = health_url(local.url, local.health_path or self._config.path, local.api)
        if barred(url, local.name, link, self._complaints) is not None:
            return "connect"
        try:
            async with (
                asyncio.timeout(self._config.timeout_s),
                self._session.get(
                    url,
                    headers=link.said(),
                    ssl=link.tls,
                    server_hostname=link.server_name,
                    timeout=self._timeout,
                    allow_redirects=False,
                ) as answer,
            ):
                await answer.read()
                return "http_5xx" if answer.status >= 500 else None
        except TimeoutError as error:
            return "connect" if isinstance(error, aiohttp.ConnectionTimeoutError) else "first_byte_timeout"
        except (aiohttp.ClientError, OSError) as error:
            return "reset" if why(error, local.name, link, self._complaints) is None else "connect"

    def _services(self, endpoint: str) -> list[_Service]:
        return [
            _Service(name, picker.table.default_class, local)
            for name, picker in self._pickers()
            if (local := picker.endpoints.get(endpoint)) is not None
        ]

    @staticmethod
    async def _end(tasks: list[asyncio.Task[None]]) -> None:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def health_url(url: str, path: str, api: Api = "openai") -> URL:
    """Where an endpoint tells of its health: beside /v1, not below it.

    >>> str(health_url("http://a:1/v1/", "/health"))
    'http://a:1/health'
    """
    base = url.rstrip("/")
    return URL((base.removesuffix("/v1") if api == "openai" else base) + path, encoded=True)
