"""Rolling quantiles, rates, errors and a verdict per endpoint, service and class.

    endpoint-metrics ──► duplicate? late? ──► window (p50, p95, p99) ─┐
                                         ├──► tally (rates, errors) ──┼──► endpoint-health
                                         └──► evidence (who accuses) ─┘

Event time is the record's own, never ahead of the broker's: a fast clock ages nobody else. Rates and latency come from
gateways, queue and cache from endpoints; vantages are never added up. Evidence of failure is urgent, the rest waits for
the tick.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import chain
from operator import attrgetter
from typing import Any, Final, get_args

import numpy as np
from numpy.typing import NDArray

from streams import signals
from streams.contract.errors import shown
from streams.contract.keys import partition_of
from streams.contract.records import HARD_ERRORS, Buckets, EndpointHealth, EndpointMetrics, ErrorKind, Fleet, Verdict
from streams.contract.topics import FLEET
from streams.evidence import FRESH_S, Evidence
from streams.names import Names, grown
from streams.runtime.step import Heard, Refusal
from streams.seen import Seen, Watermarks
from streams.sketch import GAMMA, Window, rebucket
from streams.tally import Tally

KINDS: Final[tuple[ErrorKind, ...]] = get_args(ErrorKind)
_HARD: Final = np.array([k in HARD_ERRORS for k in KINDS])
_RATED: Final = np.array([k != "client_4xx" for k in KINDS])
RATE_S: Final = 10
"""Success rates look back this far."""
ENOUGH: Final = 20
FORGET_S: Final = 900.0
OBSERVERS: Final = 512
_FIT: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:/@+-]*")
ROWS_A_RECORD: Final = 2000
"""A health record stays well under the size of a message, whatever the size of the fleet."""

Row = tuple[str, str, str]
Floats = NDArray[np.float64]
Ints = NDArray[np.intp]
_columns = attrgetter(
    "endpoint", "service", "class_", "observer", "boot", "seq", "at_s", "requests", "hard_streak", "errors",
    "latency_ms", "ttft_ms", "latency", "ttft", "vantage", "first_error_at_s", "last_ok_at_s", "in_flight", "queue",
)  # fmt: skip


@dataclass(slots=True)
class HealthState:
    """What one partition has heard. Columns are indexed by row, endpoint row or observer row."""

    window_s: int
    source: str = "unheard"
    fleet: dict[str, dict[str, tuple[str, ...]]] | None = None
    """Endpoint to its services and their classes; None until a fleet was heard: then nobody is unknown yet."""
    fit: set[Row] = field(default_factory=set)
    """Rows that this fleet knows."""
    rows: Names[Row] = field(default_factory=Names)
    ends: Names[str] = field(default_factory=Names)
    observers: Names[str] = field(default_factory=Names)
    seen: Seen = field(default_factory=Seen)
    watermarks: Watermarks = field(default_factory=Watermarks)
    evidence: Evidence = field(default_factory=Evidence)
    latency: Window = field(init=False)
    ttft: Window = field(init=False)
    tally: Tally = field(init=False)
    end_of: Any = field(default_factory=lambda: np.zeros(0, np.intp))
    heard_s: Any = field(default_factory=lambda: np.zeros(0))
    ok_s: Any = field(default_factory=lambda: np.zeros(0))
    in_flight: Any = field(default_factory=lambda: np.zeros((0, 0)))
    queue: Any = field(default_factory=lambda: np.zeros(0))
    down: Any = field(default_factory=lambda: np.zeros(0, np.bool_))
    urgent: bool = False
    late: int = 0
    duplicates: int = 0
    newest_s: float = 0.0

    def __post_init__(self) -> None:
        self.latency, self.ttft = Window(self.window_s), Window(self.window_s)
        self.tally = Tally(1 + len(KINDS), self.window_s)

    def reserve(self) -> None:
        """Give every known name a place in every column."""
        rows, ends, observers = len(self.rows), len(self.ends), len(self.observers)
        self.latency.reserve(rows)
        self.ttft.reserve(rows)
        self.tally.reserve(rows)
        self.evidence.reserve(ends, observers)
        self.end_of = grown(self.end_of, rows)
        self.heard_s, self.ok_s = grown(self.heard_s, rows), grown(self.ok_s, rows)
        self.queue = grown(self.queue, rows, np.nan)
        self.in_flight = grown(np.ascontiguousarray(grown(self.in_flight, rows).T), observers).T
        self.down = grown(self.down, ends)


class Health:
    """The stage: endpoint-metrics and the fleet in, endpoint-health out."""

    def __init__(self, *, window_s: int = 60, lateness_s: float = 5.0) -> None:
        self.window_s, self.lateness_s = window_s, lateness_s

    def empty(self) -> HealthState:
        """Nobody was heard."""
        return HealthState(self.window_s)

    def screen(self, state: HealthState, heard: Heard[Any]) -> Iterable[Refusal]:
        """Refuse what the fleet does not know, names that are not fit for labels, and records on the wrong partition.

        Only what was not met before is looked at: a batch of known names costs two set lookups.
        """
        if heard.topic == FLEET.name or state.fleet is None:
            return
        triples, observers = _triples(heard), _cells(heard)[3]
        if set(triples) <= state.fit and set(observers) <= state.observers.known:
            return
        judged = _Judge(state, heard.batch.partition, heard.batch.partitions)
        for position, triple, observer in zip(heard.positions, triples, observers, strict=True):
            if (wrong := judged.of(triple, observer)) is not None:
                field_, value, reason = wrong
                yield Refusal(int(position), field_, shown(value), reason)

    def fold(self, state: HealthState, heard: Heard[Any]) -> HealthState:
        """Add records to window, tally and evidence; duplicates and what is too late are counted and left out."""
        if heard.topic == FLEET.name:
            return _with_fleet(state, heard.records[-1])
        state.source = f"{heard.topic}/{heard.batch.partition}"
        state.urgent = False
        said = _Said.of(state, heard)
        fresh = self._fresh(state, said)
        if not fresh.all():
            said = said.only(fresh)
        if len(said.rows):
            _fold_values(state, said)
            _fold_counts(state, said)
            _fold_evidence(state, said)
            state.newest_s = max(state.newest_s, float(said.at_s.max()))
        return state

    def _fresh(self, state: HealthState, said: _Said) -> NDArray[np.bool_]:
        again = state.seen.fold(said.sources, said.seqs, said.at_s)
        late = state.watermarks.fold(said.observers, said.at_s, self.lateness_s)
        late |= said.at_s < state.newest_s - self.window_s
        late &= ~again
        if again.any():
            state.duplicates += int(again.sum())
            signals.DUPLICATES.inc(int(again.sum()))
        if late.any():
            state.late += int(said.requests[late].sum())
            signals.LATE.inc(int(said.requests[late].sum()))
        return ~(again | late)

    def advance(self, state: HealthState, now_s: float) -> HealthState:
        """Expire what has left the window; forget rows and observers unheard for a quarter of an hour."""
        state.latency.advance(now_s)
        state.ttft.advance(now_s)
        state.tally.advance(now_s)
        if len(state.ends):
            every = np.arange(len(state.ends))
            accusers, defenders = state.evidence.judge(every, now_s)
            state.down[every] = accusers > defenders
        _forget(state, now_s - FORGET_S)
        return state

    def urgent(self, state: HealthState) -> bool:
        """An endpoint went down, or came back."""
        return state.urgent

    def view(self, state: HealthState, now_s: float) -> Iterable[EndpointHealth]:
        """All rows in use, at most ROWS_A_RECORD a record."""
        taken = state.rows.taken()
        parts = [taken[i : i + ROWS_A_RECORD] for i in range(0, len(taken), ROWS_A_RECORD)]
        for part, chosen in enumerate(parts):
            yield _View(state, chosen, now_s).record(part, len(parts))


# ---------------------------------------------------------------- fold


@dataclass(frozen=True, slots=True)
class _Said:
    """One batch as columns over its records."""

    rows: Ints
    ends: Ints
    observers: Ints
    sources: Sequence[tuple[str, int]]
    seqs: NDArray[np.int64]
    at_s: Floats
    requests: NDArray[np.int64]
    streak: NDArray[np.int64]
    index: Ints
    """Where each record stands in `records`."""
    records: Sequence[EndpointMetrics]
    errors: Sequence[dict[ErrorKind, int]]
    values: Sequence[Sequence[tuple[float, ...]]]
    """latency_ms and ttft_ms of each record."""
    buckets: Sequence[Sequence[Buckets | None]]
    vantage: Sequence[str]
    first_error_s: Sequence[float | None]
    ok_s: Sequence[float | None]
    in_flight: Sequence[int | None]
    queue: Sequence[int | None]

    @classmethod
    def of(cls, state: HealthState, heard: Heard[EndpointMetrics]) -> _Said:
        n = len(heard.records)
        (end, _, _, observer, boot, seq, at_s, requests, streak, errors, latency_ms, ttft_ms, latency, ttft,
         vantage, first_error_s, ok_s, in_flight, queue) = _cells(heard)  # fmt: skip
        rows = state.rows.rows(_triples(heard))
        ends, observers = state.ends.rows(end), state.observers.rows(observer)
        state.reserve()
        state.end_of[rows] = ends
        return cls(
            rows, ends, observers, list(zip(observer, boot, strict=True)), np.array(seq, np.int64),
            np.minimum(np.array(at_s, np.float64), heard.stamps_s), np.array(requests, np.int64),
            np.array(streak, np.int64), np.arange(n), heard.records, errors, (latency_ms, ttft_ms), (latency, ttft),
            vantage, first_error_s, ok_s, in_flight, queue,
        )  # fmt: skip

    def only(self, keep: NDArray[np.bool_]) -> _Said:
        """The same for the records to keep; `index` still points into the whole batch."""
        return _Said(
            self.rows[keep], self.ends[keep], self.observers[keep], self.sources, self.seqs[keep], self.at_s[keep],
            self.requests[keep], self.streak[keep], self.index[keep], self.records, self.errors, self.values,
            self.buckets, self.vantage, self.first_error_s, self.ok_s, self.in_flight, self.queue,
        )  # fmt: skip

    def column(self, values: Sequence[float | None]) -> Floats:
        """A column of optional numbers, NaN for None."""
        return np.array(values, np.float64)[self.index]

    @property
    def seconds(self) -> NDArray[np.int64]:
        return np.floor(self.at_s).astype(np.int64)

    @property
    def from_outside(self) -> NDArray[np.bool_]:
        """True for what gateways and probes saw; an endpoint's own view of itself is no evidence."""
        return np.array([v != "endpoint" for v in self.vantage])[self.index]


