"""A pretend gateway: the real picks of the real library, and what a gateway makes of failures.

    table ─► Picker ─► endpoint ─✗ breaker, streak, two probes, another endpoint: at most three, within a budget
                          └──► answered

Requests of a flow are picked for in few bundles, evenly by the table's shares (`chance`); how strained endpoints are is
worked out bundle by bundle, so that a bundle too many at one sends the next one to another, as single requests would.
What fails for everybody is known after the first few requests, or after as many as come until the first has timed out.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from math import ceil
from typing import Final

from router_sync.client import LocalEndpoint, Pick, Picker
from router_sync.client.breaker import STREAK
from router_sync.gateway.config import Probing, Retries
from router_sync.gateway.report import Standing
from streams.contract.records import HARD_ERRORS, ErrorKind, Route, RoutingTable
from streams.health_view import RATE_S
from tradewind.world.chance import Even, poisson
from tradewind.world.engine import Engine, Miss, Span
from tradewind.world.ground import Ground

RETRIES: Final = Retries()
PROBING: Final = Probing()
_SAVED_S: Final = 10.0
"""Of retries are saved up, as in `router_sync.gateway.budget`."""
GRAIN: Final = 0.05
"""A bundle is at most so much of what the smallest endpoint of its route can."""
LEAST_BUNDLES, MOST_BUNDLES = 4, 48
_PRIOR: Final = 2.0
"""Bundles that the table's shares stand for, when it is guessed what is in flight."""
_FEW: Final = 4
"""Of a bundle's outcomes so many are told to the breaker one by one."""


@dataclass(slots=True)
class Bundle:
    """So many requests of one flow that one gateway sends to one endpoint in one step."""

    gateway: Gateway
    flow: int
    end: int
    local: LocalEndpoint
    count: int
    waited_ms: float = 0.0
    """Lost at other endpoints before."""
    tried: tuple[str, ...] = ()
    trial: bool = False
    ok: int = 0


@dataclass(slots=True)
class Row:
    """What a gateway met at one endpoint with one flow in one step."""

    requests: int = 0
    ok: int = 0
    errors: dict[ErrorKind, int] = field(default_factory=dict)


@dataclass(slots=True)
class Counts:
    """Of one flow at one gateway in one step."""

    arrived: int = 0
    shed: int = 0
    failed: int = 0


