"""Who gives way at this gateway when not all can be served: the table's word, and what is seen here before it comes.

    the table's `admit` ───────────────────────────────────────┐
    saturation of the route, as seen here ─► its tier's ceiling ┴─► share that is let in ─► evenly in time, else 429

    let in
      1 ──────╮─────────╮──────────────╮
               ╲          ╲              ╲          sheddable  0.5 to 1
      0         ╰──────────╰──────────────╰──       standard   0.8 to 1.3
              0.5    0.8  1   1.3   1.5   2         premium    1.5 to 2

Saturation of a route is what its requests meet: that of its endpoints (see `saturation`) by their shares, without
those that are down; or how full the gateway itself is, where that is more. Below its ceiling nothing of a tier is shed.
Where no higher tier uses a route's endpoints there is nobody to give way to: the highest there has premium's ceiling.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Final

from router_sync.client import Picker
from router_sync.client.endpoint import RANK
from router_sync.gateway.config import Ceiling, Tiers
from router_sync.gateway.refusal import Refusal
from router_sync.gateway.saturation import Load
from router_sync.gateway.sessions import Session, Sessions
from streams.contract.records import Route

SHED_HEADER: Final = "x-tradewind-shed"
"""Who said so: the table, or that endpoints are full as seen from here."""
REFRESH_S: Final = 0.02
REFRESH_AFTER: Final = 4
"""A route is measured anew after so long, or after so many requests were let in: as many as it has endpoints, and no
fewer than this, so that one request never pays for thousands of endpoints."""


class _Measured:
    """How full a route is, for a while."""

    __slots__ = ("ceiling", "left", "saturation", "until_s")

    def __init__(self, saturation: float, ceiling: Ceiling, until_s: float, left: int) -> None:
        self.saturation, self.ceiling = saturation, ceiling
        self.until_s, self.left = until_s, left


class Shedding:
    """`in_flight` of an endpoint from here, `pickers` the live ones by service; `now_s` never goes back."""

    def __init__(
        self,
        config: Tiers,
        pickers: Mapping[str, Picker],
        in_flight: Callable[[str], int],
        rng: random.Random,
        now_s: Callable[[], float],
    ) -> None:
        self._config, self._pickers, self._in_flight = config, pickers, in_flight
        self._rng, self._now_s = rng, now_s
        self._loads: dict[str, Load] = {}
        self._measured: dict[tuple[str, str, str], _Measured] = {}
        """By flow: (service, origin, class)."""
        self._sessions = Sessions()

    def load(self, endpoint: str) -> Load:
        """What is known of how full `endpoint` is; to be told by whoever sends requests there."""
        load = self._loads.get(endpoint)
        if load is None:
            load = self._loads[endpoint] = Load()
        return load

    def refusal(self, picker: Picker, route: Route, filled: float, session: Session | None) -> Refusal | None:
        """What a request is answered that is not let in; None: it is. `filled`: of the gateway itself, 0..1."""
        now_s, measured = self._now_s(), self._now(picker, route)
        room = measured.ceiling.open_share(max(filled, measured.saturation)) if self._config.ceilings else 1.0
        in_progress = session is not None and self._sessions.known(session, now_s)
        if not picker.admits(route, room=room, in_progress=in_progress):
            return self._shed(route, "table" if room >= 1.0 else "full")
        measured.left -= 1
        if session is not None:
            self._sessions.keep(session, now_s)
        return None

    def saturation(self, picker: Picker, route: Route) -> float:
        """What requests of the route meet: 0 is empty, 1 is full, 2 at most."""
        return self._now(picker, route).saturation

    def _now(self, picker: Picker, route: Route) -> _Measured:
        flow, now_s = (picker.table.service, route.origin, route.class_), self._now_s()
        measured = self._measured.get(flow)
        if measured is None or now_s >= measured.until_s or measured.left <= 0:
            saturation, left = self._met(picker, route, now_s), max(REFRESH_AFTER, len(route.endpoints))
            measured = _Measured(saturation, self._ceiling(route), now_s + REFRESH_S, left)
            self._measured[flow] = measured
        return measured

    def _met(self, picker: Picker, route: Route, now_s: float) -> float:
        met = total = 0.0
        for name, share in zip(route.endpoints, route.shares, strict=True):
            local = picker.endpoints.get(name)
            if local is None or local.breaker.shut or local.state == "down":
                continue
            total += share
            met += share * self.load(name).saturation(self._in_flight(name), local.concurrency, now_s)
        return met / total if total > 0 else 0.0

    def _ceiling(self, route: Route) -> Ceiling:
        """The tier's; premium's where nobody at the route's endpoints is above it."""
        rank, ends = RANK[route.tier], [picker.endpoints for picker in self._pickers.values()]
        outranked = any(name in there and there[name].rank < rank for there in ends for name in route.endpoints)
        return self._config.ceiling(route.tier if outranked else "premium")

    def _shed(self, route: Route, why: str) -> Refusal:
        least_s = self._config.retry_after_s
        after_s = self._rng.randint(least_s, 2 * least_s)  # so that they do not all come back at once
        message = (
            f"There is not room for all requests: some of the class {route.class_} give way, so that others are in "
            f"time. Try again in {after_s} s."
        )
        return Refusal(429, "shed", message, headers={"Retry-After": str(after_s), SHED_HEADER: why})