def _fold_values(state: HealthState, said: _Said) -> None:
    for window, lists, buckets in zip((state.latency, state.ttft), said.values, said.buckets, strict=True):
        chosen = lists if len(said.index) == len(lists) else [lists[i] for i in said.index]
        lengths = np.fromiter(map(len, chosen), np.intp, len(chosen))
        if total := int(lengths.sum()):
            values = np.fromiter(chain.from_iterable(chosen), np.float64, total)
            window.fold(np.repeat(said.rows, lengths), np.repeat(said.seconds, lengths), values)
        if any(buckets):
            _fold_buckets(window, said, buckets)


def _fold_buckets(window: Window, said: _Said, buckets: Sequence[Buckets | None]) -> None:
    for row, second, i in zip(said.rows, said.seconds, said.index, strict=True):
        if (held := buckets[i]) is not None and held.index:
            index = np.array(held.index, np.int64)
            ours = index if held.gamma == GAMMA else rebucket(index, held.gamma)
            same = np.full(len(ours), row), np.full(len(ours), second)
            window.fold_counts(*same, ours, np.array(held.count, np.int64))


def _fold_counts(state: HealthState, said: _Said) -> None:
    outside = said.from_outside
    rows, seconds = said.rows[outside], said.seconds[outside]
    state.tally.fold(rows, 0, seconds, said.requests[outside])
    for where in np.flatnonzero([bool(said.errors[i]) for i in said.index]):
        for kind, count in said.errors[said.index[where]].items() if outside[where] else ():
            one = said.rows[where : where + 1], 1 + KINDS.index(kind), said.seconds[where : where + 1]
            state.tally.fold(*one, np.array([count]))
    np.maximum.at(state.heard_s, said.rows, said.at_s)
    in_flight, queue = said.column(said.in_flight), said.column(said.queue)
    state.in_flight[said.rows, said.observers] = np.where(outside, np.nan_to_num(in_flight), 0)
    known = ~np.isnan(queue)
    state.queue[said.rows[known]] = queue[known]


