"""Curves learnt for each endpoint and class, so that a table's own traffic does not look like news.

    lesson (p95, whole answer, in flight, tokens) ── load was steady? ─► sums that fade ─► fit
                                                  └─► news? ─► base as it is now ─► told, if it is another

A p95 looks back on a minute. What is learnt is learnt while load was about the same all that time; and what is slower
than expected is news only against how full the endpoint was at most in that time: a p95 that is still high after the
load has gone is none. Who is slower than expected while full crowds more; who is so below the knee is slow.

Coefficients come from recursive least squares with forgetting, in information form (Ljung, "System Identification",
2nd ed., 11.2): sums fade by half in HALF_S of being measured. The prior is the declared p95, doubling from empty to
full; it gives way sooner in the bend than in the base. An endpoint nobody measures is known by what it did last.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from router_sync.curve import FULLEST, KNEE, Curve
from router_sync.layout import Bools, Floats, Ints, Layout

LEARN_S: Final = 5.0
"""Between two lessons: a p95 of a minute says little new each second."""
HALF_S: Final = 600.0
SMOOTH_S: Final = 10.0
WINDOW_S: Final = 60.0
"""How far a p95 looks back."""
CALM: Final = 0.25
"""Load was steady if it stayed within this share of the most it was, or within a twentieth of full."""
STEADY: Final = 0.25
"""A p95 trembles by chance: only what is off by more than this share is news at once, the rest is learnt."""
RESIDUAL: Final = 0.8
"""The quantile of what a curve does not explain, kept as a margin to the SLO."""
STEP: Final = 0.05
OTHER: Final = 0.1
"""A curve is told anew when its base is off by more than this share of what was told, or another coefficient by three
times that of the base: what is decided by a curve must not be decided anew by each lesson."""
PRIOR: Final = np.array([0.3, 0.1, 0.03, 0.3])
"""How many lessons the prior is worth: for base, slope, bend and a thousand tokens."""
DOUBLING: Final = np.array([1.0, 0.3, 0.7 / (1.0 - KNEE)])
"""Base, slope and bend of what doubles from empty to full."""
LINGERS: Final = np.array([0.8, 0.1, 0.1 / (1.0 - KNEE)])
"""The same of a whole answer, which takes its time at ease when full."""
EASE_S: Final = 3600.0
"""In which the pace at ease follows an endpoint that has become slower for good; it follows a faster one at once."""
LEAST: Final = 0.1
_NEVER: Final = 1e12
_NONE: Final = np.zeros(0, np.intp)
_SETS: Final = np.array([[0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 1, 1, 0]])
"""Which of slope and bend are held at 0."""
_ROW: Final = np.dtype(
    [("normal", "f8", (4, 4)), ("moment", "f8", (4, 2)), ("prior", "f8", (4, 2)), ("fit", "f8", (4, 2)),
     ("base_ms", "f8"), ("bend_ms", "f8"), ("margin_ms", "f8"), ("rps", "f8"), ("told", "f8", (7,))]
)  # fmt: skip
"""Sums of x x' and x y': x is (1, how full, beyond the knee, thousands of tokens), y (p95 inside, an answer's time)."""
Row = tuple[str, str, str]
"""(endpoint, service, class)"""


class Size(NamedTuple):
    """What is declared of an endpoint, of the replicas that are ready."""

    holds: float
    """Requests at once."""
    capacity_rps: float
    latency_ms: float


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


@dataclass(slots=True)
class Curves:
    """Sums by row, and the load by endpoint. Endpoints outlive a change of fleet that has them still."""

    at: dict[Row, int] = field(default_factory=dict)
    rows: NDArray[np.void] = field(default_factory=lambda: np.zeros(0, _ROW))
    load: dict[str, float] = field(default_factory=dict)
    """Endpoint to how full it is, smoothed."""
    past: dict[str, deque[tuple[float, float]]] = field(default_factory=dict)
    """Endpoint to when it was how full, of the last WINDOW_S."""
    ease_s: dict[str, float] = field(default_factory=dict)
    """Endpoint to the time of a whole answer at ease."""
    measured_s: dict[str, float] = field(default_factory=dict)
    """Endpoint to when a lesson was last learnt of it."""
    learnt_at_s: float = float("-inf")

    def due(self, now_s: float) -> bool:
        """Whether it is time for the next lesson."""
        return now_s >= self.learnt_at_s + LEARN_S

    def learn(self, lessons: Sequence[Lesson], sizes: Mapping[str, Size], now_s: float) -> None:
        """Take in what was measured at `now_s`; `sizes` by endpoint."""
        gone_s, self.learnt_at_s = now_s - self.learnt_at_s, now_s
        self._follow(lessons, sizes, min(1.0, 1.0 - np.exp(-gone_s / SMOOTH_S)), now_s)
        if not lessons:
            return
        rows = np.array([self._row(lesson, sizes) for lesson in lessons], np.intp)
        most, least, since_s = np.array([self._range(lesson.row[0]) for lesson in lessons]).T
        known_long = now_s - since_s >= WINDOW_S - 2 * LEARN_S
        calm = known_long & (most - least <= np.maximum(CALM * most, 0.05))
        tokens = np.array([lesson.tokens / 1000.0 for lesson in lessons])
        x = np.column_stack((np.ones(len(rows)), most, np.maximum(most - KNEE, 0.0), tokens))
        y = np.array([(lesson.inside_ms, lesson.whole_ms) for lesson in lessons])
        known = self.rows[rows]
        keep, new = np.where(calm, 0.5 ** (LEARN_S / HALF_S), 1.0)[:, None, None], calm[:, None, None]
        known["normal"] = keep * known["normal"] + new * x[:, :, None] * x[:, None, :]
        known["moment"] = keep * known["moment"] + new * x[:, :, None] * y[:, None, :]
        known["rps"] = [lesson.rps for lesson in lessons]
        known["prior"][:, :3, 1] = np.outer([self.ease_s[lesson.row[0]] * 1000.0 for lesson in lessons], LINGERS)
        known["fit"] = _fitted(known["normal"] + np.diag(PRIOR), known["moment"] + PRIOR[:, None] * known["prior"])
        _settle(known, x, y[:, 0], calm, known_long)
        _tell(known)
        self.rows[rows] = known
        self.measured_s |= dict.fromkeys((lesson.row[0] for lesson in lessons), now_s)

    def keep(self, endpoints: Container[str]) -> None:
        """Forget all but these."""
        kept = [row for row in self.at if row[0] in endpoints]
        self.rows = self.rows[[self.at[row] for row in kept]]
        self.at = {row: n for n, row in enumerate(kept)}
        for held in (self.load, self.past, self.ease_s, self.measured_s):
            for name in [name for name in held if name not in endpoints]:
                del held[name]

    def curve(self, plan: Layout) -> Curve:
        """What is known of the endpoints of `plan`; the declared, where nothing is."""
        met = [
            (plan.classes[row[1:]], plan.endpoint_at[row[0]], at)
            for row, at in self.at.items()
            if row[1:] in plan.classes and row[0] in plan.endpoint_at
        ]
        classes, ends, at = (np.array(column, np.intp) for column in zip(*met, strict=True)) if met else (_NONE,) * 3
        known, declared = self.rows[at], np.tile(plan.declared_ms, (len(plan.classes), 1))
        base, slope, bend, margin = (part * declared for part in (*DOUBLING, 0.0))
        for n, line in enumerate((base, slope, bend, margin)):
            line[classes, ends] = known["told"][:, n]
        capacity = np.maximum(plan.capacity_rps, 1e-9)
        holds = np.array([max(1.0, float(e.concurrency * e.replicas)) for e in plan.fleet.endpoints])
        ease_s = np.array([self.ease_s.get(name, np.inf) for name in plan.names])
        full = np.minimum(holds, np.maximum(capacity * ease_s, 1.0))
        w0, w1, w2 = (_of_ends(known, ends, n, part * full / capacity) for n, part in enumerate(LINGERS))
        return Curve(base, slope, bend, margin, w0, w1, w2, full)

    def _row(self, lesson: Lesson, sizes: Mapping[str, Size]) -> int:
        """The row of a lesson."""
        row = self.at.get(lesson.row)
        if row is None:
            row = self.at[lesson.row] = len(self.at)
            if row >= len(self.rows):
                self.rows = np.concatenate((self.rows, np.zeros(max(64, row), _ROW)))
            name = lesson.row[0]
            self.rows[row]["prior"][:3, 0] = DOUBLING * sizes[name].latency_ms
            self.rows[row]["base_ms"] = sizes[name].latency_ms
            self.rows[row]["bend_ms"] = DOUBLING[2] * sizes[name].latency_ms
        return row

    def _range(self, endpoint: str) -> tuple[float, float, float]:
        """How full it was at most and at least of late, and since when that is known."""
        past = self.past[endpoint]
        full = [each for _, each in past]
        return max(full), min(full), past[0][0]

    def _follow(self, lessons: Sequence[Lesson], sizes: Mapping[str, Size], weight: float, now_s: float) -> None:
        """Of each endpoint that was measured: its pace at ease, and how full it is."""
        for name, whole_s, in_flight in _by_endpoint(lessons):
            ease_s = self.ease_s.get(name, whole_s)
            self.ease_s[name] = min(whole_s, ease_s + (whole_s - ease_s) * LEARN_S / EASE_S)
            size = sizes[name]
            full = min(size.holds, size.capacity_rps * self.ease_s[name])
            now = min(FULLEST, in_flight / max(1.0, full))
            before = self.load.get(name, now)
            self.load[name] = before + weight * (now - before)
            past = self.past.setdefault(name, deque())
            past.append((now_s, self.load[name]))
            while past[0][0] <= now_s - WINDOW_S:
                past.popleft()


def _fitted(normal: Floats, moment: Floats) -> Floats:
    """[N, 4, 2] least squares with slope and bend 0 or more: of four choices of what is held at 0 the best that is fit.

    A quadratic programme of two signs has its optimum at one of them.
    """
    held = np.linalg.solve(normal + _NEVER * _SETS[:, None, :, None] * np.eye(4), moment[None])
    cost = (held * (normal @ held - 2.0 * moment)).sum(axis=2)
    fit = (held[:, :, 1:3] >= -1e-9).all(axis=2)
    best = np.where(fit, cost, np.inf).argmin(axis=0)
    out: Floats = np.take_along_axis(held, best[None, :, None, :], axis=0)[0]
    return out


def _settle(known: NDArray[np.void], x: Floats, inside_ms: Floats, calm: Bools, known_long: Bools) -> None:
    """Base and bend as they are now: the fit's, or as measured, where that is off by more than chance.

    Slower below the knee: the endpoint is slow. Slower beyond it: it crowds. Both are news if the load is `known_long`;
    faster is only in `calm`.
    """
    line = known["fit"][:, :, 0]
    n, beyond = x[:, 1], x[:, 2]
    usual = line[:, 0] + line[:, 3] * x[:, 3]
    off = inside_ms - usual - line[:, 1] * n - line[:, 2] * beyond
    chance, full = np.abs(off) <= STEADY * inside_ms, beyond > 0
    slow = (off > 0) & known_long & ~chance
    moved = (slow & ~full) | ((off < 0) & calm & ~chance)
    # never below a tenth of what was measured: a slope that is too steep must not make anyone look free
    base = np.maximum(usual + np.where(moved, off, 0.0), LEAST * inside_ms)
    known["base_ms"] = np.where((chance & known_long) | moved, base, known["base_ms"])
    crowds = np.where(slow & full, off / np.maximum(beyond, LEAST), 0.0)
    known["bend_ms"] = np.where(known_long, line[:, 2] + crowds, known["bend_ms"])
    step = STEP * inside_ms * np.where(off - np.where(moved, off, 0.0) > known["margin_ms"], RESIDUAL, RESIDUAL - 1.0)
    known["margin_ms"] = np.maximum(0.0, known["margin_ms"] + (calm & chance) * step)


def _tell(known: NDArray[np.void]) -> None:
    """Take over curves that are other than those that were told last."""
    fit = np.maximum(known["fit"], 0.0)
    line = np.column_stack((known["base_ms"], fit[:, 1, 0], known["bend_ms"], known["margin_ms"]))
    now = np.column_stack((line, np.maximum(fit[:, 0, 1], 1.0), fit[:, 1:3, 1]))
    scale = np.where(np.arange(7) < 4, now[:, :1], now[:, 4:5])
    by = OTHER * np.where(np.isin(np.arange(7), (0, 3)), 1.0, 3.0)
    told = known["told"]
    other = (np.abs(now - told) > by * np.maximum(scale, np.abs(told))).any(axis=1)
    known["told"] = np.where(other[:, None], now, told)


def _of_ends(known: NDArray[np.void], ends: Ints, n: int, usual_s: Floats) -> Floats:
    """[E] a coefficient of the time of a whole answer, seconds, classes as they come; `usual_s` where none was met."""
    part = np.maximum(known["rps"], 1e-9)
    weight, seconds = np.zeros(len(usual_s)), np.zeros(len(usual_s))
    np.add.at(weight, ends, part)
    np.add.at(seconds, ends, part * known["told"][:, 4 + n] / 1000.0)
    out: Floats = np.where(weight > 0, seconds / np.where(weight > 0, weight, 1.0), usual_s)
    return out


def _by_endpoint(lessons: Sequence[Lesson]) -> Iterator[tuple[str, float, float]]:
    """(endpoint, time of a whole answer in seconds, requests in flight); by Little's law where nobody counted them."""
    told: dict[str, float] = {}
    rps: dict[str, float] = {}
    little: dict[str, float] = {}
    for lesson in lessons:
        name = lesson.row[0]
        if lesson.in_flight is not None:
            told[name] = max(told.get(name, 0.0), lesson.in_flight)
        rps[name] = rps.get(name, 0.0) + max(lesson.rps, 1e-9)
        little[name] = little.get(name, 0.0) + max(lesson.rps, 1e-9) * lesson.whole_ms / 1000.0
    for name in little:
        yield name, little[name] / rps[name], told.get(name, little[name])
