"""The shares LP kept warm: HiGHS keeps its model and its last basis, and holds only the columns that were worth it.

    rows      flows: Σg x + u = demand            endpoints: Σf x − Σk s = 0
    columns   unserved │ segments │ pairs that stay or move, as they come in by price

    change bounds and costs ─► solve from the last basis ─► price every pair that is missing ─► any would pay? add the
    best of each flow and solve again │ none would: the optimum over all pairs

A pair is never left out for being dear, only for having been priced and not paid. What the model holds is a feasible
programme at any moment, and its duals bound the whole from below, so a budget of time may end it anywhere.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import highspy
import numpy as np

from router_sync.layout import Floats, Ints
from router_sync.problem import SEGMENTS, Merged, Problem
from router_sync.whole import Optimum
from streams.runtime.clock import monotonic_s
from streams.runtime.highs import Quiet

BATCH: Final = 8
"""Pairs of one flow that come in at once, at most."""
FINE: Final = (("primal_feasibility_tolerance", 1e-9), ("dual_feasibility_tolerance", 1e-9))
"""HiGHS' own tolerance, 1e-7, is a hundred-thousandth of the least demand there is."""
PAYS: Final = 1e-10
"""What a pair must save to come in, in units of a typical cost."""
CROWDED: Final = 8
"""Pairs per row beyond which those that are not in use go; they come back if they pay."""


class Pairs(NamedTuple):
    """Every pair's part in one question, by merged group, in units of `scale`."""

    stay_rps: Floats
    """[F, G] most that may stay."""
    move_rps: Floats
    """[F, G] most that may come on top."""
    cost: Floats
    """[F, G] of what stays."""
    move: Floats
    """[F] on top, of what moves."""
    scale: float
    """Dollars; HiGHS sees no difference below 1e-7 of it."""


def pairs(small: Problem) -> Pairs:
    """The pairs of a problem."""
    is_open, demand = small.open, small.demand_rps[:, None]
    stays = np.minimum(np.where(is_open, small.in_force, 0.0), small.most_share)
    moves = np.where(is_open, small.most_share, 0.0) - stays
    cheapest = np.where(is_open, small.cost_usd, np.inf).min(axis=1, initial=np.inf)
    scale = max(float(np.median(cheapest[np.isfinite(cheapest)])), 1e-12)
    return Pairs(stays * demand, moves * demand, small.cost_usd / scale, small.move_usd / scale, scale)


