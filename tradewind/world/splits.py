"""How the requests of each flow are shared out over endpoints from one gateway, and what that makes of their load.

What a window showed is pooled with those before it, as many as together have as many requests as the step: a window
of some requests trembles more than a minute of thousands. A new route begins anew, from its shares.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import accumulate
from math import floor
from typing import Final

from streams.contract.records import Route
from tradewind.world.engine import Engine
from tradewind.world.ground import Ground

MOST_KEPT: Final = 0.9
"""Of a pool, from one step to the next."""
_PRIOR: Final = 8.0
"""Requests that the shares of a new route stand for."""


class Splits:
    """Of one gateway."""

    def __init__(self, ground: Ground, engine: Engine) -> None:
        self._ground, self._engine = ground, engine
        self._routes: dict[int, tuple[tuple[str, ...], tuple[float, ...]]] = {}
        self._pools: dict[int, dict[int, float]] = {}
        """Flow to endpoint to requests."""
        self._rps: dict[tuple[int, int], float] = {}
        """(flow, endpoint) to what is sent there: in this step as far as it has got, else in the last."""

    def only(self, flows: Iterable[int]) -> None:
        """Before a step: the other flows send nothing."""
        asked = set(flows)
        for flow in {flow for flow, _ in self._rps} - asked:
            self._send(flow, {}, 0.0)

    def expect(self, flow: int, route: Route, rps: float) -> None:
        """Before a step: `flow` will be sent `rps`, as it was before; as its shares say, where the route is new."""
        told = route.endpoints, route.shares
        if self._routes.get(flow) != told:
            at = self._ground.end_at
            self._routes[flow] = told
            self._pools[flow] = {at[name]: _PRIOR * share for name, share in zip(*told, strict=True)}
        self._send(flow, self._pools[flow], rps)

    def learn(self, flow: int, met: Mapping[int, int], shut: Collection[int], count: int, rps: float) -> None:
        """A window met these endpoints, in a step of `count` requests; nothing more goes to those that are `shut`."""
        seen = sum(met.values())
        keep = max(0.0, min(MOST_KEPT, 1.0 - seen / max(1, count)))
        pool = {end: keep * held for end, held in self._pools[flow].items() if end not in shut}
        for end, times in met.items():
            pool[end] = pool.get(end, 0.0) + times
        self._pools[flow] = pool
        self._send(flow, pool, rps)

    def parts(self, flow: int, count: int, phase: float) -> Iterator[tuple[int, int]]:
        """Endpoint and requests of `count`, in whole ones; `phase`, in [0, 1), decides who gets the odd ones."""
        pool = {end: held for end, held in self._pools[flow].items() if held > 0.0}
        total = sum(pool.values())
        before = 0
        for end, upto in zip(pool, accumulate(pool.values()), strict=True):
            reached = count if upto >= total * (1.0 - 1e-12) else floor(count * upto / total + phase)
            reached = min(count, reached)
            if reached > before:
                yield end, reached - before
            before = max(before, reached)

    def _send(self, flow: int, pool: Mapping[int, float], rps: float) -> None:
        for end in [end for of, end in self._rps if of == flow]:
            self._engine.states[end].expected_rps -= self._rps.pop((flow, end))
        total = sum(pool.values())
        for end, held in pool.items() if total > 0 else ():
            self._rps[flow, end] = rps * held / total
            self._engine.states[end].expected_rps += self._rps[flow, end]
