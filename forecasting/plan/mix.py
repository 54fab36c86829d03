"""What the planner is asked and what it answers: plain arrays that can be pickled. Shapes: G groups, E endpoints.

Groups are flows that may use the same endpoints at the same cost: planned as one.

Reserve. What may be lost at once is the largest spot zone in use; a part of it (`reserve`, tuned to error budgets) is
held ready on top of demand, and so is what forecasts are unsure of, whichever is more. It is pooled: one reserve for
those who may go anywhere, one for each circle that law draws, the smaller within the larger. Ballast, work that gives
way, needs none and is part of it:

```
 Europe only ┃ demand ┃ largest spot zone in Europe ┃
 everywhere  ┃ demand (Europe's too)                ┃ largest spot zone anywhere ┃
             ┃ ...... ballast runs on whatever the reserve does not use .........┃
```
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np

from forecasting.plan.need import Need
from forecasting.plan.site import Bools, Floats, Ints, Site

SPREAD: Final = 1.0 / 3.0
"""No spot pool has more than this share of all capacity, unless there is no other, or only much dearer ones."""
SPREAD_WORTH: Final = 1.4
"""Times the cheapest capacity is what spreading is worth. Below 1.5 it moves replicas, and never buys any on top: two
pools can be beyond a third, and each replica elsewhere takes a third of itself from both."""
UNSERVED: Final = 3.0
"""Leaving a request unserved costs this many times the dearest way to serve one, times its tier's weight."""
LEAST_RPS: Final = 0.1
"""So little demand is worth a replica of its own, where law leaves it no other place."""
SHORT: Final = 8.0
"""A reserve that lacks costs this many times the dearest capacity."""


class Circle(NamedTuple):
    """Endpoints that share a reserve: `members` [E], the demand that has to fit in, and how unsure that is."""

    members: Bools
    demand_rps: float
    unsure_rps: float


@dataclass(frozen=True, slots=True)
class Mix:
    """Money is dollars per hour of one replica, but for `late_usd`, which is per request."""

    now: Floats
    ahead: Floats
    weight: Floats
    ballast: Bools
    unsure: Floats
    """[G]"""
    may: Bools
    late_usd: Floats
    """[G, E]"""
    capacity_rps: Floats
    usd_per_h: Floats
    """[E] price, risk and carbon."""
    launch_usd_per_h: Floats
    """[E] what a launch costs, spread over the hour that follows."""
    ready: Floats
    starting: Floats
    least: Floats
    most: Floats
    """[E] replicas; `most` is no less than `least`."""
    spot: Bools
    zone: Ints
    pool: Ints
    reserve: float = 1.0
    serial: int = 0

    @property
    def pending(self) -> Floats:
        """[E] what stands and what is on its way."""
        return self.ready + self.starting

    @property
    def unserved_usd(self) -> Floats:
        """[G] of leaving one request unserved."""
        alone = self.usd_per_h / (3600.0 * np.minimum(self.capacity_rps, LEAST_RPS))
        dearest = float((alone + np.where(self.may, self.late_usd, 0.0).max(axis=0, initial=0.0)).max(initial=0.0))
        out: Floats = UNSERVED * max(1e-6, dearest) * self.weight
        return out

    def circles(self) -> Iterator[Circle]:
        """One for each distinct set of endpoints that groups which are no ballast may use, and one for them all."""
        groups = np.flatnonzero(~self.ballast & (self.ahead > 0))
        distinct = {self.may[g].tobytes(): self.may[g] for g in groups.tolist()}
        everywhere = self.may[groups].any(axis=0)
        distinct[everywhere.tobytes()] = everywhere
        for members in distinct.values():
            inside = [g for g in groups.tolist() if not (self.may[g] & ~members).any()]
            unsure = float(np.sqrt((self.unsure[inside] ** 2).sum()))
            yield Circle(members, float(self.ahead[inside].sum()), unsure)


@dataclass(frozen=True, slots=True)
class Answer:
    """How many replicas each endpoint should have, a cold start from now."""

    serial: int
    method: str
    replicas: Floats
    """[E] whole numbers."""
    unserved_rps: float
    """Demand ahead that stays unserved with them."""
    usd_per_h: float
    solve_s: float = 0.0


class Groups(NamedTuple):
    """Flows that are planned as one: the columns of `Mix` that are theirs."""

    now: Floats
    ahead: Floats
    weight: Floats
    ballast: Bools
    unsure: Floats
    may: Bools
    late_usd: Floats


def grouped(site: Site, need: Need, usable: Bools) -> Groups:
    """Flows by what they may use (of endpoints that are `usable`), what it costs them there, and how they matter."""
    may = site.may & usable
    late = np.where(may, np.round(site.late_usd, 7), 0.0)
    alike: dict[tuple[bytes, bytes, float, bool], int] = {}
    rows = zip(may, late, site.weight.tolist(), site.ballast.tolist(), strict=True)
    group = np.array([alike.setdefault((m.tobytes(), c.tobytes(), w, b), len(alike)) for m, c, w, b in rows], np.intp)
    _, first = np.unique(group, return_index=True)
    return Groups(
        now=np.bincount(group, need.now, len(alike)).astype(np.float64),
        ahead=np.bincount(group, need.ahead, len(alike)).astype(np.float64),
        weight=site.weight[first],
        ballast=site.ballast[first],
        unsure=np.sqrt(np.bincount(group, need.unsure**2, len(alike))),
        may=may[first],
        late_usd=late[first],
    )
