"""From a table to one endpoint per request, in microseconds: shares by the table, corrected by what is seen here.

Two endpoints are drawn by their shares; the less strained of the two is taken:

    strain = peak / usual latency * (1 + requests in flight / what its share of all of them would be)

Both factors are 1 where all goes to plan, so that the shares come out as the table has them; where an endpoint slows
down or fills up, its share moves to the others before the table knows. An open breaker takes it out altogether.
What the route does not name is never picked; when all it names is open, the least bad is: load fails open, law closed.
"""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Container, Iterable, Mapping, Sequence
from itertools import accumulate
from typing import Final, Literal

from router_sync.client.admission import Admission
from router_sync.client.endpoint import LocalEndpoint
from router_sync.client.law import TableLaw
from router_sync.client.shares import Ring, alias
from router_sync.policy.rules import Denial
from streams import signals
from streams.contract.records import EndpointState, Route, RoutingTable, TableEndpoint
from streams.runtime.clock import Clock

ADMIT_S: Final = 30.0
"""Heartbeats of tables are far closer: who has heard none for so long does not know whether others still give way."""
_DRAWS: Final = 6
_WALK: Final = 256
Away = Literal["gone", "route", "drain", "down"]
"""Why an endpoint cannot be a session's home: the table has it no more, or not on this route, or it is to be left, or
is not to be reached."""
_LAST: Final[dict[EndpointState, int]] = {"ready": 0, "drain": 1, "down": 2}


class Pick:
    """One endpoint on one route. `endpoint` is told how it went: begin, then ok, failed or dropped."""

    __slots__ = ("endpoint", "route", "share", "spread")

    def __init__(self, endpoint: LocalEndpoint, route: Route, share: float) -> None:
        self.endpoint, self.route, self.share = endpoint, route, share
        self.spread = 0.0

    def strain(self, now_s: float) -> float:
        """1 when all goes to plan; twice as slow or twice as full doubles it."""
        endpoint = self.endpoint
        return endpoint.slowness(now_s) * (1.0 + endpoint.in_flight * self.spread)


class _Lane:
    """One route, made ready for picking."""

    __slots__ = ("_named", "_ring", "closed", "count", "keep", "other", "picks", "rest", "route", "upto")

    def __init__(self, route: Route, endpoints: Mapping[str, LocalEndpoint]) -> None:
        self.route = route
        self.closed: tuple[Denial, ...] = ()
        """What forbids this route all endpoints of the table; nothing where it may use one."""
        named = [
            Pick(endpoints[name], route, share)
            for name, share in zip(route.endpoints, route.shares, strict=True)
            if name in endpoints
        ]
        self.picks = [pick for pick in named if pick.share > 0]
        self.rest = _fallbacks(route, named, endpoints)
        shares = [pick.share for pick in self.picks]
        self.count = len(shares)
        self.keep, others = alias(shares)
        self.other = [self.picks[i] for i in others]
        self.upto = list(accumulate(shares))
        self._ring: Ring | None = None
        self._named: dict[str, Pick] | None = None
        self.spread_out()
        for pick in self.picks:
            pick.endpoint.lead(route)

    def spread_out(self) -> None:
        """Take over usual latencies: a slow endpoint holds more requests at the same share, and is not to blame."""
        usual = [pick.share * (pick.endpoint.usual_ms or 1.0) for pick in self.picks]
        mean = sum(usual) / max(1, len(usual))
        for pick, held in zip(self.picks, usual, strict=True):
            pick.spread = mean / held
        for pick in self.rest:
            pick.spread = 1.0

    @property
    def ring(self) -> Ring:
        if self._ring is None:
            self._ring = Ring([pick.endpoint.name for pick in self.picks], [pick.share for pick in self.picks])
        return self._ring

    @property
    def named(self) -> dict[str, Pick]:
        if self._named is None:
            self._named = {pick.endpoint.name: pick for pick in self.all()}
        return self._named

    def all(self) -> Iterable[Pick]:
        yield from self.picks
        yield from self.rest


def _fallbacks(route: Route, named: Sequence[Pick], endpoints: Mapping[str, LocalEndpoint]) -> list[Pick]:
    """Declared fallbacks in order, then those that are allowed but have no share; who leaves comes after, who is down
    last."""
    shared = {pick.endpoint.name for pick in named if pick.share > 0}
    declared = [name for name in route.fallbacks if name in endpoints]
    spare = [pick.endpoint.name for pick in named if pick.share <= 0]
    names = [name for name in dict.fromkeys(declared + spare) if name not in shared]
    return sorted((Pick(endpoints[name], route, 0.0) for name in names), key=lambda p: _LAST[p.endpoint.state])


