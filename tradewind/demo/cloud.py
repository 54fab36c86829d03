"""A pretend cloud: pools that grow when they are told to, a cold start later, and shrink at once.

want 6 ─► ready 2, starting 4 ── cold start ──► ready 6 ─► the endpoint of the pool has six replicas
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final, NoReturn

import msgspec

from streams.contract.errors import BadSetting
from streams.contract.records import Endpoint, Fleet
from streams.runtime.clock import Clock

_EVERY_S: Final = 0.1


@dataclass(slots=True)
class Machines:
    """Those of one pool. Times are unix seconds."""

    ready: int
    due_at_s: list[float] = field(default_factory=list)
    """When each that was launched is ready, soonest first."""
    least: int = 0
    most: int = 0

    @property
    def want(self) -> int:
        """What it was set to."""
        return self.ready + len(self.due_at_s)

    def set(self, want: int, ready_at_s: float) -> None:
        """Launch what lacks; of what is too much the last launches go first.

        >>> machines = Machines(2, most=9)
        >>> machines.set(4, 20.0)
        >>> machines.advance(25.0)
        >>> machines.ready
        4
        """
        want = min(self.most, max(self.least, want))
        self.due_at_s += [ready_at_s] * (want - self.want)
        del self.due_at_s[max(0, want - self.ready) :]
        self.ready = min(self.ready, want)

    def advance(self, now_s: float) -> None:
        """Launches become ready."""
        there = sum(at_s <= now_s for at_s in self.due_at_s)
        self.ready += there
        del self.due_at_s[:there]


class Cloud:
    """The pools of a fleet that may be planned for; launches take `cold_start_s`."""

    def __init__(self, fleet: Fleet, cold_start_s: float, now_s: Clock) -> None:
        self.cold_start_s, self._now_s = cold_start_s, now_s
        self._endpoints = {e.pool: e.name for e in scalable(fleet)}
        self.pools = {
            e.pool: Machines(e.replicas, least=e.least_replicas, most=e.most_replicas or 0) for e in scalable(fleet)
        }

    def set(self, pool: str, want: int) -> None:
        """Carry a plan out. The same a second time changes nothing. Raises KeyError for a pool that is not here."""
        self.pools[pool].set(want, self._now_s() + self.cold_start_s)

    async def run(self, scale: Callable[[str, int], Awaitable[bool]], note: Callable[[str], None]) -> NoReturn:
        """Let time pass, for ever. `scale(endpoint, ready)` tells an endpoint how many replicas it has, and whether it
        has heard; `note` is for people."""
        said = {pool: (machines.ready, machines.want) for pool, machines in self.pools.items()}
        while True:
            for pool, machines in self.pools.items():
                machines.advance(self._now_s())
                name, now = self._endpoints[pool], (machines.ready, machines.want)
                if said[pool] != now and (said[pool][0] == machines.ready or await scale(name, machines.ready)):
                    note(f"{name}: {machines.ready} ready, {len(machines.due_at_s)} starting")
                    said[pool] = now
            await asyncio.sleep(_EVERY_S)


def scalable(fleet: Fleet) -> list[Endpoint]:
    """Endpoints that plans may be made for."""
    return [e for e in fleet.endpoints if e.most_replicas is not None]


def declaring(fleet: Fleet, cold_start_s: float) -> Fleet:
    """The fleet whose scalable endpoints say that they start so slowly."""
    ends = (msgspec.structs.replace(e, cold_start_s=cold_start_s) if e.most_replicas is not None else e
            for e in fleet.endpoints)  # fmt: skip
    return msgspec.structs.replace(fleet, endpoints=tuple(ends))


def refuse_too_slow(cold_start_s: float, promised_at_s: float, lasts_s: float | None) -> None:
    """Raises BadSetting where the run ends before what was launched can be seen to help."""
    if lasts_s is not None and promised_at_s >= lasts_s:
        remedy = f"The run would end before capacity is there: give --seconds {promised_at_s + 10.0:.0f} or more"
        raise BadSetting("flag", "--cold-start", f"{cold_start_s:g}", remedy)
