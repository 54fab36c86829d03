"""A linear programme that grows by columns and rows, and HiGHS to solve it. One thread, no limit of time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import highspy
import numpy as np

from forecasting.plan.site import Floats
from streams.runtime.highs import Quiet

NODES: Final = 200
"""Of the search for whole numbers; what was found by then is good enough."""
GAP: Final = 1e-4
_OPTIONS: Final[Mapping[str, int | float | bool]] = {
    "threads": 1,
    "random_seed": 0,
    "mip_max_nodes": NODES,
    "mip_rel_gap": GAP,
    # on programmes of this kind both take as long as all the rest, and find nothing better
    "mip_heuristic_run_feasibility_jump": False,
    "mip_heuristic_run_root_reduced_cost": False,
}
_INFINITE: Final = highspy.kHighsInf


class Found(NamedTuple):
    """Values of the columns, and duals of the rows in the unit of cost (zeros where whole numbers were asked for)."""

    values: Floats
    duals: Floats


@dataclass(slots=True)
class Programme:
    """Columns and rows are named by their numbers."""

    cost: list[float] = field(default_factory=list)
    upper: list[float] = field(default_factory=list)
    lower: list[float] = field(default_factory=list)
    rows: list[tuple[float, float, Mapping[int, float]]] = field(default_factory=list)

    def column(self, cost: float, upper: float = _INFINITE, lower: float = 0.0) -> int:
        """A new column; comes back: its number."""
        self.cost.append(cost)
        self.upper.append(upper)
        self.lower.append(lower)
        return len(self.cost) - 1

    def row(self, terms: Mapping[int, float], least: float = -_INFINITE, most: float = _INFINITE) -> int:
        """A new row over columns; comes back: its number."""
        self.rows.append((least, most, terms))
        return len(self.rows) - 1

    def solved(self, whole: int) -> Found | None:
        """The cheapest values, the first `whole` of them whole numbers; None: there are none."""
        # HiGHS sees no difference below 1e-7
        scale = max(float(np.median([cost for cost in self.cost if cost > 0] or [1.0])), 1e-12)
        solver = Quiet()
        for option, value in _OPTIONS.items():
            solver.setOptionValue(option, value)
        solver.passModel(self._lp(whole, scale))
        solver.run()
        solution = solver.getSolution()
        if not solution.value_valid:
            return None
        duals = np.array(solution.row_dual) if solution.dual_valid else np.zeros(len(self.rows))
        return Found(np.array(solution.col_value), scale * duals)

    def _lp(self, whole: int, scale: float) -> highspy.HighsLp:
        lp = highspy.HighsLp()
        lp.num_col_, lp.num_row_ = len(self.cost), len(self.rows)
        lp.col_cost_ = np.array(self.cost) / scale
        lp.col_lower_, lp.col_upper_ = np.array(self.lower), np.array(self.upper)
        lp.row_lower_, lp.row_upper_ = (np.array([row[n] for row in self.rows]) for n in (0, 1))
        lp.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
        lp.a_matrix_.start_ = np.cumsum([0, *(len(terms) for _, _, terms in self.rows)]).astype(np.int32)
        lp.a_matrix_.index_ = np.array([column for _, _, terms in self.rows for column in terms], np.int32)
        lp.a_matrix_.value_ = np.array([value for _, _, terms in self.rows for value in terms.values()])
        if whole:
            kinds = [highspy.HighsVarType.kInteger] * whole
            lp.integrality_ = kinds + [highspy.HighsVarType.kContinuous] * (len(self.cost) - whole)
        return lp
