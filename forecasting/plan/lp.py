"""The two-stage programme: what is kept now, what there is a cold start from now. Solved beside the loop by HiGHS.

    least    sum usd x + launches + lateness of both stages + what stays unserved + reserves that lack + crowded pools
    now      flows of each group + unserved = demand;   flows at an endpoint <= capacity kept,  kept <= ready, kept <= x
    ahead    the same, with capacity x;                 launched >= x - (ready + starting)
    reserve  capacity x in a circle + lack >= demand in it + r,   r >= part of each spot zone in it,  r >= unsure
    spread   capacity x of a spot pool <= a third of all + crowded

What is on its way is paid for, so nothing is launched that pending launches cover. Few endpoints are solved in whole
replicas; of many, fractions are rounded up. The answer depends on the question alone: no limit is one of time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

import highspy
import numpy as np

from forecasting.plan.mix import SHORT, SPREAD, SPREAD_WORTH, Answer, Circle, Mix
from forecasting.plan.site import Floats
from streams.runtime import clock

WHOLE: Final = 2000
"""Up to so many pairs of groups and endpoints whole replicas are asked for."""
NODES: Final = 200
GAP: Final = 0.002
_INFINITE: Final = highspy.kHighsInf
Terms = dict[int, float]


class Quiet(highspy.Highs):  # type: ignore[misc]
    """HiGHS greets on standard output while it sets up its callbacks; by then it has been told not to."""

    def enableCallbacks(self) -> None:  # noqa: N802  (HiGHS' name)
        self.setOptionValue("output_flag", False)
        super().enableCallbacks()


@dataclass(slots=True)
class _Model:
    """A programme that grows by columns and rows."""

    cost: list[float] = field(default_factory=list)
    upper: list[float] = field(default_factory=list)
    lower: list[float] = field(default_factory=list)
    rows: list[tuple[float, float, Terms]] = field(default_factory=list)

    def column(self, cost: float, upper: float = _INFINITE, lower: float = 0.0) -> int:
        self.cost.append(cost)
        self.upper.append(upper)
        self.lower.append(lower)
        return len(self.cost) - 1

    def row(self, terms: Terms, least: float = -_INFINITE, most: float = _INFINITE) -> None:
        self.rows.append((least, most, terms))

    def solved(self, whole: int) -> Floats | None:
        """The columns' values, the first `whole` of them whole numbers; None: there is no solution."""
        lp = highspy.HighsLp()
        lp.num_col_, lp.num_row_ = len(self.cost), len(self.rows)
        scale = max(float(np.median([c for c in self.cost if c > 0] or [1.0])), 1e-12)
        lp.col_cost_ = np.array(self.cost) / scale
        lp.col_lower_, lp.col_upper_ = np.array(self.lower), np.array(self.upper)
        lp.row_lower_, lp.row_upper_ = (np.array([row[n] for row in self.rows]) for n in (0, 1))
        lp.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
        lp.a_matrix_.start_ = np.cumsum([0, *(len(terms) for _, _, terms in self.rows)]).astype(np.int32)
        lp.a_matrix_.index_ = np.array([c for _, _, terms in self.rows for c in terms], np.int32)
        lp.a_matrix_.value_ = np.array([v for _, _, terms in self.rows for v in terms.values()])
        if whole:
            kinds = [highspy.HighsVarType.kInteger] * whole
            lp.integrality_ = kinds + [highspy.HighsVarType.kContinuous] * (len(self.cost) - whole)
        solver = Quiet()
        for option, value in (("threads", 1), ("mip_max_nodes", NODES), ("mip_rel_gap", GAP), ("random_seed", 0)):
            solver.setOptionValue(option, value)
        solver.passModel(lp)
        solver.run()
        solution = solver.getSolution()
        return np.array(solution.col_value) if solution.value_valid else None


