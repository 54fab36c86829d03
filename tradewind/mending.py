"""What died without being asked to is started again, after growing pauses; one that keeps dying is given up.

died ─► told ─► pause 0, ½, 1, 2 s … ─► swept, started, ready ─► told
          └ the sixth death within a minute: Stop
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import NoReturn

from streams.contract.errors import Stop
from streams.runtime import clock
from tradewind.child import Child, how_it_ended

_LOOK_EVERY_S = 0.1


@dataclass(frozen=True, slots=True)
class Kept:
    """A child that should be there, and what starts it again: comes back when it is ready, raises Stop or OSError."""

    child: Child
    again: Callable[[], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class News:
    """A child is missed, or back. `why` it was missed, as people say it."""

    name: str
    why: str
    back: bool


@dataclass(frozen=True, slots=True)
class Patience:
    """A child is started again at most `most` times within `within_s` seconds; the first time at once."""

    most: int = 5
    within_s: float = 60.0
    pause_s: float = 0.5

    def before(self, restarts: int) -> float:
        """Seconds to wait before the next start after so many.

        >>> [Patience().before(restarts) for restarts in range(5)]
        [0.0, 0.5, 1.0, 2.0, 4.0]
        """
        return self.pause_s * 2.0 ** (restarts - 1) if restarts else 0.0


class Mender:
    """Keeps children there. `told` hears of each that is missed and each that is back, from within the event loop."""

    def __init__(
        self,
        told: Callable[[News], None],
        patience: Patience | None = None,
        monotonic_s: clock.Clock = clock.monotonic_s,
    ) -> None:
        self._told, self._patience, self._monotonic_s = told, patience or Patience(), monotonic_s
        self._restarts: dict[Child, deque[float]] = {}
        self._mending: dict[Child, asyncio.Task[None]] = {}

    async def run(self, kept: Callable[[], Iterable[Kept]]) -> NoReturn:
        """Never comes back; raises Stop when a child died too often. `kept()` is asked ten times a second."""
        try:
            while True:
                for one in kept():
                    if one.child.died_early and one.child not in self._mending:
                        self._mending[one.child] = asyncio.create_task(self._mend(one))
                self._harvest()
                await asyncio.sleep(_LOOK_EVERY_S)
        finally:
            for task in self._mending.values():
                task.cancel()
            await asyncio.gather(*self._mending.values(), return_exceptions=True)

    def _harvest(self) -> None:
        for child, task in list(self._mending.items()):
            if task.done():
                del self._mending[child]
                task.result()

    async def _mend(self, one: Kept) -> None:
        """Comes back when the child is back."""
        child, why = one.child, how_it_ended(one.child.exit_code)
        while True:
            self._told(News(child.name, why, back=False))
            await asyncio.sleep(self._patience.before(self._count(child, why)))
            child.kill()  # what its session still has must not meet its successor
            try:
                await one.again()
            except (Stop, OSError) as error:
                why = f"not started again: {error}"
            else:
                break
        self._told(News(child.name, why, back=True))

    def _count(self, child: Child, why: str) -> int:
        """Restarts of this child within the time that counts, before this one. Raises Stop when they are enough."""
        now_s, past = self._monotonic_s(), self._restarts.setdefault(child, deque())
        while past and now_s - past[0] >= self._patience.within_s:
            past.popleft()
        if len(past) >= self._patience.most:
            raise Stop(
                f"{child.name} ended again ({why}), after {len(past)} restarts in {self._patience.within_s:g} s",
                f"The end of {child.log} says: {child.last_lines()}",
            )
        past.append(now_s)
        return len(past) - 1
