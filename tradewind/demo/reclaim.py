"""A market that takes its machines back: notice, death at its end, a replacement; one spot endpoint after the other.

notice ── notice_s ──► kill -9 ── BACK_S ──► another machine, under the same name
   └── every so often: the next endpoint gets its notice
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from itertools import cycle
from math import ceil
from typing import Final

import msgspec

from streams.contract.errors import BadSetting
from streams.contract.records import Fleet, Interruption
from streams.runtime.clock import Clock
from tradewind.demo.pretend_fleet import PretendFleet

USUAL_S: Final = 30.0
FIRST_AT_S: Final = 15.0
APART_S: Final = 20.0
"""From one notice to the next at least: what an end without notice does is to be over by then."""
BACK_S: Final = 10.0
_END_S: Final = 4.0
"""Before the end of a run nobody dies any more: what that does would not be seen."""


class Reclaimed(msgspec.Struct, frozen=True, kw_only=True):
    """One endpoint that was taken back. Times are seconds into the run; `unix_s` is when notice was given."""

    endpoint: str
    unix_s: float
    notice_at_s: float
    killed_at_s: float


def turns(names: Sequence[str], notice_s: float, lasts_s: float | None) -> Iterator[tuple[float, str]]:
    """(when notice is given, to whom) in a run of `lasts_s`; None: without end.

    >>> list(turns(["a", "b"], 30.0, 100.0))
    [(15.0, 'a'), (50.0, 'b')]
    """
    apart_s = max(APART_S, notice_s + 5.0)
    for number, name in enumerate(cycle(names)):
        at_s = FIRST_AT_S + number * apart_s
        if lasts_s is not None and at_s + notice_s > lasts_s - _END_S:
            return
        yield at_s, name


def refuse_too_long(notice_s: float, lasts_s: float | None) -> None:
    """Raises BadSetting where no endpoint could be taken back before the run is over."""
    least_s = FIRST_AT_S + notice_s + _END_S
    if lasts_s is not None and lasts_s < least_s:
        remedy = f"Nobody would be taken back before the run ends: give --seconds {ceil(least_s)} or more"
        raise BadSetting("flag", "--spot-notice", f"{notice_s:g}", remedy)


class Market:
    """Takes spot endpoints back. `say` sends a notice, `found` hears of each that was taken, `note` is for people."""

    def __init__(
        self,
        fleet: Fleet,
        pretend: PretendFleet,
        say: Callable[[Interruption], Awaitable[None]],
        found: Callable[[Reclaimed], None],
        note: Callable[[str], None],
        at_s: Clock,
        now_s: Clock,
    ) -> None:
        self._names = [e.name for e in fleet.endpoints if e.market == "spot"]
        self._pretend, self._say, self._found, self._note = pretend, say, found, note
        self._at_s, self._now_s = at_s, now_s

    async def run(self, notice_s: float, lasts_s: float | None) -> None:
        """Take one after the other, until a run of `lasts_s` is over; None: for ever."""
        async with asyncio.TaskGroup() as group:
            for when_s, name in turns(self._names, notice_s, lasts_s):
                await asyncio.sleep(when_s - self._at_s())
                group.create_task(self._take(name, notice_s))

    async def _take(self, name: str, notice_s: float) -> None:
        unix_s, noticed_s = self._now_s(), self._at_s()
        self._note(f"{name} is taken back in {notice_s:g} s")
        deadline_s = unix_s + notice_s if notice_s else None
        said = Interruption(endpoint=name, kind="preempt", notice_at_s=unix_s, deadline_at_s=deadline_s)
        saying = asyncio.ensure_future(self._say(said))
        await asyncio.sleep(unix_s + notice_s - self._now_s())
        self._pretend.kill(name)
        self._note(f"{name} was killed")
        self._found(Reclaimed(endpoint=name, unix_s=unix_s, notice_at_s=noticed_s, killed_at_s=self._at_s()))
        await saying
        await asyncio.sleep(BACK_S)
        await self._pretend.revive(name)
        self._note(f"{name} is back: another machine")
