"""The last moments of a step lived through request by request: real picks, real breakers, requests really in flight.

    step      ├──────────────────────────────┤
    window                          ├────────┤   as many requests as can be afforded: in a short step all of them

How the requests of the window are shared out is how all of the step's are. Between two windows the requests in flight
wait, so that none begins with an idle world. What a request meets (how long it takes, whether it fails) is what its
endpoint does at the load it has.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush
from typing import Final

import numpy as np
from numpy.random import Generator

from router_sync.client import LocalEndpoint
from streams.contract.records import ErrorKind
from tradewind.world.engine import SPREAD, Engine
from tradewind.world.ground import Ground
from tradewind.world.sight import Sight

MOST: Final = 40
MOST_SHORT: Final = 192
"""Requests of a gateway in a window; in a step of a second the second."""
Flight = tuple[float, int, LocalEndpoint, float, bool, ErrorKind | None]
"""A request under way: when it ends, a number, where, after how many ms, whether it is a trial, and how it fails."""


@dataclass(slots=True)
class Seen:
    """How the requests of a window went, by flow and endpoint."""

    met: dict[int, dict[int, int]] = field(default_factory=dict)
    """Sent to endpoints that do not fail every request."""
    missed: dict[int, dict[int, int]] = field(default_factory=dict)
    """Sent to those that do."""

    def add(self, flow: int, end: int, *, fails: bool) -> None:
        to = (self.missed if fails else self.met).setdefault(flow, {})
        to[end] = to.get(end, 0) + 1


class Window:
    """Of one gateway."""

    def __init__(self, ground: Ground, engine: Engine, sight: Sight, rng: Generator) -> None:
        self._ground, self._engine, self._sight, self._rng = ground, engine, sight, rng
        self._flights: list[Flight] = []
        self._medians: dict[int, float] = {}
        """Endpoint to its median latency in this window."""
        self._until_s = 0.0
        self._number = 0

    def live(self, asked: Mapping[int, int], until_s: float) -> Seen:
        """Live through the window that ends at `until_s`, when the step's requests by flow are `asked`."""
        seen, order = Seen(), self._order(asked)
        self._medians.clear()
        lasts_s = self._engine.span.s * len(order) / max(1, sum(asked.values()))
        self._resume(until_s - lasts_s)
        times = np.sort(self._rng.random(len(order))) * lasts_s + (until_s - lasts_s)
        factors = np.exp(SPREAD * self._rng.standard_normal(len(order)))
        chances = self._rng.random(len(order))
        for flow, at_s, *luck in zip(order, times.tolist(), factors.tolist(), chances.tolist(), strict=True):
            self._land(at_s)
            self._send(seen, flow, at_s, *luck)
        self._land(until_s)
        self._until_s = until_s
        return seen

    def _order(self, asked: Mapping[int, int]) -> list[int]:
        """Which flow each request of the window is of: each has its part, and at least one."""
        most = MOST_SHORT if self._engine.span.s <= 1.0 else MOST
        share = min(1.0, most / max(1, sum(asked.values())))
        places = [
            ((n + 0.5) / parts, flow)
            for flow, count in asked.items()
            for parts in [max(1, round(count * share))]
            for n in range(parts)
        ]
        return [flow for _, flow in sorted(places)]

    def _resume(self, from_s: float) -> None:
        """What was in flight when the last window ended goes on now."""
        gap_s = from_s - self._until_s
        self._flights = [(end_s + gap_s, *rest) for end_s, *rest in self._flights]  # type: ignore[misc]
        heapify(self._flights)

    def _land(self, now_s: float) -> None:
        while self._flights and self._flights[0][0] <= now_s:
            end_s, _, local, ms, trial, kind = heappop(self._flights)
            if kind is None:
                local.ok(end_s, ms, trial)
            else:
                if kind == "first_byte_timeout":
                    local.observe(end_s, ms)
                local.failed(end_s, kind, trial)

    def _send(self, seen: Seen, flow: int, now_s: float, factor: float, chance: float) -> None:
        known, self._sight.now_s = self._ground.flows[flow], now_s
        pick = self._sight.pickers[known.service].pick(known.origin, known.class_.name)
        if pick is None:
            return
        local = pick.endpoint
        end = self._ground.end_at[local.name]
        sure = self._engine.sure(end, flow)
        seen.add(flow, end, fails=sure is not None)
        kind, ms = sure or self._engine.fate(end, flow, factor * self._median_ms(end), chance)
        self._number += 1
        heappush(self._flights, (now_s + ms / 1000.0, self._number, local, ms, local.begin(), kind))

    def _median_ms(self, end: int) -> float:
        if end not in self._medians:
            self._medians[end] = self._engine.median_ms(end, self._engine.states[end].expected_rps)
        return self._medians[end]
