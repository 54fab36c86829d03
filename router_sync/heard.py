"""What the router remembers of health and demand: the last word of each source, aged by silence.

Demand is kept slot by slot and averaged when it is asked for, so that the answer depends on what was heard and not on
how it was cut into batches.
"""

from __future__ import annotations

import math
from collections import defaultdict
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
SLOTS: Final = 10
SMOOTH: Final = 5.0
"""Slots over which demand is averaged, exponentially."""
DEMAND_S: Final = 60.0
STEADY: Final = 0.25
BURST_S: Final = 15
_WORSE: Final[Mapping[Verdict, int]] = {"unknown": 0, "silent": 1, "up": 2, "degraded": 3, "down": 4}


class Said(NamedTuple):
    """One row of health: of an endpoint, service and class, by one source."""

    made_at_s: float
    verdict: Verdict
    reason: str
    p95_ms: float | None
    first_error_at_s: float | None


Row = tuple[str, str, str]
"""(endpoint, service, class)"""


@dataclass(slots=True)
class HeardHealth:
    """Rows by source; `spoke_s` is when each source spoke last, by its own clock."""

    rows: dict[str, dict[Row, Said]] = field(default_factory=dict)
    spoke_s: dict[str, float] = field(default_factory=dict)
    down: dict[str, Said] = field(default_factory=dict)
    """Endpoint to the row that last said down, until another verdict with evidence is heard."""

    def fold(self, record: EndpointHealth) -> bool:
        """Take a record in; whether it says of any endpoint that it went down or came back."""
        if record.made_at_s < self.spoke_s.get(record.source, -math.inf):
            return False
        self.spoke_s[record.source] = record.made_at_s
        rows = self.rows.setdefault(record.source, {})
        verdicts: dict[str, Said] = {}
        for n, row in enumerate(zip(record.endpoint, record.service, record.class_, strict=True)):
            enough = record.observations[n] >= ENOUGH
            said = Said(
                record.made_at_s,
                record.verdict[n],
                record.reason[n],
                _steady_ms(rows.get(row), _first_news_ms(record, n) if enough else None),
                record.first_error_at_s[n],
            )
            rows[row] = said
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
            for row in [row for row, said in rows.items() if said.made_at_s < now_s - FORGET_S]:
                del rows[row]
        for endpoint in [e for e, said in self.down.items() if said.made_at_s < now_s - FORGET_S]:
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

    def p95_ms(self, plan: Layout) -> Floats:
        """[F, E] p95 as gateways and probes measured it; NaN where too little was."""
        measured: dict[Row, float] = {
            row: said.p95_ms for rows in self.rows.values() for row, said in rows.items() if said.p95_ms is not None
        }
        out = np.full(plan.may.shape, np.nan)
        by_row = defaultdict(list)
        for flow_row, flow in enumerate(plan.flows):
            by_row[flow.service, flow.class_.name].append(flow_row)
        for (endpoint, service, class_), p95 in measured.items():
            column = plan.endpoint_at.get(endpoint)
            if column is not None:
                out[by_row[service, class_], column] = p95
        return out


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


@dataclass(slots=True)
class HeardDemand:
    """Slots by source: start of the slot to arrivals per second by (service, origin, class)."""

    slots: dict[str, dict[float, dict[Key, float]]] = field(default_factory=dict)

    def fold(self, record: Demand) -> None:
        """Take a slot in; a slot may be said again while it grows, the last word holds."""
        keys = zip(record.service, record.origin, record.class_, strict=True)
        self.slots.setdefault(record.source, {})[record.at_s] = {
            key: arrived / record.slot_s for key, arrived in zip(keys, record.arrived, strict=True)
        }

    def advance(self, now_s: float) -> None:
        """Forget slots that are a minute old."""
        for slots in self.slots.values():
            for at_s in [at_s for at_s in slots if at_s < now_s - DEMAND_S]:
                del slots[at_s]
        for source in [source for source, slots in self.slots.items() if not slots]:
            del self.slots[source]

    def rps(self, plan: Layout) -> Floats:
        """[F] demand to have room for: what is usual of late, or the bursts of the last BURST_S where they are higher.

        Usual: of each source an exponential average over its last slots, added up. The newest slot of a source may
        still grow and is left out while there are others. The declared demand where nothing at all was heard.
        """
        if not self.slots:
            return plan.expected_rps
        return np.maximum(self._usual(plan), self._bursts(plan))

    def _bursts(self, plan: Layout) -> Floats:
        """[F] the second highest of the last BURST_S slots, all sources together: one odd second is not a burst."""
        newest = max(max(slots) for slots in self.slots.values())
        seconds = np.zeros((len(plan.flows), BURST_S))
        for slots in self.slots.values():
            for at_s, rates in slots.items():
                if 0 < (back := round(newest - at_s)) <= BURST_S:
                    for key, rps in rates.items():
                        if (row := plan.flow_at.get(key)) is not None:
                            seconds[row, back - 1] += rps
        out: Floats = np.partition(seconds, -2, axis=1)[:, -2]
        return out

    def _usual(self, plan: Layout) -> Floats:
        out = np.zeros(len(plan.flows))
        for source in sorted(self.slots):
            slots = self.slots[source]
            closed = sorted(slots, reverse=True)[1 if len(slots) > 1 else 0 :][:SLOTS]
            weights = [math.exp(-n / SMOOTH) for n in range(len(closed))]
            for at_s, weight in zip(closed, weights, strict=True):
                for key, rps in slots[at_s].items():
                    if (row := plan.flow_at.get(key)) is not None:
                        out[row] += rps * weight / sum(weights)
        return out
