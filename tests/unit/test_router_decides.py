"""Law, scores, what is heard, tables and reasons: each by itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pytest

from router_sync.explain import considered, explain_change
from router_sync.heard import HeardDemand, HeardHealth
from router_sync.ladder import Standing
from router_sync.layout import layout
from router_sync.policy.law import law_of
from router_sync.problem import completed, next_usd
from router_sync.score import late_s
from router_sync.situation import Situation, situation
from router_sync.table import LEAST_BAD, NOWHERE, Draft, Number, build, check, differs
from streams.contract.errors import TableRefused
from streams.contract.records import Demand, Fleet, Policy, Route, RoutingTable, Rule
from tests.unit.router_fleet import demand, endpoint, fleet, health, knowing, request_class, told

EU_ONLY = request_class("private", jurisdictions=("IE", "NO"))
NAMES = [e.name for e in fleet().endpoints]


def now(of: Fleet, heard: HeardHealth | None = None, now_s: float = 100.0) -> Situation:
    return situation(layout(of), knowing(layout(of), heard), now_s)


def table(of: Fleet, heard: HeardHealth | None = None, version: int = 1, weights: Any = 1.0) -> RoutingTable:
    at = now(of, heard)
    shares = at.problem.may * weights
    shares = shares / np.maximum(shares.sum(axis=1, keepdims=True), 1e-12)
    draft = Draft(at.plan, shares, at.usable, at.standings, at.scores, at.quoted, at.p95_ms)
    return build(draft, "chat", Number(7, version), 100.0, 300.0)


def ill(**down: float) -> HeardHealth:
    heard = HeardHealth()
    told(heard, health(NAMES, 99.0, {name.replace("_", "-"): at_s for name, at_s in down.items()}))
    return heard


def test_law_names_the_countries_it_leaves() -> None:
    law = law_of(fleet([EU_ONLY, request_class()]))
    key = ("chat", "eu", "private")
    assert law.why_not(key, "eu-west-a") is None
    assert law.why_not(key, "us-east-a") == "class/jurisdictions requires country in IE, NO, not US"
    assert law.why_not(("chat", "eu", "interactive"), "us-east-a") is None


def test_law_fails_closed_on_whatever_it_does_not_know() -> None:
    law = law_of(fleet([EU_ONLY]))
    assert law.allows(("chat", "eu", "private"), "eu-west-a")
    assert not law.allows(("chat", "eu", "private"), "us-east-a")
    for key, endpoint_ in (
        (("image", "eu", "private"), "eu-west-a"),
        (("chat", "eu", "vip"), "eu-west-a"),
        (("chat", "moon", "private"), "eu-west-a"),
        (("chat", "eu", "private"), "moon"),
    ):
        assert not law.allows(key, endpoint_)
        assert law.why_not(key, endpoint_) == "not in the fleet"
    assert law.allowed(("chat", "moon", "private")) == frozenset()


def test_a_service_is_not_sent_where_it_is_not_served() -> None:
    law = law_of(fleet(endpoints=[endpoint("a"), endpoint("b", services=("image",))]))
    assert law.why_not(("chat", "eu", "batch"), "b") == "does not serve chat"


def test_a_breach_costs_a_late_second_and_comes_on_a_ramp() -> None:
    assert late_s(np.array([300.0, 360.0, 380.0, 400.0, 1400.0]), np.array([400.0])).tolist() == [0, 0, 0.5, 1.0, 2.0]


def test_a_near_and_cheap_endpoint_scores_best_and_one_over_the_slo_worst() -> None:
    plan = layout(fleet([request_class(slo_p95_ms=220.0)]))
    total = situation(plan, knowing(plan), 100.0).scores.total_usd
    by_name = dict(zip(plan.names, total[plan.flow_at["chat", "eu", "interactive"]], strict=True))
    assert by_name["eu-west-a"] < by_name["us-east-a"] < by_name["ap-south-a"]
    assert by_name["ap-south-a"] > 0.001


# ---------------------------------------------------------------- heard


def test_measured_p95_counts_from_twenty_observations_on_less_the_way_to_it() -> None:
    heard = HeardHealth()
    told(heard, health(NAMES, 99.0, p95_ms=200.0))
    plan = layout(fleet())
    shares = np.full(plan.may.shape, 1 / 6)
    at = situation(plan, knowing(plan, heard, shares=shares), 100.0)
    row = plan.flow_at["chat", "eu", "interactive"]
    by_name = dict(zip(plan.names, at.p95_ms[row], strict=True))
    assert by_name["eu-west-a"] == pytest.approx(200 - 85)
    assert by_name["ap-south-a"] == pytest.approx(100), "never less than half of what was measured"
    assert at.p95_ms[plan.flow_at["chat", "eu", "batch"], 0] == 120.0, "what was not measured is as declared"


def test_what_the_broker_took_last_holds_whatever_clock_its_worker_had() -> None:
    heard = HeardHealth()
    fast = health(NAMES, 650.0, {"eu-west-a": 49.0})
    assert heard.fold(fast, 50.0)
    assert heard.fold(health(NAMES, 51.0), 51.0), "its successor tells the time right and is heard"
    assert heard.standings(52.0)["eu-west-a"].verdict == "up"


def test_a_source_is_as_old_as_the_broker_says() -> None:
    for made_at_s in (-500.0, 50.0, 650.0):
        heard = HeardHealth()
        heard.fold(health(NAMES, made_at_s), 50.0)
        heard.advance(64.0)
        assert heard.standings(64.0)["eu-west-a"].verdict == "up"
        assert heard.standings(66.0)["eu-west-a"].verdict == "silent"
        heard.advance(171.0)
        assert heard.standings(171.0) == {}


def test_a_silent_source_keeps_its_endpoints_in_use_and_says_so() -> None:
    heard = HeardHealth()
    told(heard, health(NAMES, 50.0, {"eu-west-a": 49.0}))
    standing = heard.standings(70.0)
    assert standing["eu-west-b"].usable
    assert "nothing heard from endpoint-metrics.v1/0" in standing["eu-west-b"].reason
    assert not standing["eu-west-a"].usable, "the dead do not rise by silence"


def test_the_dead_are_tried_again_when_nobody_has_spoken_of_them_for_long() -> None:
    heard = HeardHealth()
    told(heard, health(NAMES, 50.0, {"eu-west-a": 49.0}))
    heard.advance(171.0)
    assert "eu-west-a" not in heard.standings(171.0)


def test_silence_of_a_dead_endpoint_is_no_recovery_but_an_answer_is() -> None:
    heard = ill(eu_west_a=98.0)
    assert not told(heard, health(NAMES, 110.0, verdict="silent"))
    assert not heard.standings(110.0)["eu-west-a"].usable
    assert told(heard, health(NAMES, 111.0))
    assert heard.standings(111.0)["eu-west-a"].usable


def test_demand_is_averaged_over_slots_and_added_up_over_sources() -> None:
    heard, plan = HeardDemand(), layout(fleet())
    row = plan.flow_at["chat", "eu", "batch"]
    assert heard.rps(plan)[row] == 20.0, "declared, as nothing was heard"
    for second in range(12):
        told(heard, demand(float(second), {("eu", "batch"): 30}))
        told(heard, demand(float(second), {("eu", "batch"): 12}, source="arrivals.v1/1"))
    assert heard.rps(plan)[row] == pytest.approx(42.0)
    assert heard.rps(plan)[plan.flow_at["chat", "us", "batch"]] == 0.0


def test_the_last_word_on_a_slot_holds_and_the_newest_is_left_to_grow() -> None:
    heard, plan = HeardDemand(), layout(fleet())
    for at_s, count in ((1.0, 5), (1.0, 10), (2.0, 1)):
        told(heard, demand(at_s, {("eu", "batch"): count}))
    assert heard.rps(plan)[plan.flow_at["chat", "eu", "batch"]] == 10.0


def test_demand_ages_out() -> None:
    heard = HeardDemand()
    told(heard, demand(1.0, {("eu", "batch"): 5}))
    heard.advance(61.0)
    assert heard.slots
    heard.advance(63.0)
    assert not heard.slots


BATCH = ("eu", "batch")


def rps_of(*said: Demand, key: tuple[str, str] = BATCH) -> float:
    heard, plan = HeardDemand(), layout(fleet())
    for one in said:
        told(heard, one)
    return float(heard.rps(plan)[plan.flow_at["chat", *key]])


def test_seconds_in_which_nothing_was_said_count_as_none() -> None:
    assert rps_of(*(demand(10.0 * n, {BATCH: 1}) for n in range(6))) == pytest.approx(0.1)
    assert rps_of(*(demand(float(n), {BATCH: 7}) for n in range(30))) == pytest.approx(7.0)


def test_slots_of_different_length_with_one_start_are_both_counted() -> None:
    short = [demand(float(n), {BATCH: 10}) for n in range(61)]
    long = [msgspec.structs.replace(demand(60.0 * n, {BATCH: 300}), slot_s=60.0) for n in range(2)]
    assert rps_of(*short, *long) == pytest.approx(15.0, rel=0.01)
    assert rps_of(*long, *short) == pytest.approx(15.0, rel=0.01)


def test_short_slots_of_one_second_are_not_added_up_as_seconds() -> None:
    tenths = [msgspec.structs.replace(demand(n / 10, {BATCH: 2}), slot_s=0.1) for n in range(200)]
    assert rps_of(*tenths) == pytest.approx(20.0, rel=0.01)


def test_a_source_that_falls_silent_is_held_for_a_while_and_then_fades() -> None:
    both = [demand(float(n), {BATCH: 20}) for n in range(10)]
    one = [demand(float(n), {("us", "batch"): 1}, source="arrivals.v1/1") for n in range(60)]
    held = [rps_of(*both, *one[:until]) for until in (12, 24, 40, 60)]
    assert held[0] == pytest.approx(20.0)
    assert held[1] == pytest.approx(20.0)
    assert held[1] > held[2] > held[3] > 0.0


def test_demand_is_worked_out_anew_for_another_fleet() -> None:
    heard, bigger = HeardDemand(), layout(fleet([request_class("batch")]))
    told(heard, demand(1.0, {BATCH: 5}))
    assert len(heard.rps(layout(fleet()))) == 4
    assert len(heard.rps(bigger)) == 2


# ---------------------------------------------------------------- tables


def test_a_table_is_complete_and_passes_its_check() -> None:
    of = fleet([EU_ONLY, request_class("batch")])
    made = table(of)
    check(made, of, law_of(of))
    assert {(r.origin, r.class_) for r in made.routes} == {(o, c) for o in ("eu", "us") for c in ("private", "batch")}
    private = next(r for r in made.routes if r.class_ == "private")
    assert set(private.endpoints) == set(private.fallbacks) == {"eu-west-a", "eu-west-b"}
    assert sum(private.shares) == pytest.approx(1.0, abs=1e-9)


def test_fallbacks_come_in_the_order_of_their_scores_shares_or_not() -> None:
    weights = np.array([1.0, 0, 0, 0, 0, 0])
    route = table(fleet(), weights=weights).routes[0]
    assert route.endpoints == ("eu-west-a",)
    assert [name[:-2] for name in route.fallbacks] == ["eu-west"] * 2 + ["us-east"] * 2 + ["ap-south"] * 2


def test_the_down_are_listed_for_probes_but_in_no_route() -> None:
    of = fleet()
    made = table(of, ill(eu_west_a=98.0))
    check(made, of, law_of(of))
    assert {e.name: e.state for e in made.endpoints}["eu-west-a"] == "down"
    assert all("eu-west-a" not in (*r.endpoints, *r.fallbacks) for r in made.routes)


def test_when_all_that_is_allowed_is_down_the_route_fails_open_but_never_over_the_border() -> None:
    of = fleet([EU_ONLY, request_class("batch")])
    made = table(of, ill(eu_west_a=98.0, eu_west_b=98.0))
    check(made, of, law_of(of))
    private = next(r for r in made.routes if r.class_ == "private")
    assert set(private.endpoints) == {"eu-west-a", "eu-west-b"}
    assert private.reason == LEAST_BAD
    assert all(r.reason == "" for r in made.routes if r.class_ == "batch")


def test_a_table_of_many_like_endpoints_adds_up_and_favours_none() -> None:
    of = fleet([request_class()], [endpoint(f"a{n}") for n in range(300)])
    made = table(of)
    check(made, of, law_of(of))
    for route in made.routes:
        assert len(route.shares) == 300
        assert max(route.shares) < 1.01 * min(route.shares)


def test_the_last_of_a_share_that_is_damped_away_is_left_out() -> None:
    of = fleet()
    made = table(of, weights=np.array([1.0, 1e-9, 1e-6, 1e-5, 0, 0.3]))
    check(made, of, law_of(of))
    assert made.routes[0].endpoints == ("eu-west-a", "us-east-b", "ap-south-b")


def test_what_did_not_change_of_an_endpoint_is_said_as_before() -> None:
    of = fleet()
    at = now(of, ill(eu_west_a=98.0))
    draft = Draft(
        at.plan, completed(at.problem, at.problem.may * 1.0), at.usable, at.standings, at.scores, at.quoted, at.p95_ms
    )
    well = table(of)
    made = build(draft, "chat", Number(7, 2), 100.0, 300.0, last=well)
    assert made.endpoints == build(draft, "chat", Number(7, 2), 100.0, 300.0).endpoints
    assert [new is old for new, old in zip(made.endpoints, well.endpoints, strict=True)] == [False] + [True] * 5


def test_law_that_leaves_nothing_gives_an_empty_route_with_the_reason() -> None:
    of = fleet([request_class("swiss", jurisdictions=("CH",)), request_class("batch")])
    made = table(of)
    check(made, of, law_of(of))
    swiss = next(r for r in made.routes if r.class_ == "swiss")
    assert (swiss.endpoints, swiss.fallbacks, swiss.reason) == ((), (), f"{NOWHERE}: class/jurisdictions")


def test_an_endpoint_without_replicas_drains() -> None:
    of = fleet(endpoints=[endpoint("a"), endpoint("b", replicas=0)])
    made = table(of)
    check(made, of, law_of(of))
    assert [e.state for e in made.endpoints] == ["ready", "drain"]
    assert {r.endpoints for r in made.routes} == {("a",)}


def _route(made: RoutingTable, **change: Any) -> RoutingTable:
    first: Route = msgspec.structs.replace(made.routes[0], **change)
    return msgspec.structs.replace(made, routes=(first, *made.routes[1:]))


def _end(made: RoutingTable, **change: Any) -> RoutingTable:
    first = msgspec.structs.replace(made.endpoints[0], **change)
    return msgspec.structs.replace(made, endpoints=(first, *made.endpoints[1:]))


FAULTS: dict[str, Callable[[RoutingTable], RoutingTable]] = {
    "forbidden": lambda t: _route(t, endpoints=("eu-west-a", "us-east-a"), shares=(0.5, 0.5)),
    "a forbidden fallback": lambda t: _route(t, fallbacks=("us-east-a",)),
    "not among the table's endpoints": lambda t: _route(t, endpoints=("moon",), shares=(1.0,)),
    "do not add up": lambda t: _route(t, shares=(0.5, 0.4)),
    "a zero share": lambda t: _route(t, shares=(1.0, 0.0)),
    "twice in a route": lambda t: _route(t, endpoints=("eu-west-a", "eu-west-a")),
    "empty although": lambda t: _route(t, endpoints=(), shares=()),
    "serves no chat": lambda t: _end(t, name="moon"),
    "the fleet says": lambda t: _end(t, jurisdiction="US"),
    "another owner": lambda t: _end(t, parent_country="DE"),
    "a certificate more": lambda t: _end(t, certificates=("hds",)),
    "another market": lambda t: _end(t, market="owned"),
    "other policies": lambda t: msgspec.structs.replace(t, policies=()),
    "other data": lambda t: _route(t, data_class="other"),
    "other jurisdictions": lambda t: _route(t, jurisdictions=()),
    "another origin's country": lambda t: _route(t, origin_country="US"),
    "another tenant": lambda t: _route(t, tenant="acme"),
    "another url": lambda t: _end(t, url="http://evil:1"),
    "while others are ready": lambda t: _end(t, state="down"),
    "there twice": lambda t: msgspec.structs.replace(t, endpoints=(*t.endpoints, t.endpoints[0])),
    "one route per": lambda t: msgspec.structs.replace(t, routes=t.routes[1:]),
    "a route twice": lambda t: msgspec.structs.replace(t, routes=(*t.routes, t.routes[0])),
    "is not after 7.1": lambda t: msgspec.structs.replace(t, version=1),
    "an older epoch": lambda t: msgspec.structs.replace(t, epoch=6, version=9),
    "not after issued_at_s": lambda t: msgspec.structs.replace(t, expires_at_s=t.issued_at_s),
    "is no class of": lambda t: msgspec.structs.replace(t, default_class="vip"),
    "is not in the fleet": lambda t: msgspec.structs.replace(t, service="image"),
    "larger than": lambda t: msgspec.structs.replace(t, reason="x" * 1_000_001),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_table_with_a_fault_is_not_said(fault: str) -> None:
    no_spot = Policy(name="p", rules=(Rule(id="no-spot", deny={"market": ("spot",)}), Rule(id="wish", limit_p95_ms=9)))
    of = msgspec.structs.replace(fleet([EU_ONLY, request_class("batch")]), policies=(no_spot,))
    good = table(of, version=2)
    assert [rule.id for policy in good.policies for rule in policy.rules] == ["no-spot"]
    before = table(of)
    check(good, of, law_of(of), before)
    with pytest.raises(TableRefused):
        check(FAULTS[fault](good), of, law_of(of), before)


def test_a_large_move_needs_a_reason() -> None:
    of, law = fleet(), law_of(fleet())
    near, far = table(of, weights=np.array([1.0, 0, 0, 0, 0, 0])), table(of, version=2, weights=np.eye(6)[5])
    with pytest.raises(TableRefused, match="moved at once"):
        check(far, of, law, near)
    check(far, of, law, near, bounded=False)


def test_tables_differ_by_moves_and_states_not_by_noise() -> None:
    of = fleet()
    old = table(of, weights=np.array([1.0, 1, 1, 1, 1, 1]))
    assert differs(None, old)
    assert not differs(old, table(of, version=2, weights=np.array([1.0, 1, 1, 1, 1, 1.05])))
    assert differs(old, table(of, version=2, weights=np.array([1.0, 1, 1, 1, 1, 3])))
    assert differs(old, table(of, ill(eu_west_a=98.0)))
    assert not differs(old, msgspec.structs.replace(old, version=9, issued_at_s=5.0, reason="x"))


# ---------------------------------------------------------------- reasons


def test_a_change_is_explained_by_its_cause_and_by_where_shares_went() -> None:
    of = fleet([request_class()])
    heard = ill(eu_west_a=98.0, eu_west_b=98.5)
    old = table(of, weights=np.array([1.0, 1, 0, 0, 0, 0]))
    said = explain_change(old, table(of, heard, weights=np.array([0, 0, 2.0, 1.72, 1, 1])), now(of, heard).standings)
    assert "eu-west-a down: 5 connect errors in a row; region eu-west down: 2 of 2 endpoints down" in said
    assert "interactive@eu: eu-west 100 % -> us-east 65 %, ap-south 35 %" in said
    back = explain_change(table(of, heard), table(of), {})
    assert back.startswith("eu-west-a is back; eu-west-b is back; ")


def test_the_fall_of_a_region_is_one_reason_for_all_who_fell_with_it() -> None:
    of = fleet()
    shared = Standing("down", "region eu-west down: 2 of 4 endpoints down", "up")
    gone = {"eu-west-a": shared, "eu-west-b": shared}
    said = explain_change(table(of), table(of, ill(eu_west_a=98.0, eu_west_b=98.0)), gone)
    assert said.count("region eu-west down") == 1


def test_what_was_considered_names_the_price_by_its_parts_and_who_was_left_out_and_why() -> None:
    of = fleet([EU_ONLY, request_class("batch")])
    at = now(of, ill(eu_west_a=98.0))
    draft = Draft(
        at.plan, completed(at.problem, at.problem.may * 1.0), at.usable, at.standings, at.scores, at.quoted, at.p95_ms
    )
    private = considered(draft, "chat", at.problem, np.zeros(len(at.plan.flows)))[0]
    assert [c.endpoint for c in private.candidates] == ["eu-west-b"]
    assert private.candidates[0].price_usd == pytest.approx(0.9 / 3600 / 100)
    reasons = {e.endpoint: e.reason for e in private.excluded}
    assert reasons["eu-west-a"] == "5 connect errors in a row"
    assert "requires country in IE, NO, not US" in reasons["us-east-a"]
    assert (private.candidates[0].load, private.candidates[0].p95_ms, private.left_out) == (0.48, 132.0, 0)


def test_a_decision_over_many_routes_names_those_in_use_and_counts_the_others() -> None:
    many = [endpoint(f"eu-{n}") for n in range(40)]
    of = fleet([request_class(f"class-{n}") for n in range(120)], many)
    at = now(of)
    shares = np.zeros(at.plan.may.shape)
    shares[:, 39] = 1.0
    draft = Draft(at.plan, shares, at.usable, at.standings, at.scores, at.quoted, at.p95_ms)
    found = considered(draft, "chat", at.problem, np.zeros(len(at.plan.flows)))
    assert {(c.candidates[0].endpoint, len(c.candidates), c.left_out) for c in found} == {("eu-39", 8, 32)}
    assert {c.candidates[0].load for c in found} == {48.0}


def test_crowding_prices_one_more_request_by_the_segment_it_falls_into() -> None:
    problem = now(fleet()).problem
    use = np.array([0.0, 0.49, 0.5, 0.7, 0.85, 1.2])
    segment = problem.crowd_usd[np.arange(6), [0, 0, 1, 2, 3, 3]]
    assert next_usd(problem, use * problem.capacity_rps).tolist() == segment.tolist()
