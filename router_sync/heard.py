"""What the router remembers of health and demand: the last word of each source, aged by silence.

The last word is the one the broker took last, and it is as old as the broker says: a worker whose clock runs fast would
otherwise make its successor's words look old, and a slow one would look silent.

Demand is kept slot by slot and averaged when it is asked for, so that the answer depends on what was heard and not on
how it was cut into batches.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import numpy as np

from router_sync.ladder import Standing
from router_sync.layout import Floats, Key, Layout
from streams.contract.records import Demand, EndpointHealth, Verdict

SILENT_S: Final = 15.0
"""A source unheard for this long says nothing of its endpoints any more."""
FORGET_S: Final = 120.0
"""An endpoint last said to be down, and unheard since, is tried again after this long."""
ENOUGH: Final = 20
"""Measured p95 replaces the declared one from this many observations on."""
USUAL_S: Final = 10.0
SMOOTH_S: Final = 5.0
"""Over which demand is averaged, exponentially, within the last USUAL_S."""
DENSE: Final = 0.5
"""A source that speaks of less than this share of USUAL_S is averaged evenly over all that is kept of it."""
DEMAND_S: Final = 60.0
STEADY: Final = 0.25
BURST_S: Final = 15
STILL: Final = 0.05
MORE: Final = 1.0
LESS: Final = 2.0
"""Square roots of demand by which it has to rise or fall to be another: requests come by chance."""
_WORSE: Final[Mapping[Verdict, int]] = {"unknown": 0, "silent": 1, "up": 2, "degraded": 3, "down": 4}


class Said(NamedTuple):
    """One row of health: of an endpoint, service and class, by one source."""

    at_s: float
    """When the broker took it."""
    verdict: Verdict
    reason: str
    p95_ms: float | None
    """Steadied: to show, and to keep for when nothing is measured."""
    first_error_at_s: float | None
    measured_ms: float | None = None
    """p95 as it is; None: too little was measured."""
    whole_ms: float | None = None
    """Median time of a whole answer."""
    rps: float = 0.0
    in_flight: float | None = None
    tokens: float = 0.0
    """Mean of a request, in; 0: nobody said."""


Row = tuple[str, str, str]
"""(endpoint, service, class)"""


@dataclass(slots=True)
class HeardHealth:
    """Rows by source; `spoke_s` is when each source spoke last, by the broker's clock."""

    rows: dict[str, dict[Row, Said]] = field(default_factory=dict)
    spoke_s: dict[str, float] = field(default_factory=dict)
    down: dict[str, Said] = field(default_factory=dict)
    """Endpoint to the row that last said down, until another verdict with evidence is heard."""

    def fold(self, record: EndpointHealth, at_s: float) -> bool:
        """Take in a record that the broker took at `at_s`, in the broker's order.

        Whether it says of any endpoint that it went down or came back.
        """
        self.spoke_s[record.source] = at_s
        rows = self.rows.setdefault(record.source, {})
        verdicts: dict[str, Said] = {}
        for n, row in enumerate(zip(record.endpoint, record.service, record.class_, strict=True)):
            said = rows[row] = _said(record, n, at_s, rows.get(row))
            worst = verdicts.get(row[0])
            if worst is None or _WORSE[said.verdict] > _WORSE[worst.verdict]:
                verdicts[row[0]] = said
        turned = [self._turned(endpoint, said) for endpoint, said in verdicts.items()]
        return any(turned)

    def _turned(self, endpoint: str, said: Said) -> bool:
        was_down = endpoint in self.down
        if said.verdict == "down":
            first = self.down[endpoint].first_error_at_s if was_down else None
            self.down[endpoint] = said if first is None else said._replace(first_error_at_s=first)
            return not was_down
        # silence of a dead endpoint is no recovery: only an answer is
        if was_down and said.verdict in ("up", "degraded"):
            del self.down[endpoint]
            return True
        return False

    def advance(self, now_s: float) -> None:
        """Forget sources long unheard, rows their source no longer speaks of, and the dead nobody speaks of."""
        for source in [s for s, at_s in self.spoke_s.items() if at_s < now_s - FORGET_S]:
            del self.spoke_s[source], self.rows[source]
        for rows in self.rows.values():
            for row in [row for row, said in rows.items() if said.at_s < now_s - FORGET_S]:
                del rows[row]
        for endpoint in [e for e, said in self.down.items() if said.at_s < now_s - FORGET_S]:
            del self.down[endpoint]

    def standings(self, now_s: float) -> dict[str, Standing]:
        """What was said of each endpoint by itself; classes and sources joined, the worst evidence holds."""
        worst: dict[str, Standing] = {}
        for endpoint, standing in self._each(now_s):
            known = worst.get(endpoint)
            if known is None or _WORSE[standing.verdict] > _WORSE[known.verdict]:
                worst[endpoint] = standing
        for endpoint, said in self.down.items():
            worst[endpoint] = Standing("down", said.reason, "down")
        return worst

    def _each(self, now_s: float) -> Iterator[tuple[str, Standing]]:
        for source, rows in self.rows.items():
            quiet_s = now_s - self.spoke_s[source]
            said_nothing = f"nothing heard from {source} for {SILENT_S:.0f} s; kept as it was"
            for (endpoint, _, _), said in rows.items():
                if quiet_s > SILENT_S:
                    yield endpoint, Standing("silent", said_nothing, "silent")
                else:
                    yield endpoint, Standing(said.verdict, said.reason, said.verdict)

    def measured(self) -> Iterator[tuple[Row, Said]]:
        """Rows of which enough was measured when their source spoke last."""
        for rows in self.rows.values():
            for row, said in rows.items():
                if said.measured_ms is not None and said.whole_ms is not None:
                    yield row, said

    def p95_ms(self, plan: Layout) -> Floats:
        """[F, E] p95 as gateways and probes measured it; NaN where too little was."""
        out = np.full((len(plan.classes), len(plan.names)), np.nan)
        column_of, row_of = plan.endpoint_at, plan.classes
        known = [
            (row_of[service, class_], column_of[endpoint], said.p95_ms)
            for rows in self.rows.values()
            for (endpoint, service, class_), said in rows.items()
            if said.p95_ms is not None and endpoint in column_of and (service, class_) in row_of
        ]
        if known:
            rows, columns, measured = zip(*known, strict=True)
            out[np.array(rows), np.array(columns)] = measured
        return out[plan.class_of]


