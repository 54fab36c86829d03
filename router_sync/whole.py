"""The shares LP with every pair in it, made anew: a few milliseconds where pairs are few, and what the rest is held to.

The answer depends on the question alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import highspy
import numpy as np

from router_sync.layout import Floats, Ints
from router_sync.problem import SEGMENTS, Problem
from streams.runtime.highs import Quiet


class Optimum(NamedTuple):
    """Merged shares [F, G], and what none can cost less than, in dollars per second."""

    shares: Floats
    bound: float


@dataclass(frozen=True, slots=True)
class Model:
    """The programme in columns: pairs that stay, pairs that move, unserved, segments. Rows: flows, then groups."""

    flow: Ints
    group: Ints
    cost: Floats
    upper: Floats
    right: Floats
    starts: Ints
    index: Ints
    value: Floats
    scale: float
    """Costs are divided by it: HiGHS sees no difference below 1e-7."""


def optimum(small: Problem, limit_s: float) -> Optimum | None:
    """The best of all shares, by merged group; None when HiGHS found none in `limit_s` seconds. Something is open."""
    asked = model(small)
    solver = _run(asked, limit_s)
    if solver.getModelStatus() != highspy.HighsModelStatus.kOptimal:
        return None
    solution = solver.getSolution()
    values = np.array(solution.col_value)[: len(asked.flow)]
    shares = np.zeros(small.cost_usd.shape)
    np.add.at(shares, (asked.flow, asked.group), np.maximum(values, 0.0) / small.demand_rps[asked.flow])
    shares /= np.maximum(shares.sum(axis=1, keepdims=True), 1.0)
    return Optimum(shares, _bound(asked, np.array(solution.row_dual)))


def model(small: Problem) -> Model:
    """The programme of a problem."""
    stays = np.minimum(np.where(small.open, small.in_force, 0.0), small.most_share)
    moves = np.where(small.open, small.most_share, 0.0) - stays
    flow, group = np.hstack((np.nonzero(stays), np.nonzero(small.open)))
    upper = np.concatenate((stays[stays > 0], moves[small.open])) * small.demand_rps[flow]
    flows, groups = small.cost_usd.shape
    parts = SEGMENTS
    ends = np.repeat(np.arange(groups), parts)
    demand = small.demand_rps
    pair_usd = small.cost_usd[flow, group]
    pair_usd[np.count_nonzero(stays) :] += small.move_usd[flow[np.count_nonzero(stays) :]]
    scale = max(float(np.median(pair_usd)), 1e-12)
    two_rows = np.column_stack((flow, flows + group)).ravel()
    lengths = np.concatenate((np.full(len(flow), 2), np.ones(flows + groups * parts, np.intp)))
    return Model(
        flow=flow,
        group=group,
        cost=np.concatenate((pair_usd, small.unserved_usd, small.crowd_usd.ravel())) / scale,
        upper=np.concatenate((upper, demand, np.outer(small.capacity_rps, small.widths).ravel())),
        right=np.concatenate((demand, np.zeros(groups))),
        starts=np.concatenate(([0], np.cumsum(lengths))),
        index=np.concatenate((two_rows, np.arange(flows), flows + ends)),
        value=np.concatenate((np.ones(2 * len(flow)), np.ones(flows), -np.ones(groups * parts))),
        scale=scale,
    )


def _run(model: Model, limit_s: float) -> Any:
    lp = highspy.HighsLp()
    lp.num_col_, lp.num_row_ = len(model.cost), len(model.right)
    lp.col_cost_, lp.col_lower_, lp.col_upper_ = model.cost, np.zeros(len(model.cost)), model.upper
    lp.row_lower_ = lp.row_upper_ = model.right
    lp.a_matrix_.format_ = highspy.MatrixFormat.kColwise
    lp.a_matrix_.start_ = model.starts.astype(np.int32)
    lp.a_matrix_.index_ = model.index.astype(np.int32)
    lp.a_matrix_.value_ = model.value
    solver = Quiet()
    for option, value in (("threads", 1), ("time_limit", limit_s), ("solver", "simplex")):
        solver.setOptionValue(option, value)
    solver.passModel(lp)
    solver.run()
    return solver


def _bound(model: Model, dual: Floats) -> float:
    """What no solution can cost less than, by weak duality: it holds whatever HiGHS' tolerances were."""
    columns = np.repeat(np.arange(len(model.cost)), np.diff(model.starts))
    reduced = model.cost - np.bincount(columns, model.value * dual[model.index], len(model.cost))
    return float(dual @ model.right + np.minimum(reduced, 0.0) @ model.upper) * model.scale
