"""What endpoints do with what they are sent in one step: answer, later the fuller they are; refuse; fail; hang.

    sent ─► faults ─► room left? ── no ──► 429, or a time-out      taken ─► too long, by chance? ──► time-out
                                                                     └──► answered

The p95 inside grows with load as the curve fitted to a load test does: what is declared + 6·x/(1-x) ms, x = 1.15·load
(`tradewind.pretend.curve`). What is sent beyond capacity waits: as many as the declared concurrency holds, the others
are refused; or as many as are served before gateways give up on them, the others leave the queue without having been
worked on. Latencies of single requests lie around a median, lognormally.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import erfc, exp, log, sqrt
from typing import Final, Literal, NamedTuple

from numpy.random import Generator

from router_sync.gateway.config import Deadlines
from streams.contract.records import ErrorKind
from tradewind.pretend import curve
from tradewind.world.bundle import Bundle, Miss
from tradewind.world.ground import Ground
from tradewind.world.replicas import Pool, Replicas

FaultKind = Literal["dead", "refusing", "hanging", "slow", "partial"]
SPREAD: Final = 0.25
"""Standard deviation of the logarithm of one request's latency."""
P95: Final = 1.645
TAIL: Final = exp(P95 * SPREAD)
"""p95 over median."""
LOAD_S: Final = 3.0
"""Load is felt over this long: the curve was fitted to minutes, and has the chance of single seconds in it."""
WANDER: Final = 0.03
"""Of an endpoint's median, from one half minute to the next."""
WANDER_S: Final = 30.0
DEADLINES: Final = Deadlines()
_LEAST: Final = 1e-9


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with some endpoints for a while. `value`: how many times slower; or the share that fails."""

    ends: tuple[int, ...]
    from_s: float
    until_s: float
    kind: FaultKind
    value: float = 1.0


class Sure(NamedTuple):
    """A failure that every request meets, and after how long."""

    kind: ErrorKind
    ms: float


class Span(NamedTuple):
    """One step."""

    from_s: float
    until_s: float

    @property
    def s(self) -> float:
        return self.until_s - self.from_s


@dataclass(slots=True)
class _State:
    """One endpoint in this step."""

    capacity_rps: float = 0.0
    most_waiting: float = 0.0
    impatient: bool = False
    """Whether it is patience that limits the queue, not concurrency."""
    waiting: float = 0.0
    """In the queue when the step began."""
    taken: int = 0
    refused: int = 0
    room: float = 0.0
    inside_ms: float = 0.0
    """The median, waiting included."""
    felt_rps: float = 0.0
    """What was sent of late."""
    expected_rps: float = 0.0
    """What gateways send there: in this step those that have begun it, the others as in the last."""
    wander: float = 0.0
    factor: float = 1.0
    """Of the p95 in this step: the median over it, trembling, times slower by a fault."""
    sure: FaultKind | None = None
    slower: float = 1.0
    failing: float = 0.0
    """Share of requests, by a fault."""
    losing: float = 0.0
    """Share of requests that there was no room for in the last step."""
    lost_by: ErrorKind = "http_429"


@dataclass(slots=True)
class Engine:
    """All endpoints. `begin` a step, `meet` what is sent in it, as often as requests are tried again, `end` it."""

    ground: Ground
    replicas: Replicas
    faults: Sequence[Fault]
    rng: Generator
    span: Span = field(init=False)
    states: list[_State] = field(init=False)
    _keep: float = field(init=False)
    _patience_ms: dict[str, float] = field(init=False)
    """Endpoint to how long an answer may take inside before the least patient of its gateways gives up."""

    def __post_init__(self) -> None:
        self.span, self._keep = Span(0.0, 1.0), 0.0
        self._patience_ms = {end.name: self._patience(n) for n, end in enumerate(self.ground.ends)}
        self.states = [_State(inside_ms=end.latency_ms / TAIL) for end in self.ground.ends]

    def _patience(self, n: int) -> float:
        flows = [f for f in range(len(self.ground.flows)) if (f, n) not in self.ground.forbidden]
        return min((self.deadline_ms(f) - float(self.ground.rtt_ms[f, n]) for f in flows), default=0.0)

    def begin(self, span: Span) -> None:
        """Know who can take how much in the step `span`, and who fails."""
        self.span, self._keep = span, exp(-span.s / LOAD_S)
        self._wander(span)
        for state, pool in zip(self.states, self.replicas.pools, strict=True):
            state.capacity_rps = pool.ready * pool.end.capacity_rps
            self._queue(state, pool)
            state.room = state.capacity_rps * span.s + state.most_waiting - state.waiting
            state.taken, state.refused = 0, 0
            state.sure, state.slower, state.failing = None if pool.ready else "refusing", 1.0, 0.0
        for fault in self.faults:
            if fault.from_s < span.until_s and span.from_s < fault.until_s:
                self._strike(fault)
        for state in self.states:
            state.factor = state.slower * exp(state.wander) / TAIL

    def _queue(self, state: _State, pool: Pool) -> None:
        """How many may wait at an endpoint."""
        end = pool.end
        held = pool.ready * max(0.0, end.concurrency - end.capacity_rps * end.latency_ms / 1000.0)
        patience_ms = self._patience_ms[end.name] - curve.ttft_ms(end.latency_ms, 1.0)
        served = state.capacity_rps * max(0.0, patience_ms) / 1000.0
        state.most_waiting, state.impatient = min(held, served), served < held

    def _strike(self, fault: Fault) -> None:
        for state in (self.states[n] for n in fault.ends):
            if fault.kind == "slow":
                state.slower *= fault.value
            elif fault.kind == "partial":
                state.failing = max(state.failing, fault.value)
            else:
                state.sure = fault.kind

    def _wander(self, span: Span) -> None:
        """Medians tremble slowly, so that equal endpoints are never quite equal."""
        keep = exp(-span.s / WANDER_S)
        moves = self.rng.standard_normal(len(self.states)) * WANDER * sqrt(1.0 - keep**2)
        for state, move in zip(self.states, moves.tolist(), strict=True):
            state.wander = keep * state.wander + move

    def median_ms(self, n: int, rps: float) -> float:
        """The median inside endpoint `n` when it is sent `rps` for all of the step, waiting included."""
        state, end = self.states[n], self.ground.ends[n]
        capacity = max(state.capacity_rps, _LEAST)
        felt = rps + (state.felt_rps - rps) * self._keep
        median_ms = curve.ttft_ms(end.latency_ms, felt / capacity) * state.factor
        if state.waiting <= 0.0 and rps <= capacity:
            return median_ms
        left = min(max(0.0, state.waiting + (rps - capacity) * self.span.s), state.most_waiting)
        return median_ms + 500.0 * (state.waiting + left) / capacity

    def _time(self, n: int) -> None:
        """The median inside endpoint `n` at what it has taken so far."""
        state = self.states[n]
        state.inside_ms = self.median_ms(n, state.taken / self.span.s) if state.capacity_rps else 0.0

    def end(self) -> None:
        """What waits still, waits on."""
        for n, state in enumerate(self.states):
            left = state.waiting + state.taken - state.capacity_rps * self.span.s
            state.waiting = min(max(0.0, left), state.most_waiting)
            if not state.taken:
                self._time(n)
            rps = state.taken / self.span.s
            state.felt_rps = rps + (state.felt_rps - rps) * self._keep
            state.losing = state.refused / max(1, state.refused + state.taken)

    # ------------------------------------------------------------ asked by gateways

    def sure(self, n: int, flow: int) -> Sure | None:
        """How every request of `flow` fails at endpoint `n`; None: not every one does."""
        kind, rtt_ms = self.states[n].sure, float(self.ground.rtt_ms[flow, n])
        if kind is None:
            return None
        if kind == "hanging":
            return Sure("first_byte_timeout", self.deadline_ms(flow))
        return Sure("connect", DEADLINES.connect_s * 1000.0 if kind == "dead" else rtt_ms)

    def fate(self, n: int, flow: int, inside_ms: float, chance: float) -> tuple[ErrorKind | None, float]:
        """How one request of `flow` fares at endpoint `n`, and after how many ms; None: it is answered.

        It takes `inside_ms` there; `chance` is a number in [0, 1).
        """
        state = self.states[n]
        ms = float(self.ground.rtt_ms[flow, n]) + inside_ms
        if chance < max(state.failing, state.losing):
            return ("http_5xx", ms) if state.failing >= state.losing else (state.lost_by, ms)
        return (None, ms) if ms < self.deadline_ms(flow) else ("first_byte_timeout", self.deadline_ms(flow))

    def probed(self, n: int) -> ErrorKind | None:
        """How a probe of endpoint `n` fails; None: it is answered."""
        kind = self.states[n].sure
        return None if kind is None else "first_byte_timeout" if kind == "hanging" else "connect"

    def deadline_ms(self, flow: int) -> float:
        """How long a gateway waits for the first byte: by the class's SLO."""
        wanted_s = max(DEADLINES.first_byte_floor_s, DEADLINES.slo_factor * float(self.ground.slo_ms[flow]) / 1000.0)
        return 1000.0 * min(DEADLINES.first_byte_s, wanted_s)

    def meet(self, bundles: Iterable[Bundle]) -> list[Miss]:
        """Take what there is room for, and say what failed. What was answered stands in each bundle's `ok`."""
        misses: list[Miss] = []
        of: dict[int, list[Bundle]] = {}
        for bundle in bundles:
            of.setdefault(bundle.end, []).append(bundle)
        for n, sent in sorted(of.items()):
            misses += self._broken(n, sent)
            misses += self._refused(n, sent)
            self._time(n)
            misses += self._late(n, sent)
        return [miss for miss in misses if miss.count]

    def _broken(self, n: int, sent: list[Bundle]) -> Iterable[Miss]:
        """A partial fault: some get a 5xx, whatever they are."""
        failing = self.states[n].failing
        for bundle in sent:
            bundle.ok = bundle.count - (int(self.rng.binomial(bundle.count, failing)) if failing else 0)
            yield Miss(bundle, "http_5xx", bundle.count - bundle.ok, self.states[n].inside_ms)

    def _refused(self, n: int, sent: list[Bundle]) -> Iterable[Miss]:
        """What there is no room for is refused or waits in vain, of each bundle as great a part."""
        state = self.states[n]
        kind: ErrorKind = "first_byte_timeout" if state.impatient else "http_429"
        wanted = sum(bundle.ok for bundle in sent)
        room = max(0, int(state.room) - state.taken)
        state.refused += max(0, wanted - room)
        state.lost_by = kind
        if wanted > room:
            passed = 0.0
            for bundle in sent:
                before, passed = int(passed), passed + bundle.ok * room / wanted
                taken = int(passed + 1e-9) - before
                ms = self.deadline_ms(bundle.flow) if state.impatient else 0.0
                yield Miss(bundle, kind, bundle.ok - taken, ms)
                bundle.ok = taken
        state.taken += min(wanted, room)

    def _late(self, n: int, sent: list[Bundle]) -> Iterable[Miss]:
        """What takes longer than gateways wait has been worked on in vain."""
        for bundle in sent:
            deadline_ms = self.deadline_ms(bundle.flow)
            rtt_ms = float(self.ground.rtt_ms[bundle.flow, n])
            count = self.beyond(n, deadline_ms - rtt_ms, bundle.ok)
            bundle.ok -= count
            yield Miss(bundle, "first_byte_timeout", count, deadline_ms)

    def beyond(self, n: int, limit_ms: float, count: int) -> int:
        """How many of `count` answers of endpoint `n` take longer than `limit_ms` inside, by chance."""
        chance = longer(self.states[n].inside_ms, limit_ms)
        return int(self.rng.binomial(count, chance)) if count and chance > _LEAST else 0


def longer(median_ms: float, limit_ms: float) -> float:
    """The share of lognormal latencies around `median_ms` that is above `limit_ms`.

    >>> [round(longer(100.0, limit_ms), 3) for limit_ms in (0.0, 100.0, 150.9, 1000.0)]
    [1.0, 0.5, 0.05, 0.0]
    """
    if limit_ms <= 0.0:
        return 1.0
    return 0.5 * erfc(log(limit_ms / max(median_ms, _LEAST)) / (SPREAD * sqrt(2.0)))


def loads(engine: Engine) -> list[float]:
    """Of each endpoint: what it took in the step, of what its ready replicas can; 0 where none is ready."""
    return [s.taken / engine.span.s / s.capacity_rps if s.capacity_rps else 0.0 for s in engine.states]