class Gateway:
    """One gateway of `origin`."""

    def __init__(self, name: str, origin: str, ground: Ground, engine: Engine, seed: int) -> None:
        self.name, self.origin = name, origin
        self.ground, self.engine = ground, engine
        self._even, self._rng = Even(seed), random.Random(seed)
        self.now_s = 0.0
        self._rtt_ms = next(o.rtt_ms for o in ground.fleet.origins if o.name == origin)
        self.pickers: dict[str, Picker] = {}
        self._routes: dict[int, Route] = {}
        self._locals: dict[int, list[LocalEndpoint]] = {}
        """Endpoint to what is known of it here, by service."""
        self._standing: dict[str, Standing] = {}
        self._rps: dict[tuple[int, int], float] = {}
        """(flow, endpoint) to what is sent there from here: in this step as far as it has got, else in the last."""
        self._purse = RETRIES.budget_per_s * _SAVED_S
        self._blind: dict[int, int] = {}
        """Endpoint to the requests that it still gets in this step before its breaker can know."""
        self.rows: dict[tuple[int, int], Row] = {}
        self.counts: dict[int, Counts] = {}
        self.probes: dict[int, tuple[ErrorKind | None, int]] = {}
        """Endpoint to how its probes ended in this step, and how many they were."""

    # ------------------------------------------------------------ tables

    def adopt(self, table: RoutingTable) -> None:
        """Follow `table` from the next request on."""
        picker = self.pickers.get(table.service)
        if picker is None:
            self.pickers[table.service] = Picker(table, rng=self._even, clock=lambda: self.now_s)
        else:
            picker.adopt(table)
        at = self.ground.flow_at
        for route in table.routes:
            if route.origin == self.origin and (key := (table.service, route.origin, route.class_)) in at:
                self._routes[at[key]] = route
        self._locals = {n: self._known(end.name) for n, end in enumerate(self.ground.ends)}

    def _known(self, name: str) -> list[LocalEndpoint]:
        return [local for picker in self.pickers.values() if (local := picker.endpoints.get(name)) is not None]

    def standing(self, name: str) -> Standing:
        """How an endpoint stands with this gateway."""
        return self._standing.setdefault(name, Standing())

    # ------------------------------------------------------------ a step

    def begin(self, span: Span, arrived: int) -> None:
        """A step begins in which `arrived` requests come."""
        self.now_s = span.from_s
        self.rows, self.counts, self.probes, self._blind = {}, {}, {}, {}
        most = RETRIES.budget_per_s * _SAVED_S
        self._purse = min(most, self._purse) + RETRIES.budget_per_s * span.s + RETRIES.budget_share * arrived

    def ask(self, flow: int, count: int, draw: Callable[[int, float], int]) -> Iterator[Bundle]:
        """Send `count` requests of `flow`; `draw` draws how many of them are let in."""
        route = self._routes.get(flow)
        counts = self.counts[flow] = Counts(arrived=count)
        if route is None:
            self._lose(flow, count)
            return
        counts.shed = count - (draw(count, route.admit) if route.admit < 1.0 else count)
        yield from self._picked(flow, route, count - counts.shed)

    def _picked(self, flow: int, route: Route, count: int) -> Iterator[Bundle]:
        """Bundle by bundle; those that went the same way become one."""
        guess, bundles = _Guess(self, flow, route, count), self.bundles(route, count)
        same: dict[int, Bundle] = {}
        for n in range(bundles):
            for bundle in self._sent(flow, (count * (n + 1)) // bundles - (count * n) // bundles, 0.0, ()):
                guess.add(bundle.end, bundle.count)
                if bundle.trial or bundle.tried:
                    yield bundle
                elif bundle.end in same:
                    same[bundle.end].count += bundle.count
                else:
                    same[bundle.end] = bundle
        guess.keep()
        yield from same.values()

    def bundles(self, route: Route, count: int) -> int:
        """In how many bundles `count` requests go."""
        if len(route.endpoints) < 2:
            return min(1, count)
        ends = (self.ground.end_at[name] for name in route.endpoints)
        smallest = min(self.engine.states[end].capacity_rps for end in ends)
        wanted = count / self.engine.span.s / (GRAIN * max(smallest, 1.0))
        return min(count, max(LEAST_BUNDLES, min(MOST_BUNDLES, ceil(wanted))))

    def _sent(self, flow: int, count: int, waited_ms: float, tried: tuple[str, ...]) -> Iterator[Bundle]:
        """Where `count` requests go; what fails at once goes on to the next endpoint by itself."""
        known, left = self.ground.flows[flow], count
        while left:
            pick = self.pickers[known.service].pick(self.origin, known.class_.name, None, tried)
            if pick is None:
                self._lose(flow, left)
                return
            trial = pick.endpoint.breaker.enter()
            part = 1 if trial else left
            end = self.ground.end_at[pick.endpoint.name]
            sure = self.engine.sure(end, flow)
            if sure is None:
                yield Bundle(self, flow, end, pick.endpoint, part, waited_ms, tried, trial)
            else:
                part = min(part, self._unknowing(pick, flow, end, sure.ms))
                bundle = Bundle(self, flow, end, pick.endpoint, part, waited_ms, tried, trial)
                yield from self.again(Miss(bundle, sure.kind, part, sure.ms))
            left -= part

    def _unknowing(self, pick: Pick, flow: int, end: int, ms: float) -> int:
        """How many requests an endpoint that fails after `ms` gets at most; afterwards its breaker knows."""
        if pick.endpoint.breaker.shut:
            return max(1, self.counts[flow].arrived)
        if end not in self._blind:
            rate = self.counts[flow].arrived / self.engine.span.s
            self._blind[end] = STREAK + ceil(rate * pick.share * ms / 1000.0)
        return max(1, self._blind[end])

    def again(self, miss: Miss) -> Iterator[Bundle]:
        """Note a failure; its requests go to other endpoints where the budget and their number of attempts allow."""
        bundle = miss.bundle
        self._note(miss)
        tried = (*bundle.tried, bundle.local.name)
        granted = 0
        if len(tried) < RETRIES.attempts:
            granted = min(miss.count, int(self._purse))
            self._purse -= granted
        self._lose(bundle.flow, miss.count - granted)
        if granted:
            yield from self._sent(bundle.flow, granted, bundle.waited_ms + miss.ms, tried)

    def _note(self, miss: Miss) -> None:
        """What a failure does to the report, the breaker and the endpoint's standing here."""
        bundle, kind = miss.bundle, miss.kind
        row = self.row(bundle.flow, bundle.end)
        row.requests += miss.count
        row.errors[kind] = row.errors.get(kind, 0) + miss.count
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
        standing = self.standing(self.ground.ends[end].name)
        first = standing.streak == 0
        standing.hard(self.now_s, request=True)
        standing.streak += count - 1
        for _ in range(2 if first else 0):
            self._probe(end, 1)

    def _shake(self, local: LocalEndpoint, kind: ErrorKind, count: int, *, trial: bool = False) -> None:
        """Tell the breaker of failures; more than a few change nothing."""
        for n in range(min(_FEW, count)):
            if kind in HARD_ERRORS:
                local.breaker.hard(self.now_s, trial and n == 0)
            else:
                local.breaker.throttled(self.now_s, trial and n == 0)

    def row(self, flow: int, end: int) -> Row:
        """What was met at `end` with `flow` in this step."""
        return self.rows.setdefault((flow, end), Row())

    def _lose(self, flow: int, count: int) -> None:
        self.counts[flow].failed += count

    # ------------------------------------------------------------ what comes of it

    def answered(self, bundles: Iterable[Bundle], slowest: Callable[[int, int], float]) -> None:
        """The step is over, these were answered; `slowest(end, count)` draws the latency of the slowest of them."""
        self.now_s = self.engine.span.until_s
        self._learn_late()
        of: dict[int, list[Bundle]] = {}
        for bundle in bundles:
            row = self.row(bundle.flow, bundle.end)
            row.requests += bundle.ok
            row.ok += bundle.ok
            of.setdefault(bundle.end, []).append(bundle)
        for end, ended in of.items():
            self._well(end, ended, slowest)
        self._rps = {at: row.ok / self.engine.span.s for at, row in self.rows.items()}
        for end in {end for _, end in self._rps}:
            self.fly(end, self.sent_rps(end), self.engine.states[end].inside_ms)

    def _learn_late(self) -> None:
        """Who failed to the end of the step without a breaker's notice is noticed now."""
        for end, left in self._blind.items():
            if left > 0:
                for local in self._locals[end]:
                    self._shake(local, "first_byte_timeout", STREAK)

    def _well(self, end: int, bundles: list[Bundle], slowest: Callable[[int, int], float]) -> None:
        """One endpoint's answers, for breaker and strain: a usual one, the slowest one, and a few to be counted."""
        local, count = bundles[0].local, sum(bundle.ok for bundle in bundles)
        if not count:
            return
        rtt_ms = float(self.ground.rtt_ms[bundles[0].flow, end])
        usual_ms = rtt_ms + self.engine.states[end].inside_ms
        for ms in (usual_ms, rtt_ms + slowest(end, count)):
            local.in_flight += 1
            local.ok(self.now_s, ms, any(bundle.trial and bundle.ok for bundle in bundles))
        for _ in range(min(_FEW, count) - 2):
            local.breaker.good(self.now_s)
        self.standing(local.name).ok(self.now_s)

    def sent_rps(self, end: int) -> float:
        """What is sent to an endpoint from here, of all flows."""
        return sum(rps for (_, at), rps in self._rps.items() if at == end)

    def fly(self, end: int, rps: float, inside_ms: float) -> None:
        """Have as many requests in flight at an endpoint as Little's law says, give or take chance."""
        whole = poisson(self._rng, self.in_flight(end, rps, inside_ms))
        for local in self._locals[end]:
            local.in_flight = whole

    def in_flight(self, end: int, rps: float, inside_ms: float) -> float:
        """Requests in flight from here at an endpoint that is sent `rps`."""
        return rps * (self._rtt_ms[self.ground.ends[end].region] + inside_ms) / 1000.0

    def flying(self, end: int) -> int:
        """Requests in flight at an endpoint, as they are reported."""
        return round(self.in_flight(end, self.sent_rps(end), self.engine.states[end].inside_ms))

    def flow_rps(self, flow: int) -> dict[int, float]:
        """What a flow is sent from here, by endpoint."""
        return {end: rps for (of, end), rps in self._rps.items() if of == flow}

    def redirect(self, flow: int, sent: dict[int, float]) -> None:
        """From now on `flow` is sent so much to each endpoint."""
        for end, rps in self.flow_rps(flow).items():
            del self._rps[flow, end]
            self.engine.states[end].expected_rps -= rps
        for end, rps in sent.items():
            self._rps[flow, end] = rps
            self.engine.states[end].expected_rps += rps

    # ------------------------------------------------------------ probes

    def probe(self, span: Span) -> None:
        """Ask for the health of those that nothing was heard of, and of those that are held to be down.

        Of a long step the probes of its last seconds: only they are looked at in rates.
        """
        times = max(1, round(min(span.s, RATE_S) / PROBING.every_s))
        for end, locals_ in self._locals.items():
            if locals_ and self._wanted(end, locals_):
                self._probe(end, times)

    def _wanted(self, end: int, locals_: list[LocalEndpoint]) -> bool:
        if self.standing(self.ground.ends[end].name).streak or any(
            local.state == "down" or local.breaker.shut for local in locals_
        ):
            return True
        return all(self.now_s - local.heard_at_s >= PROBING.quiet_s for local in locals_)

    def _probe(self, end: int, times: int) -> None:
        kind, name = self.engine.probed(end), self.ground.ends[end].name
        standing, locals_ = self.standing(name), self._locals[end]
        for _ in range(min(times, standing.needed) if kind is None else 1):
            if kind is None:
                standing.probe_ok(self.now_s)
            else:
                standing.hard(self.now_s)
            for local in locals_:
                local.probed(self.now_s, kind is None)
        self.probes[end] = kind, self.probes.get(end, (kind, 0))[1] + times


class _Guess:
    """Guesses, bundle by bundle, how full and how slow the endpoints of a route are, of all that is sent to them."""

    def __init__(self, gateway: Gateway, flow: int, route: Route, count: int) -> None:
        self._gateway, self._engine, self._flow, self._rate = (
            gateway,
            gateway.engine,
            flow,
            count / gateway.engine.span.s,
        )
        gateway.redirect(flow, {})
        at = gateway.ground.end_at
        self._shares = {at[name]: share for name, share in zip(route.endpoints, route.shares, strict=True)}
        self._others = {end: gateway.sent_rps(end) for end in self._shares}
        self._each = count / max(1, gateway.bundles(route, count))
        self._sent = dict.fromkeys(self._shares, 0)
        self._all = 0
        for end in self._shares if len(self._shares) > 1 else ():
            self._fly(end)

    def _fly(self, end: int) -> None:
        """Have in flight what the bundles so far say; at first what the shares say."""
        prior = _PRIOR * self._each
        rps = self._rate * (self._sent[end] + prior * self._shares[end]) / (self._all + prior)
        inside_ms = self._engine.median_ms(end, self._engine.states[end].expected_rps + rps)
        self._gateway.fly(end, self._others[end] + rps, inside_ms)

    def add(self, end: int, count: int) -> None:
        """A bundle of so many went there."""
        self._all += count
        self._sent[end] = self._sent.get(end, 0) + count
        if len(self._shares) > 1 and end in self._shares:
            self._fly(end)

    def keep(self) -> None:
        """All of the flow was sent as it was."""
        share = self._rate / max(1, self._all)
        self._gateway.redirect(self._flow, {end: share * count for end, count in self._sent.items() if count})
