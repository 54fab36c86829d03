"""Dollars by parts, quotes that age, budgets, tiers and the reserve: each by itself."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router_sync.budgets import DAY_S, Budgets
from router_sync.layout import Floats, layout
from router_sync.problem import LEAST_RESERVE, MOST_RESERVE, RESERVE, SEGMENTS
from router_sync.quotes import BRIDGE_S, OLD_S, Quotes
from router_sync.reserve import Reserve, widest_loss
from router_sync.score import Rates, Scores
from router_sync.situation import Situation, situation
from router_sync.tiers import CEILING, admit
from streams.contract.records import Budget, Capacity, CarbonIntensity, Fleet, SpotPrice, SpotRisk, Tier
from tests.unit.router_fleet import endpoint, fleet, knowing, request_class

NOW_S = 1_800_000_000.0
A, B = endpoint("a", grid_zone="IE", power_w=700.0), endpoint("b", "us-east", egress_usd_per_gb=0.09)
TWO = fleet([request_class()], [A, B])


def now(of: Fleet = TWO, **more: Any) -> Situation:
    plan = layout(of)
    return situation(plan, knowing(plan, **more), NOW_S)


def quotes(*records: Any) -> Quotes:
    held = Quotes()
    for record in records:
        held.fold(record)
    return held


def carbon(g: float, basis: Any = "measured", kind: Any = "average", since_s: float = -600.0) -> CarbonIntensity:
    at = NOW_S + since_s
    return CarbonIntensity(
        grid_zone="IE", kind=kind, basis=basis, carbon_g_per_kwh=g, valid_from_s=at, valid_until_s=at + 3600
    )


def price(usd: float, age_s: float = 0.0) -> SpotPrice:
    at = NOW_S - age_s
    return SpotPrice(pool=A.pool, price_usd_per_h=usd, effective_at_s=at, observed_at_s=at)


# ---------------------------------------------------------------- parts


def test_a_pools_price_holds_until_it_is_a_day_old() -> None:
    for age_s, usd in ((0.0, 0.3), (OLD_S + 1, 0.9)):
        parts = now(quotes=quotes(price(0.3, age_s))).scores.parts
        assert parts["price"][0].tolist() == pytest.approx([usd / 3600 / 100, 0.9 / 3600 / 100])


def test_carbon_is_energy_times_grid_times_price() -> None:
    scores = now(quotes=quotes(carbon(400.0)), rates=Rates(usd_per_kg=0.1)).scores
    grams = 700.0 / 100.0 / 3.6e6 * 400.0
    assert scores.carbon_g[0] == pytest.approx(grams)
    assert scores.parts["carbon"][0, 0] == pytest.approx(grams * 0.1 / 1000)
    assert scores.parts["carbon"][0, 1] == 0.0, "of b no grid zone is known"


def test_measured_carbon_goes_before_the_forecast_and_an_old_one_bridges_a_gap() -> None:
    def grams(*records: CarbonIntensity) -> float:
        return float(quotes(*records).at(layout(TWO), NOW_S).carbon_g_per_kwh[0])

    assert grams(carbon(400.0), carbon(300.0, "forecast")) == 400.0
    assert grams(carbon(400.0, since_s=-7000.0), carbon(300.0, "forecast")) == 300.0
    assert grams(carbon(400.0, since_s=-7000.0)) == 400.0
    assert np.isnan(grams(carbon(400.0, since_s=-3600.0 - BRIDGE_S - 1)))
    assert np.isnan(grams(carbon(400.0, kind="marginal"))), "average and marginal are different series"


def test_egress_is_paid_for_what_is_sent_back() -> None:
    parts = now(fleet([request_class(response_kb=100.0)], [A, B])).scores.parts
    assert parts["egress"][0].tolist() == pytest.approx([0.0, 100.0 / 1e6 * 0.09])


def test_risk_is_a_price_like_any_other() -> None:
    said = SpotRisk(pool=A.pool, made_at_s=NOW_S, hazard_per_h=0.1, low_per_h=0.05, high_per_h=0.2, risk_usd_per_h=0.36)
    assert now(quotes=quotes(said)).scores.parts["risk"][0].tolist() == pytest.approx([0.36 / 3600 / 100, 0.0])


def test_a_total_is_the_sum_of_its_parts() -> None:
    scores = now(quotes=quotes(carbon(400.0), price(0.3)), rates=Rates(usd_per_kg=0.1)).scores
    assert np.allclose(scores.total_usd, sum(scores.parts.values()) + scores.rule_usd)


def test_crowding_costs_more_from_segment_to_segment_and_breaches_most() -> None:
    for slo_ms in (130.0, 200.0, 400.0, 5000.0):
        crowd = now(fleet([request_class(slo_p95_ms=slo_ms)], [A, B])).scores.crowd_usd
        assert crowd.shape == (2, SEGMENTS)
        assert (np.diff(crowd, axis=1) >= 0).all()
    loose = now(fleet([request_class(slo_p95_ms=5000.0)], [A, B])).scores.crowd_usd
    tight = now(fleet([request_class(slo_p95_ms=240.0)], [A, B])).scores.crowd_usd
    assert tight[0, -1] > loose[0, -1] + 1e-4, "a full endpoint would be late, and that is priced"


def test_an_irrelevant_candidate_changes_nobodys_price() -> None:
    more = fleet([request_class()], [A, B, endpoint("dear", "ap-south", price_usd_per_h=900.0)])
    assert np.allclose(now(more).scores.total_usd[:, :2], now().scores.total_usd)


def test_ready_replicas_are_capacity_and_none_is_none() -> None:
    at = now(quotes=quotes(Capacity(pool=A.pool, at_s=NOW_S, ready=3), Capacity(pool=B.pool, at_s=NOW_S, ready=0)))
    assert at.problem.capacity_rps.tolist() == [300.0, 0.0]
    assert not at.usable[:, 1].any()


def test_fewer_replicas_cannot_wait_more_can() -> None:
    held = quotes(Capacity(pool=A.pool, at_s=NOW_S, ready=3))
    assert not held.fold(Capacity(pool=A.pool, at_s=NOW_S, ready=4))
    assert held.fold(Capacity(pool=A.pool, at_s=NOW_S, ready=2))


# ---------------------------------------------------------------- tiers


def tiered(*tiers: Tier, capacity_rps: float = 100.0) -> Any:
    classes = [request_class(f"{tier}-{n}", tier=tier) for n, tier in enumerate(tiers)]
    return layout(fleet(classes, [endpoint("a", capacity_rps=capacity_rps)]))


def one_origin(plan: Any, *rps: float) -> Floats:
    """[F] what arrives by class from the first origin; nothing from others."""
    first = plan.fleet.origins[0].name
    per = dict(zip([c.name for c in plan.fleet.services[0].classes], rps, strict=True))
    return np.array([per[f.class_.name] if f.origin == first else 0.0 for f in plan.flows])


def test_the_lowest_tier_gives_way_first_and_the_highest_last() -> None:
    plan = tiered("premium", "standard", "sheddable")
    whole, first = np.ones((len(plan.flows), 1)), slice(0, 3)
    at = {
        rps: admit(plan, whole, one_origin(plan, *rps), np.array([100.0]))[first].tolist()
        for rps in ((30, 30, 30), (30, 30, 60), (30, 80, 60), (120, 30, 30))
    }
    assert at[30, 30, 30] == [1.0, 1.0, pytest.approx(25 / 30, abs=0.01)]
    assert at[30, 30, 60] == [1.0, 1.0, pytest.approx(25 / 60, abs=0.01)]
    assert at[30, 80, 60] == [1.0, pytest.approx(65 / 80, abs=0.01), 0.0]
    assert at[120, 30, 30] == [pytest.approx(100 / 120, abs=0.01), 0.0, 0.0]


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_what_is_admitted_fits_below_the_ceilings_and_nobody_is_shed_where_there_is_room(seed: int) -> None:
    rng = np.random.default_rng(seed)
    tiers: list[Tier] = rng.choice(list(CEILING), 4).tolist()
    plan = layout(fleet([request_class(f"c{n}", tier=t) for n, t in enumerate(tiers)]))
    flows, ends = plan.may.shape
    shares = rng.dirichlet(np.ones(ends), flows) * (rng.random((flows, 1)) < 0.9)
    rps, capacity = rng.gamma(1, 60, flows), rng.uniform(10, 200, ends)
    admitted = admit(plan, shares, rps, capacity)
    assert ((admitted >= 0) & (admitted <= 1)).all()
    load = shares.T @ rps
    roomy = (load <= 0.85 * capacity).all()
    assert not roomy or (admitted == 1.0).all()
    premium = np.array([f.class_.tier == "premium" for f in plan.flows])
    fits = ((shares[premium].T @ rps[premium]) <= capacity).all()
    assert not fits or (admitted[premium] == 1.0).all(), "lower tiers never cost the highest a request"


# ---------------------------------------------------------------- budgets


def spending(budget: Budget, rate: float, hours: float, adapt: float = 0.0) -> Budgets:
    """Budgets after so many hours at `rate` dollars a second; a price of 1 lowers it by the share `adapt`."""
    plan = layout(fleet([request_class()], [A]))
    plan = layout(Fleet(**{f: getattr(plan.fleet, f) for f in plan.fleet.__struct_fields__} | {"budgets": (budget,)}))
    budgets, start_s, scores = Budgets(), NOW_S - NOW_S % DAY_S, now(plan.fleet).scores
    flows = len(plan.flows)
    for step in range(round(hours * 360)):
        price = budgets.accounts[budget.name].price if budgets.accounts else 0.0
        usd = rate * max(0.0, 1.0 - adapt * price) / flows
        paid = Scores(scores.parts, scores.rule_usd, scores.total_usd, scores.crowd_usd,
                      np.ones((flows, 1)), scores.carbon_g)  # fmt: skip
        budgets.advance(plan, paid, np.full((flows, 1), usd), start_s + 10.0 * step)
    return budgets


def test_a_budget_that_is_kept_has_no_price() -> None:
    account = spending(Budget(name="b", unit="usd", per_day=86400.0), 0.5, 24).accounts["b"]
    assert account.price == 0.0
    assert account.spent == pytest.approx(43200, rel=0.01)


def test_a_budget_binds_and_holds_over_the_day_where_a_price_can_help() -> None:
    account = spending(Budget(name="b", unit="usd", per_day=86400.0), 1.5, 23.9, adapt=0.1).accounts["b"]
    assert account.spent <= 86400.0 * 1.02
    assert account.spent >= 86400.0 * 0.9, "and it is not kept by spending nothing"


def test_a_new_day_begins_with_an_empty_account() -> None:
    budgets = spending(Budget(name="b", unit="usd", per_day=86400.0), 3.0, 23.9)
    plan = layout(TWO)
    told = budgets.spent(layout(fleet([request_class()], [A])))
    assert told == (), "a fleet without budgets tells of none"
    assert budgets.accounts["b"].price > 0
    budgets.advance(plan, now().scores, np.zeros(plan.may.shape), NOW_S + DAY_S)
    assert budgets.accounts == {}, "and forgets them"


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 10), min_size=1, max_size=60))
def test_prices_stay_within_their_range_whatever_is_spent(rates: list[float]) -> None:
    budget = Budget(name="b", unit="usd", per_day=1000.0, most_price=2.0)
    for rate in rates[:3]:
        account = spending(budget, rate, 1).accounts["b"]
        assert 0.0 <= account.price <= 2.0


def test_a_carbon_budget_makes_dirty_endpoints_dearer_and_no_others() -> None:
    green = endpoint("green", "us-east", grid_zone="US", power_w=700.0)
    budget = Budget(name="co2", unit="gco2", per_day=1.0)
    of = Fleet(version=1, services=TWO.services, origins=TWO.origins, endpoints=(A, green), budgets=(budget,))
    plan, budgets = layout(of), Budgets()
    clean = CarbonIntensity(
        grid_zone="US", kind="average", basis="measured", carbon_g_per_kwh=0.0, valid_from_s=NOW_S - 60,
        valid_until_s=NOW_S + 3600,
    )  # fmt: skip
    held = quotes(carbon(400.0), clean)
    for step in range(30):
        at = now(of, quotes=held, duals=budgets.duals(plan))
        budgets.advance(plan, at.scores, np.full(plan.may.shape, 50.0), NOW_S + step * 30.0)
    assert at.scores.rule_usd[0, 0] > 0.0
    assert at.scores.rule_usd[0, 1] == 0.0
    assert budgets.spent(plan)[0].spent > 1.0


def test_budgets_go_on_from_what_the_last_table_said() -> None:
    before = spending(Budget(name="b", unit="usd", per_day=86400.0), 3.0, 2)
    plan = layout(Fleet(version=1, services=TWO.services, origins=TWO.origins, endpoints=TWO.endpoints,
                        budgets=(Budget(name="b", unit="usd", per_day=86400.0),)))  # fmt: skip
    after = Budgets()
    after.restore(before.spent(plan))
    assert after.spent(plan) == before.spent(plan)


# ---------------------------------------------------------------- reserve


def test_the_reserve_grows_while_losses_burn_the_budget_and_shrinks_slowly_after() -> None:
    reserve = Reserve()
    for minute in range(5):
        reserve.count(10_000, 100)
        reserve.advance(0.001, minute * 60.0)
    grown = reserve.share
    assert grown > RESERVE
    for minute in range(5, 2000):
        reserve.count(10_000, 0)
        reserve.advance(0.001, minute * 60.0)
    assert LEAST_RESERVE <= reserve.share < RESERVE
    for minute in range(2000, 2100):
        reserve.count(10_000, 10_000)
        reserve.advance(0.001, minute * 60.0)
    assert reserve.share == MOST_RESERVE


def test_a_few_losses_of_a_few_requests_say_nothing() -> None:
    reserve = Reserve()
    for minute in range(30):
        reserve.count(10, 10)
        reserve.advance(0.001, minute * 600.0)
    assert reserve.share == RESERVE


def test_the_zone_that_carries_most_is_named_with_what_its_loss_would_leave_unserved() -> None:
    of = fleet([request_class()], [endpoint("a"), endpoint("b", "us-east")], demand_rps=80.0)
    at = now(of)
    shares = np.array([[0.75, 0.25], [0.75, 0.25]])
    assert widest_loss(at.plan, at.problem, shares) == ("aws/eu-west/a", pytest.approx(60.0, rel=0.01))
    calm = now(fleet([request_class()], [endpoint("a"), endpoint("b", "us-east")], demand_rps=40.0))
    assert widest_loss(calm.plan, calm.problem, shares) == ("aws/eu-west/a", 0.0)
