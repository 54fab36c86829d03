"""Load over kept connections, in two ways: as fast as it goes (how much?), and at a fixed rate (how long?).

Times count from the moment a request is written to the moment its answer is whole. At a fixed rate a request that
finds no idle connection opens another one, so that a slow answer never holds back the requests after it.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field

_QUESTION = json.dumps({"model": "m", "messages": [{"role": "user", "content": "Good day to you!"}]}).encode()
DEADLINE_S = 10.0
KEY = f"sk-{secrets.token_hex(32)}"
"""The API key of all callers, another one in each run."""


def request(port: int) -> bytes:
    """One chat completion asked of 127.0.0.1:`port`."""
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAuthorization: Bearer {KEY}\r\n"
    return f"{head}Content-Type: application/json\r\nContent-Length: {len(_QUESTION)}\r\n\r\n".encode() + _QUESTION


@dataclass(slots=True)
class Tally:
    """What came back: latencies of good answers in milliseconds, and how many were not good."""

    latency_ms: list[float] = field(default_factory=list)
    failed: int = 0

    @property
    def served(self) -> int:
        return len(self.latency_ms)


class Caller(asyncio.Protocol):
    """One connection, one request at a time; `done` is told after each answer, and when the connection ends."""

    def __init__(self, words: bytes, tally: Tally, done: Callable[[Caller], None]) -> None:
        self._words, self.tally, self._done = words, tally, done
        self._data, self._end, self._sent_s = b"", 0, 0.0
        self.busy = self.closed = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def ask(self) -> None:
        """Send the request."""
        self.busy, self._data, self._end = True, b"", 0
        self._sent_s = time.perf_counter()
        self.transport.write(self._words)

    def data_received(self, data: bytes) -> None:
        self._data += data
        if not self._end:
            self._end = _answer_end(self._data)
        if self._end and len(self._data) >= self._end:
            self._answered(good=self._data.startswith(b"HTTP/1.1 200") and b'"choices"' in self._data)

    def connection_lost(self, _error: Exception | None) -> None:
        self.closed = True
        if self.busy:
            self._answered(good=False)

    def _answered(self, *, good: bool) -> None:
        self.busy = False
        if good:
            self.tally.latency_ms.append((time.perf_counter() - self._sent_s) * 1000.0)
        else:
            self.tally.failed += 1
        self._done(self)


def _answer_end(data: bytes) -> int:
    """The length of the answer that `data` begins; 0 while its head is not whole. Needs a content-length."""
    head = data.find(b"\r\n\r\n")
    if head < 0:
        return 0
    _, found, rest = data[:head].lower().partition(b"\r\ncontent-length:")
    if not found:
        raise ValueError(f"the answer has no content-length: {data[:head]!r}")
    return head + 4 + int(rest.partition(b"\r\n")[0])


async def connect(port: int, tally: Tally, done: Callable[[Caller], None]) -> Caller:
    """A caller connected to 127.0.0.1:`port`."""
    loop = asyncio.get_running_loop()
    _, caller = await loop.create_connection(lambda: Caller(request(port), tally, done), "127.0.0.1", port)
    return caller


class Closed:
    """`connections` callers, each of which asks again as soon as it is answered. A context manager."""

    def __init__(self, port: int, connections: int) -> None:
        self._port, self._connections = port, connections
        self._tally, self._ending = Tally(), False
        self._callers: list[Caller] = []

    async def __aenter__(self) -> Closed:
        self._callers = [await connect(self._port, self._tally, self._again) for _ in range(self._connections)]
        for caller in self._callers:
            caller.ask()
        return self

    def take(self) -> Tally:
        """What came back since the last `take`."""
        taken, self._tally = self._tally, Tally()
        for caller in self._callers:
            caller.tally = self._tally
        return taken

    def _again(self, caller: Caller) -> None:
        if not self._ending and not caller.closed:
            caller.ask()

    async def __aexit__(self, *_: object) -> None:
        self._ending = True
        await _quiet(self._callers)


async def at_rate(port: int, per_s: float, seconds: float, ready: int = 8) -> Tally:
    """What came back of `per_s` * `seconds` requests, sent evenly spaced whether or not those before are answered."""
    loop, tally = asyncio.get_running_loop(), Tally()
    idle: list[Caller] = []

    def free(caller: Caller) -> None:
        if not caller.closed:
            idle.append(caller)

    callers = [await connect(port, tally, free) for _ in range(ready)]
    idle.extend(callers)
    began_s = loop.time()
    for number in range(round(per_s * seconds)):
        if (wait_s := began_s + number / per_s - loop.time()) > 0:
            await asyncio.sleep(wait_s)
        while idle and idle[-1].closed:
            idle.pop()
        if idle:
            idle.pop().ask()
        else:
            callers.append(await connect(port, tally, free))
            callers[-1].ask()
    await _quiet(callers)
    return tally


async def _quiet(callers: list[Caller]) -> None:
    """All answered (or counted as failed after the deadline) and closed."""
    loop = asyncio.get_running_loop()
    until_s = loop.time() + DEADLINE_S
    while any(caller.busy for caller in callers) and loop.time() < until_s:  # noqa: ASYNC110 - not while it counts
        await asyncio.sleep(0.005)
    for caller in callers:
        caller.transport.abort()
    await asyncio.sleep(0)  # whoever was still waiting is told now, and counted
