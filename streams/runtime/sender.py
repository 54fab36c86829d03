"""Our own producers: folding never waits for them, what the broker does not take is counted.

Two lanes. Views go out at once (linger 0): they are few and someone waits for them. Dead letters may come in floods and
linger 5 ms, so that a flood of bad input does not become a flood of tiny requests. Both wait for all replicas and are
idempotent; aiokafka retries until `_GIVE_UP_S`.

An idempotent producer whose numbers the broker does not follow any more is worth nothing: all it sends is refused. It
is replaced. A lane that ends for another reason ends the room that speaks through it (`Sender.watch`).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, KafkaTimeoutError, MessageSizeTooLargeError

from streams import signals
from streams.contract.topics import DEAD_LETTERS, MAX_VALUE_BYTES
from streams.runtime.access import client_options
from streams.runtime.preflight import Seldom, words
from streams.runtime.step import Out
from streams.settings import Settings

_LINGER_MS = 5
_GIVE_UP_S = 30.0
_WAITING = 10_000
"""Messages a lane keeps while the broker is away; then the oldest goes, for views are made anew each second."""
_STOP_S = 0.7
_UNNUMBERED = (MessageSizeTooLargeError, KafkaTimeoutError)
"""What `send` refuses before it gets its number in the producer's count: the producer goes on."""
_AGAIN_S = 0.2
_AGAIN_MOST_S = 2.0


class Sender:
    """Sends messages of steps to topics under `settings.topic_prefix`. `make` makes a producer that lingers so long."""

    def __init__(self, settings: Settings, make: Callable[[Settings, int], Any] | None = None) -> None:
        made = partial(make or producer, settings)
        self._at_once, self._lingering = _Lane(partial(made, 0), settings), _Lane(partial(made, _LINGER_MS), settings)

    async def start(self) -> None:
        """Connect. Raises KafkaError when that fails."""
        await asyncio.gather(self._at_once.start(), self._lingering.start())

    async def stop(self) -> None:
        """Send what waits, for at most a second, and disconnect."""
        await self.acknowledged(_STOP_S)
        await asyncio.gather(self._at_once.stop(), self._lingering.stop())

    async def watch(self) -> None:
        """Never comes back while all is well; raises what ended a lane."""
        await asyncio.gather(self._at_once.watch(), self._lingering.watch())

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

    def __init__(self, make: Callable[[], Any], settings: Settings) -> None:
        self._make, self._settings, self._seldom = make, settings, Seldom()
        self._producer = make()
        self._spent = False
        """Whether the producer has to be replaced."""
        self._queue: deque[tuple[int, Out]] = deque()
        self._open: dict[int, None] = {}
        self._handed: dict[int, Out] = {}
        """What the producer was handed and has not answered for."""
        self._count = 0
        self._some, self._moved = asyncio.Event(), asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        await _started(self._producer)
        self._task = asyncio.create_task(self._pump())

    async def watch(self) -> None:
        assert self._task is not None
        await asyncio.shield(self._task)

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await _ended(self._producer)

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
            while self._queue or self._spent:
                if self._spent:
                    await self._replace()
                elif self._queue:
                    await self._hand_over(*self._queue.popleft())

    async def _replace(self) -> None:
        """A new producer in place of the one that is spent; waits for a broker that is away."""
        await _ended(self._producer)
        for number, out in list(self._handed.items()):
            self._failed(number, out)
        wait_s = _AGAIN_S
        while self._spent:
            await asyncio.sleep(wait_s)  # what is refused for its own sake must not make a producer each time
            wait_s = min(_AGAIN_MOST_S, 2 * wait_s)
            self._producer = self._make()
            try:
                await _started(self._producer)
            except (KafkaError, OSError) as error:
                signals.event("producer_not_started", "warning", reason=repr(error))
            else:
                self._spent = False
        signals.event("producer_replaced", "warning")

    async def _hand_over(self, number: int, out: Out) -> None:
        try:
            sent = await self._producer.send(
                f"{self._settings.topic_prefix}.{out.topic}", out.value, key=out.key, headers=list(out.headers)
            )
        except KafkaError as error:
            self._failed(number, out, error)
            self._spend(not isinstance(error, _UNNUMBERED) and not error.retriable)
            return
        self._handed[number] = out
        sent.add_done_callback(lambda done: self._done(number, out, done))

    def _done(self, number: int, out: Out, sent: asyncio.Future[Any]) -> None:
        error = None if sent.cancelled() else sent.exception()
        if number not in self._open:  # given up with its producer
            return
        if sent.cancelled() or error:
            self._failed(number, out, error)
            # the broker has not counted what it refused: it would refuse all that follows
            self._spend(not getattr(error, "retriable", False))
        else:
            self._closed(number)

    def _spend(self, spent: bool) -> None:
        self._spent = self._spent or spent
        self._some.set()

    def _closed(self, number: int) -> None:
        self._open.pop(number, None)
        self._handed.pop(number, None)
        self._moved.set()

    def _failed(self, number: int, out: Out, error: BaseException | None = None) -> None:
        self._closed(number)
        signals.SEND_FAILED.labels(out.topic).inc()
        reason = (
            words(self._settings, error, "WRITE", f"{self._settings.topic_prefix}.{out.topic}")
            if error
            else "too many wait"
        )
        if self._seldom.passes(f"{out.topic}: {reason}"):  # each is counted
            signals.event("send_failed", "warning", topic=out.topic, reason=reason)


def producer(settings: Settings, linger_ms: int) -> AIOKafkaProducer:
    """A producer of ours that waits `linger_ms` for company; not started."""
    return AIOKafkaProducer(
        **client_options(settings),
        client_id="tradewind",
        acks="all",
        enable_idempotence=True,
        linger_ms=linger_ms,
        max_request_size=2 * MAX_VALUE_BYTES,
        request_timeout_ms=int(_GIVE_UP_S * 1000),
    )


async def _started(made: Any) -> None:
    try:
        await made.start()
    except BaseException:
        await made.stop()
        raise


async def _ended(made: Any) -> None:
    """Stopped; it would flush for as long as the broker is away."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_STOP_S):
            await made.stop()
