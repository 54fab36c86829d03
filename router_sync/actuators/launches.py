"""How long a pool takes from a launch to readiness, and what never got there: measured, not configured.

launched  ●────●●─────●                 ready grows by one: the oldest launch under way got there
          │    ││     │    time ─►
ready     └────┼┼──○  └─ too long: failed
               └┴────────○○
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Final

KEPT: Final = 20
"""Cold starts that are looked back on."""
FEW: Final = 3
"""Fewer say nothing yet."""
SHARE: Final = 0.9
PATIENCE: Final = 3.0
"""Cold starts after which a launch has failed."""
LEAST_PATIENCE_S: Final = 60.0


@dataclass(slots=True)
class Launches:
    """Launches under way, oldest first, and how long the last ones took. Times are unix seconds."""

    under_way_s: list[float] = field(default_factory=list)
    took_s: list[float] = field(default_factory=list)
    before_s: float | None = None
    """What an owner before us measured."""
    failed: int = 0

    @property
    def cold_start_s(self) -> float | None:
        """Nine in ten were as quick; None: too few were seen.

        >>> Launches(took_s=[30.0, 20.0, 90.0, 40.0]).cold_start_s
        90.0
        """
        if len(self.took_s) < FEW:
            return self.before_s
        return sorted(self.took_s)[math.ceil(SHARE * len(self.took_s)) - 1]

    def begin(self, count: int, at_s: float) -> None:
        """`count` replicas were launched at `at_s`."""
        self.under_way_s += [at_s] * count

    def arrive(self, count: int, at_s: float) -> list[float]:
        """`count` more replicas are ready since the last look; how long each of ours took."""
        there, self.under_way_s = self.under_way_s[:count], self.under_way_s[count:]
        took_s = [at_s - begun_s for begun_s in there]
        self.took_s = [*self.took_s, *took_s][-KEPT:]
        return took_s

    def at_most(self, count: int) -> None:
        """No more than `count` are awaited any more."""
        del self.under_way_s[max(0, count) :]

    def give_up(self, now_s: float, patience_s: float) -> int:
        """How many have taken too long; they have failed."""
        late = sum(now_s - begun_s > patience_s for begun_s in self.under_way_s)
        del self.under_way_s[:late]
        self.failed += late
        return late

    def patience_s(self, declared_s: float) -> float:
        """After which a launch has failed, where cold starts are declared to take `declared_s`."""
        return max(LEAST_PATIENCE_S, PATIENCE * (self.cold_start_s or declared_s))
