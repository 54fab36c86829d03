"""Replicas at once, while the programme is still thinking: what there is stays, and what lacks is launched.

Groups are placed one by one, those with the fewest endpoints first, each on what is ready or on its way, cheapest
first. What finds no place launches: into the pool with the least of it already, then the cheapest. Nothing is let go.
"""

from __future__ import annotations

from math import ceil
from typing import Final

import numpy as np

from forecasting.plan.mix import SPREAD, Answer, Mix
from forecasting.plan.site import Bools, Floats

_CRUMB: Final = 1e-9


def greedy(mix: Mix) -> Answer:
    """Enough replicas for what is ahead and for the reserves, as far as bounds leave room."""
    hand = _Hand(mix)
    unserved = sum(hand.place(group) for group in _by_choice(mix))
    for circle in mix.circles():
        hand.hold(circle.members, circle.demand_rps, mix.reserve * circle.unsure_rps)
    return Answer(mix.serial, "greedy", hand.replicas, unserved, float(hand.replicas @ mix.usd_per_h))


def _by_choice(mix: Mix) -> list[int]:
    """Groups with the fewest endpoints first; of equal ones those that are no ballast, then those that matter most."""
    order = np.lexsort((-mix.ahead, -mix.weight, mix.ballast, mix.may.sum(axis=1)))
    return [int(group) for group in order]


class _Hand:
    """Replicas so far, and what of their capacity is free."""

    def __init__(self, mix: Mix) -> None:
        self.mix = mix
        self.replicas = np.clip(np.ceil(mix.pending - 1e-6), mix.least, np.maximum(mix.most, mix.least))
        self.free = self.replicas * mix.capacity_rps
        self.each_usd = mix.usd_per_h / mix.capacity_rps

    def place(self, group: int) -> float:
        """Serve a group; comes back: what finds no place."""
        mix, left = self.mix, float(self.mix.ahead[group])
        cost = self.each_usd + 3600.0 * mix.late_usd[group]
        for end in sorted(np.flatnonzero(mix.may[group]).tolist(), key=lambda e: (cost[e], e)):
            took = min(left, float(self.free[end]))
            self.free[end] -= took
            left -= took
        while left > _CRUMB:
            added = self._launch(mix.may[group], cost, left)
            if added is None:
                return left
            took = min(left, float(self.free[added]))
            self.free[added] -= took
            left -= took
        return 0.0

    def hold(self, members: Bools, demand_rps: float, unsure_rps: float) -> None:
        """Launch until a circle holds its demand, and its largest spot zone or what is unsure on top."""
        while True:
            largest, zone = self._largest(members)
            held = float((self.replicas * self.mix.capacity_rps)[members].sum())
            lack = demand_rps + max(unsure_rps, self.mix.reserve * largest) - held
            outside = members & ~(self.mix.spot & (self.mix.zone == zone))
            # in the largest zone itself a launch makes the reserve grow too
            if lack <= _CRUMB or (
                self._launch(outside, self.each_usd, lack) is None
                and (self.mix.reserve >= 1.0 or self._launch(members, self.each_usd, lack) is None)
            ):
                return

    def _largest(self, members: Bools) -> tuple[float, int]:
        """(capacity, zone) of the largest spot zone."""
        mix = self.mix
        spot = mix.spot & members
        if not spot.any():
            return 0.0, -1
        sums = np.bincount(mix.zone[spot], (self.replicas * mix.capacity_rps)[spot])
        return float(sums.max()), int(sums.argmax())

    def _launch(self, members: Bools, cost: Floats, rps: float) -> int | None:
        """Launch up to `rps` in the pool with room that has least, then is cheapest; None: there is no room."""
        mix = self.mix
        room = mix.most - self.replicas
        able = np.flatnonzero(members & (room >= 1.0)).tolist()
        if not able:
            return None
        held = self.replicas * mix.capacity_rps
        whole = max(float(held.sum()) + rps, _CRUMB)
        share = {e: float(held[mix.pool == mix.pool[e]].sum()) / whole if mix.spot[e] else 0.0 for e in able}
        best = min(able, key=lambda e: (share[e] >= SPREAD, cost[e] * (1.0 + share[e]), e))
        wanted = ceil(rps / mix.capacity_rps[best] - 1e-6)
        if mix.spot[best] and share[best] < SPREAD:
            wanted = min(wanted, max(1, int((SPREAD - share[best]) * whole / mix.capacity_rps[best])))
        number = float(max(1, min(wanted, int(room[best]))))
        self.replicas[best] += number
        self.free[best] += number * mix.capacity_rps[best]
        return best
