"""The loop: a step of the world, what is said of it, what is decided, and the next step.

    arrivals ─► gateways ─► endpoints ─► ledger
                   ▲            │
                   │ tables     │ reports, prices, carbon, notices, capacity, jobs
                   └── brain ◄──┘

Gateways follow in a step what was decided by its beginning; decisions know what was reported by then.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from heapq import heappop, heappush
from itertools import count as numbers
from typing import Final

import numpy as np

from streams.contract.records import Capacity, Record, RoutingTable
from tradewind.world.brain import Brain, Said, View
from tradewind.world.demand import Arrivals
from tradewind.world.engine import Engine, Span, loads
from tradewind.world.gateway import Gateway
from tradewind.world.ground import ground
from tradewind.world.ledger import Ledger
from tradewind.world.market import Market, Told
from tradewind.world.oracle import Oracle
from tradewind.world.pace import Pace
from tradewind.world.replicas import Replicas
from tradewind.world.reports import Reporter
from tradewind.world.setup import Setup
from tradewind.world.timeline import Timeline
from tradewind.world.traffic import Step, Traffic
from tradewind.world.work import Work

EARLY_S: Final = 0.05
"""Before a step's end its reports are on the topics, where they come without delay."""
FULL: Final = 0.83
"""Load from which on an endpoint is nearly full: latency grows steeply there."""
TROUBLE: Final = 0.01
"""Of a step's requests shed or failed: when that begins or ends, the next steps are short."""