def solve(mix: Mix) -> Answer | None:
    """The best mix; None when HiGHS found none. For `Question`: it runs in a process beside the loop."""
    began_s = clock.monotonic_s()
    whole = mix.may.size <= WHOLE
    model = _Model()
    ends = [
        model.column(*bounds)
        for bounds in zip(mix.usd_per_h.tolist(), mix.most.tolist(), mix.least.tolist(), strict=True)
    ]
    _launches(model, mix, ends)
    unserved = _stages(model, mix, ends)
    for circle in mix.circles():
        _reserve(model, mix, ends, circle)
    _spread(model, mix, ends)
    values = model.solved(len(ends) if whole else 0)
    if values is None:
        return None
    replicas = np.clip(np.ceil(values[ends] - 1e-6), mix.least, np.maximum(mix.most, mix.least))
    return Answer(
        serial=mix.serial,
        method="lp",
        replicas=replicas,
        unserved_rps=float(values[unserved].sum()),
        usd_per_h=float(replicas @ mix.usd_per_h),
        solve_s=clock.monotonic_s() - began_s,
    )


def _launches(model: _Model, mix: Mix, ends: list[int]) -> None:
    for end, usd, pending in zip(ends, mix.launch_usd_per_h.tolist(), mix.pending.tolist(), strict=True):
        launched = model.column(usd)
        model.row({launched: 1.0, end: -1.0}, least=-pending)


def _stages(model: _Model, mix: Mix, ends: list[int]) -> list[int]:
    """Both stages; comes back: the columns of what stays unserved ahead."""
    kept = [model.column(0.0, ready) for ready in mix.ready.tolist()]
    for keep, end in zip(kept, ends, strict=True):
        model.row({keep: 1.0, end: -1.0}, most=0.0)
    _stage(model, mix, kept, mix.now)
    return _stage(model, mix, ends, mix.ahead)


def _stage(model: _Model, mix: Mix, capacity: list[int], demand: Floats) -> list[int]:
    """`demand` is served by `capacity` (columns of replicas); comes back: the columns of what is not."""
    loads: list[Terms] = [{} for _ in capacity]
    unserved = []
    for group, usd in enumerate(mix.unserved_usd.tolist()):
        missing = model.column(3600.0 * usd)
        terms = {missing: 1.0}
        for end in np.flatnonzero(mix.may[group]).tolist() if demand[group] > 0 else ():
            flow = model.column(3600.0 * float(mix.late_usd[group, end]))
            terms[flow] = loads[end][flow] = 1.0
        model.row(terms, float(demand[group]), float(demand[group]))
        unserved.append(missing)
    for column, each, load in zip(capacity, mix.capacity_rps.tolist(), loads, strict=True):
        if load:
            model.row({**load, column: -each}, most=0.0)
    return unserved


def _reserve(model: _Model, mix: Mix, ends: list[int], circle: Circle) -> None:
    held = model.column(0.0, lower=mix.reserve * circle.unsure_rps)
    lack = model.column(SHORT * _dearest(mix))
    inside = np.flatnonzero(circle.members).tolist()
    model.row({**{ends[e]: float(mix.capacity_rps[e]) for e in inside}, lack: 1.0, held: -1.0}, least=circle.demand_rps)
    for zone in _zones(mix, circle):
        model.row({held: 1.0, **{ends[e]: -mix.reserve * float(mix.capacity_rps[e]) for e in zone}}, least=0.0)


def _zones(mix: Mix, circle: Circle) -> Iterator[list[int]]:
    """The spot endpoints of each zone within a circle."""
    spot = mix.spot & circle.members
    for zone in np.unique(mix.zone[spot]).tolist():
        yield np.flatnonzero(spot & (mix.zone == zone)).tolist()


def _spread(model: _Model, mix: Mix, ends: list[int]) -> None:
    each = mix.usd_per_h / mix.capacity_rps
    worth = SPREAD_WORTH * float(each.min(initial=0.0)) if len(each) else 0.0
    for pool in np.unique(mix.pool[mix.spot]).tolist():
        crowded = model.column(worth)
        terms = {end: float((SPREAD - (mix.pool[e] == pool)) * mix.capacity_rps[e]) for e, end in enumerate(ends)}
        model.row({**terms, crowded: 1.0}, least=0.0)


def _dearest(mix: Mix) -> float:
    return float((mix.usd_per_h / mix.capacity_rps).max(initial=0.0))
