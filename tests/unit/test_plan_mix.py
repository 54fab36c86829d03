"""The mix of replicas: law, money, reserve, spread, what is kept meanwhile; by the programme and by greedy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from forecasting.plan import lp
from forecasting.plan.greedy import greedy
from forecasting.plan.lp import solve
from forecasting.plan.mix import SPREAD, Answer, Mix, grouped
from forecasting.plan.need import Need
from forecasting.plan.site import declared, site
from streams.contract import records as r
from tests.replay.pools import endpoint, fleet

BOTH = pytest.mark.parametrize("way", [solve, greedy], ids=["lp", "greedy"])
Way = Callable[[Mix], Answer | None]


def mix(now: list[float], ends: list[tuple[float, bool, int]], ahead: list[float] | None = None, **more: Any) -> Mix:
    """Groups by their demand; endpoints of ten requests/s as (dollars, spot, zone), of which there may be a hundred."""
    groups, n = len(now), len(ends)
    told: dict[str, Any] = {
        "now": np.array(now), "ahead": np.array(ahead or now), "weight": np.full(groups, 2.0),
        "ballast": np.zeros(groups, np.bool_), "unsure": np.zeros(groups), "may": np.ones((groups, n), np.bool_),
        "late_usd": np.zeros((groups, n)), "capacity_rps": np.full(n, 10.0),
        "usd_per_h": np.array([usd for usd, _, _ in ends]), "launch_usd_per_h": np.full(n, 0.01),
        "ready": np.zeros(n), "starting": np.zeros(n), "least": np.zeros(n), "most": np.full(n, 100.0),
        "spot": np.array([spot for _, spot, _ in ends], np.bool_),
        "zone": np.array([zone for _, _, zone in ends], np.intp), "pool": np.arange(n, dtype=np.intp),
    }  # fmt: skip
    return Mix(**(told | {k: np.array(v) if isinstance(v, list) else v for k, v in more.items()}))


def replicas(way: Way, asked: Mix) -> list[float]:
    answer = way(asked)
    assert answer is not None
    assert answer.serial == asked.serial
    return [float(n) for n in answer.replicas]


# ---------------------------------------------------------------- law


@BOTH
def test_what_is_needed_is_launched_where_law_allows_it_and_nowhere_else(way: Way) -> None:
    asked = mix([50.0], [(0.1, False, 0), (1.0, False, 1)], may=[[False, True]])
    assert replicas(way, asked) == [0.0, 5.0]


@BOTH
def test_where_law_allows_nothing_nothing_is_launched(way: Way) -> None:
    answer = way(mix([50.0], [(0.1, False, 0)], may=[[False]]))
    assert answer is not None
    assert (answer.replicas.tolist(), answer.unserved_rps) == ([0.0], 50.0)


@BOTH
def test_the_restricted_find_a_place_though_others_want_the_same(way: Way) -> None:
    asked = mix([50.0, 50.0], [(0.1, False, 0), (1.0, False, 1)], may=[[True, True], [True, False]], most=[5.0, 9.0])
    answer = way(asked)
    assert answer is not None
    assert (answer.replicas.tolist(), answer.unserved_rps) == ([5.0, 5.0], 0.0)


def test_a_mask_of_the_roof_closes_and_never_opens_what_classes_declare() -> None:
    eu = r.RequestClass(name="eu", slo_p95_ms=400, jurisdictions=("DE",))
    made = fleet([endpoint("a"), endpoint("u", "us-1")], [eu, r.RequestClass(name="any", slo_p95_ms=400)])
    assert declared(made).tolist() == [[True, False], [True, True]]
    opened = site(made, lambda f: np.ones((2, 2), np.bool_), 0.001)
    assert opened.may.tolist() == [[True, False], [True, True]]
    closed = site(made, lambda f: np.array([[True, True], [False, True]]), 0.001)
    assert closed.may.tolist() == [[True, False], [False, True]]


def test_a_mask_of_another_fleet_is_refused() -> None:
    with pytest.raises(ValueError, match=r"law is of shape \(1, 3\), the fleet of \(1, 1\)"):
        site(fleet([endpoint("a")]), lambda f: np.ones((1, 3), np.bool_), 0.001)


def test_flows_that_may_use_the_same_at_the_same_cost_are_planned_as_one() -> None:
    kinds = [r.RequestClass(name=name, slo_p95_ms=400, tier=tier) for name, tier in (
        ("a", "standard"), ("b", "standard"), ("c", "premium"),
    )]  # fmt: skip
    where = site(fleet([endpoint("a"), endpoint("b")], kinds), declared, 0.001)
    asked = Need(*(np.array([1.0, 2.0, 4.0]) * k for k in (1.0, 2.0, 3.0)), np.zeros(3, np.bool_), np.ones(3, np.bool_))
    groups = grouped(where, asked, np.ones(2, np.bool_))
    assert groups.now.tolist() == [3.0, 4.0]
    assert groups.ahead.tolist() == [6.0, 8.0]
    assert groups.unsure.tolist() == pytest.approx([np.hypot(3, 6), 12.0])
    assert groups.weight.tolist() == [2.0, 4.0]


# ---------------------------------------------------------------- money


@BOTH
def test_the_cheapest_capacity_is_launched(way: Way) -> None:
    assert replicas(way, mix([50.0], [(1.0, False, 0), (0.5, False, 1)])) == [0.0, 5.0]


@BOTH
def test_being_late_costs_more_than_a_dear_replica(way: Way) -> None:
    asked = mix([50.0], [(1.0, False, 0), (0.5, False, 1)], late_usd=[[0.0, 0.001]])
    assert replicas(way, asked) == [5.0, 0.0]


@BOTH
def test_what_stands_or_is_on_its_way_is_not_launched_again(way: Way) -> None:
    asked = mix([50.0], [(1.0, False, 0), (0.999, False, 1)], ready=[3.0, 0.0], starting=[2.0, 0.0])
    assert replicas(way, asked) == [5.0, 0.0]


@BOTH
def test_clamps_hold(way: Way) -> None:
    asked = mix([50.0], [(1.0, False, 0), (0.5, False, 1)], least=[2.0, 0.0], most=[2.0, 1.0])
    answer = way(asked)
    assert answer is not None
    assert (answer.replicas.tolist(), answer.unserved_rps) == ([2.0, 1.0], 20.0)


def test_what_is_dear_is_kept_until_what_is_cheap_stands() -> None:
    asked = mix([50.0], [(1.0, False, 0), (0.3, False, 1)], ready=[5.0, 0.0])
    assert replicas(solve, asked) == [5.0, 5.0]
    assert replicas(solve, replace(asked, ready=np.array([5.0, 5.0]))) == [0.0, 5.0]


def test_what_is_not_needed_any_more_is_let_go_by_the_programme_and_not_by_greedy() -> None:
    asked = mix([10.0], [(1.0, False, 0)], ready=[5.0])
    assert replicas(solve, asked) == [1.0]
    assert replicas(greedy, asked) == [5.0]


def test_what_is_ahead_is_launched_and_what_is_now_is_kept() -> None:
    assert replicas(solve, mix([10.0], [(1.0, False, 0)], ahead=[80.0])) == [8.0]
    assert replicas(solve, mix([80.0], [(1.0, False, 0)], ahead=[10.0], ready=[8.0])) == [8.0]


# ---------------------------------------------------------------- reserve and spread


@BOTH
@pytest.mark.parametrize("zones", [2, 3, 6])
def test_the_largest_spot_zone_may_be_lost(way: Way, zones: int) -> None:
    found = np.array(replicas(way, mix([60.0], [(0.3, True, z) for z in range(zones)])))
    assert found.sum() - found.max() >= 6.0


@BOTH
def test_a_part_of_the_reserve_is_held_as_asked(way: Way) -> None:
    half = np.array(replicas(way, mix([60.0], [(0.3, True, z) for z in range(3)], reserve=0.5)))
    whole = np.array(replicas(way, mix([60.0], [(0.3, True, z) for z in range(3)], reserve=1.0)))
    assert half.sum() >= 6.0 + 0.5 * half.max()
    assert half.sum() < whole.sum()


@BOTH
def test_what_forecasts_are_unsure_of_is_held_too(way: Way) -> None:
    assert replicas(way, mix([50.0], [(1.0, False, 0)], unsure=[20.0])) == [7.0]


@BOTH
def test_the_restricted_have_a_reserve_within_what_they_may_use(way: Way) -> None:
    ends = [(0.3, True, 0), (0.3, True, 1), (0.2, True, 2), (0.2, True, 3), (0.2, True, 4)]
    found = np.array(replicas(way, mix([40.0, 40.0], ends, may=[[True] * 5, [True, True, False, False, False]])))
    inside = found[:2]
    assert inside.sum() - inside.max() >= 4.0
    assert found.sum() - found.max() >= 8.0


@BOTH
def test_ballast_is_the_reserve_of_others(way: Way) -> None:
    ends = [(0.3, True, z) for z in range(4)]
    alone = sum(replicas(way, mix([40.0], ends)))
    with_batch = sum(replicas(way, mix([40.0, 10.0], ends, ballast=[False, True], weight=[2.0, 1.0])))
    both = sum(replicas(way, mix([40.0, 10.0], ends)))
    assert with_batch <= alone + 1 < both + 1
    assert with_batch >= 5.0


def test_spot_is_spread_where_there_are_others_and_not_where_there_are_none() -> None:
    many = np.array(replicas(solve, mix([120.0], [(0.30 + 0.02 * z, True, z) for z in range(5)])))
    assert many.max() / many.sum() <= SPREAD + 0.05
    assert sum(replicas(solve, mix([10.0], [(0.3, True, 0)], reserve=0.0))) == 1.0


def test_spot_and_on_demand_are_blended_by_price_and_risk() -> None:
    def spot_share(risk: float) -> float:
        ends = [(0.3 + risk, True, z) for z in range(4)] + [(1.0, False, 9)]
        found = np.array(replicas(solve, mix([100.0], ends)))
        return float(found[:4].sum() / found.sum())

    assert spot_share(0.0) > 0.9
    assert spot_share(0.8) == 0.0


@BOTH
def test_where_room_is_short_what_matters_most_is_served(way: Way) -> None:
    asked = mix([50.0, 50.0], [(1.0, False, 0)], weight=[1.0, 4.0], ballast=[True, False], most=[6.0])
    answer = way(asked)
    assert answer is not None
    assert answer.replicas.tolist() == [6.0]
    assert answer.unserved_rps == pytest.approx(40.0)


# ---------------------------------------------------------------- large fleets


def test_priced_flows_cost_no_more_than_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    asked = mix(
        rng.uniform(5, 50, 12).tolist(),
        [(float(rng.uniform(0.3, 1.0)), bool(n % 2), n // 4) for n in range(40)],
        may=rng.random((12, 40)) < 0.6,
        late_usd=np.where(rng.random((12, 40)) < 0.3, 1e-3, 0.0),
        most=np.full(40, 6.0),
        ready=np.full(40, 1.0),
    )
    monkeypatch.setattr(lp, "FIRST", 3)
    monkeypatch.setattr(lp, "ROUNDS", 30)
    monkeypatch.setattr(lp, "WHOLE", 0)
    priced = lp._priced(asked)
    built = lp._build(asked, asked.may, asked.may)
    whole = built.programme.solved(0)
    assert priced is not None
    assert whole is not None
    costs = [np.array(b.programme.cost) @ v for b, v in (priced, (built, whole.values))]
    assert costs[0] == pytest.approx(costs[1], rel=1e-6)


def test_the_answer_depends_on_the_question_alone() -> None:
    asked = mix([70.0, 30.0], [(0.3, True, 0), (0.31, True, 1), (0.32, True, 2), (1.0, False, 3)], serial=7)
    first, second = solve(asked), solve(asked)
    assert first is not None
    assert second is not None
    assert first.replicas.tobytes() == second.replicas.tobytes()


@BOTH
def test_nothing_asked_nothing_given(way: Way) -> None:
    assert replicas(way, mix([0.0], [(1.0, False, 0)])) == [0.0]
