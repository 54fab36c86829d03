"""How much of each endpoint is kept for what nobody expected, tuned to the error budget; and what one lost zone costs.

The reserve is the last segment of every endpoint's capacity (`problem`), used only when nothing else is left. It grows
while more requests are lost than the error budget allows, and shrinks slowly while far fewer are: losses come within
minutes, and the money that a reserve costs within months.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from router_sync.greedy import greedy
from router_sync.layout import Floats, Layout
from router_sync.problem import LEAST_RESERVE, MOST_RESERVE, RESERVE, Problem

EVERY_S: Final = 60.0
MORE: Final = 0.02
LESS: Final = 0.001
HALF_S: Final = 3600.0
"""Losses count half after this long."""
FEW: Final = 1000.0
"""Requests that a share of losses needs to mean something."""


@dataclass(slots=True)
class Reserve:
    """The reserve in force, and what was lost of what arrived, fading."""

    share: float = RESERVE
    arrived: float = 0.0
    lost: float = 0.0
    at_s: float | None = None

    def count(self, arrived: float, lost: float) -> None:
        """So many requests arrived, and so many of them were lost: failed, or shed though not sheddable."""
        self.arrived += arrived
        self.lost += lost

    def advance(self, budget: float, now_s: float) -> None:
        """Once a minute: move the reserve by how losses stand to the error `budget`."""
        if self.at_s is None:
            self.at_s = now_s
        if now_s - self.at_s < EVERY_S:
            return
        keep = 0.5 ** ((now_s - self.at_s) / HALF_S)
        self.at_s = now_s
        self.arrived, self.lost = keep * self.arrived, keep * self.lost
        if self.arrived < FEW:
            return
        burnt = self.lost / self.arrived / budget
        step = MORE if burnt > 1.0 else -LESS if burnt < 0.5 else 0.0
        self.share = round(min(MOST_RESERVE, max(LEAST_RESERVE, self.share + step)), 4)


def widest_loss(plan: Layout, problem: Problem, shares: Floats) -> tuple[str, float]:
    """The zone that carries most now, and the requests/s that would find no capacity if it fell: N - 1.

    By greedy refill, so what is said is at least what is lost. ("", 0.0) where nothing is carried.
    """
    load = (shares * problem.demand_rps[:, None]).sum(axis=0)
    places = [f"{e.provider}/{e.region}/{e.zone}" for e in plan.fleet.endpoints]
    carried: dict[str, float] = {}
    for place, rps in zip(places, load.tolist(), strict=True):
        carried[place] = carried.get(place, 0.0) + rps
    worst = max(carried, key=lambda place: (carried[place], place), default="")
    if not carried or carried[worst] <= 0:
        return "", 0.0
    left = np.array([place != worst for place in places])
    without = replace(problem, may=problem.may & left, most_share=np.ones(len(left)))
    served = greedy(without, shares * left)
    return worst, float(np.maximum(0.0, 1.0 - served.sum(axis=1)) @ problem.demand_rps)
