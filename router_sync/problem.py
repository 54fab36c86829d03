"""What the optimiser is asked and what it answers: plain arrays that can be pickled. Shapes: F flows, E endpoints.

Crowding. Latency grows with load, so using more of an endpoint costs more: a convex, piecewise linear price over its
utilisation. What a segment's requests cost on top is `crowd_usd`, made by `score` of what was learnt there:

    utilisation   0 ──── .5 ── .7 ── 1 - reserve ── 1
                    free    |     |               | the reserve: used before anything is left unserved

Moving. A request that goes elsewhere than now pays MOVE of what it costs on top: caches are cold there, and of many
shares that cost nearly the same those in force are the best. So noise moves nobody, and a real gain does.

Twins. Endpoints that may stand for each other and cost nearly the same are solved as one and share in proportion to
capacity: smaller problems, and never all of a region's traffic in one zone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from router_sync.layout import Bools, Floats, Ints

SEGMENTS: Final = 4
FREE: Final = (0.5, 0.2)
"""Of capacity: the first two segments; the others share the rest, the reserve coming last."""
RESERVE: Final = 0.15
LEAST_RESERVE: Final = 0.05
MOST_RESERVE: Final = 0.25
TWIN: Final = 0.1
"""Costs that differ by no more than this share count as equal."""
LEADERS: Final = 32
"""Columns that are compared with all others at once, to find their twins."""
MOVE: Final = 0.1
LEAST_RPS: Final = 1e-2
"""Demand is at least this, so that a flow nobody uses has a route."""
UNSERVED: Final = 10.0
"""Leaving a request unserved costs this many times the dearest way to serve one, times the tier's weight."""
Method = Literal["greedy", "lp"]


@dataclass(frozen=True, slots=True)
class Problem:
    """Demand to be shared out over capacity, at least cost."""

    demand_rps: Floats
    """[F] > 0"""
    cost_usd: Floats
    """[F, E]"""
    may: Bools
    """[F, E]"""
    capacity_rps: Floats
    """[E] what can be used now; 0: nothing."""
    crowd_usd: Floats
    """[E, SEGMENTS] what each request in a segment costs on top of `cost_usd`; from segment to segment no less."""
    most_share: Floats
    """[E] of any flow's demand: below 1 for endpoints that come back."""
    weight: Floats
    """[F] how much it matters that a flow is served."""
    kin: Ints
    """[E] endpoints of one number may stand for each other."""
    held: Floats | None = None
    """[F, E] shares in force; None, or a row of zeros: none yet."""
    serial: int = 0
    """Which question this was."""
    reserve: float = RESERVE
    """Of each endpoint's capacity, kept for what nobody expected; within LEAST_RESERVE..MOST_RESERVE."""
    dearest_usd: float | None = None
    """Of serving one request; None: as `cost_usd` and `crowd_usd` have it. Twins as one price like each by itself."""

    @property
    def in_force(self) -> Floats:
        """[F, E] `held`, or zeros."""
        return np.zeros(self.cost_usd.shape) if self.held is None else self.held

    @property
    def move_usd(self) -> Floats:
        """[F] of serving a request elsewhere than by the shares in force."""
        usd: Floats = MOVE * (self.in_force * np.where(self.open, self.cost_usd, 0.0)).sum(axis=1)
        return usd

    @property
    def open(self) -> Bools:
        """[F, E] allowed, and there is capacity."""
        return self.may & (self.capacity_rps > 0)[None, :]

    @property
    def unserved_usd(self) -> Floats:
        """[F] of leaving one request unserved: dearer than any way to serve it."""
        usd: Floats = UNSERVED * max(1e-3, self.dearest()) * self.weight
        return usd

    @property
    def widths(self) -> Floats:
        """[SEGMENTS] of capacity."""
        return np.array([*FREE, 1.0 - sum(FREE) - self.reserve, self.reserve])

    def dearest(self) -> float:
        """What one request costs at most, wherever it is served."""
        if self.dearest_usd is not None:
            return self.dearest_usd
        each = np.where(self.open, self.cost_usd + self.crowd_usd[:, -1], 0.0)
        return float(each.max(initial=0.0))


@dataclass(frozen=True, slots=True)
class Solution:
    """How demand is shared out."""

    serial: int
    method: Method
    shares: Floats
    """[F, E] of each flow's demand; a row adds up to 1 less what stays unserved."""
    objective_usd_per_s: float
    bound_usd_per_s: float
    """No shares can cost less than this (of the problem with twins as one)."""
    greedy_gap: float
    """How much dearer the greedy shares are than the bound, as a share."""
    solve_s: float = 0.0

    @property
    def gap(self) -> float:
        """How much dearer these shares are than the bound, as a share of it."""
        return max(0.0, self.objective_usd_per_s / max(self.bound_usd_per_s, 1e-12) - 1.0)


def objective(problem: Problem, shares: Floats) -> float:
    """Dollars per second of `shares`; load beyond an endpoint's capacity counts as unserved."""
    rps = shares * problem.demand_rps[:, None]
    load = rps.sum(axis=0)
    over = np.maximum(0.0, load - problem.capacity_rps).sum()
    unserved = np.maximum(0.0, problem.demand_rps - rps.sum(axis=1))
    dear = problem.unserved_usd
    used = float((rps * np.where(problem.open, problem.cost_usd, 0.0)).sum())
    crowding = float((segments(problem, load) * problem.crowd_usd).sum())
    moved = float(np.maximum(0.0, rps - problem.in_force * problem.demand_rps[:, None]).sum(axis=1) @ problem.move_usd)
    return used + crowding + moved + float(unserved @ dear) + float(over * dear.max(initial=0.0))


