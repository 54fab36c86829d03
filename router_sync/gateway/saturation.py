"""How full an endpoint is, as far as this gateway can see: 0 is empty, 1 is all it can hold in time, 2 at most.

    saturation = the larger of    in flight from here / most held well      known at once
                                  lateness of what it answered lately       known to all of its callers

**Held well.** An endpoint holds the table's `concurrency`, which other gateways share and which may never have been
measured: so it also holds twice what it lately had in flight from here at requests that it then answered at ease. Until
answers say otherwise there is room.

**Lateness.** With several gateways none sees all that an endpoint holds, but each sees how long answers take:

    an answer's lateness = (latency - usual) / the larger of usual and half an SLO         within 0..2; a 429 is 2
                                                                   of the strictest route that leads there
    120 ms usually, SLO 400 ms:   120 ms ─► 0    220 ms ─► 0.5    320 ms ─► 1

Whatever waits there is taken to wait in one queue, so that patient classes tell what an impatient one would meet.
Answers are compared with their like only: of the same service and class, streamed (to the first token) or whole. No
single one weighs more than a sixteenth: a long one among many short proves nothing. What is usual is learnt in a minute
while answers are at ease, in ten while they are not, so that overload does not soon pass for usual; the first sixteen
are usual whatever they took. Each answer that is missing counts as one at ease: who gets no requests is tried again.
"""

from __future__ import annotations

from math import exp
from typing import Final, NamedTuple

MOST: Final = 2.0
WEIGHT: Final = 1 / 16
"""Of one answer in the lateness."""
MOST_GAP_S: Final = 1.0
"""An answer after a long silence counts as if it came after this."""
USUAL_S: Final = 60.0
UNUSUAL_S: Final = 600.0
AT_EASE: Final = 0.25
_FIRST: Final = 16


class Kind(NamedTuple):
    """Answers that are alike."""

    service: str
    class_: str
    streamed: bool


class _Lateness:
    """Of answers of one kind."""

    __slots__ = ("_answers", "_at_s", "_gap_s", "_late", "_usual_ms")

    def __init__(self) -> None:
        self._late = self._usual_ms = self._at_s = self._gap_s = 0.0
        self._answers = 0

    def now(self, now_s: float) -> float:
        missed = (now_s - self._at_s) / max(self._gap_s, 1e-3) - 1
        return self._late * exp(-missed * WEIGHT) if missed > 0 else self._late

    def answered(self, latency_ms: float, slo_ms: float, now_s: float) -> None:
        usual_ms = self._usual_ms or latency_ms
        late = (latency_ms - usual_ms) / max(usual_ms, slo_ms / 2, 1e-3)
        self._learn(latency_ms, now_s)
        self.count(min(MOST, max(0.0, late)), now_s)

    def count(self, late: float, now_s: float) -> None:
        before, gap_s = self.now(now_s), min(MOST_GAP_S, now_s - self._at_s)
        self._late, self._at_s = before + (late - before) * WEIGHT, now_s
        self._gap_s += (gap_s - self._gap_s) * WEIGHT

    def _learn(self, latency_ms: float, now_s: float) -> None:
        self._answers += 1
        at_ease = self.now(now_s) <= AT_EASE
        gap_s = min(MOST_GAP_S, now_s - self._at_s)  # an answer after a long silence teaches no more than others
        weight = 1 - exp(-gap_s / (USUAL_S if at_ease else UNUSUAL_S))
        if at_ease or self._answers <= _FIRST:
            weight = max(weight, 1 / self._answers)  # while there are few, their plain mean
        self._usual_ms += (latency_ms - self._usual_ms) * weight


class Load:
    """Of one endpoint, over all services and classes. Times are seconds of one clock that never goes back."""

    __slots__ = ("_kinds", "_well", "_well_at_s")

    def __init__(self) -> None:
        self._kinds: dict[Kind, _Lateness] = {}
        self._well = self._well_at_s = 0.0

    def answered(self, kind: Kind, latency_ms: float, slo_ms: float, held: int, now_s: float) -> None:
        """It answered; with this request `held` were in flight from here when it was sent.

        `slo_ms`: of the strictest route that leads there.
        """
        self._of(kind).answered(latency_ms, slo_ms, now_s)
        if held > self._well_now(now_s) and self.lateness(now_s) <= AT_EASE:
            self._well, self._well_at_s = float(held), now_s

    def refused(self, kind: Kind, now_s: float) -> None:
        """It answered 429."""
        self._of(kind).count(MOST, now_s)

    def lateness(self, now_s: float) -> float:
        """Of the kind of answers that is latest, 0..2."""
        return max((of.now(now_s) for of in self._kinds.values()), default=0.0)

    def saturation(self, held: int, concurrency: float, now_s: float) -> float:
        """0..2, where `held` are in flight from here now and the table says `concurrency`."""
        room = max(concurrency, 2 * self._well_now(now_s), 1.0)
        return min(MOST, max(held / room, self.lateness(now_s)))

    def _well_now(self, now_s: float) -> float:
        return self._well * exp((self._well_at_s - now_s) / USUAL_S)

    def _of(self, kind: Kind) -> _Lateness:
        of = self._kinds.get(kind)
        if of is None:
            of = self._kinds[kind] = _Lateness()
        return of
