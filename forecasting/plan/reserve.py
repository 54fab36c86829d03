"""How much is held in reserve: a part of the largest spot zone, tuned to the error budgets of the services.

Each minute that was all served lowers it a little, each request that was not raises it; where the two balance, what
goes unserved is the error budget. So a fleet that never fails pays less, one that fails pays for more, in bounds.

    d reserve / minute = GAIN * (unserved share / error budget - 1)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from forecasting.plan.site import Key

LEAST: Final = 0.5
MOST: Final = 2.0
GAIN: Final = 0.1 / 1440.0
"""A day within budget lowers it by a tenth."""
WORST: Final = 1000.0
"""A minute counts as at most so many budgets: an outage is not answered by reserves alone."""


Toll = Mapping[Key, tuple[float, float]]
"""Of one minute: what arrived, and what of it was shed or failed."""


@dataclass(slots=True)
class Reserve:
    """The part of the largest spot zone that is held ready."""

    part: float = 1.0

    def learn(self, toll: Iterable[Toll], budgets: Mapping[Key, float]) -> None:
        """Closed minutes. `budgets`: of the flows that the reserve is for. Of several services the worst off counts."""
        for minute in toll:
            sums: dict[str, tuple[float, float]] = {}
            for key, (arrived, missed) in minute.items():
                if key in budgets:
                    whole, spent = sums.get(key[0], (0.0, 0.0))
                    sums[key[0]] = whole + arrived, spent + missed / budgets[key]
            if shares := [spent / whole for whole, spent in sums.values() if whole]:
                moved = self.part + GAIN * (min(WORST, max(shares)) - 1.0)
                self.part = min(MOST, max(LEAST, moved))
