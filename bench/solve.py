"""How fast shares are found, and how good they are: the warm LP, the same LP cold, plain HiGHS, and greedy.

    python -m bench.solve --json

A fleet on a map: cheap and dear regions, latency by distance, a price of latency by tier, law that shuts one region in
five to an origin; no two endpoints are twins, so nothing gets smaller before it is solved. Between two questions demand
drifts by some percent and costs by one, and the last answer is in force: moving away from it costs. Each round asks
every contender the same, one after the other; figures are medians over the rounds, gaps the worst round's.

    warm_ms     a `Solver` that answered the round before: all of it, twins, greedy, LP, checks
    cold_ms     the same with no question before
    lost10_ms   the warm one, when ten endpoints were lost since
    highspy_ms  the whole LP in plain HiGHS, every pair a column, made and solved anew (of twins merged already)
    scipy_ms    the same by scipy.optimize.linprog
    greedy_ms   greedy shares from nothing; refill_ms: the shares in force refilled after the loss of ten
    gap.lp      of the warm answer to the whole LP's cost, as a share: above or below
    gap.greedy  greedy above the LP, nothing being in force; gap.refill: the refill above the LP, after the loss
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import numpy as np

from bench.machine import described
from router_sync.greedy import greedy
from router_sync.layout import Floats
from router_sync.optimise import Solver
from router_sync.problem import Problem, Solution, completed, merged, objective
from router_sync.score import CROWDING
from router_sync.whole import Optimum, model, optimum

try:
    from scipy.optimize import linprog
    from scipy.sparse import csc_matrix
except ImportError:
    linprog = csc_matrix = None

SIZES: Final = {"50x100": (50, 100, 9), "200x300": (200, 300, 7), "500x1000": (500, 1000, 3)}
"""Flows, endpoints, rounds."""
SEED: Final = 20
LOAD: Final = 0.6
"""Demand as a share of all capacity."""
TIERS: Final = np.array([[1e-6, 4.0], [3e-7, 2.0], [3e-8, 1.0]])
"""Dollars per request and millisecond of latency; weight."""
LOST: Final = 10
LIMIT_S: Final = 120.0
Rows = dict[str, list[float]]


def fleet(flows: int, ends: int, seed: int = SEED) -> Problem:
    """A question nobody has answered yet."""
    rng = np.random.default_rng(seed)
    regions, tier = max(4, ends // 8), np.arange(flows) % len(TIERS)
    at, region = rng.random((regions, 2)), rng.integers(0, regions, ends)
    origin = rng.random((flows // len(TIERS) + 1, 2))[np.arange(flows) // len(TIERS)]
    price = rng.uniform(1e-5, 4e-5, regions)[region] * rng.uniform(0.7, 1.4, ends)
    capacity, demand = rng.uniform(20, 200, ends), rng.gamma(1, 1, flows) + 0.05
    latency_ms = 5 + 150 * np.linalg.norm(origin[:, None] - at[region], axis=2) + rng.uniform(0, 20, ends)
    return Problem(
        demand_rps=demand * LOAD * capacity.sum() / demand.sum(),
        cost_usd=price + TIERS[tier, 0, None] * latency_ms,
        may=(rng.random((flows, regions)) < 0.8)[:, region],
        capacity_rps=capacity,
        crowd_usd=np.outer(price + 1e-4, CROWDING),
        most_share=np.ones(ends),
        weight=TIERS[tier, 1],
        kin=np.arange(ends, dtype=np.intp),
    )


def drifted(problem: Problem, held: Floats, rng: np.random.Generator) -> Problem:
    """The next question, with the shares `held` in force."""
    flows, ends = problem.cost_usd.shape
    demand = problem.demand_rps * np.exp(rng.normal(0, 0.03, flows))
    cost = problem.cost_usd * np.exp(rng.normal(0, 0.01, ends))
    return replace(problem, demand_rps=demand, cost_usd=cost, held=completed(problem, held))


def without(problem: Problem, rng: np.random.Generator) -> Problem:
    """The same when LOST endpoints have no capacity."""
    capacity = problem.capacity_rps.copy()
    capacity[rng.choice(len(capacity), LOST, replace=False)] = 0.0
    return replace(problem, capacity_rps=capacity)


def measure(flows: int, ends: int, rounds: int) -> tuple[dict[str, float], dict[str, float]]:
    """(medians in ms, worst gaps) of one size."""
    rng, warm, ms, gaps = np.random.default_rng(SEED), Solver(LIMIT_S, few=0), Rows(), Rows()
    problem = fleet(flows, ends)
    gaps["greedy"] = [_above(problem, greedy(problem), warm.solve(problem))]
    for _ in range(2):  # two answers in, the last one's shares being in force, it is as warm as it is day after day
        problem = drifted(problem, warm.solve(problem).shares, rng)
    for _ in range(rounds):
        last = warm.solve(problem)
        problem = drifted(problem, last.shares, rng)
        _round(problem, without(problem, rng), warm, ms, gaps)
    medians = {name: round(statistics.median(each), 1) for name, each in ms.items()}
    return medians, {name: float(f"{max(each):.2g}") for name, each in gaps.items()}


def _round(problem: Problem, lost: Problem, warm: Solver, ms: Rows, gaps: Rows) -> None:
    answer = _timed(ms, "warm_ms", lambda: warm.solve(problem))
    _timed(ms, "cold_ms", lambda: Solver(LIMIT_S, few=0).solve(problem))
    bare = replace(problem, held=None)
    shares = _timed(ms, "greedy_ms", lambda: greedy(bare))
    gaps["greedy"].append(_above(bare, shares, Solver(LIMIT_S, few=0).solve(bare)))
    after = _timed(ms, "lost10_ms", lambda: warm.solve(lost))
    refilled = _timed(ms, "refill_ms", lambda: greedy(lost, problem.in_force))
    gaps.setdefault("refill", []).append(_above(lost, refilled, after))
    small = merged(problem).small
    whole: Optimum | None = _timed(ms, "highspy_ms", lambda: optimum(small, LIMIT_S))
    if linprog is not None:
        _timed(ms, "scipy_ms", lambda: by_scipy(small))
    assert whole is not None
    assert answer.method == after.method == "lp"
    gaps.setdefault("lp", []).append(abs(answer.objective_usd_per_s / objective(small, whole.shares) - 1.0))


def by_scipy(small: Problem) -> float:
    """What the whole LP costs by scipy, in dollars per second."""
    asked = model(small)
    shape = (len(asked.right), len(asked.cost))
    equal = csc_matrix((asked.value, asked.index, asked.starts), shape=shape)
    bounds = np.column_stack((np.zeros(len(asked.cost)), asked.upper))
    found = linprog(asked.cost, A_eq=equal, b_eq=asked.right, bounds=bounds, method="highs")
    return float(found.fun) * asked.scale


def _timed(ms: Rows, name: str, work: Callable[[], Any]) -> Any:
    began = time.perf_counter()
    found = work()
    ms.setdefault(name, []).append((time.perf_counter() - began) * 1e3)
    return found


def _above(problem: Problem, shares: Floats, best: Solution) -> float:
    return objective(problem, shares) / best.objective_usd_per_s - 1.0


def run(only: set[str]) -> dict[str, Any]:
    """All figures, each by size."""
    found: dict[str, Any] = {}
    gap: dict[str, Any] = {}
    for size in (size for size in SIZES if size in only):
        medians, gaps = measure(*SIZES[size])
        for name, value in medians.items():
            found.setdefault(name, {})[size] = value
        for name, value in gaps.items():
            gap.setdefault(name, {})[size] = value
    left_out = {} if linprog is not None else {"scipy_ms": "scipy is not installed"}
    return found | {"gap": gap, "left_out": left_out} | described()


def show(found: dict[str, Any]) -> None:
    """For people."""
    for name, row in found.items():
        if name.endswith("_ms"):
            print(f"{name:>12}  " + "  ".join(f"{size} {value:9.1f}" for size, value in row.items()))
    for name, row in found["gap"].items():
        print(f"{'gap ' + name:>12}  " + "  ".join(f"{size} {value:9.2g}" for size, value in row.items()))


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.add_argument("--only", default=",".join(SIZES), help="sizes, with commas between")
    asked = parser.parse_args()
    only = set(asked.only.split(","))
    if unknown := only - set(SIZES):
        sys.exit(f"--only: no size {', '.join(sorted(unknown))}; there are {', '.join(SIZES)}")
    found = run(only)
    if asked.json:
        print(json.dumps(found))
    else:
        show(found)


if __name__ == "__main__":
    main()
