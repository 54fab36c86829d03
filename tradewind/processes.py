"""Child processes that are started together, watched or kept there, and never left behind."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import NoReturn, Self

from tradewind.child import Child, ended_early, last_lines, wait_ready
from tradewind.mending import Kept, Mender, News, Patience

__all__ = ["Child", "Kept", "News", "Patience", "Processes", "ended_early", "last_lines", "wait_ready"]

_READY_S = 20.0


@dataclass(slots=True)
class _Seat:
    """A child, and what it takes to start it again."""

    child: Child
    ready: str | None
    deadline_s: float
    may_die: bool
    up: bool = False

    async def start(self) -> None:
        self.child.start()
        if self.ready is not None:
            await wait_ready(self.child, self.ready, self.deadline_s)
        self.up = True


class Processes:
    """Children of one run, started in order and stopped in reverse; an async context manager.

    Logs go to `run`/NAME.log. `environ` is the whole environment of the children (None: that of this process).
    """

    def __init__(self, run: Path, *, environ: Mapping[str, str] | None = None) -> None:
        self.run = run
        self._environ = environ
        self._seats: list[_Seat] = []

    @property
    def children(self) -> tuple[Child, ...]:
        """In the order they were started."""
        return tuple(seat.child for seat in self._seats)

    async def start(
        self,
        name: str,
        module: str,
        *arguments: str,
        ready: str | None = None,
        deadline_s: float = _READY_S,
        may_die: bool = False,
    ) -> Child:
        """`python -m module arguments…`, running; with `ready` (a URL) not before a GET there answers 200.

        `may_die`: its death is part of the play, `watch` and `keep` stay quiet about it. Raises `Stop` when it ends
        first or is not ready within `deadline_s`.
        """
        child = Child(name, [sys.executable, "-m", module, *arguments], self.run / f"{name}.log", environ=self._environ)
        seat = _Seat(child, ready, deadline_s, may_die)
        self._seats.append(seat)
        await seat.start()
        return child

    async def watch(self) -> NoReturn:
        """Never comes back; raises `Stop`, with its last words, when a child ends that should be there."""
        while True:
            for seat in self._seats:
                if seat.child.died_early and not seat.may_die:
                    raise ended_early(seat.child)
            await asyncio.sleep(0.1)

    async def keep(
        self, told: Callable[[News], None], *, also: Sequence[Kept] = (), patience: Patience | None = None
    ) -> NoReturn:
        """Never comes back; what dies without being asked to is started again, with the same arguments.

        `told` hears of each child that is missed and of each that is back; `also` are children started elsewhere, an
        embedded broker say. Raises `Stop` when one died more often than `patience` allows. A child is kept from when
        `start` has come back with it.
        """
        await Mender(told, patience).run(lambda: (*self._kept(), *also))

    def _kept(self) -> list[Kept]:
        return [Kept(seat.child, seat.start) for seat in self._seats if seat.up and not seat.may_die]

    async def stop(self, deadline_s: float = 5.0) -> None:
        """Ends all, the last started asked first, together within `deadline_s` seconds; when cancelled, at once."""
        try:
            await asyncio.gather(*(child.stop(deadline_s) for child in reversed(self.children)))
        finally:
            self.kill()

    def kill(self) -> None:
        """Ends all at once."""
        for child in reversed(self.children):
            child.kill()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _at: TracebackType | None
    ) -> None:
        await self.stop()
