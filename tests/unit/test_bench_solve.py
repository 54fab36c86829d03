"""The bench of the solver measures what it says, on a fleet small enough to try."""

from __future__ import annotations

import numpy as np
import pytest

from bench import solve as bench


def test_each_contender_is_timed_and_the_warm_answer_is_as_good_as_the_whole_lp() -> None:
    ms, gaps = bench.measure(12, 24, 2)
    assert set(ms) == {"warm_ms", "cold_ms", "lost10_ms", "highspy_ms", "greedy_ms", "refill_ms", "scipy_ms"}
    assert all(each > 0 for each in ms.values())
    assert 0 <= gaps["lp"] <= 1e-6
    assert gaps["greedy"] >= 0
    assert gaps["refill"] >= 0


def test_equal_seeds_make_equal_fleets_that_can_serve_their_demand() -> None:
    one, same, other = bench.fleet(50, 100), bench.fleet(50, 100), bench.fleet(50, 100, seed=1)
    assert one.cost_usd.tobytes() == same.cost_usd.tobytes()
    assert not np.array_equal(one.cost_usd, other.cost_usd)
    assert one.open.any(axis=1).all()
    assert np.isclose(one.demand_rps.sum(), bench.LOAD * one.capacity_rps.sum())


def test_a_drifted_question_has_the_last_answer_in_force_and_lost_endpoints_have_no_capacity() -> None:
    rng, problem = np.random.default_rng(1), bench.fleet(12, 24)
    after = bench.drifted(problem, np.eye(12, 24) * problem.open, rng)
    assert after.held is not None
    assert np.allclose(after.held.sum(axis=1), 1.0)
    assert 0 < np.abs(after.demand_rps / problem.demand_rps - 1).max() < 0.2
    assert np.count_nonzero(bench.without(after, rng).capacity_rps) == 24 - bench.LOST


def test_an_unknown_size_ends_with_those_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["bench.solve", "--only", "7x7"])
    with pytest.raises(SystemExit, match="50x100, 200x300, 500x1000"):
        bench.main()
