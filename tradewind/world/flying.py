"""How many requests one gateway has in flight at each endpoint: by Little's law, at what is sent there so far.

Picks look at it. In a step they are made in few bundles; were all of them to see the same picture, equal endpoints
would take turns at being full. So it is guessed anew after each bundle, at the load that all gateways put there so far.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from math import ceil
from typing import Final

from streams.contract.records import Route
from tradewind.world.bundle import Row
from tradewind.world.chance import poisson
from tradewind.world.engine import Engine
from tradewind.world.ground import Ground
from tradewind.world.sight import Sight

GRAIN: Final = 0.05
"""A bundle is at most so much of what the smallest endpoint of its route can."""
LEAST_BUNDLES, MOST_BUNDLES = 4, 48
_PRIOR: Final = 2.0
"""Bundles that the table's shares stand for, in a guess."""


class Flying:
    """What the gateway of `origin` sends, by flow and endpoint: in this step as far as it has got, else in the last."""

    def __init__(self, origin: str, ground: Ground, engine: Engine, sight: Sight, seed: int) -> None:
        self.ground, self.engine = ground, engine
        self._sight, self._rng = sight, random.Random(seed)
        rtt_ms = next(o.rtt_ms for o in ground.fleet.origins if o.name == origin)
        self._rtt_ms = [rtt_ms[end.region] for end in ground.ends]
        self._rps: dict[tuple[int, int], float] = {}

    def rps(self, end: int) -> float:
        """What is sent to an endpoint, of all flows."""
        return sum(rps for (_, at), rps in self._rps.items() if at == end)

    def count(self, end: int) -> int:
        """Requests in flight at an endpoint, as they are reported."""
        return round(self._of(end, self.rps(end), self.engine.states[end].inside_ms))

    def _of(self, end: int, rps: float, inside_ms: float) -> float:
        return rps * (self._rtt_ms[end] + inside_ms) / 1000.0

    def fly(self, end: int, rps: float, inside_ms: float) -> None:
        """Have as many requests in flight at an endpoint as are when it is sent `rps`, give or take chance."""
        whole = poisson(self._rng, self._of(end, rps, inside_ms))
        for local in self._sight.locals[end]:
            local.in_flight = whole

    def redirect(self, flow: int, sent: Mapping[int, float]) -> None:
        """From now on `flow` is sent so much to each endpoint."""
        for end in [end for of, end in self._rps if of == flow]:
            self.engine.states[end].expected_rps -= self._rps.pop((flow, end))
        for end, rps in sent.items():
            self._rps[flow, end] = rps
            self.engine.states[end].expected_rps += rps

    def settle(self, rows: Mapping[tuple[int, int], Row]) -> None:
        """The step is over: this is what was answered."""
        self._rps = {at: row.ok / self.engine.span.s for at, row in rows.items()}
        for end in {end for _, end in self._rps}:
            self.fly(end, self.rps(end), self.engine.states[end].inside_ms)


class Guess:
    """The requests of one flow, bundle by bundle."""

    def __init__(self, flying: Flying, flow: int, route: Route, count: int) -> None:
        self._flying, self._engine, self._flow = flying, flying.engine, flow
        at = flying.ground.end_at
        self._shares = {at[name]: share for name, share in zip(route.endpoints, route.shares, strict=True)}
        self._rate = count / flying.engine.span.s
        self.bundles = self._wanted(count)
        """In how many bundles they go."""
        flying.redirect(flow, {})
        self._others = {end: flying.rps(end) for end in self._shares}
        self._prior = _PRIOR * count / max(1, self.bundles)
        self._sent = dict.fromkeys(self._shares, 0)
        self._all = 0
        for end in self._shares if len(self._shares) > 1 else ():
            self._fly(end)

    def _wanted(self, count: int) -> int:
        if len(self._shares) < 2:
            return min(1, count)
        smallest = min(self._engine.states[end].capacity_rps for end in self._shares)
        wanted = ceil(self._rate / (GRAIN * max(smallest, 1.0)))
        return min(count, max(LEAST_BUNDLES, min(MOST_BUNDLES, wanted)))

    def _fly(self, end: int) -> None:
        """Have in flight what the bundles so far say; at first what the shares say."""
        rps = self._rate * (self._sent[end] + self._prior * self._shares[end]) / (self._all + self._prior)
        inside_ms = self._engine.median_ms(end, self._engine.states[end].expected_rps + rps)
        self._flying.fly(end, self._others[end] + rps, inside_ms)

    def add(self, end: int, count: int) -> None:
        """A bundle of so many went there."""
        self._all += count
        self._sent[end] = self._sent.get(end, 0) + count
        if len(self._shares) > 1 and end in self._shares:
            self._fly(end)

    def keep(self) -> None:
        """All of the flow was sent as it was."""
        share = self._rate / max(1, self._all)
        self._flying.redirect(self._flow, {end: share * count for end, count in self._sent.items() if count})
