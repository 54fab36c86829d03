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
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Final

import numpy as np
from msgspec.structs import astuple
from numpy.typing import NDArray

from streams import signals
from streams.contract.errors import shown
from streams.contract.keys import partition_of
from streams.contract.records import Buckets, EndpointHealth, EndpointMetrics, ErrorKind
from streams.contract.topics import FLEET
from streams.evidence import FRESH_S, Evidence, LastWord, newest
from streams.health_odd import Wrong, contradictions
from streams.health_view import COLUMNS, KINDS, TOKENS, WITH_TOKENS, Picture, leave, tell
from streams.known import Known, latest, misfits
from streams.names import Names, grown
from streams.runtime.edge import TIMES
from streams.runtime.step import Heard, Refusal
from streams.seen import Seen, Watermarks
from streams.sketch import GAMMA, Window, rebucket
from streams.tally import Tally

FORGET_S: Final = 900.0
OBSERVERS: Final = 512
"""Kept apart by a partition at once; one that falls silent makes room as soon as nothing of it can count."""
_FIT: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:/@+-]*")
ROWS_A_RECORD: Final = 2000
"""A health record stays well under the size of a message, whatever the size of the fleet."""

Row = tuple[str, str, str]
Floats = NDArray[np.float64]
Ints = NDArray[np.intp]
Cells = dict[str, tuple[Any, ...]]
"""The records of a batch as columns, by field."""


@dataclass(slots=True)
class HealthState:
    """What one partition has heard. Columns are indexed by row, endpoint row or observer row."""

    window_s: int
    source: str = "unheard"
    fleet: Known | None = None
    """None until a fleet was heard: then nobody is unknown yet."""
    fit: set[Row] = field(default_factory=set)
    """Rows that were judged and may be folded."""
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
    in_flight: LastWord = field(default_factory=LastWord)
    queue: Any = field(default_factory=lambda: np.zeros(0))
    queue_s: Any = field(default_factory=lambda: np.zeros(0))
    tried_s: Any = field(default_factory=lambda: np.zeros(0))
    """When a gateway or a probe last spoke of an endpoint; 0: never."""
    down: Any = field(default_factory=lambda: np.zeros(0, np.bool_))
    urgent: bool = False
    late: int = 0
    duplicates: int = 0
    newest_s: float = 0.0

    def __post_init__(self) -> None:
        self.latency, self.ttft = Window(self.window_s), Window(self.window_s)
        self.tally = Tally(COLUMNS, self.window_s)

    def reserve(self) -> None:
        """Give every known name a place in every column."""
        rows, ends, observers = len(self.rows), len(self.ends), len(self.observers)
        self.latency.reserve(rows)
        self.ttft.reserve(rows)
        self.tally.reserve(rows)
        self.evidence.pairs.reserve(ends, observers)
        self.in_flight.pairs.reserve(rows, observers)
        self.end_of = grown(self.end_of, rows)
        self.heard_s, self.ok_s = grown(self.heard_s, rows), grown(self.ok_s, rows)
        self.queue, self.queue_s = grown(self.queue, rows, np.nan), grown(self.queue_s, rows)
        self.down, self.tried_s = grown(self.down, ends), grown(self.tried_s, ends)