def _fold_evidence(state: HealthState, said: _Said) -> None:
    outside = said.from_outside
    ends, observers = said.ends[outside], said.observers[outside]
    if not ends.size:
        return
    streak, at_s = said.streak[outside], said.at_s[outside]
    told = np.nan_to_num(said.column(said.ok_s))[outside]
    answered = (said.requests[outside] > 0) & (streak == 0)
    ok_s = np.minimum(np.where(told > 0, told, np.where(answered, at_s, 0.0)), at_s)
    first_error_s = np.nan_to_num(said.column(said.first_error_s))[outside]
    first_error_s = np.where((streak > 0) & (first_error_s == 0), at_s, first_error_s)
    state.evidence.fold(ends, observers, {"at_s": at_s, "streak": streak, "first_error_s": first_error_s, "ok_s": ok_s})
    np.maximum.at(state.ok_s, said.rows[outside], ok_s)
    touched = np.unique(ends[(streak > 0) | state.down[ends]])
    if touched.size:
        accusers, defenders = state.evidence.judge(touched, float(at_s.max()))
        down = accusers > defenders
        state.urgent = bool((down != state.down[touched]).any())
        state.down[touched] = down


def _with_fleet(state: HealthState, fleet: Fleet) -> HealthState:
    classes = {s.name: tuple(c.name for c in s.classes) for s in fleet.services}
    state.fleet = {e.name: {s: classes[s] for s in e.services if s in classes} for e in fleet.endpoints}
    state.fit.clear()
    state.urgent = False
    return state


