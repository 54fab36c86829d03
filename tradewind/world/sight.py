"""What one gateway makes of endpoints: tables, breakers, streaks and probes, by the classes of the real gateway."""

from __future__ import annotations

from collections.abc import Callable
from math import ceil
from typing import Final

from router_sync.client import LocalEndpoint, Picker
from router_sync.client.breaker import STREAK
from router_sync.gateway.config import Probing
from router_sync.gateway.report import Standing
from streams.contract.records import HARD_ERRORS, ErrorKind, Route, RoutingTable
from streams.health_view import RATE_S
from tradewind.world.bundle import Miss
from tradewind.world.chance import Even
from tradewind.world.engine import Engine
from tradewind.world.ground import Ground

PROBING: Final = Probing()
_FEW: Final = 4
"""Outcomes of a step that are told to the breaker one by one; more change nothing."""


class Sight:
    """What the gateway of `origin` knows. `now_s` is its clock."""

    def __init__(self, origin: str, ground: Ground, engine: Engine, seed: int) -> None:
        self.now_s = 0.0
        self.pickers: dict[str, Picker] = {}
        self.routes: dict[int, Route] = {}
        """By flow."""
        self.locals: dict[int, list[LocalEndpoint]] = {}
        """Endpoint to what is known of it here, by service."""
        self.probes: dict[int, tuple[ErrorKind | None, int]] = {}
        """Endpoint to how its probes ended in this step, and how many they were."""
        self._origin, self._ground, self._engine, self._even = origin, ground, engine, Even(seed)
        self._standing: dict[int, Standing] = {}
        self._blind: dict[int, int] = {}
        """Endpoint to the requests that it still gets in this step before its breaker can know."""

    def adopt(self, table: RoutingTable) -> None:
        """Follow `table` from the next request on."""
        picker = self.pickers.get(table.service)
        if picker is None:
            self.pickers[table.service] = Picker(table, rng=self._even, clock=lambda: self.now_s)
        else:
            picker.adopt(table)
        at = self._ground.flow_at
        for route in table.routes:
            if route.origin == self._origin and (key := (table.service, route.origin, route.class_)) in at:
                self.routes[at[key]] = route
        self.locals = {n: self._known(end.name) for n, end in enumerate(self._ground.ends)}

    def _known(self, name: str) -> list[LocalEndpoint]:
        return [local for picker in self.pickers.values() if (local := picker.endpoints.get(name)) is not None]

    def begin(self, now_s: float) -> None:
        """A step begins."""
        self.now_s, self.probes, self._blind = now_s, {}, {}

    def standing(self, end: int) -> Standing:
        """How an endpoint stands with this gateway."""
        return self._standing.setdefault(end, Standing())

    # ------------------------------------------------------------ failures

    def unknowing(self, local: LocalEndpoint, end: int, rps: float, ms: float) -> int:
        """How many requests, of `rps` a second, an endpoint gets that fails after `ms`; its breaker knows then."""
        if local.breaker.shut:
            return max(1, ceil(rps * self._engine.span.s))  # all others are shut as well
        if end not in self._blind:
            self._blind[end] = STREAK + ceil(rps * ms / 1000.0)
        return max(1, self._blind[end])

    def failed(self, miss: Miss) -> None:
        """What a failure does to breaker, streak and strain."""
        bundle, kind = miss.bundle, miss.kind
        if kind == "first_byte_timeout":
            bundle.local.observe(self.now_s, miss.ms)
        if kind in HARD_ERRORS:
            self._accuse(bundle.end, miss.count)
        if bundle.end in self._blind:
            self._blind[bundle.end] -= miss.count
        if self._blind.get(bundle.end, 0) <= 0:
            self._shake(bundle.local, kind, miss.count, trial=bundle.trial)

    def _accuse(self, end: int, count: int) -> None:
        """Hard failures in a row; at the first, two probes at once, as `router_sync.gateway.probe` has it."""
        standing = self.standing(end)
        first = standing.streak == 0
        standing.hard(self.now_s, request=True)
        standing.streak += count - 1
        for _ in range(2 if first else 0):
            self._probe(end, 1)

    def _shake(self, local: LocalEndpoint, kind: ErrorKind, count: int, *, trial: bool = False) -> None:
        for n in range(min(_FEW, count)):
            if kind in HARD_ERRORS:
                local.breaker.hard(self.now_s, trial and n == 0)
            else:
                local.breaker.throttled(self.now_s, trial and n == 0)

    def learn_late(self) -> None:
        """Whoever has failed to the end of the step without a breaker's notice is noticed now."""
        for end, left in self._blind.items():
            for local in self.locals[end] if left > 0 else ():
                self._shake(local, "first_byte_timeout", STREAK)

    # ------------------------------------------------------------ answers

    def well(self, end: int, local: LocalEndpoint, latencies_ms: tuple[float, float], *, trial: bool) -> None:
        """It answered: a usual latency and the slowest one, for strain; and a few more for the breaker to count."""
        for ms in latencies_ms:
            local.in_flight += 1
            local.ok(self.now_s, ms, trial)
        for _ in range(_FEW - 2):
            local.breaker.good(self.now_s)
        self.standing(end).ok(self.now_s)

    # ------------------------------------------------------------ probes

    def probe(self) -> None:
        """Ask for the health of those that nothing was heard of, and of those that are held to be down.

        Of a long step the probes of its last seconds: only they are looked at in rates.
        """
        times = max(1, round(min(self._engine.span.s, RATE_S) / PROBING.every_s))
        for end, locals_ in self.locals.items():
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
            for local in self.locals[end]:
                local.probed(self.now_s, kind is None)
        self.probes[end] = kind, self.probes.get(end, (kind, 0))[1] + times