def _said(record: EndpointHealth, n: int, at_s: float, before: Said | None) -> Said:
    measured_ms = _first_news_ms(record, n) if record.observations[n] >= ENOUGH else None
    return Said(
        at_s=at_s,
        verdict=record.verdict[n],
        reason=record.reason[n],
        p95_ms=_steady_ms(before, measured_ms),
        first_error_at_s=record.first_error_at_s[n],
        measured_ms=measured_ms,
        whole_ms=record.p50_ms[n],
        rps=record.rps[n],
        in_flight=record.in_flight[n],
        tokens=(record.tokens_in[n] if record.tokens_in else None) or 0.0,
    )


def _steady_ms(before: Said | None, measured_ms: float | None) -> float | None:
    """The p95 to decide by: it moves when the measured one has moved by more than STEADY, and outlives a quiet minute.

    A p95 of some hundred values trembles by a tenth by chance; shares must not tremble with it. And an endpoint that
    lost its traffic is still known by what it did last, not by what was once declared.
    """
    held_ms = before.p95_ms if before is not None else None
    if measured_ms is None or (held_ms is not None and abs(measured_ms - held_ms) <= STEADY * held_ms):
        return held_ms
    return measured_ms


def _first_news_ms(record: EndpointHealth, n: int) -> float | None:
    """What the SLO is about: the time to the first token where answers are streamed, else to the whole answer."""
    ttft_p95_ms = record.ttft_p95_ms[n]
    return record.p95_ms[n] if ttft_p95_ms is None else ttft_p95_ms


class Counts(NamedTuple):
    """Requests of one slot and key."""

    arrived: int
    shed: int
    failed: int


Lane = tuple[str, float]
"""(source, length of its slots)"""


