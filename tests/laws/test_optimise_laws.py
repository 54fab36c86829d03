"""Laws of sharing out: for any problem hypothesis finds, and against an LP over every pair."""

from __future__ import annotations

import multiprocessing
import pickle
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from router_sync import master, optimise
from router_sync.greedy import greedy
from router_sync.master import Master
from router_sync.optimise import Solver, solve
from router_sync.problem import (
    LEAST_RESERVE,
    LEAST_RPS,
    MOST_RESERVE,
    SEGMENTS,
    Problem,
    Solution,
    completed,
    merged,
    objective,
)
from router_sync.score import CROWDING
from router_sync.table import damp, moved_share
from router_sync.whole import Optimum, optimum
from streams.runtime.clock import monotonic_s

LAW = settings(max_examples=120, deadline=None)


@st.composite
def problems(draw: st.DrawFn) -> Problem:
    """Up to 8 flows x 7 endpoints; law, dead endpoints, twins, tiers, and any load from idle to hopeless."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    flows, ends = draw(st.integers(1, 8)), draw(st.integers(1, 7))
    kin = rng.integers(0, draw(st.integers(1, ends)), ends)
    price = rng.uniform(1e-6, 1e-4, ends)[kin] * rng.uniform(1, draw(st.sampled_from([1.0, 1.05, 2.0])), ends)
    capacity = rng.uniform(1, 500, ends) * (rng.random(ends) < draw(st.sampled_from([1.0, 0.7, 0.0])))
    demand = rng.gamma(1, 1, flows) + 0.01
    return Problem(
        demand_rps=demand * draw(st.sampled_from([0.01, 0.5, 0.9, 3.0])) * max(capacity.sum(), 1.0) / demand.sum(),
        cost_usd=price + rng.uniform(0, draw(st.sampled_from([0.0, 1e-5, 1e-2])), (flows, ends)),
        may=rng.random((flows, ends)) < draw(st.sampled_from([1.0, 0.8, 0.3])),
        capacity_rps=capacity,
        crowd_usd=price[:, None] * np.cumsum(rng.choice([0.0, 0.2, 3.0], (ends, SEGMENTS)), axis=1),
        most_share=np.where(rng.random(ends) < 0.2, 0.1, 1.0),
        weight=rng.choice([1.0, 2.0, 4.0], flows),
        kin=kin.astype(np.intp),
        reserve=draw(st.floats(LEAST_RESERVE, MOST_RESERVE)),
    )


def kept(problem: Problem, shares: NDArray[np.float64]) -> None:
    """What holds of any shares: nothing forbidden, nothing beyond capacity, no more than there is to share."""
    assert (shares >= 0).all()
    assert not shares[~problem.may].any()
    assert not shares[:, problem.capacity_rps == 0].any()
    assert (shares.sum(axis=1) <= 1 + 1e-6).all()
    load = shares.T @ problem.demand_rps
    assert (load <= problem.capacity_rps * (1 + 1e-6) + 1e-6).all()


@LAW
@given(problems())
def test_shares_keep_to_law_and_capacity_whoever_makes_them(problem: Problem) -> None:
    kept(problem, greedy(problem))
    kept(problem, solve(problem).shares)


@LAW
@given(problems())
def test_the_lp_is_never_dearer_than_greedy_and_never_below_its_bound(problem: Problem) -> None:
    solution = solve(problem)
    assert solution.objective_usd_per_s <= objective(problem, greedy(problem)) * (1 + 1e-6) + 1e-12
    assert solution.bound_usd_per_s <= solution.objective_usd_per_s * (1 + 1e-9) + 1e-12
    if solution.method == "lp":
        assert solution.gap <= 1e-6


@LAW
@given(problems())
def test_demand_stays_unserved_only_where_no_open_capacity_is_left(problem: Problem) -> None:
    free = replace(problem, most_share=np.ones(len(problem.kin)))
    for shares in (greedy(free), solve(free).shares):
        left = free.capacity_rps - shares.T @ free.demand_rps
        unserved = (1.0 - shares.sum(axis=1)) * free.demand_rps
        for flow in np.flatnonzero(unserved > 1e-3 + 1e-4 * free.demand_rps.max()):
            assert (left[free.open[flow]] <= 1e-3 + 1e-4 * free.capacity_rps[free.open[flow]]).all()


@LAW
@given(problems())
def test_completed_shares_add_up_to_one_wherever_anything_is_open(problem: Problem) -> None:
    whole = completed(problem, solve(problem).shares)
    some = problem.open.any(axis=1)
    assert np.allclose(whole[some].sum(axis=1), 1.0)
    assert not whole[~some].any()
    assert not whole[~problem.open].any()


@settings(max_examples=20, deadline=None)
@given(st.integers(201, 900), st.integers(0, 2**32 - 1))
def test_however_many_twins_share_a_flow_they_keep_it(many: int, seed: int) -> None:
    """Like endpoints have small shares each; that makes them no crumbs, and no dear stranger comes in for them."""
    rng = np.random.default_rng(seed)
    ends = many + 5
    near = np.arange(ends) < many
    problem = Problem(
        demand_rps=np.full(2, 0.4 * many), cost_usd=np.tile(np.where(near, 1e-5, 1e-3), (2, 1)),
        may=np.ones((2, ends), np.bool_), capacity_rps=rng.uniform(2, 10, ends),
        crowd_usd=np.tile(CROWDING * 1e-6, (ends, 1)),
        most_share=np.ones(ends), weight=np.ones(2), kin=np.where(near, 0, 1 + np.arange(ends)),
    )  # fmt: skip
    for shares in (greedy(problem), solve(problem).shares):
        whole = completed(problem, shares)
        assert np.allclose(whole, shares, atol=1e-9)
        assert (whole[:, near] > 0).all()
        assert not whole[:, ~near].any()


@LAW
@given(problems())
def test_sweeping_crumbs_moves_next_to_nothing(problem: Problem) -> None:
    shares = solve(problem).shares
    some = shares.sum(axis=1) > 1e-9
    before = shares[some] / shares[some].sum(axis=1, keepdims=True)
    assert moved_share(before, completed(problem, shares)[some]).max(initial=0.0) <= 0.005 + 1e-9


@LAW
@given(problems(), st.integers(0, 6))
def test_a_refill_moves_nobody_who_need_not_move(problem: Problem, lost: int) -> None:
    """Where one flow at a time finds room for what it lost, nothing else moves (but between twins)."""
    free = replace(problem, most_share=np.ones(len(problem.kin)))
    before = greedy(free)
    column = np.arange(len(free.kin)) == lost % len(free.kin)
    after_loss = replace(free, may=free.may & ~column)
    after = greedy(after_loss, before)
    kept(after_loss, after)
    room = after_loss.open.all(axis=0) * (free.capacity_rps - before.T @ free.demand_rps)
    hurt = (before[:, column].sum(axis=1) + 1 - before.sum(axis=1)) * free.demand_rps
    if room.sum() >= hurt.sum() * (1 + 1e-6) + 1e-6:
        together = merged(after_loss)
        gone = np.maximum(together.join(before * ~column) - together.join(after), 0.0)
        assert gone.max(initial=0.0) <= 1e-6


@LAW
@given(problems())
def test_twins_cost_the_same_apart_as_together(problem: Problem) -> None:
    twins = merged(problem)
    together = greedy(twins.small)
    apart = twins.split(together)
    assert np.isclose(objective(twins.small, together), objective(problem, apart), rtol=1e-6, atol=1e-9)


@LAW
@given(problems())
def test_problem_and_solution_survive_the_way_to_another_process(problem: Problem) -> None:
    solution = solve(pickle.loads(pickle.dumps(problem)))
    back = pickle.loads(pickle.dumps(solution))
    assert np.array_equal(back.shares, solve(problem).shares)


@LAW
@given(st.integers(0, 2**32 - 1), st.floats(0.05, 1.0))
def test_damped_shares_move_at_most_so_much_and_arrive(seed: int, most: float) -> None:
    rng = np.random.default_rng(seed)
    old, new = rng.dirichlet(np.ones(5), 4), rng.dirichlet(np.ones(5), 4)
    at = old
    for _ in range(int(1 / most) + 2):
        step = damp(at, new, most)
        assert (moved_share(at, step) <= most + 1e-9).all()
        assert np.allclose(step.sum(axis=1), 1.0)
        assert (moved_share(step, new) <= moved_share(at, new) + 1e-12).all()
        at = step
    assert np.allclose(at, new)


def realistic(flows: int, ends: int, load: float, seed: int) -> Problem:
    rng = np.random.default_rng(seed)
    capacity, demand = rng.uniform(20, 200, ends), rng.gamma(1, 1, flows) + 0.05
    price = rng.uniform(1e-5, 6e-5, ends)
    cost = price + 1e-6 * rng.uniform(5, 250, (flows, ends)) + 1e-3 * (rng.random((flows, ends)) < 0.2)
    may = rng.random((flows, ends)) < 0.8
    may[:, 0] = True
    return Problem(
        demand * load * capacity.sum() / demand.sum(), cost, may, capacity, np.outer(price + 1e-4, CROWDING),
        np.ones(ends),
        rng.choice([1.0, 2.0, 4.0], flows), np.arange(ends, dtype=np.intp),
    )  # fmt: skip


def test_greedy_is_within_a_tenth_of_the_lp_on_fleets_with_room() -> None:
    gaps = [solve(realistic(20, 30, load, seed)).greedy_gap for seed in range(8) for load in (0.2, 0.5, 0.7)]
    assert max(gaps) < 0.1
    assert float(np.mean(gaps)) < 0.03


def test_twins_share_in_proportion_to_capacity() -> None:
    problem = Problem(
        np.array([10.0]), np.full((1, 2), 1e-5), np.ones((1, 2), np.bool_), np.array([300.0, 100.0]),
        np.tile(CROWDING * 1e-5, (2, 1)), np.ones(2), np.ones(1), np.zeros(2, np.intp),
    )  # fmt: skip
    assert np.allclose(solve(problem).shares, [[0.75, 0.25]])
    strangers = replace(problem, kin=np.arange(2, dtype=np.intp))
    assert solve(strangers).shares.max() > 0.99


def test_load_spreads_as_an_endpoint_fills() -> None:
    """The cheaper one takes all up to half of its capacity, then the dearer one helps."""
    cost, crowd = np.array([[1.0e-5, 1.2e-5]]), np.tile(CROWDING * 1e-4, (2, 1))
    common = {"may": np.ones((1, 2), np.bool_), "capacity_rps": np.full(2, 100.0), "crowd_usd": crowd}
    rest = {"most_share": np.ones(2), "weight": np.ones(1), "kin": np.arange(2, dtype=np.intp)}
    at = {rps: solve(Problem(np.array([rps]), cost, **common, **rest)).shares[0] for rps in (40.0, 80.0, 190.0)}
    assert np.allclose(at[40.0], [1.0, 0.0], atol=1e-6)
    assert np.allclose(at[80.0], [50 / 80, 30 / 80], atol=1e-6)
    assert np.allclose(at[190.0] * 190, [100, 90], atol=1e-4)


def test_when_capacity_is_short_the_higher_tier_is_served() -> None:
    problem = Problem(
        np.array([80.0, 80.0]), np.full((2, 1), 1e-5), np.ones((2, 1), np.bool_), np.array([100.0]),
        CROWDING[None] * 1e-5, np.ones(1), np.array([1.0, 4.0]), np.zeros(1, np.intp),
    )  # fmt: skip
    for shares in (solve(problem).shares, greedy(problem), greedy(problem, np.array([[1.0], [0.0]]))):
        assert np.allclose(shares[:, 0], [0.25, 1.0], atol=1e-6)


# ---------------------------------------------------------------- warm


def moved_on(problem: Problem, shares: NDArray[np.float64], rng: np.random.Generator) -> Problem:
    """What is asked next: other demand, costs and law, endpoints that go and come back; the last answer in force."""
    flows, ends = problem.cost_usd.shape
    was = np.where(problem.capacity_rps > 0, problem.capacity_rps, rng.uniform(1, 500, ends))
    held = completed(problem, shares)
    return replace(
        problem,
        demand_rps=np.maximum(problem.demand_rps * rng.choice([0.1, 0.97, 1.0, 1.03, 5.0], flows), LEAST_RPS),
        cost_usd=problem.cost_usd * rng.choice([0.5, 0.99, 1.0, 1.01, 3.0], ends),
        may=problem.may ^ (rng.random((flows, ends)) < rng.choice([0.0, 0.2])),
        capacity_rps=np.where(rng.random(ends) < rng.choice([1.0, 0.7]), was, 0.0),
        held=rng.choice([0.0, 0.5, 1.0]) * held,
    )


def as_good_as_whole(problem: Problem, found: Optimum) -> None:
    """Merged shares cost what the LP over every pair costs, and the bound is that too."""
    small = merged(problem).small
    best = optimum(small, 30.0)
    assert best is not None
    usd = objective(small, best.shares)
    assert np.isclose(objective(small, found.shares), usd, rtol=1e-6, atol=1e-12)
    assert np.isclose(found.bound, usd, rtol=1e-6, atol=1e-12)
    assert found.bound <= usd * (1 + 1e-9) + 1e-12


def solved_as_whole(problem: Problem, solution: Solution) -> None:
    """The same of a solution without twins."""
    kept(problem, solution.shares)
    assert solution.method == "lp"
    assert solution.gap <= 1e-6
    if problem.open.any():
        as_good_as_whole(problem, Optimum(merged(problem).join(solution.shares), solution.bound_usd_per_s))


@LAW
@given(problems(), st.integers(0, 2**32 - 1))
def test_a_warm_answer_costs_what_the_whole_lp_costs_whatever_was_asked_before(problem: Problem, seed: int) -> None:
    warm, rng = Master(*problem.cost_usd.shape), np.random.default_rng(seed)
    problem = replace(problem, demand_rps=np.maximum(problem.demand_rps, LEAST_RPS))
    for _ in range(4):
        twins = merged(problem)
        shares = np.zeros(problem.cost_usd.shape)
        if twins.small.open.any():
            found = warm.optimum(twins, twins.join(greedy(problem)), monotonic_s() + 30.0)
            assert found is not None
            as_good_as_whole(problem, found)
            shares = twins.split(found.shares)
            kept(problem, shares)
        problem = moved_on(problem, shares, rng)


@LAW
@given(problems(), problems())
def test_a_question_of_another_shape_is_answered_as_well(one: Problem, other: Problem) -> None:
    warm = Solver(30.0, few=0)
    for problem in (one, other, one):
        demand = np.maximum(problem.demand_rps, LEAST_RPS)
        strangers = replace(problem, demand_rps=demand, kin=np.arange(len(problem.kin), dtype=np.intp))
        solved_as_whole(strangers, warm.solve(strangers))


@pytest.mark.parametrize("lost", [0, 3])
def test_a_crowded_model_forgets_idle_pairs_and_stays_as_good(monkeypatch: pytest.MonkeyPatch, lost: int) -> None:
    monkeypatch.setattr(master, "CROWDED", 2)
    problem, warm, rng = realistic(20, 30, 0.7, 5), Solver(30.0, few=0), np.random.default_rng(6)
    pairs = []
    for _ in range(8):
        solution = warm.solve(problem)
        solved_as_whole(problem, solution)
        pairs.append(len(warm._master._flow) if warm._master else 0)
        capacity = np.where(rng.permutation(30) < lost, 0.0, 100.0)
        drift = np.exp(rng.normal(0, 0.2, 20))
        problem = replace(
            problem, demand_rps=problem.demand_rps * drift, capacity_rps=capacity,
            held=completed(problem, solution.shares),
        )  # fmt: skip
    assert (np.diff(pairs) < 0).any()


def test_no_pair_is_left_out_for_being_dear() -> None:
    """All cheap capacity is taken, and the last endpoint anyone would choose is the one that serves the rest."""
    flows, ends = 30, 40
    cost = np.tile(np.linspace(1e-5, 1e-3, ends), (flows, 1))
    problem = Problem(
        np.full(flows, 10.0), cost, np.ones((flows, ends), np.bool_), np.full(ends, 7.5),
        np.tile(CROWDING * 1e-5, (ends, 1)),
        np.ones(ends), np.ones(flows), np.arange(ends, dtype=np.intp),
    )  # fmt: skip
    solution = Solver(30.0, few=0).solve(problem)
    solved_as_whole(problem, solution)
    assert np.allclose(solution.shares.sum(axis=1), 1.0)


def test_without_time_the_answer_is_greedy_and_says_so() -> None:
    problem = realistic(20, 30, 0.5, 1)
    solution = Solver(0.0, few=0).solve(problem)
    assert solution.method == "greedy"
    assert np.array_equal(solution.shares, greedy(problem))


def test_models_are_kept_in_a_process_beside_and_nowhere_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """Here equal questions have equal answers, to the byte, whatever was asked in between."""
    beside = Solver()
    monkeypatch.setattr(optimise, "_KEPT", beside)
    problem, other = realistic(50, 60, 0.6, 1), realistic(50, 60, 0.6, 2)
    first, _, again = solve(problem), solve(other), solve(problem)
    assert first.shares.tobytes() == again.shares.tobytes()
    assert beside._master is None
    monkeypatch.setattr(multiprocessing, "parent_process", multiprocessing.current_process)
    solved_as_whole(problem, solve(problem))
    assert beside._master is not None
