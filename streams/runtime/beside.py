"""A process beside the loop that works questions out. One at a time; one that hangs or dies is replaced."""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import signal
import threading
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import Any

from streams import signals
from streams.runtime.step import Question

_spawn = multiprocessing.get_context("spawn")
DEADLINE_S = 5.0
_START_S = 60.0


class Beside:
    """Answers questions. `deadline_s` is for the work alone, not for its turn or the start of the process."""

    def __init__(self, deadline_s: float = DEADLINE_S) -> None:
        self._deadline_s = deadline_s
        self._turn = asyncio.Lock()
        self._process: SpawnProcess | None = None
        self._line: Connection | None = None

    async def start(self) -> None:
        """Warm up, so that the first answer comes quickly."""
        async with self._turn:
            await self._ready()

    async def ask(self, question: Question) -> Any:
        """The answer; None when the work raised, died or took longer than the deadline."""
        async with self._turn:
            try:
                await self._ready()
                seconds = self._deadline_s if question.deadline_s is None else question.deadline_s
                return await self._within(seconds, (question.ask, question.given))
            except (TimeoutError, EOFError, OSError) as error:
                self.stop()
                signals.event("question_failed", "warning", ask=question.ask.__name__, reason=repr(error))
                return None

    def stop(self) -> None:
        """End the process, whatever it is doing."""
        if self._process is not None and self._line is not None:
            self._process.kill()
            self._process.join()
            self._process.close()
            self._line.close()
            self._process = self._line = None

    async def _ready(self) -> None:
        if self._process is None:
            self._line, theirs = _spawn.Pipe()
            self._process = _spawn.Process(target=_work, args=(theirs,), name="tradewind-beside", daemon=True)
            self._process.start()
            theirs.close()
            await self._within(_START_S, (_nothing, ()))

    async def _within(self, seconds: float, work: tuple[Any, tuple[Any, ...]]) -> Any:
        assert self._line is not None
        assert self._process is not None
        trip = asyncio.ensure_future(asyncio.to_thread(_round_trip, self._line, work))
        try:
            async with asyncio.timeout(seconds):
                answered, answer = await asyncio.shield(trip)
        except BaseException:
            self._process.kill()  # which ends the thread that waits for it
            await asyncio.wait([trip])
            if not trip.cancelled():
                trip.exception()
            raise
        if answered:
            return answer
        signals.event("question_failed", "warning", ask=work[0].__name__, reason=answer)
        return None


class Lanes:
    """Two processes: short questions are not held up by those with a deadline of their own, such as fits of models.

    The second one starts with its first question.
    """

    def __init__(self) -> None:
        self._short, self._long = Beside(), Beside()

    async def start(self) -> None:
        """Warm up for short questions."""
        await self._short.start()

    async def ask(self, question: Question) -> Any:
        """See `Beside.ask`."""
        lane = self._short if question.deadline_s is None or question.deadline_s <= DEADLINE_S else self._long
        return await lane.ask(question)

    def stop(self) -> None:
        """End both, whatever they are doing."""
        self._short.stop()
        self._long.stop()


def _round_trip(line: Connection, work: tuple[Any, tuple[Any, ...]]) -> tuple[bool, Any]:
    line.send(work)
    answered, answer = line.recv()
    return bool(answered), answer


def _nothing() -> bool:
    return True


def _end_with_parent() -> None:
    """Work that hangs would not notice that nobody waits for it any more."""
    if (parent := multiprocessing.parent_process()) is not None:
        parent.join()
        os._exit(1)


def _work(line: Connection) -> None:
    """The process: answers until its parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends us
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with contextlib.suppress(EOFError, OSError):
        while True:
            ask, given = line.recv()
            try:
                said = (True, ask(*given))
            except Exception as error:  # noqa: BLE001 - whatever it was, the asker is told
                said = (False, repr(error))
            line.send(said)
