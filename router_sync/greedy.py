"""Shares at once: each flow takes the cheapest capacity that is left, the one with most to lose first.

Milliseconds where the LP takes tens; some percent dearer. With `start`, what still holds stays where it is, and only
what was lost is shared out anew: an evacuation moves nobody else.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from router_sync.layout import Floats, Ints
from router_sync.problem import Merged, Problem, merged, objective

PASSES: Final = 2
_FULL: Final = 1e-9


def greedy(problem: Problem, start: Floats | None = None) -> Floats:
    """[F, E] shares of each flow's demand; rows add up to 1 less what no open capacity is left for.

    `start`: [F, E] shares to keep as far as they are open and within capacity.
    """
    return refill(merged(problem), start)


def refill(twins: Merged, start: Floats | None = None) -> Floats:
    """`greedy` where twins are merged already."""
    small = twins.small
    kept = np.zeros(small.cost_usd.shape) if start is None else _kept(small, twins.join(start))
    order = _by_regret(small)
    shares = _fill(small, kept, order, PASSES if start is None else 0)
    if (shares.sum(axis=1) < 1.0 - 1e-6).any():
        # capacity is short: let the tiers that matter most choose first, even if more has to move
        by_tier = np.lexsort((order.argsort(), -small.weight))
        anew = _fill(small, np.zeros(small.cost_usd.shape), by_tier, PASSES)
        shares = min(shares, anew, key=lambda s: objective(small, s))
    return twins.split(shares)


def _kept(small: Problem, start: Floats) -> Floats:
    """The part of `start` that is still allowed, open and within capacity."""
    shares = np.minimum(np.where(small.open, start, 0.0), small.most_share)
    load = shares.T @ small.demand_rps
    fits = np.where(load > small.capacity_rps, small.capacity_rps / np.maximum(load, 1e-12), 1.0)
    out: Floats = shares * fits
    return out


def _fill(small: Problem, kept: Floats, order: Ints, passes: int) -> Floats:
    """`kept` [F, G] with the rest of each flow's demand put where it is cheapest, flow by flow in `order`.

    Then, `passes` times, each flow chooses again now that it knows of the others; the whole only gets cheaper.
    """
    rps = kept * small.demand_rps[:, None]
    shop = _Shop(small, rps.sum(axis=0))
    unserved_usd = small.unserved_usd
    for again in range(1 + passes):
        for flow in order.tolist():
            row = rps[flow]
            if again:
                shop.release(row)
            need = float(small.demand_rps[flow] - row.sum())
            if need > 1e-9:
                shop.serve(row, flow, need, float(unserved_usd[flow]))
    out: Floats = rps / small.demand_rps[:, None]
    return out


def _by_regret(small: Problem) -> Ints:
    """Flows with the dearest second choice first: a late comer then loses least."""
    if small.cost_usd.shape[1] < 2:
        return np.argsort(-small.weight, kind="stable")
    cost = np.where(small.open, small.cost_usd, small.unserved_usd[:, None])
    two = np.partition(cost, 1, axis=1)
    return np.lexsort((-small.demand_rps, -(two[:, 1] - two[:, 0])))


class _Shop:
    """Capacity by segments of utilisation, each dearer than the one before."""

    def __init__(self, small: Problem, load_rps: Floats) -> None:
        self.small = small
        self.load = load_rps
        self.ends = np.cumsum(small.capacity_rps[:, None] * small.widths, axis=1)
        """[G, 4] load at which each segment is full."""
        room = self.ends - load_rps[:, None]
        at = (room > _FULL).argmax(axis=1)
        some = (room > _FULL).any(axis=1)
        each = np.arange(len(load_rps))
        self.left = np.where(some, room[each, at], 0.0)
        """[G] room in the segment that is being filled."""
        self.extra_usd = np.where(some, small.crowd_usd[each, at], np.inf)
        """[G] its price; infinity: nothing is left at all."""

    def _price(self, group: int) -> None:
        load = self.load[group]
        for segment, end in enumerate(self.ends[group].tolist()):
            if end - load > _FULL:
                self.left[group] = end - load
                self.extra_usd[group] = self.small.crowd_usd[group, segment]
                return
        self.left[group], self.extra_usd[group] = 0.0, np.inf

    def release(self, row: Floats) -> None:
        """Take what a flow has back."""
        for group in np.flatnonzero(row).tolist():
            self.load[group] = max(0.0, self.load[group] - row[group])
            row[group] = 0.0
            self._price(group)

    def serve(self, row: Floats, flow: int, need: float, unserved_usd: float) -> None:
        """Add up to `need` requests per second to `row`, cheapest first."""
        small = self.small
        room = small.most_share * small.demand_rps[flow] - row
        closed = np.where(small.may[flow] & (room > 1e-9), small.cost_usd[flow], np.inf)
        while need > 1e-9:
            price = closed + self.extra_usd
            best = int(price.argmin()) if price.size else -1
            if best < 0 or price[best] >= unserved_usd:
                return
            take = min(need, float(self.left[best]), float(room[best]))
            row[best] += take
            room[best] -= take
            need -= take
            self.load[best] += take
            self._price(best)
            if room[best] <= 1e-9:
                closed[best] = np.inf
