"""What one gateway makes of endpoints: tables, streaks and probes, by the classes of the real gateway."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final

from numpy.random import Generator

from router_sync.client import LocalEndpoint, Picker
from router_sync.gateway.config import Probing
from router_sync.gateway.report import Standing
from streams.contract.records import HARD_ERRORS, ErrorKind, Route, RoutingTable
from streams.health_view import RATE_S
from tradewind.world.bundle import Miss
from tradewind.world.engine import Engine
from tradewind.world.ground import Ground

PROBING: Final = Probing()


class Sight:
    """What the gateway of `origin` knows. `now_s` is its clock."""

    def __init__(self, origin: str, ground: Ground, engine: Engine, rng: Generator) -> None:
        self.now_s = 0.0
        self.pickers: dict[str, Picker] = {}
        self.routes: dict[int, Route] = {}
        """By flow."""
        self.probes: dict[int, tuple[ErrorKind | None, int]] = {}
        """Endpoint to how its probes ended in this step, and how many they were."""
        self._origin, self._ground, self._engine = origin, ground, engine
        self._rng = random.Random(int(rng.integers(2**32)))
        self._locals: dict[int, list[LocalEndpoint]] = {}
        """Endpoint to what is known of it here, by service."""
        self._standing: dict[int, Standing] = {}

    def adopt(self, table: RoutingTable) -> None:
        """Follow `table` from the next request on."""
        picker = self.pickers.get(table.service)
        if picker is None:
            self.pickers[table.service] = Picker(table, rng=self._rng, clock=lambda: self.now_s)
        else:
            picker.adopt(table)
        at = self._ground.flow_at
        for route in table.routes:
            if route.origin == self._origin and (key := (table.service, route.origin, route.class_)) in at:
                self.routes[at[key]] = route
        self._locals = {n: self._known(end.name) for n, end in enumerate(self._ground.ends)}

    def _known(self, name: str) -> list[LocalEndpoint]:
        return [local for picker in self.pickers.values() if (local := picker.endpoints.get(name)) is not None]

    def local(self, flow: int, end: int) -> LocalEndpoint:
        """What the gateway sees of an endpoint, for the service of `flow`."""
        return self.pickers[self._ground.flows[flow].service].endpoints[self._ground.ends[end].name]

    def shut(self, flow: int) -> list[int]:
        """The endpoints whose breakers are open, for the service of `flow`."""
        known = self.pickers[self._ground.flows[flow].service].endpoints
        return [n for n, end in enumerate(self._ground.ends) if end.name in known and known[end.name].breaker.shut]

    def begin(self, now_s: float) -> None:
        """A step begins."""
        self.now_s, self.probes = now_s, {}

    def standing(self, end: int) -> Standing:
        """How an endpoint stands with this gateway."""
        return self._standing.setdefault(end, Standing())

    def failed(self, miss: Miss) -> None:
        """Hard failures in a row; at the first, two probes at once, as `router_sync.gateway.probe` has it."""
        if miss.kind in HARD_ERRORS:
            standing = self.standing(miss.bundle.end)
            first = standing.streak == 0
            standing.hard(self.now_s, request=True)
            standing.streak += miss.count - 1
            for _ in range(2 if first else 0):
                self._probe(miss.bundle.end, 1)

    def well(self, end: int) -> None:
        """It answered."""
        self.standing(end).ok(self.now_s)

    # ------------------------------------------------------------ probes

    def probe(self) -> None:
        """Ask for the health of those that nothing was heard of, and of those that are held to be down.

        Of a long step the probes of its last seconds: only they are looked at in rates.
        """
        times = max(1, round(min(self._engine.span.s, RATE_S) / PROBING.every_s))
        for end, locals_ in self._locals.items():
            if locals_ and self._wanted(end, locals_):
                self._probe(end, times)

    def _wanted(self, end: int, locals_: list[LocalEndpoint]) -> bool:
        if self.standing(end).streak or any(local.state == "down" or local.breaker.shut for local in locals_):
            return True
        return all(self.now_s - local.heard_at_s >= PROBING.quiet_s for local in locals_)

    def _probe(self, end: int, times: int) -> None:
        kind, standing = self._engine.probed(end), self.standing(end)
        tell: Callable[[float], None] = standing.probe_ok if kind is None else standing.hard
        for _ in range(min(times, standing.needed) if kind is None else 1):
            tell(self.now_s)
            for local in self._locals[end]:
                local.probed(self.now_s, kind is None)
        self.probes[end] = kind, self.probes.get(end, (kind, 0))[1] + times
