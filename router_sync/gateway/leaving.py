"""Streams leave an endpoint that is about to go before it goes: those that would outlast it, one after the other.

    notice ───────────── first ──────────────────────── last ── margin ── deadline
      no new requests      │ who would still run at last,  │ all that are    │ what is left breaks off, goes on
      short ones finish    │ longest first, evenly spread  │ left, at once   │ elsewhere where it can, or ends
                                                                               with an error event
      of 120 s             55 s                           110 s
      of 30 s              12.5 s                          25 s
      of 0 s               at once: there is nothing to wait for

Late, because most streams end by themselves, and a move costs a prefill. Spread, because the prefills of all at once
would slow down whoever serves there. How long a stream still runs is told by its pace and the caller's `max_tokens`;
who named none is taken to outlast it.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Final

from router_sync.gateway.trip import Trip
from streams import signals
from streams.contract.records import RoutingTable
from streams.runtime.clock import Clock

LONGEST_MARGIN_S: Final = 10.0
MOST: Final = 16
"""Moves under way at once."""
AGAIN_S: Final = 1.0
"""A stream that could not be moved is tried again after so long."""
Move = Callable[[Trip, set[str]], Awaitable[str]]


def window(notice_s: float) -> tuple[float, float]:
    """(first, last) of a notice of so many seconds, in seconds from now: when moves begin, when all have to have begun.

    >>> window(120), window(30), window(3), window(0)
    ((55.0, 110.0), (12.5, 25.0), (1.0, 2.0), (0.0, 0.0))
    """
    margin_s = min(LONGEST_MARGIN_S, max(1.0, notice_s / 6), notice_s / 2)
    last_s = notice_s - margin_s
    return last_s / 2, last_s


def pace(ends_s: Sequence[float], now_s: float, last_s: float) -> float | None:
    """Seconds from one move to the next, so that the last is at `last_s`; None when all end by themselves before.

    >>> pace([inf, 25.0, 11.0], now_s=10.0, last_s=20.0)
    5.0
    """
    late = sum(end_s >= last_s for end_s in ends_s)
    return (last_s - now_s) / late if late else None


@dataclass(slots=True, eq=False)
class _Stream:
    """A stream under way, from the request on."""

    trip: Trip
    refused: set[str] = field(default_factory=set)
    again_s: float = -inf
    moving: bool = False

    def movable(self, endpoint: str, now_s: float) -> bool:
        trip = self.trip
        return (
            not self.moving
            and now_s >= self.again_s
            and trip.journal is not None
            and trip.turn.at == endpoint
            and trip.turn.free
        )

    def ends_s(self, now_s: float) -> float:
        """When it would end at the pace it had."""
        journal, begun_s = self.trip.journal, self.trip.begun_s
        to_come = journal.to_come() if journal is not None else None
        if journal is None or to_come is None or not journal.events:
            return inf
        return now_s + to_come * (now_s - begun_s) / journal.events


@dataclass(slots=True)
class _Leave:
    """An endpoint that is to be left. Times but `by_s` are those of the loop's clock."""

    by_s: float
    until_s: float
    last_s: float
    next_s: float
    told: bool = False
    count: Counter[str] = field(default_factory=Counter)