def _cells(heard: Heard[EndpointMetrics]) -> tuple[tuple[Any, ...], ...]:
    """The records of a batch as columns, made once."""
    if "cells" not in heard.memo:
        heard.memo["cells"] = tuple(zip(*map(_columns, heard.records), strict=True))
    return heard.memo["cells"]  # type: ignore[no-any-return]


def _triples(heard: Heard[EndpointMetrics]) -> list[Row]:
    if "triples" not in heard.memo:
        heard.memo["triples"] = list(zip(*_cells(heard)[:3], strict=True))
    return heard.memo["triples"]  # type: ignore[no-any-return]


class _Judge:
    """Judges names that were not met before, each once."""

    def __init__(self, state: HealthState, partition: int, partitions: int) -> None:
        self.state, self.partition, self.partitions = state, partition, partitions
        self.known = set(state.observers.known)
        self._wrong: dict[Row, tuple[str, str, str] | None] = {}

    def of(self, triple: Row, observer: str) -> tuple[str, str, str] | None:
        """(field, value, reason) of what is wrong, None when nothing is."""
        if triple not in self.state.fit:
            if triple not in self._wrong:
                self._wrong[triple] = self._row(*triple)
            if (wrong := self._wrong[triple]) is not None:
                return wrong
            self.state.fit.add(triple)
        return None if observer in self.known else self._observer(observer)

    def _row(self, endpoint: str, service: str, class_: str) -> tuple[str, str, str] | None:
        known = self.state.fleet or {}
        if endpoint not in known:
            return "endpoint", endpoint, "is not in the fleet: add it to tradewind.yaml, or stop its collector"
        if service not in known[endpoint]:
            return "service", service, f"is not served by {endpoint}: name one of {', '.join(sorted(known[endpoint]))}"
        if class_ not in known[endpoint][service]:
            return "class", class_, f"is no class of {service}: name one of {', '.join(known[endpoint][service])}"
        if partition_of(endpoint, self.partitions) != self.partition:
            return "endpoint", endpoint, "lies on another partition than its key: set the producer to murmur2"
        return None

    def _observer(self, observer: str) -> tuple[str, str, str] | None:
        if not _FIT.fullmatch(observer):
            return "observer", observer, "may hold letters, digits and _ . : / @ + - only"
        if len(self.known) >= OBSERVERS:
            return "observer", observer, f"is one more than the {OBSERVERS} observers a partition keeps apart"
        self.known.add(observer)
        return None


def _forget(state: HealthState, before_s: float) -> None:
    gone = [row for row, _ in state.rows.taken() if state.heard_s[row] < before_s]
    if not gone:
        return
    state.rows.release(gone)
    state.latency.drop(gone)
    state.ttft.drop(gone)
    state.tally.clear(gone)
    for column, fill in ((state.heard_s, 0), (state.ok_s, 0), (state.in_flight, 0), (state.queue, np.nan)):
        column[gone] = fill
    live = {name[0] for _, name in state.rows.taken()}
    ends = [row for row, name in state.ends.taken() if name not in live]
    state.ends.release(ends)
    state.evidence.clear(ends, slice(None))
    state.down[ends] = False
    observers = [
        row for row, _ in state.observers.taken() if (state.evidence.heard_s[:, row].max(initial=0)) < before_s
    ]
    state.observers.release(observers)
    state.evidence.clear(slice(None), observers)
    state.in_flight[:, observers] = 0
    state.watermarks.forget(observers)
    state.seen.forget(before_s)


