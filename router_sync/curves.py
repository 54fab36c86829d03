"""What load does to latency, learnt for each endpoint and class: so that a table's own traffic does not look like news.

    p95(n) = base + slope * n                     n: requests in flight there, as a share of what it holds at once
    n(rps) = rps * W(n) / holds                   Little's law. W, the time of a whole answer, is linear in n too, so
    n(rps) = rps * w0 / (holds - rps * w1)        convex, and without end where the endpoint is saturated

        p95 │            ╱      base    without load: what an endpoint costs to a request that comes
            │         ╱╱        slope   what using more of it costs to all that are there: the price of crowding
       base │─────╱╱──
            └──────────────► rps

Slopes and the part that tokens have come from recursive least squares with forgetting, in information form (Ljung,
"System Identification", 2nd ed., 11.2): sums fade by half in HALF_S of being measured, and a prior keeps them in
reason: a p95 that doubles when all places are taken. An endpoint nobody measures is known by what it did last.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from router_sync.layout import Floats, Ints, Layout

LEARN_S: Final = 5.0
"""Between two lessons: a p95 of a minute says little new each second."""
HALF_S: Final = 600.0
SMOOTH_S: Final = 30.0
"""Load is averaged over this long, for a p95 looks back on a minute."""
STEADY: Final = 0.25
"""A p95 trembles by chance: only what is off by more than this share is news at once, the rest is learnt."""
RESIDUAL: Final = 0.8
"""The quantile of what the line does not explain, kept as a margin to the SLO."""
STEP: Final = 0.05
PRIOR: Final = np.array([1e-3, 0.3, 0.3])
"""How many lessons the prior is worth, for the base, for a full endpoint and for a thousand tokens."""
FULLEST: Final = 4.0
"""Times what an endpoint holds at once: beyond that a line says nothing."""
HALF_FULL: Final = 0.5
"""Of its places an idle-time's traffic would take at capacity, before anything was measured."""
FREE: Final = 0.1
_NONE: Final = np.zeros(0, np.intp)
Row = tuple[str, str, str]
"""(endpoint, service, class)"""


class Lesson(NamedTuple):
    """What was measured of a row just now."""

    row: Row
    inside_ms: float
    """p95 without the way there."""
    whole_ms: float
    """Median time of a whole answer."""
    rps: float
    in_flight: float | None
    """Of the endpoint, all classes together; None: nobody said, and Little's law has to do."""
    tokens: float
    """Mean of a request; 0: nobody said."""


class Curve(NamedTuple):
    """Curves of one fleet. Shapes: C rows of (service, class), E endpoints."""

    base_ms: Floats
    """[C, E]"""
    slope_ms: Floats
    """[C, E] from an empty endpoint to a full one."""
    margin_ms: Floats
    """[C, E]"""
    empty_s: Floats
    """[E] w0, of an answer where nothing else is under way."""
    crowd_s: Floats
    """[E] w1, on top where all places are taken."""
    holds: Floats
    """[E] requests at once."""

    def filled(self, rps: Floats) -> Floats:
        """[E, K] places taken, as a share, at `rps` [E, K] requests per second; at most FULLEST."""
        room = self.holds[:, None] - rps * self.crowd_s[:, None]
        taken = rps * self.empty_s[:, None]
        out: Floats = np.where(taken < FULLEST * room, taken / np.where(room > 0, room, 1.0), FULLEST)
        return out

    def extra_ms(self, rps: Floats) -> Floats:
        """[C, E, K] on top of the base, at `rps` [E, K]."""
        out: Floats = self.slope_ms[:, :, None] * self.filled(rps)
        return out


_ROW: Final = np.dtype(
    [("normal", "f8", (3, 3)), ("moment", "f8", (3, 2)), ("prior", "f8", (3, 2)), ("fit", "f8", (3, 2)),
     ("base_ms", "f8"), ("margin_ms", "f8"), ("rps", "f8")]
)  # fmt: skip
"""Sums of x x' and x y', where x is (1, places taken, thousands of tokens), y (p95 inside, time of a whole answer)."""