def segments(problem: Problem, load_rps: Floats) -> Floats:
    """[E, SEGMENTS] how much of each segment of utilisation `load_rps` fills, in requests per second."""
    width = problem.capacity_rps[:, None] * problem.widths
    before = np.cumsum(width, axis=1) - width
    filled: Floats = np.clip(load_rps[:, None] - before, 0.0, width)
    return filled


def next_usd(problem: Problem, load_rps: Floats) -> Floats:
    """[E] what crowding adds to one more request at each endpoint where `load_rps` is there already."""
    use = load_rps / np.maximum(problem.capacity_rps, 1e-12)
    at = (use[:, None] >= np.cumsum(problem.widths)[:-1] - 1e-6).sum(axis=1)
    usd: Floats = problem.crowd_usd[np.arange(len(use)), at]
    return usd


def completed(problem: Problem, shares: Floats, least: float = 0.005) -> Floats:
    """Shares as routes need them: crumbs swept up, rows adding up to 1.

    Crumbs are shares below `least` of a fair one (the row's sum over those that have a part in it): together they are
    less than `least` of their row, however many endpoints share it. A row that was left unserved goes where there is
    capacity, by capacity: gateways shed, tables never strand. A row of zeros comes back where nothing is open to it.
    """
    kept = np.where(problem.open, shares, 0.0)
    fair = kept.sum(axis=1, keepdims=True) / np.maximum((kept > 0).sum(axis=1, keepdims=True), 1)
    swept = np.where(kept >= least * fair, kept, 0.0)
    unserved = swept.sum(axis=1) <= 0
    swept[unserved] = (problem.open * problem.capacity_rps)[unserved]
    total = swept.sum(axis=1, keepdims=True)
    whole: Floats = swept / np.where(total > 0, total, 1.0)
    return whole


# ---------------------------------------------------------------- twins


@dataclass(frozen=True, slots=True)
class Merged:
    """A problem with twins as one. `group` [E]: the merged column of each endpoint, -1 where there is no capacity."""

    whole: Problem
    small: Problem
    group: NDArray[np.intp]
    part: Floats
    """[E] of its group's capacity."""

    def split(self, shares: Floats) -> Floats:
        """[F, E] of merged shares: in a group by capacity."""
        # column -1, of what has no capacity, is a column of zeros
        padded = np.hstack((shares, np.zeros((len(shares), 1))))
        out: Floats = padded[:, self.group] * self.part
        return out

    def join(self, shares: Floats) -> Floats:
        """Merged shares of [F, E]; what lay on endpoints without capacity is gone."""
        return _summed(shares, self.group, self.small.cost_usd.shape[1])


def merged(problem: Problem) -> Merged:
    """`problem` with twins as one; costs are means by capacity, so that both cost the same."""
    group = np.full(len(problem.capacity_rps), -1, np.intp)
    first: list[int] = []
    for members in _twins(problem):
        group[members] = len(first)
        first.append(int(members[0]))
    held = group >= 0
    capacity = _summed(problem.capacity_rps[None], group, len(first))[0]
    part = np.zeros(len(group))
    part[held] = problem.capacity_rps[held] / capacity[group[held]]
    small = replace(
        problem,
        cost_usd=_summed(problem.cost_usd * part, group, len(first)),
        may=problem.may[:, first],
        capacity_rps=capacity,
        crowd_usd=_summed((problem.crowd_usd * part[:, None]).T, group, len(first)).T,
        most_share=problem.most_share[first],
        kin=problem.kin[first],
        held=_summed(problem.in_force, group, len(first)),
        dearest_usd=problem.dearest(),
    )
    return Merged(problem, small, group, part)


def _summed(values: Floats, group: Ints, groups: int) -> Floats:
    """[F, groups] the sums of `values` [F, E] by group; what is in none (-1) is left out."""
    held = np.flatnonzero(group >= 0)
    out = np.zeros((groups, len(values)))
    np.add.at(out, group[held], values[:, held].T)
    return out.T.copy()


def _twins(problem: Problem) -> Iterator[Ints]:
    """Columns that are solved as one: same kin, law and limit, and costs within TWIN of the first."""
    alike: dict[tuple[object, ...], list[int]] = {}
    may = np.ascontiguousarray(problem.may.T)
    for column in np.flatnonzero((problem.capacity_rps > 0) & problem.may.any(axis=0)).tolist():
        key = int(problem.kin[column]), float(problem.most_share[column]), may[column].tobytes()
        alike.setdefault(key, []).append(column)
    for members in alike.values():
        left = np.array(members, np.intp)
        if left.size == 1:  # most of a fleet without twins: there is nobody to compare with
            yield left
            continue
        while left.size:
            near = _near(problem, left)
            free = np.ones(len(left), np.bool_)
            for leader in range(len(near)):
                if free[leader]:
                    yield left[near[leader] & free]
                    free &= ~near[leader]
            left = left[free]


def _near(problem: Problem, columns: Ints) -> Bools:
    """[at most LEADERS, columns] which of `columns` cost about as much as each of the first few of them.

    To every flow, and in crowding.
    """
    costs = np.vstack((problem.cost_usd[problem.may[:, columns[0]]][:, columns], problem.crowd_usd[columns].T))
    leaders = costs[:, :LEADERS, None]
    return np.logical_and.reduce(np.abs(costs[:, None, :] - leaders) <= TWIN * leaders, axis=0)  # type: ignore[no-any-return]
