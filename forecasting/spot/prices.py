"""The price of one pool over the last week: what it is, and what it usually is."""

from __future__ import annotations

from bisect import insort
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

WEEK_S: Final = 7 * 86_400.0
MOST: Final = 500
"""Changes kept; the oldest make room."""


@dataclass(slots=True)
class Prices:
    """Changes as (since, dollars per hour), oldest first."""

    changes: list[tuple[float, float]] = field(default_factory=list)
    usual: float | None = None
    """Median of what was before the first change, as a worker before this one knew it."""

    def add(self, since_s: float, usd_per_h: float) -> None:
        """A price in force since `since_s`; a later word on the same time holds."""
        self.changes = [change for change in self.changes if change[0] != since_s]
        insort(self.changes, (since_s, usd_per_h))
        del self.changes[:-MOST]

    def now(self, now_s: float) -> float | None:
        """The price in force at `now_s`; None: none was heard."""
        return next((usd for since_s, usd in reversed(self.changes) if since_s <= now_s), None)

    def median(self, now_s: float) -> float | None:
        """The price that was not exceeded half of the last week, or of what is known of it.

        >>> Prices([(0.0, 1.0), (3600.0, 9.0)]).median(5400.0)
        1.0
        """
        ends = [change for change in self.changes if change[0] <= now_s]
        if not ends:
            return self.usual
        since_s = now_s - WEEK_S
        spans = [(usd, max(0.0, b - max(a, since_s))) for (a, usd), (b, _) in pairwise([*ends, (now_s, 0.0)])]
        if self.usual is not None:
            spans.append((self.usual, max(0.0, ends[0][0] - since_s)))
        half = sum(span for _, span in spans) / 2.0
        for usd, span in sorted(spans):
            half -= span
            if half <= 0.0:
                return usd
        return ends[-1][1]
