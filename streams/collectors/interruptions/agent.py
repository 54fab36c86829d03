"""The agent beside an endpoint: asks its metadata service again and again, and says once what is coming.

    poll ─► coming ─► new, or sooner than was said? ── no ──► nothing
                                   │ yes
                                   └──► said on interruptions.v1 ── not taken? ──► again at the next poll

It outlives a metadata service and a Kafka that are away: it says so once and asks on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, Final, Literal, Protocol

import aiohttp
import msgspec
from msgspec import Meta

from streams import signals
from streams.contract.errors import Stop
from streams.contract.records import Interruption
from streams.runtime.clock import Clock

MAX_BYTES: Final = 64 << 10
"""Of an answer; they have some hundred."""
SOONER_S: Final = 1.0
_MOST: Final = 256
_Kind = Literal["rebalance", "terminate", "preempt", "stop", "maintenance", "outage", "drain"]


class Unreadable(ValueError):
    """An answer is not what this service says."""


class Coming(msgspec.Struct, frozen=True, kw_only=True):
    """Something that the provider will do to this machine. `deadline_at_s` None: now. `id`: the same each time."""

    id: str
    kind: _Kind
    deadline_at_s: float | None = None
    reason: Annotated[str, Meta(max_length=2000)] = ""


class Provider(Protocol):
    """A cloud's metadata service. `every_s`: from one poll to the next, so that a notice is not half over."""

    url: str
    every_s: float

    async def fetch(self, http: aiohttp.ClientSession, now_s: float) -> Sequence[Coming]:
        """What is coming. Raises ClientError or TimeoutError where the service is away, Unreadable for nonsense."""
        ...


class Agent:
    """Tells `say` what is coming to the machine of `endpoint`. `replicas`: how many of the endpoint's it carries, None:
    all."""

    def __init__(
        self,
        provider: Provider,
        endpoint: str,
        replicas: int | None,
        say: Callable[[Interruption], Awaitable[None]],
        now_s: Clock,
    ) -> None:
        self.provider, self._endpoint, self._replicas, self._say, self._now_s = provider, endpoint, replicas, say, now_s
        self._said: dict[str, float] = {}
        """What was said: id to its deadline, 0 for now."""
        self._away: str | None = None

    async def run(self) -> None:
        """Ask until cancelled."""
        async with session() as http:
            while True:
                await self.poll(http)
                await asyncio.sleep(self.provider.every_s)

    async def once(self) -> list[Interruption] | None:
        """Ask once; what was said, None when nobody answered. Raises what `say` does."""
        async with session() as http:
            comings = await self._asked(http)
        if comings is None:
            return None
        said = [interruption(coming, self._endpoint, self._replicas, self._now_s()) for coming in comings]
        for one in said:
            await self._say(one)
        return said

    async def poll(self, http: aiohttp.ClientSession) -> None:
        """Ask once, and say what is new; what `say` does not take is new the next time too."""
        for coming in await self._asked(http) or ():
            deadline_s = 0.0 if coming.deadline_at_s is None else coming.deadline_at_s
            if deadline_s <= self._said.get(coming.id, float("inf")) - SOONER_S and await self._taken(coming):
                self._said[coming.id] = deadline_s
                while len(self._said) > _MOST:
                    del self._said[next(iter(self._said))]

    async def _asked(self, http: aiohttp.ClientSession) -> Sequence[Coming] | None:
        try:
            comings = await self.provider.fetch(http, self._now_s())
        except (aiohttp.ClientError, TimeoutError, Unreadable) as error:
            self._absent(f"{type(error).__name__}: {error}".removesuffix(": "))
            return None
        self._absent(None)
        return comings

    async def _taken(self, coming: Coming) -> bool:
        said = interruption(coming, self._endpoint, self._replicas, self._now_s())
        try:
            await self._say(said)
        except Stop as error:
            signals.event("notice_not_sent", "error", endpoint=self._endpoint, kind=said.kind, reason=str(error))
            return False
        signals.event("notice_sent", endpoint=self._endpoint, kind=said.kind, deadline_at_s=said.deadline_at_s)
        return True

    def _absent(self, reason: str | None) -> None:
        if reason is not None and self._away is None:
            signals.event("metadata_away", "warning", url=self.provider.url, reason=reason)
        elif reason is None and self._away is not None:
            signals.event("metadata_back", url=self.provider.url)
        self._away = reason


def interruption(coming: Coming, endpoint: str, replicas: int | None, now_s: float) -> Interruption:
    """`coming` as it is said of `endpoint`. A deadline that has passed is now."""
    late = coming.deadline_at_s is None or coming.deadline_at_s <= now_s
    return Interruption(
        endpoint=endpoint,
        kind=coming.kind,
        notice_at_s=now_s,
        deadline_at_s=None if late else coming.deadline_at_s,
        replicas=replicas,
        reason=coming.reason,
    )


def session(timeout_s: float = 2.0) -> aiohttp.ClientSession:
    """For metadata services: never through a proxy, nothing followed or stored, each answer within `timeout_s`."""
    return aiohttp.ClientSession(
        timeout=aiohttp.ClientTimeout(total=timeout_s), cookie_jar=aiohttp.DummyCookieJar(), trust_env=False
    )


async def body_of(answer: aiohttp.ClientResponse) -> bytes:
    """The whole body. Raises Unreadable beyond MAX_BYTES, ClientResponseError for any status but 200."""
    answer.raise_for_status()
    pieces, size = [], 0
    async for piece in answer.content.iter_any():
        pieces.append(piece)
        size += len(piece)
        if size > MAX_BYTES:
            raise Unreadable(f"the answer is longer than {MAX_BYTES} bytes")
    return b"".join(pieces)
