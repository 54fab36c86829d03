"""A pretend gateway: the real picks of the real library, and what a gateway makes of failures.

    table ─► Picker ─► endpoint ─✗ breaker, streak, two probes, another endpoint: at most three, within a budget
                          └──► answered

Requests of a flow are picked for in few bundles, evenly by the table's shares (`chance`), each at the strain that those
before it left behind (`flying`). What fails for everybody is known after the first few requests, or after as many as
come until the first has timed out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final

from router_sync.client import Pick
from router_sync.gateway.config import Retries
from streams.contract.records import Route
from tradewind.world.bundle import Bundle, Counts, Miss, Row
from tradewind.world.engine import Engine, Span
from tradewind.world.flying import Flying, Guess
from tradewind.world.ground import Ground
from tradewind.world.sight import Sight

RETRIES: Final = Retries()
_SAVED_S: Final = 10.0
"""Of retries are saved up, as in `router_sync.gateway.budget`."""
MOST_SAVED: Final = RETRIES.budget_per_s * _SAVED_S


class Gateway:
    """One gateway of `origin`."""

    def __init__(self, name: str, origin: str, ground: Ground, engine: Engine, seed: int) -> None:
        self.name, self.origin = name, origin
        self.sight = Sight(origin, ground, engine, seed)
        self.flying = Flying(origin, ground, engine, self.sight, seed)
        self.rows: dict[tuple[int, int], Row] = {}
        """By (flow, endpoint)."""
        self.counts: dict[int, Counts] = {}
        """By flow."""
        self._ground, self._engine = ground, engine
        self._purse = MOST_SAVED

    def begin(self, span: Span, arrived: int) -> None:
        """A step begins in which `arrived` requests come."""
        self.sight.begin(span.from_s)
        self.rows, self.counts = {}, {}
        self._purse = min(MOST_SAVED, self._purse) + RETRIES.budget_per_s * span.s + RETRIES.budget_share * arrived

    # ------------------------------------------------------------ asked

    def ask(self, flow: int, count: int, draw: Callable[[int, float], int]) -> Iterator[Bundle]:
        """Send `count` requests of `flow`; `draw` draws how many of them are let in."""
        route = self.sight.routes.get(flow)
        counts = self.counts[flow] = Counts(arrived=count)
        if route is None:
            counts.failed += count
            return
        counts.shed = count - (draw(count, route.admit) if route.admit < 1.0 else count)
        yield from self._picked(flow, route, count - counts.shed)

    def _picked(self, flow: int, route: Route, count: int) -> Iterator[Bundle]:
        """Bundle by bundle; those that went the same way become one."""
        guess, same = Guess(self.flying, flow, route, count), dict[int, Bundle]()
        for n in range(guess.bundles):
            part = (count * (n + 1)) // guess.bundles - (count * n) // guess.bundles
            for bundle in self._sent(flow, part, 0.0, ()):
                guess.add(bundle.end, bundle.count)
                if bundle.trial or bundle.tried:
                    yield bundle
                elif bundle.end in same:
                    same[bundle.end].count += bundle.count
                else:
                    same[bundle.end] = bundle
        guess.keep()
        yield from same.values()

    def _sent(self, flow: int, count: int, waited_ms: float, tried: tuple[str, ...]) -> Iterator[Bundle]:
        """Where `count` requests go; what fails at once goes on to the next endpoint by itself."""
        known, left = self._ground.flows[flow], count
        picker = self.sight.pickers[known.service]
        while left:
            pick = picker.pick(self.origin, known.class_.name, None, tried)
            if pick is None:
                self.counts[flow].failed += left
                return
            end, trial = self._ground.end_at[pick.endpoint.name], pick.endpoint.breaker.enter()
            bundle = Bundle(self, flow, end, pick.endpoint, 1 if trial else left, waited_ms, tried, trial)
            yield from self._met(bundle, pick)
            left -= bundle.count

    def _met(self, bundle: Bundle, pick: Pick) -> Iterator[Bundle]:
        """The bundle itself; or, where all fail, what becomes of as many as go there before that is known."""
        sure = self._engine.sure(bundle.end, bundle.flow)
        if sure is None:
            yield bundle
            return
        rps = self.counts[bundle.flow].arrived / self._engine.span.s * (pick.share or 1.0)
        bundle.count = min(bundle.count, self.sight.unknowing(bundle.local, bundle.end, rps, sure.ms))
        yield from self.again(Miss(bundle, sure.kind, bundle.count, sure.ms))

    # ------------------------------------------------------------ failed, answered

    def again(self, miss: Miss) -> Iterator[Bundle]:
        """Note a failure; its requests go to other endpoints where the budget and their number of attempts allow."""
        bundle = miss.bundle
        self.row(bundle.flow, bundle.end).failed(miss.kind, miss.count)
        self.sight.failed(miss)
        tried = (*bundle.tried, bundle.local.name)
        granted = min(miss.count, int(self._purse)) if len(tried) < RETRIES.attempts else 0
        self._purse -= granted
        self.counts[bundle.flow].failed += miss.count - granted
        if granted:
            yield from self._sent(bundle.flow, granted, bundle.waited_ms + miss.ms, tried)

    def row(self, flow: int, end: int) -> Row:
        """What was met at `end` with `flow` in this step."""
        return self.rows.setdefault((flow, end), Row())

    def answered(self, bundles: Iterable[Bundle], slowest: Callable[[int, int], float]) -> None:
        """The step is over, these were answered; `slowest(end, count)` draws the latency of the slowest of them."""
        self.sight.now_s = self._engine.span.until_s
        self.sight.learn_late()
        of: dict[int, list[Bundle]] = {}
        for bundle in bundles:
            self.row(bundle.flow, bundle.end).answered(bundle.ok)
            if bundle.ok:
                of.setdefault(bundle.end, []).append(bundle)
        for end, ended in of.items():
            rtt_ms = float(self._ground.rtt_ms[ended[0].flow, end])
            latencies_ms = self._engine.states[end].inside_ms, slowest(end, sum(bundle.ok for bundle in ended))
            usual_ms, slowest_ms = (rtt_ms + ms for ms in latencies_ms)
            trial = any(bundle.trial for bundle in ended)
            self.sight.well(end, ended[0].local, (usual_ms, slowest_ms), trial=trial)
        self.flying.settle(self.rows)
