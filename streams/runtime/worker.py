"""A worker: one room, carried until told to stop. It is what `tradewind worker ROOM` runs."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from functools import partial
from importlib.metadata import version
from typing import Any

from streams import signals
from streams.contract.errors import Stop, TradewindError
from streams.contract.topics import Topic
from streams.runtime import admin, clock
from streams.runtime.access import warn_if_open
from streams.runtime.beside import Lanes
from streams.runtime.room import Act, Room
from streams.runtime.sender import Sender
from streams.runtime.shared import SharedReader
from streams.runtime.step import Reads, Step, Thinks
from streams.runtime.web import served
from streams.settings import Settings

_MEASURE_S = 1.0
_STOP_S = 3.0
_END_S = 4.8
_AGAIN_S = 1.0
_SAME_S = 5.0
_REMEMBERED = 1000
_FAILURES = 3
_FAILURES_WITHIN_S = 60.0


_Work = Callable[[], Coroutine[Any, Any, None]]
"""Begun only once all else has: what fails before then leaves nothing half begun."""


Hands = Callable[[], contextlib.AbstractAsyncContextManager[Act]]
"""Makes whatever runs errands; they are run while its context lasts."""


class _Crashed(TradewindError):
    """Faust gave up."""


@contextlib.asynccontextmanager
async def carried(
    steps: Sequence[Step], settings: Settings, name: str, hands: Hands | None = None
) -> AsyncIterator[Room]:
    """Carries `steps` on Kafka while the context lasts, as a member of the group of the room called `name`.

    `hands` run what errands the stages have. Leaving it leaves the group. Should something fail for good, the body is
    cancelled and an exception group is raised.
    """
    from streams.runtime.kafka import build_app

    sender, beside = Sender(settings), Lanes()
    works: list[_Work] = []
    async with contextlib.AsyncExitStack() as stack:
        act = await stack.enter_async_context(hands()) if hands else None
        room = Room(steps, settings, sender.send, beside.ask, act)
        await sender.start()
        stack.push_async_callback(sender.stop)
        works.append(sender.watch)
        stack.callback(beside.stop)
        if any(isinstance(step.stage, Thinks) for step in steps):
            works.append(beside.start)
        if shared := _shared(steps):
            reader = SharedReader(shared, settings, room.hear_shared)
            stack.push_async_callback(reader.stop)
            await reader.start(clock.now_s())
            works.append(reader.follow)
        app = build_app(steps, settings, name, room, sender)
        stack.push_async_callback(_stopped, app)
        await app.start()
        works += [room.run, partial(_measure, room, app), partial(_watch, app)]
        await stack.enter_async_context(_meanwhile(works))
        yield room


def run_worker(
    steps: Sequence[Step], settings: Settings, name: str, metrics_port: int, hands: Hands | None = None
) -> int:
    """Carries `steps` until SIGTERM or SIGINT, serving metrics on `settings.host`; comes back with the exit code.

    0: told to stop. 1: it cannot start (Kafka out of reach, a right or topics missing, port taken), or failed three
    times in a minute; one sentence on stderr says what and what to do.
    """
    signals.log_to(None, name, settings.log_level)
    signals.BUILD.labels(version("tradewind"), name).set(1)
    for handler in logging.getLogger().handlers:
        handler.addFilter(_Seldom())
    warn_if_open(settings)
    try:
        asyncio.run(_until_told(_work(steps, settings, name, metrics_port, hands)))
    except Stop as error:
        sys.stderr.write(f"tradewind: {error}\n")
        _end_within(_END_S, 1)
        return 1
    return 0


def _end_within(seconds: float, code: int) -> None:
    """End the process at the latest then: Faust's consumer thread may wait for a broker that is away."""
    last_resort = threading.Timer(seconds, os._exit, (code,))
    last_resort.daemon = True
    last_resort.start()