class Leaving:
    """`move` moves one stream. `unix_s` is the time of tables, `now_s` the loop's."""

    def __init__(self, move: Move, rng: random.Random, *, now_s: Clock, unix_s: Clock) -> None:
        self._move, self._rng, self._now_s, self._unix_s = move, rng, now_s, unix_s
        self._streams: dict[str, dict[Trip, _Stream]] = {}
        self._leaves: dict[str, _Leave] = {}
        self._moving: set[asyncio.Task[None]] = set()
        self._wake = asyncio.Event()

    # -- what is told -------------------------------------------------------------------------------------------------

    def heed(self, table: RoutingTable) -> None:
        """Take over from `table` who is to be left, and by when."""
        for described in table.endpoints:
            leave = self._leaves.get(described.name)
            if described.leave_by_s is None:
                if leave is not None:
                    del self._leaves[described.name]
            elif leave is None or leave.by_s != described.leave_by_s:
                # whichever clock is behind, the router's or ours, there is no more time than the other says
                left_s = min(described.leave_by_s - self._unix_s(), described.leave_by_s - table.issued_at_s)
                self._begin(described.name, described.leave_by_s, max(0.0, left_s))

    def _begin(self, endpoint: str, by_s: float, left_s: float) -> None:
        now_s, (first_s, last_s) = self._now_s(), window(left_s)
        streams = len(self._streams.get(endpoint, ()))
        # several gateways do not all begin in the same moment
        begin_s = first_s + self._rng.random() * (last_s - first_s) / (1 + streams)
        self._leaves[endpoint] = _Leave(by_s, now_s + left_s, now_s + last_s, now_s + begin_s)
        self._wake.set()
        signals.event("endpoint_to_be_left", endpoint=endpoint, in_s=round(left_s, 3), streams=streams)

    def enter(self, endpoint: str, trip: Trip) -> None:
        """A stream is asked of `endpoint`."""
        self._streams.setdefault(endpoint, {})[trip] = _Stream(trip)
        if endpoint in self._leaves:
            self._wake.set()

    def leave(self, endpoint: str, trip: Trip) -> None:
        """It is over there."""
        self._streams[endpoint].pop(trip, None)

    def count(self, endpoint: str, outcome: str, reason: str) -> bool:
        """Count what became of a stream at `endpoint`: moved, kept or lost; False: nobody has to leave that."""
        if (leave := self._leaves.get(endpoint)) is None:
            return False
        leave.count[outcome] += 1
        signals.LEFT.labels(outcome, reason).inc()
        return True

    # -- what is done -------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Move streams when it is time, until cancelled."""
        try:
            while True:
                self._wake.clear()
                wait_s = min(self._look(endpoint) for endpoint in self._leaves) if self._leaves else inf
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), None if wait_s == inf else wait_s)
        finally:
            for task in self._moving:
                task.cancel()

    def _look(self, endpoint: str) -> float:
        """Begin the moves that are due; in how many seconds to look again."""
        leave, now_s = self._leaves[endpoint], self._now_s()
        if now_s >= leave.until_s and not leave.told:
            leave.told = True
            moved, kept, lost = (leave.count[outcome] for outcome in ("moved", "kept", "lost"))
            still = len(self._streams.get(endpoint, ()))
            signals.event("endpoint_left", endpoint=endpoint, moved=moved, kept=kept, lost=lost, still=still)
        streams = [s for s in self._streams.get(endpoint, {}).values() if s.movable(endpoint, now_s)]
        if now_s >= leave.last_s:
            return self._all(leave, endpoint, streams, now_s)
        return self._one(leave, endpoint, streams, now_s)

    def _all(self, leave: _Leave, endpoint: str, streams: Sequence[_Stream], now_s: float) -> float:
        for stream in streams[: MOST - len(self._moving)]:
            self._begin_move(endpoint, stream)
        waiting = len(self._streams.get(endpoint, ())) > 0
        return AGAIN_S if waiting else inf if leave.told else max(0.0, leave.until_s - now_s)

    def _one(self, leave: _Leave, endpoint: str, streams: Sequence[_Stream], now_s: float) -> float:
        if now_s < leave.next_s:
            return leave.next_s - now_s
        ends_s = {stream: stream.ends_s(now_s) for stream in streams}
        gap_s = pace(list(ends_s.values()), now_s, leave.last_s)
        if gap_s is not None and len(self._moving) < MOST:
            self._begin_move(endpoint, max(streams, key=ends_s.__getitem__))
        leave.next_s = now_s + min(gap_s or AGAIN_S, leave.last_s - now_s)
        return leave.next_s - now_s

    def _begin_move(self, endpoint: str, stream: _Stream) -> None:
        stream.moving = True
        task = asyncio.create_task(self._moved(endpoint, stream))
        self._moving.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._moving.discard(task)
        self._wake.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            signals.event("gateway_mistake", "error", task="moving", error=repr(error))

    async def _moved(self, endpoint: str, stream: _Stream) -> None:
        try:
            outcome = await self._move(stream.trip, stream.refused)
        finally:
            stream.moving = False
        if outcome == "moved":
            self.count(endpoint, "moved", "notice")
            return
        if outcome == "nowhere":
            stream.refused.clear()  # who has refused may take it by now
        stream.again_s = inf if outcome == "stateful" else self._now_s() + AGAIN_S
