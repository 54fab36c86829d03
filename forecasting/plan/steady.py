"""Up at once, down slowly: what is published of what was decided.

```
 decided   3 3 8 3 3 3 3 3 3 3 3 3
 wanted    3 3 8 8 8 8 8 8 8 3 3 3      a pool keeps what it needed within the last five minutes
           └──────┘ no cap on the step
```
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from forecasting.plan.mix import Answer
from forecasting.plan.site import Floats, Site
from forecasting.plan.situation import Situation
from streams.contract.records import CapacityPlan

DOWN_S: Final = 300.0
"""A pool keeps what it needed within so long."""


@dataclass(slots=True)
class Steady:
    """Endpoint to (since, replicas) of the last decisions, oldest first; those that count no more are gone."""

    decided: dict[str, list[tuple[float, float]]] = field(default_factory=dict)

    def add(self, where: Site, answer: Answer, now_s: float) -> None:
        """A decision, in force from `now_s` on."""
        for name, number in zip(where.names, answer.replicas.tolist(), strict=True):
            self.decided.setdefault(name, []).append((now_s, number))

    def keep(self, where: Site) -> None:
        """Forget endpoints that the fleet has no more."""
        self.decided = {name: since for name, since in self.decided.items() if name in where.endpoint_at}

    def wants(self, now: Situation, plans: Mapping[str, CapacityPlan], now_s: float, *, blind: bool) -> Floats:
        """[E] the most that was decided within DOWN_S, within bounds. `blind`: what is needed is not known, so that
        nothing is let go of what is there or was planned."""
        where, mix = now.site, now.mix
        wants = np.array([self._recent(name, now_s) for name in where.names])
        held = {pool: float(plan.want) for pool, plan in plans.items() if pool in where.rows_of}
        if blind:
            wants = np.maximum(wants, mix.ready)
            for pool, want in held.items():
                _raise(wants, where, pool, want)
        wants = np.minimum(wants, mix.most)
        for pool in {where.pool[where.endpoint_at[name]] for name in now.gone}:
            # who is not counted on keeps what it was to have: it may come back
            stock = now.stocks[pool]
            _raise(wants, where, pool, min(held.get(pool, float(stock.ready)), stock.most))
        clamped: Floats = np.where(where.planned, np.clip(wants, where.least, where.most), wants)
        return clamped

    def _recent(self, name: str, now_s: float) -> float:
        decisions = self.decided.get(name, [])
        while len(decisions) > 1 and decisions[1][0] <= now_s - DOWN_S:
            del decisions[0]
        return max((number for _, number in decisions), default=0.0)


def _raise(wants: Floats, where: Site, pool: str, want: float) -> None:
    """Add to a pool what it lacks of `want`."""
    rows = where.rows_of[pool]
    wants[rows[0]] += max(0.0, want - float(wants[rows].sum()))
