"""A pretend gateway: the real picks of the real library, and what a gateway makes of failures.

table ─► window: requests picked for, one by one ─► splits ─► bundles ─► endpoints ─► answered
                                                                 ▲           │
                                                                 └─ another ─┘ failed: at most three, in a budget
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final

from numpy.random import Generator

from router_sync.gateway.config import Retries
from tradewind.world.bundle import Bundle, Counts, Miss, Row
from tradewind.world.engine import Engine, Span
from tradewind.world.ground import Ground
from tradewind.world.sight import Sight
from tradewind.world.splits import Splits
from tradewind.world.window import Seen, Window

RETRIES: Final = Retries()
_SAVED_S: Final = 10.0
"""Of retries are saved up, as in `router_sync.gateway.budget`."""
MOST_SAVED: Final = RETRIES.budget_per_s * _SAVED_S


class Gateway:
    """One gateway of `origin`."""

    def __init__(self, name: str, origin: str, ground: Ground, engine: Engine, rng: Generator) -> None:
        self.name, self.origin = name, origin
        self.sight = Sight(origin, ground, engine, rng)
        self.rows: dict[tuple[int, int], Row] = {}
        """By (flow, endpoint)."""
        self.counts: dict[int, Counts] = {}
        """By flow."""
        self._ground, self._engine, self._rng = ground, engine, rng
        self._window, self._splits = Window(ground, engine, self.sight, rng), Splits(ground, engine)
        self._rtt_ms = next(o.rtt_ms for o in ground.fleet.origins if o.name == origin)
        self._purse = MOST_SAVED

    # ------------------------------------------------------------ asked

    def send(self, span: Span, asked: Mapping[int, int], draw: Callable[[int, float], int]) -> Iterator[Bundle]:
        """Send the requests of a step, by flow; `draw` draws how many of them are let in."""
        self.sight.begin(span.from_s)
        self.rows, self.counts = {}, {flow: Counts(arrived=count) for flow, count in asked.items()}
        earned = RETRIES.budget_per_s * span.s + RETRIES.budget_share * sum(asked.values())
        self._purse = min(MOST_SAVED, self._purse) + earned
        let_in = {flow: n for flow, count in asked.items() if (n := self._let_in(flow, count, draw))}
        self._splits.only(let_in)
        for flow, count in let_in.items():
            self._splits.expect(flow, self.sight.routes[flow], count / span.s)
        seen = self._window.live(let_in, span.until_s)
        for flow, count in let_in.items():
            yield from self._parted(flow, count, seen)

    def _let_in(self, flow: int, count: int, draw: Callable[[int, float], int]) -> int:
        """How many of `count` requests are not shed; those without a route fail."""
        route, counts = self.sight.routes.get(flow), self.counts[flow]
        if route is None:
            counts.failed += count
            return 0
        let_in = draw(count, route.admit) if route.admit < 1.0 else count
        counts.shed = count - let_in
        return let_in

    def _parted(self, flow: int, count: int, seen: Seen) -> Iterator[Bundle]:
        """The requests of a flow in bundles, as they went in the window; what fails at once goes elsewhere."""
        left, met, missed = count, seen.met.get(flow, {}), seen.missed.get(flow, {})
        for end, times in missed.items():
            part = min(left, times)
            left -= part
            yield from self._failed_at_once(Bundle(self, flow, end, self.sight.local(flow, end), part))
        shut = {*missed, *(end for end in self.sight.shut(flow) if end not in met)}
        self._splits.learn(flow, met, shut, left, left / self._engine.span.s)
        parts = list(self._splits.parts(flow, left, float(self._rng.random())))
        yield from (Bundle(self, flow, end, self.sight.local(flow, end), part) for end, part in parts)
        self.counts[flow].failed += left - sum(part for _, part in parts)

    def _failed_at_once(self, bundle: Bundle) -> Iterator[Bundle]:
        sure = self._engine.sure(bundle.end, bundle.flow)
        if sure is not None and bundle.count:
            yield from self.again(Miss(bundle, sure.kind, bundle.count, sure.ms))

    # ------------------------------------------------------------ failed, answered

    def again(self, miss: Miss) -> Iterator[Bundle]:
        """Note a failure; its requests go to another endpoint where the budget and the number of attempts allow."""
        bundle = miss.bundle
        self.row(bundle.flow, bundle.end).failed(miss.kind, miss.count)
        self.sight.failed(miss)
        tried = (*bundle.tried, bundle.local.name)
        granted = min(miss.count, int(self._purse)) if len(tried) < RETRIES.attempts else 0
        known = self._ground.flows[bundle.flow]
        pick = self.sight.pickers[known.service].pick(self.origin, known.class_.name, None, tried) if granted else None
        granted = granted if pick is not None else 0
        self._purse -= granted
        self.counts[bundle.flow].failed += miss.count - granted
        if pick is not None:
            end, waited_ms = self._ground.end_at[pick.endpoint.name], bundle.waited_ms + miss.ms
            other = Bundle(self, bundle.flow, end, pick.endpoint, granted, waited_ms, tried)
            yield from [other] if self._engine.sure(end, bundle.flow) is None else self._failed_at_once(other)

    def row(self, flow: int, end: int) -> Row:
        """What was met at `end` with `flow` in this step."""
        return self.rows.setdefault((flow, end), Row())

    def answered(self, bundles: Iterable[Bundle]) -> None:
        """The step is over, these were answered."""
        self.sight.now_s = self._engine.span.until_s
        for bundle in bundles:
            self.row(bundle.flow, bundle.end).answered(bundle.ok)
            if bundle.ok:
                self.sight.well(bundle.end)

    def in_flight(self, end: int) -> int:
        """Requests in flight at an endpoint from here, by Little's law."""
        answered = sum(row.ok for (_, at), row in self.rows.items() if at == end) / self._engine.span.s
        held_ms = self._rtt_ms[self._ground.ends[end].region] + self._engine.states[end].inside_ms
        return round(answered * held_ms / 1000.0)