class Health:
    """The stage: endpoint-metrics and the fleet in, endpoint-health out."""

    def __init__(self, *, window_s: int = 60, lateness_s: float = 5.0) -> None:
        self.window_s, self.lateness_s = window_s, lateness_s

    def empty(self) -> HealthState:
        """Nobody was heard."""
        return HealthState(self.window_s)

    def screen(self, state: HealthState, heard: Heard[Any]) -> Iterable[Refusal]:
        """Refuse what the fleet does not know, names that are not fit for labels, records on the wrong partition or at
        odds with themselves, and fleets that may not follow the one in force.

        Only names that were not met before are looked at: who has a row was judged when it was new, and again with each
        fleet.
        """
        if heard.topic == FLEET.name:
            yield from misfits(state.fleet, heard)
            return
        odd = _odd(heard)
        yield from (Refusal(int(heard.positions[i]), *wrong) for i, wrong in odd.items())
        if all(met is not None for met in _met(state, heard)):
            return
        cells = _cells(heard)
        judged = _Judge(state, heard.batch.partition, heard.batch.partitions)
        met = zip(heard.positions, _names(cells), cells["observer"], strict=True)
        for i, (position, triple, observer) in enumerate(met):
            if i not in odd and (wrong := judged.of(triple, observer)) is not None:
                field_, value, reason = wrong
                yield Refusal(int(position), field_, shown(value), reason)

    def fold(self, state: HealthState, heard: Heard[Any]) -> HealthState:
        """Add records to window, tally and evidence; duplicates and what is too late are counted and left out."""
        if heard.topic == FLEET.name:
            return _with_fleet(state, latest(heard.records))
        state.source = f"{heard.topic}/{heard.batch.partition}"
        state.urgent = False
        fresh = self._fresh(state, heard)
        if fresh.any():
            said = _Said.of(state, heard, np.flatnonzero(fresh))
            _fold_values(state, said)
            _fold_counts(state, said)
            _fold_evidence(state, said)
            state.newest_s = max(state.newest_s, float(said.at_s.max()))
        return state

    def _fresh(self, state: HealthState, heard: Heard[EndpointMetrics]) -> NDArray[np.bool_]:
        """True for records that are neither duplicates nor late; the others are counted."""
        cells, observers, at_s = _cells(heard), _observers(state, heard), _at_s(heard)
        requests = _numbers(cells["requests"], 1)
        again = state.seen.fold(observers, np.array(cells["boot"], np.int64), np.array(cells["seq"], np.int64))
        new = ~again
        late = np.zeros(len(again), np.bool_)
        late[new] = state.watermarks.fold(observers[new], at_s[new], self.lateness_s)
        # the newest so far, record by record, so that it does not matter how the batch was cut
        newest_s = np.maximum.accumulate(np.where(new, at_s, state.newest_s))
        late |= new & (at_s < np.maximum(newest_s, state.newest_s) - self.window_s)
        if again.any():
            state.duplicates += int(again.sum())
            signals.DUPLICATES.inc(int(again.sum()))
        if late.any():
            state.late += int(requests[late].sum())
            signals.LATE.inc(int(requests[late].sum()))
        return ~(again | late)

    def advance(self, state: HealthState, now_s: float) -> HealthState:
        """Expire what has left the window; forget rows and observers unheard for a quarter of an hour."""
        state.latency.advance(now_s)
        state.ttft.advance(now_s)
        state.tally.advance(now_s)
        accusers, defenders = state.evidence.judge(len(state.ends), now_s)
        state.down[: len(state.ends)] = accusers > defenders
        # nothing said before this can count again: all that is still accepted is newer, and restarts an accusation
        spent_s = min(now_s, state.newest_s) - self.window_s - self.lateness_s - FRESH_S
        state.evidence.forget(spent_s)
        state.in_flight.forget(spent_s)
        _forget_observers(state, max(spent_s, now_s - FORGET_S))
        _forget_rows(state, now_s - FORGET_S)
        return state

    def urgent(self, state: HealthState) -> bool:
        """An endpoint went down, or came back."""
        return state.urgent

    def view(self, state: HealthState, now_s: float) -> Iterable[EndpointHealth]:
        """All rows in use, at most ROWS_A_RECORD a record."""
        taken = state.rows.taken()
        if taken:
            picture = Picture(state, taken, now_s)
            tell(picture)
            parts = -(-len(taken) // ROWS_A_RECORD)
            for part in range(parts):
                yield picture.record(slice(part * ROWS_A_RECORD, (part + 1) * ROWS_A_RECORD), part, parts)

    def leave(self, state: HealthState) -> None:
        """Another worker counts the endpoints of this partition from now on."""
        leave(state)


# ---------------------------------------------------------------- fold


@dataclass(frozen=True, slots=True)
class _Said:
    """What is fresh of one batch, as columns over its records."""

    rows: Ints
    ends: Ints
    observers: Ints
    at_s: Floats
    requests: NDArray[np.int64]
    streak: NDArray[np.int64]
    index: Ints
    """Where each record stands in `cells`."""
    outside: NDArray[np.bool_]
    """True for what gateways and probes saw; an endpoint's own view of itself is no evidence."""
    cells: Cells
    """All that was said, in the whole batch."""

    @classmethod
    def of(cls, state: HealthState, heard: Heard[EndpointMetrics], fresh: Ints) -> _Said:
        """The records at `fresh`. Only they are given rows: what is late must leave no trace."""
        cells, rows = _cells(heard), _rows(state, heard, fresh)
        return cls(
            rows=rows,
            ends=state.end_of[rows],
            observers=_observers(state, heard)[fresh],
            at_s=_at_s(heard)[fresh],
            requests=_numbers(cells["requests"], 1)[fresh],
            streak=_numbers(cells["hard_streak"], 0)[fresh],
            index=fresh,
            outside=_outside(cells["vantage"])[fresh],
            cells=cells,
        )

    def only(self, keep: NDArray[np.bool_]) -> _Said:
        """The same for the records to keep; `index` still points into the whole batch."""
        return _Said(
            self.rows[keep], self.ends[keep], self.observers[keep], self.at_s[keep], self.requests[keep],
            self.streak[keep], self.index[keep], self.outside[keep], self.cells,
        )  # fmt: skip

    def column(self, field: str) -> Floats:
        """A column of optional numbers, NaN for None."""
        values = self.cells[field]
        if _all(values, None):
            return np.full(len(self.index), np.nan)
        return np.array(values, np.float64)[self.index]

    @property
    def seconds(self) -> NDArray[np.int64]:
        return np.floor(self.at_s).astype(np.int64)


def _fold_values(state: HealthState, said: _Said) -> None:
    """Latency as gateways and probes met it; what an endpoint says of itself lacks the way to it."""
    if not said.outside.all():
        said = said.only(said.outside)
    for window, lists, buckets in ((state.latency, "latency_ms", "latency"), (state.ttft, "ttft_ms", "ttft")):
        if not _all(said.cells[lists], ()):
            _fold_lists(window, said, said.cells[lists])
        if not _all(said.cells[buckets], None):
            _fold_buckets(window, said, said.cells[buckets])


def _fold_lists(window: Window, said: _Said, lists: Sequence[tuple[float, ...]]) -> None:
    chosen = lists if len(said.index) == len(lists) else [lists[i] for i in said.index.tolist()]
    lengths = np.fromiter(map(len, chosen), np.intp, len(chosen))
    values = np.fromiter(chain.from_iterable(chosen), np.float64, int(lengths.sum()))
    rows, seconds = said.rows, said.seconds
    if not (lengths == 1).all():
        rows, seconds = np.repeat(rows, lengths), np.repeat(seconds, lengths)
    if values.size:
        window.fold(rows, seconds, values)


def _fold_buckets(window: Window, said: _Said, buckets: Sequence[Buckets | None]) -> None:
    """All histograms of a batch at once, those of each gamma together."""
    of_gamma: defaultdict[float, list[tuple[int, Buckets]]] = defaultdict(list)
    for place, i in enumerate(said.index.tolist()):
        if (held := buckets[i]) is not None and held.index:
            of_gamma[held.gamma].append((place, held))
    for gamma, found in of_gamma.items():
        places = np.repeat([place for place, _ in found], [len(held.index) for _, held in found])
        index, count = (
            np.fromiter(chain.from_iterable(column), np.int64, len(places))
            for column in ([held.index for _, held in found], [held.count for _, held in found])
        )
        ours = index if gamma == GAMMA else rebucket(index, gamma)
        window.fold_counts(said.rows[places], said.seconds[places], ours, count)


def _fold_counts(state: HealthState, said: _Said) -> None:
    outside = said.outside
    np.maximum.at(state.heard_s, said.rows, said.at_s)
    state.tally.fold(said.rows[outside], 0, said.seconds[outside], said.requests[outside])
    if any(said.cells["errors"]):
        _fold_errors(state, said, outside)
    tokens = said.column("tokens_in")
    told = outside & ~np.isnan(tokens)
    if told.any():
        state.tally.fold(said.rows[told], TOKENS, said.seconds[told], tokens[told].astype(np.int64))
        state.tally.fold(said.rows[told], WITH_TOKENS, said.seconds[told], said.requests[told])
    in_flight = said.column("in_flight")
    known = outside & ~np.isnan(in_flight)
    if known.any():
        state.in_flight.fold(said.rows[known], said.observers[known], said.at_s[known], in_flight[known])
    if not outside.all():
        _fold_queues(state, said, ~outside)


def _fold_errors(state: HealthState, said: _Said, outside: NDArray[np.bool_]) -> None:
    errors: Sequence[dict[ErrorKind, int]] = said.cells["errors"]
    met = [
        (where, KINDS.index(kind), count)
        for where, i in enumerate(said.index.tolist())
        if errors[i] and outside[where]
        for kind, count in errors[i].items()
    ]
    if not met:
        return
    where, kinds, counts = np.array(met, np.int64).T
    for kind in np.unique(kinds):
        part = kinds == kind
        at = where[part]
        state.tally.fold(said.rows[at], 1 + int(kind), said.seconds[at], counts[part])


def _fold_queues(state: HealthState, said: _Said, inside: NDArray[np.bool_]) -> None:
    queue = said.column("queue")
    known = np.flatnonzero(inside & ~np.isnan(queue))
    at = known[newest(said.rows[known], said.at_s[known], state.queue_s)]
    state.queue[said.rows[at]], state.queue_s[said.rows[at]] = queue[at], said.at_s[at]


def _fold_evidence(state: HealthState, said: _Said) -> None:
    outside = said.outside
    ends, observers = said.ends[outside], said.observers[outside]
    if not ends.size:
        return
    streak, at_s = said.streak[outside], said.at_s[outside]
    told = np.nan_to_num(said.column("last_ok_at_s"))[outside]
    answered = (said.requests[outside] > 0) & (streak == 0)
    ok_s = np.minimum(np.where(told > 0, told, np.where(answered, at_s, 0.0)), at_s)
    first_error_s = np.nan_to_num(said.column("first_error_at_s"))[outside]
    first_error_s = np.where((streak > 0) & (first_error_s == 0), at_s, np.minimum(first_error_s, at_s))
    np.maximum.at(state.tried_s, ends, at_s)
    state.evidence.fold(ends, observers, {"at_s": at_s, "streak": streak, "first_error_s": first_error_s, "ok_s": ok_s})
    np.maximum.at(state.ok_s, said.rows[outside], ok_s)
    touched = np.unique(ends[(streak > 0) | state.down[ends]])
    if touched.size:
        accusers, defenders = state.evidence.judge(len(state.ends), float(at_s.max()), touched)
        down = (accusers > defenders)[touched]
        state.urgent = bool((down != state.down[touched]).any())
        state.down[touched] = down


def _with_fleet(state: HealthState, fleet: Known) -> HealthState:
    state.fleet = fleet
    state.fit.clear()
    state.urgent = False
    # what this fleet does not know would be refused now: it must not stay because it came before the fleet did
    gone = [row for row, (e, service, c) in state.rows.taken() if c not in fleet.endpoints.get(e, {}).get(service, ())]
    _drop(state, gone)
    return state


def _cells(heard: Heard[EndpointMetrics]) -> Cells:
    """The records of a batch as columns by field, made once: all of them, since naming some would cost more."""
    if "cells" not in heard.memo:
        columns = zip(*map(astuple, heard.records), strict=True)
        heard.memo["cells"] = dict(zip(heard.records[0].__struct_fields__, columns, strict=True))
    return heard.memo["cells"]  # type: ignore[no-any-return]


def _names(cells: Cells) -> Iterable[Row]:
    return zip(cells["endpoint"], cells["service"], cells["class_"], strict=True)


def _odd(heard: Heard[EndpointMetrics]) -> dict[int, Wrong]:
    """What is wrong with the records that contradict themselves, by their place among the records."""
    cells = _cells(heard)
    return contradictions(
        at_s=cells["at_s"],
        requests=cells["requests"],
        errors=cells["errors"],
        values={"latency_ms": (cells["latency_ms"], cells["latency"]), "ttft_ms": (cells["ttft_ms"], cells["ttft"])},
        times_s={field: cells[field] for field in ("first_error_at_s", "last_ok_at_s")},
    )


def _at_s(heard: Heard[EndpointMetrics]) -> Floats:
    """Event times, never ahead of the broker's clock; worked out once."""
    if "event_s" not in heard.memo:
        claimed_s = heard.memo.get(TIMES)  # the edge has looked at them already, unless something was refused since
        if claimed_s is None:
            claimed_s = np.array(_cells(heard)["at_s"], np.float64)
        heard.memo["event_s"] = np.minimum(claimed_s, heard.stamps_s)
    return heard.memo["event_s"]  # type: ignore[no-any-return]


def _met(state: HealthState, heard: Heard[EndpointMetrics]) -> tuple[Ints | None, Ints | None]:
    """The rows of a batch's names, and of its observers; None where one of them is new. Looked up once."""
    if "met" not in heard.memo:
        cells = _cells(heard)
        heard.memo["met"] = state.rows.find(_names(cells)), state.observers.find(cells["observer"])
    return heard.memo["met"]  # type: ignore[no-any-return]


def _observers(state: HealthState, heard: Heard[EndpointMetrics]) -> Ints:
    """The rows of a batch's observers; a new one gets a row."""
    found = _met(state, heard)[1]
    return state.observers.rows(_cells(heard)["observer"]) if found is None else found


def _rows(state: HealthState, heard: Heard[EndpointMetrics], fresh: Ints) -> Ints:
    """The rows of the records at `fresh`; a new name gets a row, and all columns a place for it."""
    found = _met(state, heard)[0]
    if found is not None:
        state.reserve()
        return found[fresh]
    every = list(_names(_cells(heard)))
    names = [every[i] for i in fresh.tolist()]
    rows, ends = state.rows.rows(names), state.ends.rows([end for end, _, _ in names])
    state.reserve()
    state.end_of[rows] = ends
    return rows


def _all(values: Sequence[Any], usual: Any) -> bool:
    """Whether all are the `usual` value: most columns say nothing most of the time, and need no conversion then."""
    return values.count(usual) == len(values)


def _numbers(values: Sequence[int], usual: int) -> NDArray[np.int64]:
    return np.full(len(values), usual) if _all(values, usual) else np.array(values, np.int64)


def _outside(vantage: Sequence[str]) -> NDArray[np.bool_]:
    return np.array([v != "endpoint" for v in vantage]) if "endpoint" in vantage else np.ones(len(vantage), np.bool_)


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
        if partition_of(endpoint, self.partitions) != self.partition:
            return "endpoint", endpoint, "lies on another partition than its key: set the producer to murmur2"
        if self.state.fleet is None:
            return _unfit(endpoint=endpoint, service=service, class_=class_)
        known = self.state.fleet.endpoints
        if endpoint not in known:
            return "endpoint", endpoint, "is not in the fleet: add it to tradewind.yaml, or stop its collector"
        if service not in known[endpoint]:
            return "service", service, f"is not served by {endpoint}: name one of {', '.join(sorted(known[endpoint]))}"
        if class_ not in known[endpoint][service]:
            return "class", class_, f"is no class of {service}: name one of {', '.join(known[endpoint][service])}"
        return None

    def _observer(self, observer: str) -> tuple[str, str, str] | None:
        if (wrong := _unfit(observer=observer)) is not None:
            return wrong
        if len(self.known) >= OBSERVERS:
            return "observer", observer, f"is one more than the {OBSERVERS} observers a partition keeps apart"
        self.known.add(observer)
        return None


def _unfit(**names: str) -> tuple[str, str, str] | None:
    for field_, name in names.items():
        if not _FIT.fullmatch(name):
            return field_.rstrip("_"), name, "has to begin with a letter or digit, and may hold those and _ . : / @ + -"
    return None


# ---------------------------------------------------------------- forgetting


def _forget_rows(state: HealthState, before_s: float) -> None:
    stale = np.flatnonzero(state.heard_s[: len(state.rows)] < before_s).tolist()
    _drop(state, [row for row in stale if state.rows.names[row] is not None])


def _drop(state: HealthState, rows: list[int]) -> None:
    """Forget these rows, and the endpoints that are left without any."""
    if not rows:
        return
    state.rows.release(rows)
    state.latency.drop(rows)
    state.ttft.drop(rows)
    state.tally.clear(rows)
    state.in_flight.clear(rows, ())
    for column, empty in ((state.heard_s, 0), (state.ok_s, 0), (state.queue, np.nan), (state.queue_s, 0)):
        column[rows] = empty
    live = {name[0] for _, name in state.rows.taken()}
    ends = [row for row, name in state.ends.taken() if name not in live]
    state.ends.release(ends)
    state.evidence.clear(ends, ())
    state.down[ends], state.tried_s[ends] = False, 0


def _forget_observers(state: HealthState, before_s: float) -> None:
    every = np.array([row for row, _ in state.observers.taken()], np.intp)
    silent = state.watermarks.silent(every, before_s).tolist()
    if not silent:
        return
    state.observers.release(silent)
    state.evidence.clear((), silent)
    state.in_flight.clear((), silent)
    state.watermarks.forget(silent)
    state.seen.forget(silent)
