"""Shares by linear programme: dollars of all flows together at least, under capacity. HiGHS does the work.

    min   Σ cost·x + Σ crowding·s + Σ unserved·u
    x[f,g] ≥ 0    requests/s of flow f at g, only where law and capacity allow, at most most_share[g]·demand[f]:
                  up to the share in force they stay, beyond it they move and cost more
    u[f]   ≥ 0    requests/s nobody serves, dearer than anything else: it is always feasible
    s[g,k] ≥ 0    load of g in segment k of its utilisation, at most the segment's width
    Σg x[f,g] + u[f] = demand[f]          Σf x[f,g] − Σk s[g,k] = 0

Few pairs are solved whole and anew. Many are solved in a process beside the router's loop, and there it is warm: the
model of the last question is kept, and the next one starts from it. In any other process each question has a model of
its own, so that equal questions have equal answers whatever was asked before, and a replay repeats to the byte.
"""

from __future__ import annotations

import multiprocessing
from typing import Final

import numpy as np

from router_sync.greedy import refill
from router_sync.layout import Floats
from router_sync.master import Master
from router_sync.problem import Merged, Method, Problem, Solution, merged, objective
from router_sync.whole import Optimum, optimum
from streams.runtime.clock import monotonic_s

TIME_LIMIT_S: Final = 3.0
FEW: Final = 2000
"""Open pairs up to which the whole model is solved at once."""


def solve(problem: Problem) -> Solution:
    """The LP's shares; the greedy ones, and `method` says so, where HiGHS does not finish in time."""
    return (_KEPT if multiprocessing.parent_process() is not None else Solver()).solve(problem)


class Solver:
    """Answers one question after the other, the next from where the last ended, in `limit_s` seconds each.

    Beyond `few` open pairs one model is kept, for the shape asked last. Where several answers cost the same, which one
    comes may then depend on the questions before.
    """

    def __init__(self, limit_s: float = TIME_LIMIT_S, few: int = FEW) -> None:
        self._limit_s, self._few = limit_s, few
        self._master: Master | None = None

    def solve(self, problem: Problem) -> Solution:
        """As `solve`."""
        began_s = monotonic_s()
        twins = merged(problem)
        quick = refill(twins)
        quick_usd = objective(problem, quick)
        solved = self._lp(twins, quick, began_s + self._limit_s)
        method: Method = "greedy" if solved is None else "lp"
        shares, bound = (quick, 0.0) if solved is None else (twins.split(solved.shares), solved.bound)
        usd = objective(problem, shares)
        if solved is None or usd > quick_usd * (1 + 1e-6):
            method, shares, usd = "greedy", quick, quick_usd
        gap = max(0.0, quick_usd / bound - 1.0) if bound > 1e-12 else 0.0
        return Solution(problem.serial, method, shares, usd, min(bound, usd), gap, monotonic_s() - began_s)

    def _lp(self, twins: Merged, quick: Floats, until_s: float) -> Optimum | None:
        """None when HiGHS gave no optimum, not even with a new model."""
        small = twins.small
        if not small.open.any():
            return Optimum(np.zeros(small.cost_usd.shape), float(small.demand_rps @ small.unserved_usd))
        if np.count_nonzero(small.open) <= self._few:
            return optimum(small, self._limit_s)
        start = twins.join(quick)
        warm = self._fitting(twins.whole)
        solved = None if warm is None else warm.optimum(twins, start, until_s)
        if solved is None:
            self._master = Master(*twins.whole.cost_usd.shape)
            solved = self._master.optimum(twins, start, until_s)
        return solved

    def _fitting(self, whole: Problem) -> Master | None:
        """The model of the last question, where this one has its shape."""
        kept = self._master
        return kept if kept is not None and (kept.flows, kept.ends) == whole.cost_usd.shape else None


_KEPT: Final = Solver()
"""Of a process that answers questions; nothing is made before the first."""
