"""Our own producers: folding never waits for them, what the broker does not take is counted.

Two lanes. Views go out at once (linger 0): they are few and someone waits for them. Dead letters may come in floods and
linger 5 ms, so that a flood of bad input does not become a flood of tiny requests. Both wait for all replicas and are
idempotent; aiokafka retries until `_GIVE_UP_S`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Sequence
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from streams import signals
from streams.contract.topics import DEAD_LETTERS, MAX_VALUE_BYTES
from streams.runtime.step import Out
from streams.settings import Settings

_LINGER_MS = 5
_GIVE_UP_S = 30.0
_WAITING = 10_000
"""Messages a lane keeps while the broker is away; then the oldest goes, for views are made anew each second."""
_STOP_S = 0.7


class Sender:
    """Sends messages of steps to topics under `settings.topic_prefix`."""

    def __init__(self, settings: Settings) -> None:
        self._at_once, self._lingering = _Lane(settings, 0), _Lane(settings, _LINGER_MS)

    async def start(self) -> None:
        """Connect. Raises KafkaError when that fails."""
        await asyncio.gather(self._at_once.start(), self._lingering.start())

    async def stop(self) -> None:
        """Send what waits, for at most a second, and disconnect."""
        await self.acknowledged(_STOP_S)
        await asyncio.gather(self._at_once.stop(), self._lingering.stop())

    def send(self, outs: Sequence[Out]) -> None:
        """Hand messages over, in order; comes back at once."""
        for out in outs:
            (self._lingering if out.topic == DEAD_LETTERS.name else self._at_once).put(out)

    async def acknowledged(self, timeout_s: float) -> bool:
        """Whether all handed over up to now is with the broker or given up; waits up to `timeout_s`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._at_once.acknowledged()
                await self._lingering.acknowledged()
                return True
        return False


class _Lane:
    """One producer, its queue, and the numbers of the messages that are not acknowledged yet, the oldest first."""

    def __init__(self, settings: Settings, linger_ms: int) -> None:
        self._prefix = settings.topic_prefix
        self._producer = AIOKafkaProducer(
            bootstrap_servers=settings.bootstrap_servers,
            client_id="tradewind",
            acks="all",
            enable_idempotence=True,
            linger_ms=linger_ms,
            max_request_size=2 * MAX_VALUE_BYTES,
            request_timeout_ms=int(_GIVE_UP_S * 1000),
        )
        self._queue: deque[tuple[int, Out]] = deque()
        self._open: dict[int, None] = {}
        self._count = 0
        self._some, self._moved = asyncio.Event(), asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        try:
            await self._producer.start()
        except BaseException:
            await self._producer.stop()
            raise
        self._task = asyncio.create_task(self._pump())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        with contextlib.suppress(TimeoutError):  # it would flush for as long as the broker is away
            async with asyncio.timeout(_STOP_S):
                await self._producer.stop()

    def put(self, out: Out) -> None:
        self._count += 1
        self._open[self._count] = None
        self._queue.append((self._count, out))
        if len(self._queue) > _WAITING:
            number, oldest = self._queue.popleft()
            self._failed(number, oldest)
        self._some.set()

    async def acknowledged(self) -> None:
        upto = self._count
        while next(iter(self._open), upto + 1) <= upto:
            self._moved.clear()
            await self._moved.wait()

    async def _pump(self) -> None:
        while True:
            await self._some.wait()
            self._some.clear()
            while self._queue:
                await self._hand_over(*self._queue.popleft())

    async def _hand_over(self, number: int, out: Out) -> None:
        try:
            sent = await self._producer.send(
                f"{self._prefix}.{out.topic}", out.value, key=out.key, headers=list(out.headers)
            )
        except KafkaError as error:
            self._failed(number, out, error)
            return
        sent.add_done_callback(lambda done: self._done(number, out, done))

    def _done(self, number: int, out: Out, sent: asyncio.Future[Any]) -> None:
        if sent.cancelled() or (error := sent.exception()):
            self._failed(number, out, None if sent.cancelled() else error)
        else:
            self._closed(number)

    def _closed(self, number: int) -> None:
        self._open.pop(number, None)
        self._moved.set()

    def _failed(self, number: int, out: Out, error: BaseException | None = None) -> None:
        self._closed(number)
        signals.SEND_FAILED.labels(out.topic).inc()
        signals.event("send_failed", "warning", topic=out.topic, reason=repr(error) if error else "too many wait")