def spare_collector() -> None:
    """Take what lives now out of the garbage collector's sight, and let it look less often; called once all runs.

    Each fetch makes thousands of short-lived objects, and each collection they cause would walk over all modules:
    without this a worker hears half as many records a second. The threshold is above what a fetch makes and has freed
    again once it is folded: so the collector looks at what stays, and hardly ever at records on their way.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 20, 100)


class _Seldom(logging.Filter):
    """A library may say the same thing once in five seconds: while the broker is away it would fifty times a second."""

    def __init__(self) -> None:
        super().__init__()
        self._said_at_s: dict[tuple[str, str], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if record.name == "tradewind":
            return True
        what = (record.name, str(record.msg))
        if len(self._said_at_s) >= _REMEMBERED:
            said = self._said_at_s.items()
            self._said_at_s = {w: at_s for w, at_s in said if record.created - at_s < _SAME_S}
        if record.created - self._said_at_s.get(what, 0.0) < _SAME_S:
            return False
        self._said_at_s[what] = record.created
        return True


async def _until_told(work: Coroutine[Any, Any, None]) -> None:
    task = asyncio.ensure_future(work)
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told.set)
    waiting = asyncio.ensure_future(told.wait())
    await asyncio.wait([task, waiting], return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    if not task.done():
        _end_within(_END_S, 0)
        task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    signals.event("worker_stopped")


async def _work(
    steps: Sequence[Step], settings: Settings, name: str, metrics_port: int, hands: Hands | None = None
) -> None:
    rooms: list[Room] = []
    async with served(settings.host, metrics_port, lambda: bool(rooms) and rooms[-1].ready):
        with _hushed("aiokafka"):  # that Kafka is away is said by us, once
            differences = await admin.require(settings, _topics(steps), role=name)
        for difference in differences:
            signals.event("topic_differs", "warning", what=str(difference))
        failed_at_s: deque[float] = deque(maxlen=_FAILURES)
        while True:
            try:
                async with carried(steps, settings, name, hands) as room:
                    rooms[:] = [room]
                    spare_collector()
                    signals.event("worker_started", room=name, steps=[step.name for step in steps])
                    await asyncio.Event().wait()
            except* Exception as failed:  # noqa: BLE001 - whatever it was, the state goes and comes back from the topics
                failed_at_s.append(clock.monotonic_s())
                signals.event("worker_failed", "error", reason=_cause(failed))
                if _too_often(failed_at_s):
                    raise Stop(
                        f"The worker failed {_FAILURES} times in a minute ({_cause(failed)})", "See its log"
                    ) from None
            rooms.clear()
            await asyncio.sleep(_AGAIN_S)


def _too_often(failed_at_s: deque[float]) -> bool:
    return len(failed_at_s) == _FAILURES and failed_at_s[-1] - failed_at_s[0] < _FAILURES_WITHIN_S


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _cause(failed: BaseException) -> str:
    """The first error behind `failed` in words, with the path it is about."""
    error = _first(failed)
    if isinstance(error, FileNotFoundError) and error.filename is None:
        return f"{error!r}: is the folder it was started in gone? Start it in one that is there"
    return str(error) if isinstance(error, OSError) and error.filename else repr(error)


@contextlib.contextmanager
def _hushed(name: str) -> Iterator[None]:
    """Only what is critical is heard of the logger `name` while the context lasts."""
    logger = logging.getLogger(name)
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)


@contextlib.asynccontextmanager
async def _meanwhile(works: Sequence[_Work]) -> AsyncIterator[None]:
    """All of `works` under way while the context lasts; one that fails ends it."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(work()) for work in works]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()


async def _measure(room: Room, app: Any) -> None:
    while True:
        if room.measure(app.end_of):
            await app.renew()
        await asyncio.sleep(_MEASURE_S)


async def _watch(app: Any) -> None:
    await app.wait_until_stopped()
    raise _Crashed(f"Faust ended: {app.crash_reason!r}")


async def _stopped(app: Any) -> None:
    """Leave the group, so that others take over at once."""
    try:
        async with asyncio.timeout(_STOP_S):
            await app.stop()
    except TimeoutError:
        signals.event("stop_took_too_long", "warning")


def _shared(steps: Sequence[Step]) -> list[Reads]:
    return list({reads.topic.name: reads for step in steps for reads in step.shared}.values())


def _topics(steps: Sequence[Step]) -> list[Topic]:
    named = {t.name: t for step in steps for t in (*step.writes, *(reads.topic for reads in step.reads))}
    return list(named.values())
