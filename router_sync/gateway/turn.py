"""Whose words go to the caller, where several attempts make one answer: those of the newest that has begun to speak.

    attempt 1 speaks ──── 2 is asked to go on: 1 waits ──┬── 2 speaks: 1 is late, whatever it still says is dropped
                                                         └── 2 fails: 1 goes on as if nothing had been

So a stream is moved without a gap or a word said twice: the old attempt is given up when the new one has answered.
"""

from __future__ import annotations

import asyncio

from aiohttp import web

Answer = asyncio.Task[web.StreamResponse]


class Moved(Exception):
    """A newer attempt speaks."""


class Turn:
    """The attempts at one answer, numbered from 1. What an attempt says goes out after `take`, in the same step."""

    __slots__ = ("_asked", "_before", "_free", "_names", "speaker")

    def __init__(self) -> None:
        self.speaker = 0
        """The attempt that speaks; 0: none has yet."""
        self._names: list[str] = []
        self._free = asyncio.Event()
        self._free.set()
        self._asked: Answer | None = None
        self._before = 0
        """Who spoke when it was asked."""

    def begins(self, endpoint: str) -> int:
        """The number of an attempt at `endpoint` that begins."""
        self._names.append(endpoint)
        return len(self._names)

    @property
    def at(self) -> str:
        """The endpoint whose attempt speaks; empty as long as none does."""
        return self._names[self.speaker - 1] if self.speaker else ""

    @property
    def free(self) -> bool:
        """No other attempt is being asked to go on."""
        return self._free.is_set()

    def late(self, attempt: int) -> bool:
        """Whether a newer one speaks."""
        return attempt < self.speaker

    async def take(self, attempt: int) -> None:
        """Come back when words of `attempt` may go out: at once, or when whoever was asked to go on has failed.

        Raises Moved when a newer one speaks.
        """
        if attempt > self.speaker:
            self.speaker = attempt
            self._free.set()
        while not self._free.is_set():
            await self._free.wait()
        if attempt < self.speaker:
            raise Moved

    async def moves_to(self, answer: Answer) -> bool:
        """Let whoever speaks wait for `answer`, of an attempt that is yet to begin; whether that one speaks now."""
        before = self._before = self.speaker
        self._asked = answer
        self._free.clear()
        answer.add_done_callback(self._ended)
        await self._free.wait()
        return self.speaker > before

    def successor(self) -> Answer | None:
        """What the newest attempt that was asked to go on will have answered; each is handed out once."""
        answer, self._asked = self._asked, None
        return answer

    def close(self) -> None:
        """Nobody waits for an answer any more."""
        if self._asked is not None:
            self._asked.cancel()
        self._free.set()

    def _ended(self, answer: Answer) -> None:
        """An answer is over; one that failed before its first word is none."""
        failed = answer.cancelled() or answer.exception() is not None
        if self._asked is not answer:
            return
        self._free.set()
        if failed and self.speaker == self._before:
            self._asked = None