class World:
    """A world from `setup.start_s` to `end_s`, and its accounts; `brain` decides."""

    def __init__(self, setup: Setup, brain: Brain, end_s: float, *, hindsight: bool = False) -> None:
        self.setup, self.brain, self.end_s = setup, brain, end_s
        self.now_s = setup.start_s
        self.steps = 0
        self.ground = ground(setup.fleet)
        chances = np.random.default_rng(setup.seed).spawn(7)
        self.arrivals = Arrivals(setup.demand, setup.start_s, chances[0])
        self.market = Market(self.ground, chances[1], setup.price, setup.carbon)
        self.replicas = Replicas(self.ground, setup.lending, chances[2], setup.cold_start_s)
        self.engine = Engine(self.ground, self.replicas, setup.faults, chances[3])
        self.gateways = [
            Gateway(f"gw-{origin.name}-{n}", origin.name, self.ground, self.engine, chance)
            for origin in setup.fleet.origins
            for n, chance in enumerate(chances[6].spawn(setup.gateways), 1)
        ]
        self.ledger = Ledger(self.ground, self.market, setup.start_s, end_s)
        self.work = Work(self.ground, setup.work)
        self.timeline = Timeline()
        self._traffic = Traffic(self.ground, self.engine, self.gateways, self.ledger, chances[4])
        self._reporter = Reporter(self.ground, self.engine, chances[5], setup.slot_s)
        self._oracle = Oracle(self.ground, setup.demand) if hindsight else None
        self._pace = Pace(setup.moments(), setup.start_s, setup.calm_s)
        self._outbox: list[tuple[float, int, Record]] = []
        self._number = numbers()
        self._tables: list[tuple[float, RoutingTable]] = []
        """Tables on their way to the gateways: when they are there."""
        self._notes = sorted(setup.notes, reverse=True)
        self._ready = [pool.ready for pool in self.replicas.pools]
        self._troubled = False
        self._open()

    def _open(self) -> None:
        """What there is is told, and a first table made."""
        self._post(self.market.told(self.now_s, self.now_s + 1e-3, first=True))
        before = Span(self.now_s - 1.0, self.now_s)
        flows, ends = self.ground.rtt_ms.shape
        self.engine.begin(before)
        self._decide(Step(before, np.zeros(flows, np.int64), np.zeros((flows, ends), np.int64)))

    def live(self) -> Iterator[float]:
        """Live to the end, step by step: where it stands after each."""
        while self.now_s < self.end_s:
            soonest_s = min(self.replicas.next_s(self.now_s), self.end_s)
            step_s = self._pace.step_s(self.now_s, soonest_s, strained=max(loads(self.engine)) > FULL)
            self._live(Span(self.now_s, self.now_s + step_s))
            yield self.now_s

    def _live(self, span: Span) -> None:
        self.steps += 1
        self._note(span.from_s)
        self.replicas.advance(span.from_s)
        self._adopt(span.from_s)
        self.engine.begin(span)
        step = self._traffic.carry(span, self.arrivals.between(*span), self.work.due(span))
        self.engine.end()
        self.ledger.pay(span, self.engine, step.answered, loads(self.engine))
        self.now_s = span.until_s
        self._post(self._said(span))
        self._decide(step)

    # ------------------------------------------------------------ told

    def _said(self, span: Span) -> Iterator[Told]:
        """All that the world says of a step, each with the time at which it is on the topics."""
        since_s = span.from_s + 1e-3
        yield from self.market.told(since_s, span.until_s + 1e-3)
        yield from self.replicas.notices(since_s, span.until_s + 1e-3)
        yield from self.work.told(span.from_s, span.until_s)
        if self._oracle is not None:
            yield from self._oracle.told(span.from_s, span.until_s)
        lag_s = self.setup.report_delay_s
        written_s = span.until_s - EARLY_S - min(lag_s, span.s - 1.0)
        for gateway in self.gateways:
            for record in self._reporter.said(gateway, span, written_s):
                yield written_s + lag_s, record

    def _post(self, told: Iterable[Told]) -> None:
        for at_s, record in told:
            heappush(self._outbox, (at_s, next(self._number), record))

    def _due(self) -> list[Told]:
        due = []
        while self._outbox and self._outbox[0][0] <= self.now_s:
            at_s, _, record = heappop(self._outbox)
            due.append((at_s, record))
        return due

    # ------------------------------------------------------------ decided

    def _decide(self, step: Step) -> None:
        """Tell the brain what is due, and take what it says."""
        for record in self.replicas.capacity(self.now_s):
            self._post([(self.now_s, record)])
            self._note_capacity(record)
        said = self.brain.live(self._due(), self.now_s, step.span.s, self._view(step))
        for plan in said.plans:
            self.replicas.obey(plan)
        for release in said.releases:
            self.work.hear(release, self.now_s)
            if release.released:
                self.timeline.happened(self.now_s, "work", f"{release.job} released: {release.reason}")
        changed = self._take(said)
        troubled = step.trouble > TROUBLE * max(1, int(step.asked.sum()))
        if changed or troubled != self._troubled:
            self._pace.disturb(self.now_s)
        self._troubled = troubled

    def _take(self, said: Said) -> bool:
        """Send tables on their way; whether an endpoint's state has changed in one."""
        changed = False
        for table in said.tables:
            self._tables.append((self.now_s + self.setup.table_delay_s, table))
            moment = self.timeline.table(table, said.decisions)
            changed |= moment is not None and bool(moment.states)
        return changed

    def _adopt(self, now_s: float) -> None:
        due = [table for at_s, table in self._tables if at_s <= now_s]
        self._tables = [(at_s, table) for at_s, table in self._tables if at_s > now_s]
        for gateway in self.gateways:
            for table in due:
                gateway.sight.adopt(table)

    def _view(self, step: Step) -> View:
        pools = self.replicas.pools
        return View(
            ground=self.ground,
            now_s=self.now_s,
            rps=step.asked / step.span.s,
            inside_ms=np.array([state.inside_ms for state in self.engine.states]),
            load=np.array(loads(self.engine)),
            ready=[pool.ready for pool in pools],
            starting=[len(pool.starting) for pool in pools],
            up=[self.engine.probed(n) is None for n in range(len(pools))],
            usd_per_h=self.market.usd_per_h(self.now_s),
            g_per_kwh=self.market.g_per_kwh(self.now_s),
        )

    # ------------------------------------------------------------ noted

    def _note(self, now_s: float) -> None:
        while self._notes and self._notes[-1][0] <= now_s:
            self.timeline.happened(*self._notes.pop())

    def _note_capacity(self, record: Capacity) -> None:
        n = self.ground.pool_at[record.pool]
        if record.ready != self._ready[n]:
            before, self._ready[n] = self._ready[n], record.ready
            starting = f", {record.starting} starting" if record.starting else ""
            says = f"{self.ground.ends[n].name}: {before} -> {record.ready} replicas ready{starting}"
            self.timeline.happened(self.now_s, "capacity", says)