@dataclass(slots=True)
class HeardDemand:
    """Slots by lane: start of the slot to arrivals per second by (service, origin, class)."""

    slots: dict[Lane, dict[float, dict[Key, float]]] = field(default_factory=dict)
    counts: dict[Lane, dict[float, dict[Key, Counts]]] = field(default_factory=dict)
    """Of the same slots."""
    closed: list[tuple[Key, Counts]] = field(default_factory=list)
    """Of slots that were forgotten since somebody emptied this."""
    _known: tuple[Layout, Floats, Floats] | None = None
    """What `rps` and `usual_rps` answered last, until another slot is heard or forgotten."""

    def fold(self, record: Demand, at_s: float) -> None:
        """Take in a slot that the broker took at `at_s`; it may be said again while it grows, the last word holds."""
        keys = zip(record.service, record.origin, record.class_, strict=True)
        rates = {key: arrived / record.slot_s for key, arrived in zip(keys, record.arrived, strict=True)}
        # never ahead of the broker's clock: one slot of the future would make all others look old
        lane, slot = (record.source, record.slot_s), min(record.at_s, at_s)
        self.slots.setdefault(lane, {})[slot] = rates
        counted = map(Counts, record.arrived, record.shed, record.failed)
        self.counts.setdefault(lane, {})[slot] = dict(zip(rates, counted, strict=True))
        self._known = None

    def advance(self, now_s: float) -> None:
        """Forget slots that ended a minute ago."""
        for lane, slots in self.slots.items():
            for at_s in [at_s for at_s in slots if at_s + lane[1] < now_s - DEMAND_S]:
                del slots[at_s]
                self.closed.extend(self.counts[lane].pop(at_s).items())
                self._known = None
        for lane in [lane for lane, slots in self.slots.items() if not slots]:
            del self.slots[lane], self.counts[lane]

    def rps(self, plan: Layout) -> Floats:
        """[F] demand to have room for: what is usual of late, or the bursts of the last BURST_S where they are higher.

        Usual: of each source an average over time, silence within it included, added up. A source's newest slot may
        still grow and is left out while there are others. The declared demand where nothing at all was heard.
        """
        return self._both(plan)[1] if self.slots else plan.expected_rps

    def usual_rps(self, plan: Layout) -> Floats:
        """[F] demand without its bursts: what is shed by."""
        return self._both(plan)[2] if self.slots else plan.expected_rps

    def _both(self, plan: Layout) -> tuple[Layout, Floats, Floats]:
        if self._known is None or self._known[0] is not plan:
            newest_s = max(max(slots) for slots in self.slots.values())
            usual = self._usual(plan, newest_s)
            self._known = plan, np.maximum(usual, self._bursts(plan, newest_s)), usual
        return self._known

    def _bursts(self, plan: Layout, newest_s: float) -> Floats:
        """[F] the second highest of the last BURST_S seconds, all sources together: one odd second is not a burst."""
        seconds = np.zeros((len(plan.flows), BURST_S))
        for (_, slot_s), slots in self.slots.items():
            for at_s, rates in slots.items():
                parts = list(_seconds(newest_s - at_s - slot_s, newest_s - at_s))
                for key, rps in rates.items() if parts else ():
                    if (row := plan.flow_at.get(key)) is not None:
                        for back, part in parts:
                            seconds[row, back] += rps * part
        out: Floats = np.partition(seconds, -2, axis=1)[:, -2]
        return out

    def _usual(self, plan: Layout, newest_s: float) -> Floats:
        out = np.zeros(len(plan.flows))
        for lane in sorted(self.slots):
            for at_s, weight in _weights(sorted(self.slots[lane]), lane[1], newest_s).items():
                for key, rps in self.slots[lane][at_s].items():
                    if (row := plan.flow_at.get(key)) is not None:
                        out[row] += rps * weight
        return out


def steadied(held: Floats | None, now: Floats) -> Floats:
    """[F] the demand to decide by, requests/s: what was `held`, or what is heard `now` where that is more than chance.

    It rises sooner than it falls, so that there is rather too much room than too little. A change by a twentieth is
    always chance; a fall to a quarter never is.

    >>> steadied(np.array([100.0, 100.0, 100.0, 100.0]), np.array([109.0, 111.0, 81.0, 79.0])).tolist()
    [100.0, 111.0, 100.0, 79.0]
    """
    if held is None:
        return now
    root = np.sqrt(held)
    more = now - held > np.maximum(STILL * held, MORE * root)
    less = held - now > np.minimum(np.maximum(STILL * held, LESS * root), 0.75 * held)
    return np.where(more | less, now, held)


def _seconds(young_s: float, old_s: float) -> Iterator[tuple[int, float]]:
    """Which of the last BURST_S seconds lie between two ages, and what part of each.

    >>> list(_seconds(0.5, 2.0))
    [(0, 0.5), (1, 1.0)]
    """
    for back in range(max(0, math.floor(young_s)), min(BURST_S, math.ceil(old_s))):
        yield back, min(old_s, back + 1.0) - max(young_s, float(back))


def _weights(starts: list[float], slot_s: float, newest_s: float) -> dict[float, float]:
    """How much each slot of a lane (`starts` ascending) counts in its average; silence between them counts as none.

    Up to the newest slot, which may still grow; where a source has fallen silent while others speak (`newest_s`), from
    SILENT_S on its silence counts too. Recent seconds count most; a lane that mostly says nothing is averaged evenly
    over all that is kept of it, for of its few words the last is no rate.
    """
    until_s = starts[-1] if len(starts) > 1 else starts[0] + slot_s
    until_s = max(until_s, newest_s - SILENT_S - slot_s)
    since_s = max(starts[0], until_s - USUAL_S)
    spans = _clipped(starts, slot_s, since_s, until_s)
    if sum(b - a for a, b in spans.values()) >= DENSE * (until_s - since_s):
        whole = 1.0 - math.exp((since_s - until_s) / SMOOTH_S)
        return {
            at_s: (math.exp((b - until_s) / SMOOTH_S) - math.exp((a - until_s) / SMOOTH_S)) / whole
            for at_s, (a, b) in spans.items()
        }
    evenly = _clipped(starts, slot_s, starts[0], until_s)
    return {at_s: (b - a) / (until_s - starts[0]) for at_s, (a, b) in evenly.items()}


def _clipped(starts: list[float], slot_s: float, since_s: float, until_s: float) -> dict[float, tuple[float, float]]:
    """The part of each slot between two times, of those that have one."""
    spans = {at_s: (max(at_s, since_s), min(at_s + slot_s, until_s)) for at_s in starts}
    return {at_s: (a, b) for at_s, (a, b) in spans.items() if b > a}