class Master:
    """A model for problems of `flows` x `ends`; twins use the row of the first of them."""

    def __init__(self, flows: int, ends: int) -> None:
        self.flows, self.ends = flows, ends
        self._flow = self._end = np.zeros(0, np.intp)
        self._moves = np.zeros(0, np.bool_)
        self._has = np.zeros((2, flows, ends), np.bool_)
        """Which pairs are in: those that stay, those that move."""
        self._solver = Quiet()
        for option, value in (("threads", 1), ("solver", "simplex"), *FINE):
            self._solver.setOptionValue(option, value)
        rows, none = flows + ends, np.zeros(0)
        self._solver.addRows(rows, np.zeros(rows), np.zeros(rows), 0, np.zeros(rows, np.int32), none, none)
        self._add(np.arange(flows)[:, None], 1.0)
        self._add(np.repeat(flows + np.arange(ends), SEGMENTS)[:, None], -1.0)

    def optimum(self, twins: Merged, start: Floats, until_s: float) -> Optimum | None:
        """The best shares found until the clock says `until_s`; None when HiGHS found none. `start` [F, G] come in."""
        small, row = twins.small, _rows(twins)
        asked = pairs(small)
        self._tidy()
        self._begin(asked, row, start)
        self._change(small, asked, row)
        found, bound = None, 0.0
        while self._run(until_s):
            solution = self._solver.getSolution()
            found, dual = np.array(solution.col_value), np.array(solution.row_dual)
            saves = _saving(asked, dual, self.flows, row)
            bound = max(bound, _bound(small, asked, saves, dual, self.flows, row))
            new = _best(np.where(self._has[1][:, row] | (asked.move_rps <= 0), 0.0, saves))
            if not len(new[0]):
                break
            self._bring(asked, row, new, moves=True)
        return None if found is None else Optimum(self._shares(found, small, row), bound)

    def _begin(self, asked: Pairs, row: Ints, start: Floats) -> None:
        first = (asked.move_rps > 0) & (start > 0)
        self._bring(asked, row, np.nonzero((asked.stay_rps > 0) & ~self._has[0][:, row]), moves=False)
        self._bring(asked, row, np.nonzero(first & ~self._has[1][:, row]), moves=True)

    def _tidy(self) -> None:
        """Idle pairs leave a model that has become crowded; its basis stays whole."""
        if len(self._flow) <= CROWDED * (self.flows + self.ends):
            return
        first, status = self.flows + self.ends * SEGMENTS, self._solver.getBasis().col_status
        idle = np.array([each == highspy.HighsBasisStatus.kLower for each in status[first:]])
        gone = (first + np.flatnonzero(idle)).astype(np.int32)
        self._solver.deleteCols(len(gone), gone)
        self._has[self._moves[idle].astype(np.intp), self._flow[idle], self._end[idle]] = False
        self._flow, self._end, self._moves = self._flow[~idle], self._end[~idle], self._moves[~idle]

    def _bring(self, asked: Pairs, row: Ints, new: tuple[Ints, ...], *, moves: bool) -> None:
        """Add columns for the pairs `new`, by merged group."""
        flow, group = new
        end = row[group]
        self._has[int(moves), flow, end] = True
        self._flow, self._end = np.concatenate((self._flow, flow)), np.concatenate((self._end, end))
        self._moves = np.concatenate((self._moves, np.full(len(flow), moves)))
        cost = asked.cost[flow, group] + (asked.move[flow] if moves else 0.0)
        upper = (asked.move_rps if moves else asked.stay_rps)[flow, group]
        self._add(np.column_stack((flow, self.flows + end)), 1.0, cost, upper)

    def _add(self, rows: Ints, value: float, cost: Floats | None = None, upper: Floats | None = None) -> None:
        """Columns with `value` in each of `rows` [columns, entries]."""
        columns, entries = rows.shape
        if not columns:
            return
        zeros = np.zeros(columns)
        self._solver.addCols(
            columns, zeros if cost is None else cost, zeros, zeros if upper is None else upper, rows.size,
            np.arange(0, rows.size, entries, dtype=np.int32), rows.ravel().astype(np.int32),
            np.full(rows.size, value),
        )  # fmt: skip

    def _change(self, small: Problem, asked: Pairs, row: Ints) -> None:
        """The model asks this question now."""
        group = np.full(self.ends, -1, np.intp)
        group[row] = np.arange(len(row))
        at = group[self._end]
        pair = np.where(self._moves, asked.move_rps[self._flow, at], asked.stay_rps[self._flow, at])
        crowd, width = np.zeros((self.ends, SEGMENTS)), np.zeros((self.ends, SEGMENTS))
        crowd[row] = small.crowd_usd / asked.scale
        width[row] = np.outer(small.capacity_rps, small.widths)
        cost = asked.cost[self._flow, at] + np.where(self._moves, asked.move[self._flow], 0.0)
        upper = np.concatenate((small.demand_rps, width.ravel(), np.where(at >= 0, pair, 0.0)))
        every = np.arange(len(upper), dtype=np.int32)
        costs = np.concatenate((small.unserved_usd / asked.scale, crowd.ravel(), cost))
        self._solver.changeColsCost(len(every), every, costs)
        self._solver.changeColsBounds(len(every), every, np.zeros(len(every)), upper)
        flows = every[: self.flows]
        self._solver.changeRowsBounds(self.flows, flows, small.demand_rps, small.demand_rps)

    def _run(self, until_s: float) -> bool:
        left_s = until_s - monotonic_s()
        if left_s <= 0:
            return False
        self._solver.setOptionValue("time_limit", self._solver.getRunTime() + left_s)
        self._solver.run()
        return bool(self._solver.getModelStatus() == highspy.HighsModelStatus.kOptimal)

    def _shares(self, found: Floats, small: Problem, row: Ints) -> Floats:
        shares = np.zeros((self.flows, self.ends))
        values = found[self.flows + self.ends * SEGMENTS :][: len(self._flow)]
        at = self._flow[: len(values)], self._end[: len(values)]
        np.add.at(shares, at, np.maximum(values, 0.0) / small.demand_rps[at[0]])
        # a basic column may be off its bound by a rounding error; what is closed stays closed
        mine = np.minimum(shares[:, row], np.where(small.open, small.most_share, 0.0))
        out: Floats = mine / np.maximum(mine.sum(axis=1, keepdims=True), 1.0)
        return out


def _rows(twins: Merged) -> Ints:
    """[G] the endpoint whose row a merged group uses: its first."""
    ends = np.flatnonzero(twins.group >= 0)
    row = np.zeros(twins.small.cost_usd.shape[1], np.intp)
    row[twins.group[ends][::-1]] = ends[::-1]
    return row


def _saving(asked: Pairs, dual: Floats, flows: int, row: Ints) -> Floats:
    """[F, G] what a request that moves there would save, below zero: nothing (the reduced cost, negated)."""
    out: Floats = (dual[:flows] - asked.move)[:, None] + dual[flows + row] - asked.cost
    return out


def _best(saves: Floats) -> tuple[Ints, Ints]:
    """(flow, group) of the BATCH pairs of each flow that save most."""
    if saves.shape[1] > BATCH:
        least = np.partition(saves, -BATCH, axis=1)[:, -BATCH, None]
        flow, group = np.nonzero((saves > PAYS) & (saves >= least))
    else:
        flow, group = np.nonzero(saves > PAYS)
    return flow, group


def _bound(small: Problem, asked: Pairs, saves: Floats, dual: Floats, flows: int, row: Ints) -> float:
    """What no solution over all pairs can cost less than, by weak duality: it holds whatever the tolerances were."""
    stays = np.nonzero(asked.stay_rps)
    stay_saves = saves[stays] + asked.move[stays[0]]
    less = np.einsum("fg,fg->", np.maximum(saves, 0.0), asked.move_rps)
    less += np.maximum(stay_saves, 0.0) @ asked.stay_rps[stays]
    less += np.maximum(dual[:flows] - small.unserved_usd / asked.scale, 0.0) @ small.demand_rps
    crowd = small.crowd_usd / asked.scale + dual[flows + row][:, None]
    less += (np.maximum(-crowd, 0.0) * np.outer(small.capacity_rps, small.widths)).sum()
    return float(dual[:flows] @ small.demand_rps - less) * asked.scale