# ---------------------------------------------------------------- view


class _View:
    """One health record over the chosen rows, column by column."""

    def __init__(self, state: HealthState, chosen: Sequence[tuple[int, Row]], now_s: float) -> None:
        self.state, self.now_s = state, now_s
        self.names = [name for _, name in chosen]
        self.rows = np.array([row for row, _ in chosen], np.intp)
        self.ends = state.end_of[self.rows]
        self.totals = state.tally.total(len(state.rows))[self.rows]
        recent = state.tally.total(len(state.rows), int(now_s) - RATE_S + 1)
        self.recent = np.zeros((len(state.ends), recent.shape[1]), np.int64)
        np.add.at(self.recent, state.end_of[: len(recent)], recent)
        self.accusers, self.defenders = state.evidence.judge(self.ends, now_s)
        self.first_error_s = state.evidence.first_error(self.ends)

    def record(self, part: int, parts: int) -> EndpointHealth:
        """The record; `part` of `parts`."""
        state, rows = self.state, self.rows
        p50, p95, p99 = state.latency.quantiles((0.5, 0.95, 0.99), rows).T
        judged = [self._verdict(i) for i in range(len(rows))]
        errors = {
            kind: tuple(self.totals[:, 1 + k].tolist()) for k, kind in enumerate(KINDS) if self.totals[:, 1 + k].any()
        }
        heard_s = state.heard_s[rows]
        endpoint, service, class_ = zip(*self.names, strict=True)
        return EndpointHealth(
            source=state.source,
            part=part,
            parts=parts,
            made_at_s=self.now_s,
            endpoint=endpoint,
            service=service,
            class_=class_,
            verdict=tuple(verdict for verdict, _ in judged),
            reason=tuple(reason for _, reason in judged),
            observations=tuple(state.latency.counts()[rows].tolist()),
            rps=tuple(np.round(self.totals[:, 0] / self.state.window_s, 4).tolist()),
            p50_ms=_known(p50),
            p95_ms=_known(p95),
            p99_ms=_known(p99),
            ttft_p95_ms=_known(state.ttft.quantiles((0.95,), rows)[:, 0]),
            errors=errors,
            in_flight=tuple(state.in_flight[rows].sum(axis=1).astype(int).tolist()),
            queue=tuple(None if np.isnan(q) else int(q) for q in state.queue[rows]),
            age_s=_known(np.where(heard_s > 0, np.maximum(0.0, self.now_s - heard_s), np.nan)),
            first_error_at_s=_known(self.first_error_s, 6),
            last_ok_at_s=_known(np.where(state.ok_s[rows] > 0, state.ok_s[rows], np.nan), 6),
            late=state.late if part == 0 else 0,
            duplicates=state.duplicates if part == 0 else 0,
        )

    def _verdict(self, i: int) -> tuple[Verdict, str]:
        """The verdict on one row's endpoint, and why."""
        accusers, defenders = int(self.accusers[i]), int(self.defenders[i])
        if accusers > defenders:
            return "down", f"{accusers} of {accusers + defenders} observers met only hard failures"
        requests, *kinds = self.recent[self.ends[i]].tolist()
        rated = sum(n for n, counts in zip(kinds, _RATED, strict=True) if counts)
        if requests >= ENOUGH and rated > 0.2 * requests:
            worst = KINDS[int(np.argmax(np.where(_RATED, kinds, -1)))]
            said = f"{rated} of {requests} requests failed in {RATE_S} s, most by {worst}"
            return ("down" if rated > 0.5 * requests and _hard(kinds) > 0.5 * requests else "degraded"), said
        if accusers:
            return "degraded", f"{accusers} observers met only hard failures, {defenders} did not"
        if self.state.heard_s[self.rows[i]] < self.now_s - FRESH_S:
            return "silent", f"nothing heard for {self.now_s - self.state.heard_s[self.rows[i]]:.0f} s"
        return "up", ""


def _hard(kinds: Sequence[int]) -> int:
    return sum(n for n, hard in zip(kinds, _HARD, strict=True) if hard)


def _known(column: Floats, digits: int = 3) -> tuple[float | None, ...]:
    """Plain numbers, None for NaN."""
    return tuple(None if value != value else value for value in np.round(column, digits).tolist())
