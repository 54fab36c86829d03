"""How much is held in reserve: a part of the largest spot zone, tuned to the error budgets of the services.

Each minute that was all served lowers it a little, each request that was not raises it; where the two balance, what
what goes unserved is the error budget. So a fleet that never fails pays less, one that fails pays for more, in bounds.

    d reserve / minute = GAIN * (unserved share / error budget - 1)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

LEAST: Final = 0.5
MOST: Final = 2.0
GAIN: Final = 0.1 / 1440.0
"""A day within budget lowers it by a tenth."""
WORST: Final = 1000.0
"""A minute counts as at most so many budgets: an outage is not answered by reserves alone."""


Toll = tuple[Mapping[str, float], Mapping[str, float]]
"""Of one minute: what arrived, and what was shed or failed, by service."""


@dataclass(slots=True)
class Reserve:
    """The part of the largest spot zone that is held ready."""

    part: float = 1.0

    def learn(
        self, toll: Iterable[tuple[Mapping[str, float], Mapping[str, float]]], budgets: Mapping[str, float]
    ) -> None:
        """Closed minutes; of several services the one worst off counts."""
        for arrived, missed in toll:
            spent = [
                missed.get(name, 0.0) / arrived[name] / budget for name, budget in budgets.items() if arrived.get(name)
            ]
            if spent:
                moved = self.part + GAIN * (min(WORST, max(spent)) - 1.0)
                self.part = min(MOST, max(LEAST, moved))