class Picker:
    """Picks for one service. Give it each table that is adopted; what it knows of endpoints survives the change.

    `rng` is any source of chance, `clock` seconds that never go back. One event loop only.
    """

    def __init__(self, table: RoutingTable, *, rng: random.Random, clock: Clock) -> None:
        self.table = table
        self.endpoints: dict[str, LocalEndpoint] = {}
        self._rng, self._draw, self._clock = rng, rng.random, clock
        self._admission = Admission(rng.random)
        self._adopted_s = clock()
        self._lanes: dict[str, dict[str, _Lane]] = {}
        self._law = TableLaw(table)
        self._breached = False
        self._build(table)

    def adopt(self, table: RoutingTable) -> None:
        """Follow `table` from the next pick on."""
        old, self.table = self.table, table
        self._adopted_s = self._clock()
        same = (old.routes, old.endpoints, old.policies) == (table.routes, table.endpoints, table.policies)
        if not same:
            self._build(table)
            return
        for lanes in self._lanes.values():
            for lane in lanes.values():
                lane.spread_out()

    def serves(self, origin: str, class_: str) -> bool:
        """Whether the table has a route for this origin and class at all."""
        return class_ in self._lanes.get(origin, ())

    def route(self, origin: str, class_: str) -> Route | None:
        """What the table says of this origin and class; None when it says nothing."""
        lane = self._lanes.get(origin, {}).get(class_)
        return None if lane is None else lane.route

    def routes(self, origin: str) -> list[Route]:
        """All that the table says of this origin."""
        return [lane.route for lane in self._lanes.get(origin, {}).values()]

    def admits(self, route: Route, *, room: float = 1.0, in_progress: bool = False) -> bool:
        """Whether a request that arrives now is let in; ask once for each, before `pick`. Others get a 429.

        Let in is the share that the route's `admit` says, times `room` (0..1), which is what you yourself see. After
        `ADMIT_S` without a table only `room` counts: load fails open. `in_progress`: it belongs to a session that has
        been served here before; such are shed last.
        """
        stale = self._clock() - self._adopted_s >= ADMIT_S
        share = room if stale else room * route.admit
        return self._admission.admits((route.origin, route.class_), share, in_progress=in_progress)

    def closed(self, origin: str, class_: str) -> tuple[Denial, ...]:
        """The rules by which law leaves this route no endpoint at all; nothing where it leaves one."""
        lane = self._lanes.get(origin, {}).get(class_)
        return lane.closed if lane is not None else ()

    def origins(self) -> list[str]:
        """Where the table has routes from, sorted."""
        return sorted(self._lanes)

    def pick(self, origin: str, class_: str, key: str | None = None, exclude: Container[str] = ()) -> Pick | None:
        """An endpoint for a request of `class_` from `origin`, none of `exclude`; None when the route has no more.

        With a `key` (a session, a prompt's prefix) the same endpoint as before while its share and health allow.
        """
        lanes = self._lanes.get(origin)
        lane = lanes.get(class_) if lanes is not None else None
        if lane is None:
            return None
        now_s = self._clock()
        if key is not None:
            return self._sticky(lane, key, exclude, now_s)
        count = lane.count
        if not count:
            return self._search(lane, exclude, now_s)
        at = self._draw() * count
        i = int(at)
        first = lane.picks[i] if at < lane.keep[i] else lane.other[i]
        at = self._draw() * count
        i = int(at)
        second = lane.picks[i] if at < lane.keep[i] else lane.other[i]
        one, two = first.endpoint, second.endpoint
        if exclude or one.breaker.shut or two.breaker.shut:
            return self._careful(lane, first, second, exclude, now_s)
        if one is two:
            return first
        return first if first.strain(now_s) <= second.strain(now_s) else second

    def home(self, origin: str, class_: str, name: str) -> Pick | Away:
        """The endpoint `name`, where a session lives, for a request of it; or why the session has to move."""
        lane = self._lanes.get(origin, {}).get(class_)
        pick = lane.named.get(name) if lane is not None else None
        if pick is None:
            return "route" if name in self.endpoints else "gone"
        local = pick.endpoint
        if local.state == "down" or not local.breaker.admits(self._clock()):
            return "down"
        return "drain" if local.state == "drain" or local.leave_by_s is not None else pick

    def left(self, origin: str, class_: str, tried: Container[str]) -> int:
        """How many endpoints of the route the table does not call down, and were not `tried`."""
        lane = self._lanes.get(origin, {}).get(class_)
        if lane is None:
            return 0
        return sum(p.endpoint.state != "down" and p.endpoint.name not in tried for p in lane.all())

    # -- the slower ways ----------------------------------------------------------------------------------------------

    def _careful(self, lane: _Lane, first: Pick, second: Pick, exclude: Container[str], now_s: float) -> Pick | None:
        """The less strained of two usable draws; when chance does not bring any, the search does."""
        found = [pick for pick in (first, second) if _usable(pick, exclude, now_s)]
        draws = 0
        while not found and draws < _DRAWS:
            draws += 1
            at = self._draw() * lane.count
            i = int(at)
            pick = lane.picks[i] if at < lane.keep[i] else lane.other[i]
            if _usable(pick, exclude, now_s):
                found.append(pick)
        if not found:
            return self._search(lane, exclude, now_s)
        return min(found, key=lambda pick: pick.strain(now_s))

    def _search(self, lane: _Lane, exclude: Container[str], now_s: float) -> Pick | None:
        """By shares among all that are usable; then fallbacks in order; then, load failing open, the least bad."""
        usable = [pick for pick in lane.picks if _usable(pick, exclude, now_s)]
        if usable:
            upto = list(accumulate(pick.share for pick in usable))
            return usable[min(bisect_right(upto, self._draw() * upto[-1]), len(usable) - 1)]
        for pick in lane.rest:
            if _usable(pick, exclude, now_s) and pick.endpoint.state != "down":
                return pick
        left = [pick for pick in lane.all() if pick.endpoint.name not in exclude]
        return min(left, key=lambda pick: _badness(pick, now_s), default=None)

    def _sticky(self, lane: _Lane, key: str, exclude: Container[str], now_s: float) -> Pick | None:
        if lane.count:
            for _, number in zip(range(_WALK), lane.ring.walk(key), strict=False):
                if _usable(lane.picks[number], exclude, now_s):
                    return lane.picks[number]
        return self._search(lane, exclude, now_s)

    # -- adopting -----------------------------------------------------------------------------------------------------

    def _build(self, table: RoutingTable) -> None:
        self.endpoints = {described.name: self._kept(described) for described in table.endpoints}
        if not self._law.is_of(table):
            self._law = TableLaw(table)
        lanes: dict[str, dict[str, _Lane]] = {}
        breaches: list[tuple[Route, str]] = []
        for route in table.routes:
            lanes.setdefault(route.origin, {})[route.class_] = self._lane(route, breaches)
        self._lanes = lanes
        self._tell(breaches)

    def _lane(self, route: Route, breaches: list[tuple[Route, str]]) -> _Lane:
        """The route without what the table's own law forbids it, which is noted."""
        forbidden = self._law.forbidden(route)
        if not forbidden:
            return _Lane(route, self.endpoints)
        named = dict.fromkeys((*route.endpoints, *route.fallbacks))
        breaches += [(route, name) for name in named if name in forbidden]
        lane = _Lane(route, {name: local for name, local in self.endpoints.items() if name not in forbidden})
        if forbidden >= self.endpoints.keys():
            lane.closed = self._law.why(route)
        return lane

    def _tell(self, breaches: Sequence[tuple[Route, str]]) -> None:
        """Count what was left out, and say so when a table begins to be wrong."""
        service = self.table.service
        signals.UNLAWFUL.labels(service).inc(len(breaches))
        if breaches and not self._breached:
            route, name = breaches[0]
            signals.event(
                "table_breaks_law", "error", service=service, epoch=self.table.epoch, version=self.table.version,
                count=len(breaches), route=f"{route.class_}@{route.origin}", endpoint=name,
                rules=[denial.ref for denial in self._law.denials(route, name)],
            )  # fmt: skip
        self._breached = bool(breaches)

    def _kept(self, described: TableEndpoint) -> LocalEndpoint:
        known = self.endpoints.get(described.name)
        if known is None or known.url != described.url:
            # another address is another machine: what was seen of the old one says nothing of it
            return LocalEndpoint(described, self._rng)
        known.describe(described)
        return known


def _usable(pick: Pick, exclude: Container[str], now_s: float) -> bool:
    return pick.endpoint.name not in exclude and pick.endpoint.breaker.admits(now_s)


def _badness(pick: Pick, now_s: float) -> tuple[bool, bool, float, float]:
    """Smallest: not down by the table, no trial under way, soonest to be tried, least strained."""
    endpoint = pick.endpoint
    breaker = endpoint.breaker
    return (endpoint.state == "down", breaker.trial, breaker.open_until_s, pick.strain(now_s))