@dataclass(slots=True)
class Curves:
    """Sums by row, and the load by endpoint. Endpoints outlive a change of fleet that has them still."""

    at: dict[Row, int] = field(default_factory=dict)
    rows: NDArray[np.void] = field(default_factory=lambda: np.zeros(0, _ROW))
    taken: dict[str, float] = field(default_factory=dict)
    """Endpoint to places taken, smoothed, as a share."""
    measured_s: dict[str, float] = field(default_factory=dict)
    """Endpoint to when a lesson was last learnt of it."""
    learnt_at_s: float = float("-inf")

    def due(self, now_s: float) -> bool:
        """Whether it is time for the next lesson."""
        return now_s >= self.learnt_at_s + LEARN_S

    def learn(self, lessons: Sequence[Lesson], holds: Mapping[str, float], now_s: float) -> None:
        """Take in what was measured at `now_s`; `holds`: endpoint to requests it holds at once."""
        gone_s = now_s - self.learnt_at_s
        self.learnt_at_s = now_s
        keep = 0.5 ** (LEARN_S / HALF_S)
        self._fill(lessons, holds, min(1.0, 1.0 - np.exp(-gone_s / SMOOTH_S)))
        if not lessons:
            return
        rows = np.array([self._row(lesson) for lesson in lessons], np.intp)
        load = np.array([self.taken.get(lesson.row[0], 0.0) for lesson in lessons])
        x = np.column_stack((np.ones(len(rows)), load, [lesson.tokens / 1000.0 for lesson in lessons]))
        y = np.array([(lesson.inside_ms, lesson.whole_ms) for lesson in lessons])
        known = self.rows[rows]
        known["normal"] = keep * known["normal"] + x[:, :, None] * x[:, None, :]
        known["moment"] = keep * known["moment"] + x[:, :, None] * y[:, None, :]
        known["rps"] = [lesson.rps for lesson in lessons]
        moment = known["moment"] + PRIOR[:, None] * known["prior"]
        known["fit"] = np.linalg.solve(known["normal"] + np.diag(PRIOR), moment)
        _settle(known, x, y[:, 0])
        self.rows[rows] = known
        self.measured_s |= dict.fromkeys((lesson.row[0] for lesson in lessons), now_s)

    def keep(self, endpoints: Container[str]) -> None:
        """Forget all but these."""
        kept = [row for row in self.at if row[0] in endpoints]
        self.rows = self.rows[[self.at[row] for row in kept]]
        self.at = {row: n for n, row in enumerate(kept)}
        self.taken = {name: taken for name, taken in self.taken.items() if name in endpoints}
        self.measured_s = {name: at_s for name, at_s in self.measured_s.items() if name in endpoints}

    def curve(self, plan: Layout) -> Curve:
        """What is known of the endpoints of `plan`; the declared, where nothing is."""
        declared = np.tile(plan.declared_ms, (len(plan.classes), 1))
        base, slope, margin = declared.copy(), declared.copy(), np.zeros(declared.shape)
        met = [
            (plan.classes[row[1:]], plan.endpoint_at[row[0]], at)
            for row, at in self.at.items()
            if row[1:] in plan.classes and row[0] in plan.endpoint_at
        ]
        classes, ends, at = (np.array(column, np.intp) for column in zip(*met, strict=True)) if met else (_NONE,) * 3
        known = self.rows[at]
        base[classes, ends], margin[classes, ends] = known["base_ms"], known["margin_ms"]
        slope[classes, ends] = np.maximum(known["fit"][:, 1, 0], 0.0)
        holds = np.array([max(1.0, float(e.concurrency * e.replicas)) for e in plan.fleet.endpoints])
        usual_s = HALF_FULL * holds / np.maximum(plan.capacity_rps, 1e-9)
        empty, crowd = (_of_ends(known, ends, of, usual_s) for of in (0, 1))
        return Curve(base, slope, margin, empty, crowd, holds)

    def _row(self, lesson: Lesson) -> int:
        """The row of a lesson; its prior is what was measured first."""
        row = self.at.get(lesson.row)
        if row is None:
            row = self.at[lesson.row] = len(self.at)
            if row >= len(self.rows):
                self.rows = np.concatenate((self.rows, np.zeros(max(64, row), _ROW)))
            load = self.taken.get(lesson.row[0], 0.0)
            # of a line that doubles from empty to full
            first = np.array([lesson.inside_ms, lesson.whole_ms]) / (1.0 + load)
            self.rows[row]["prior"][:2] = first
            self.rows[row]["base_ms"] = first[0]
        return row

    def _fill(self, lessons: Sequence[Lesson], holds: Mapping[str, float], weight: float) -> None:
        """Smooth the places taken of each endpoint that was measured."""
        for endpoint, in_flight in _in_flight(lessons):
            now = min(FULLEST, in_flight / max(1.0, holds.get(endpoint, 1.0)))
            before = self.taken.get(endpoint, now)
            self.taken[endpoint] = before + weight * (now - before)


def _settle(known: NDArray[np.void], x: Floats, inside_ms: Floats) -> None:
    """The base as the line has it; where what is measured is off by more than chance, as it is measured now."""
    line = known["fit"][:, :, 0]
    crowd = np.maximum(line[:, 1], 0.0) * x[:, 1]
    usual = line[:, 0] + line[:, 2] * x[:, 2]
    chance = np.abs(inside_ms - usual - crowd) <= STEADY * inside_ms
    # never below a tenth of what was measured: a slope that is too steep must not make anyone look free
    known["base_ms"] = np.maximum(np.where(chance, usual, inside_ms - crowd), FREE * inside_ms)
    over = inside_ms - known["base_ms"] - crowd > known["margin_ms"]
    step = STEP * inside_ms * np.where(over, RESIDUAL, RESIDUAL - 1.0)
    known["margin_ms"] = np.maximum(0.0, known["margin_ms"] + step)


def _of_ends(known: NDArray[np.void], ends: Ints, of: int, usual_s: Floats) -> Floats:
    """[E] seconds of a whole answer, one coefficient, of classes as they come; `usual_s` where none was measured."""
    part = np.maximum(known["rps"], 1e-9)
    weight, seconds = np.zeros(len(usual_s)), np.zeros(len(usual_s))
    np.add.at(weight, ends, part)
    np.add.at(seconds, ends, part * np.maximum(known["fit"][:, of, 1], 1.0 - of) / 1000.0)
    out: Floats = np.where(weight > 0, seconds / np.where(weight > 0, weight, 1.0), usual_s)
    return out


def _in_flight(lessons: Sequence[Lesson]) -> Iterator[tuple[str, float]]:
    """Endpoint to the requests in flight there; by Little's law where nobody counted."""
    told: dict[str, float] = {}
    little: dict[str, float] = {}
    for lesson in lessons:
        name = lesson.row[0]
        if lesson.in_flight is not None:
            told[name] = max(told.get(name, 0.0), lesson.in_flight)
        little[name] = little.get(name, 0.0) + lesson.rps * lesson.whole_ms / 1000.0
    yield from {**little, **told}.items()
