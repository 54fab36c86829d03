"""Endpoints and gateways of the world in single steps: latency, queues, faults, breakers, retries, reports."""

from __future__ import annotations

import random
from heapq import heappop, heappush
from math import exp
from typing import Any

import msgspec
import numpy as np
import pytest

from router_sync.client import LocalEndpoint
from router_sync.gateway.config import Deadlines
from streams.contract import topics
from streams.contract.records import Arrivals, Budget, EndpointMetrics, RoutingTable
from streams.health import Health
from streams.runtime.edge import Edge
from tests.replay.small_world import START_S, endpoint, fleet, lived, setup
from tradewind.pretend import curve
from tradewind.world import World
from tradewind.world.brain import View
from tradewind.world.bundle import Bundle
from tradewind.world.engine import LOAD_S, SPREAD, TAIL, Engine, Fault, Span, loads
from tradewind.world.gateway import RETRIES, Gateway
from tradewind.world.ground import Ground, ground
from tradewind.world.ledger import Ledger
from tradewind.world.market import Market
from tradewind.world.replicas import Replicas
from tradewind.world.reports import Reporter
from tradewind.world.rivals import RULES, Choice, Ruled, nearest
from tradewind.world.summary import summary
from tradewind.world.timeline import Timeline, telling
from tradewind.world.traffic import Traffic

EUROPE, AMERICA = 0, 2
"""Flows of interactive requests."""
AS: dict[str, Any] = {"scenario": "small", "expect": "none", "wall_s": 1.0, "ended_early": False}
MOSTLY = {"eu-west-a": 0.999, "us-east-a": 0.001}


class House:
    """One gateway an origin before endpoints whose table is given by hand."""

    def __init__(self, *faults: Fault, seed: int = 1, **shares: dict[str, float]) -> None:
        self.ground: Ground = ground(fleet([endpoint("eu-west", "a"), endpoint("us-east", "a")]))
        rng = np.random.default_rng(seed)
        self.replicas = Replicas(self.ground, {}, rng)
        self.engine = Engine(self.ground, self.replicas, faults, rng)
        self.gateways = [
            Gateway(f"gw-{o.name}-1", o.name, self.ground, self.engine, rng) for o in self.ground.fleet.origins
        ]
        market = Market(self.ground, rng)
        self.ledger = Ledger(self.ground, market, START_S, START_S + 3600.0)
        self.traffic = Traffic(self.ground, self.engine, self.gateways, self.ledger, rng)
        self.reporter = Reporter(self.ground, self.engine, rng, 1.0)
        self.now_s = START_S
        self.adopt(**shares)

    def adopt(self, **shares: dict[str, float]) -> None:
        """Follow a table: origin to the shares of its interactive route; nearest where it is left out."""
        rule = nearest(self.view())
        for origin, held in shares.items():
            for end, n in self.ground.end_at.items():
                rule.shares[self.ground.flow_at["chat", origin, "interactive"], n] = held.get(end, 0.0)
        said = Ruled("hand", lambda _: Choice(rule.shares)).live((), self.now_s, 1.0, self.view())
        for gateway in self.gateways:
            gateway.sight.adopt(said.tables[0])

    def view(self) -> View:
        nothing = np.zeros(len(self.ground.ends))
        return View(self.ground, START_S, np.zeros(4), nothing, nothing, [2, 2], [0, 0], [True, True], nothing, nothing)

    def step(self, europe: int = 0, america: int = 0, seconds: float = 1.0) -> Span:
        """Live through a step in which so many interactive requests come."""
        span = Span(self.now_s, self.now_s + seconds)
        self.engine.begin(span)
        arrived = np.zeros(len(self.ground.flows), np.int64)
        arrived[EUROPE], arrived[AMERICA] = europe, america
        self.traffic.carry(span, arrived, {})
        self.engine.end()
        self.now_s = span.until_s
        return span

    def fates(self, flow: int = EUROPE) -> dict[str, int]:
        return {fate: int(counts[:, flow].sum()) for fate, counts in self.ledger.fates.items()}


def fault(end: int, kind: Any, value: float = 1.0, until_s: float = 1e6) -> Fault:
    return Fault((end,), START_S, START_S + until_s, kind, value)


# ---------------------------------------------------------------- endpoints


def test_latency_grows_convexly_with_load_as_the_curve_of_the_load_test() -> None:
    house = House()
    house.engine.begin(Span(START_S, START_S + 600.0))
    state = house.engine.states[0]
    state.wander, state.factor = 0.0, 1.0
    p95 = [house.engine.median_ms(0, load * state.capacity_rps) for load in (0.0, 0.4, 0.6, 0.8, 0.85)]
    assert p95[0] == pytest.approx(80.0)
    assert p95[3] == pytest.approx(80.0 + 6.0 * 0.92 / 0.08, rel=0.01)
    assert np.diff(p95).min() > 0
    assert np.diff(p95)[-1] > 3 * np.diff(p95)[0]


def test_an_endpoint_takes_no_more_than_it_can_and_a_queue_and_the_rest_fails() -> None:
    house = House(europe={"eu-west-a": 1.0})
    for _ in range(10):
        house.step(europe=200)
    answered = 2000 - house.fates()["failed"]
    capacity, queue = 60.0, house.engine.states[0].most_waiting
    assert answered <= 2 * (capacity * 10 + queue), "two endpoints at most: its own, and the one tried next"
    assert house.fates()["failed"] > 700
    assert house.ledger.conserved
    assert max(loads(house.engine)) <= 1.0 + queue / capacity


def test_a_queue_empties_when_less_is_sent_and_latency_falls() -> None:
    house = House(europe={"eu-west-a": 1.0})
    house.step(europe=90)
    full = house.engine.states[0].waiting
    assert full > 10
    for _ in range(5):
        house.step(europe=20)
    assert house.engine.states[0].waiting == 0.0
    assert house.engine.states[0].inside_ms < 100.0


def test_an_endpoint_without_a_ready_replica_refuses() -> None:
    house = House(europe=MOSTLY)
    house.replicas.pools[0].ready = 0
    house.step(europe=50)
    assert house.engine.states[0].taken == 0
    assert house.fates()["served"] == 50, "the gateway asks another one"


@pytest.mark.parametrize(
    ("kind", "value", "error"),
    [("dead", 1.0, "connect"), ("refusing", 1.0, "connect"), ("hanging", 1.0, "first_byte_timeout"),
     ("partial", 0.6, "http_5xx")],
)  # fmt: skip
def test_callers_are_answered_by_another_endpoint_and_the_report_says_what_was_met(
    kind: Any, value: float, error: Any
) -> None:
    house = House(fault(0, kind, value), europe={"eu-west-a": 0.5, "us-east-a": 0.5})
    span = house.step(europe=30)
    fates = house.fates()
    assert fates["failed"] == 0
    assert fates["served"] + fates["late"] == 30
    rows = [r for r in house.reporter.said(house.gateways[0], span, span.until_s) if isinstance(r, EndpointMetrics)]
    (bad,) = (r for r in rows if r.endpoint == "eu-west-a" and r.vantage == "gateway")
    assert bad.errors[error] > 0
    if kind != "partial":
        assert bad.hard_streak >= 3, "a request and the two probes that follow"
        assert bad.first_error_at_s is not None
        assert START_S < bad.first_error_at_s <= START_S + 1.0


def test_what_hangs_costs_its_callers_the_deadline_and_makes_them_late() -> None:
    house = House(fault(0, "hanging"), europe=MOSTLY)
    house.step(europe=30)
    assert house.engine.deadline_ms(EUROPE) == 1000.0 * Deadlines().slo_factor * 0.3
    assert house.fates()["late"] >= 20


def test_a_breaker_spares_the_failing_after_few_requests_and_a_trial_brings_it_back() -> None:
    house = House(fault(0, "refusing", until_s=5.0), europe=MOSTLY)
    house.step(europe=60)
    met = house.gateways[0].rows[EUROPE, 0].requests
    assert 3 <= met < 10, "sixty came, few of them met it"
    assert house.gateways[0].sight.pickers["chat"].endpoints["eu-west-a"].breaker.shut
    for _ in range(12):
        house.step(europe=60)
    assert house.gateways[0].rows[EUROPE, 0].ok > 30
    assert house.fates()["failed"] == 0


def test_retries_are_kept_within_the_budget() -> None:
    house = House(fault(0, "partial", 0.9), fault(1, "partial", 0.9), europe={"eu-west-a": 0.5, "us-east-a": 0.5})
    for _ in range(20):
        house.step(europe=40)
    attempts = house.ledger.checked
    allowed = 20 * (RETRIES.budget_per_s + RETRIES.budget_share * 40) + 10 * RETRIES.budget_per_s
    assert 800 < attempts <= 800 + allowed
    assert house.fates()["failed"] > 200


def test_lateness_counts_what_was_lost_on_the_way() -> None:
    house = House(europe={"eu-west-a": 1.0})
    bundle = Bundle(house.gateways[0], EUROPE, 0, house.gateways[0].sight.pickers["chat"].endpoints["eu-west-a"], 100)
    house.engine.begin(Span(START_S, START_S + 10.0))
    house.engine.meet([bundle])
    assert house.traffic._late([bundle]) == {}
    bundle.waited_ms = 400.0
    assert house.traffic._late([bundle]) == {EUROPE: bundle.ok}


# ---------------------------------------------------------------- picks


@pytest.mark.parametrize("share", [0.5, 0.8, 0.95])
def test_picks_come_out_as_the_table_has_them_where_all_goes_to_plan(share: float) -> None:
    said = {"us-east-a": share, "eu-west-a": 1.0 - share}
    house, met = House(america=said), 0
    for n in range(60):
        if n % 5 == 0:  # each table brings usual latencies up to date
            house.adopt(america=said)
        house.step(america=20)
        met += house.gateways[1].rows[AMERICA, 1].ok if n >= 20 else 0
    assert met / 800 == pytest.approx(share, abs=0.1)


def test_requests_move_away_from_who_slows_down_before_the_table_does() -> None:
    slow = Fault((0,), START_S + 20.0, START_S + 1e6, "slow", 6.0)
    house, shares = House(slow, europe={"eu-west-a": 0.5, "us-east-a": 0.5}), []
    for _ in range(26):
        house.step(europe=40)
        shares.append(house.gateways[0].rows[EUROPE, 0].ok / 40)
    assert sum(shares[5:20]) / 15 == pytest.approx(0.5, abs=0.1)
    assert sum(shares[22:]) / 4 < 0.35


def test_a_steps_requests_are_shared_out_as_a_simulation_of_each_request_has_it() -> None:
    shares = {"eu-west-a": 0.6, "us-east-a": 0.4}
    house, seen = House(europe=shares), []
    for _ in range(60):
        house.step(europe=60)
        seen.append(house.gateways[0].rows[EUROPE, 0].ok / 60)
    true = _one_by_one(House(europe=shares), 60.0, 60)
    assert np.mean(seen[20:]) == pytest.approx(np.mean(true[20:]), abs=0.04)
    assert np.std(seen[20:]) == pytest.approx(np.std(true[20:]), abs=0.03)
    house.adopt(europe=shares)
    calm = []
    for _ in range(20):
        house.step(europe=3600, seconds=60.0)
        calm.append(house.gateways[0].rows[EUROPE, 0].ok / 3600)
    assert np.mean(calm[5:]) == pytest.approx(np.mean(true[20:]), abs=0.04)
    assert np.std(calm[5:]) < 0.03, "a minute trembles less than a second"


def _one_by_one(house: House, rps: float, seconds: int) -> list[float]:
    """The first endpoint's part of each second, where each request comes, is picked for, and ends by itself."""
    sight, rng = house.gateways[0].sight, random.Random(1)
    picker, flights = sight.pickers["chat"], list[tuple[float, int, LocalEndpoint, float]]()
    felt, met = dict.fromkeys(picker.endpoints, (0.0, 0.0)), [[0, 0] for _ in range(seconds)]
    sight.now_s, number = 0.0, 0
    while (at_s := sight.now_s + rng.expovariate(rps)) < seconds:
        while flights and flights[0][0] <= at_s:
            end_s, _, local, ms = heappop(flights)
            local.ok(end_s, ms)
        sight.now_s, number = at_s, number + 1
        pick = picker.pick("europe", "interactive")
        assert pick is not None
        pick.endpoint.begin()
        before, before_s = felt[pick.endpoint.name]
        load = before * exp((before_s - at_s) / LOAD_S) + 1.0 / LOAD_S
        felt[pick.endpoint.name] = load, at_s
        end = house.ground.end_at[pick.endpoint.name]
        inside_ms = curve.ttft_ms(80.0, load / 60.0) / TAIL * rng.lognormvariate(0.0, SPREAD)
        ms = house.ground.rtt_ms[EUROPE, end] + inside_ms
        heappush(flights, (at_s + ms / 1000.0, number, pick.endpoint, ms))
        met[int(at_s)][end] += 1
    return [first / max(1, first + second) for first, second in met]


def test_several_gateways_share_an_origins_requests() -> None:
    of = lived(20.0, gateways=3)
    assert len(of.gateways) == 6
    assert of.ledger.conserved
    assert of.ledger.demand.sum() == of.arrivals.between(START_S, START_S + 20.0).sum()


# ---------------------------------------------------------------- reports


def test_reports_keep_the_contract_and_add_up() -> None:
    house = House(fault(1, "partial", 0.3), europe={"eu-west-a": 0.6, "us-east-a": 0.4})
    span = house.step(europe=300, america=50, seconds=7.0)
    said = [r for gateway in house.gateways for r in house.reporter.said(gateway, span, span.until_s - 0.05)]
    for record in said:
        topic = topics.TOPIC_OF[type(record)]
        assert Edge(topic)._json.decode(msgspec.json.encode(record)) == record
    metrics = [r for r in said if isinstance(r, EndpointMetrics) and r.vantage == "gateway"]
    for record in metrics:
        held = sum(record.latency.count) if record.latency is not None else 0
        assert held + sum(record.errors.values()) == record.requests
    arrivals = [r for r in said if isinstance(r, Arrivals)]
    assert sum(sum(r.arrived) for r in arrivals) == 350
    assert {r.at_s for r in arrivals} == {START_S + n for n in range(7)}
    assert sum(sum(r.admitted) + sum(r.shed) for r in arrivals) == 350


def test_histograms_say_the_p95_that_the_endpoint_has() -> None:
    house = House(europe={"eu-west-a": 1.0})
    span = house.step(europe=20_000, seconds=600.0)
    (record,) = (r for r in house.reporter._metrics(house.gateways[0], span, span.until_s) if r.endpoint == "eu-west-a")
    assert record.latency is not None
    upto = np.cumsum(record.latency.count)
    index = record.latency.index[int(np.searchsorted(upto, 0.95 * upto[-1]))]
    wanted = 14.0 + house.engine.states[0].inside_ms * TAIL
    assert record.latency.gamma**index == pytest.approx(wanted, rel=0.06)
    assert Health is not None


# ---------------------------------------------------------------- who decides, and what is told of it


def test_a_rival_is_followed_like_the_house_and_accounted_for_alike() -> None:
    of = setup(30.0, faults=[("eu-west", 10.0, 30.0, "dead")])
    world = World(of, Ruled("nearest", RULES["nearest"]), START_S + 30.0)
    for _ in world.live():
        pass
    said = summary(world, **AS)
    assert (said.router, said.breaches, said.conserved) == ("nearest", 0, True)
    assert said.requests.failed > 0, "it sits on the dead; its gateways have nowhere else to ask"
    assert said.tables.said == 1


def test_a_rule_may_want_replicas_and_let_a_part_in() -> None:
    def rule(view: View) -> Choice:
        return Choice(nearest(view).shares, admit=np.full(len(view.ground.flows), 0.5), want=[3] * len(view.ready))

    of = setup(120.0, cold_start_s=10.0)
    world = World(of, Ruled("half", rule), START_S + 120.0)
    for _ in world.live():
        pass
    assert {pool.ready for pool in world.replicas.pools} == {3}
    shed = world.ledger.fates["shed"].sum()
    assert shed == pytest.approx(0.5 * world.ledger.demand.sum(), rel=0.05)
    assert world.ledger.conserved


def test_budgets_are_accounted_for_by_scope_and_day() -> None:
    budgets = (
        Budget(name="all", unit="usd", per_day=5.0),
        Budget(name="private", unit="usd", per_day=5.0, class_="private"),
        Budget(name="carbon", unit="gco2", per_day=100.0),
    )
    of = lived(30.0, of=msgspec.structs.replace(fleet(), budgets=budgets))
    said = {kept.budget: kept for kept in summary(of, **AS).budgets}
    assert said["all"].spent == pytest.approx(float(of.ledger.used_usd.sum()), abs=1e-3)
    assert 0.0 < said["private"].spent < 0.5 * said["all"].spent
    assert (said["carbon"].spent, said["carbon"].day_at_s) == (0.0, START_S)


def test_a_timeline_tells_what_moved_and_not_what_only_beats() -> None:
    def table(version: int, state: Any = "ready", latency_ms: float = 80.0) -> RoutingTable:
        house = House()
        said = Ruled("hand", nearest).live((), START_S, 1.0, house.view()).tables[0]
        ends = tuple(msgspec.structs.replace(e, state=state, latency_p95_ms=latency_ms) for e in said.endpoints)
        return msgspec.structs.replace(said, version=version, endpoints=ends, reason=f"table {version}")

    timeline = Timeline()
    assert timeline.table(table(1), ()) is not None
    assert timeline.table(table(2, latency_ms=90.0), ()) is None
    moment = timeline.table(table(3, state="down"), ())
    assert moment is not None
    assert moment.states == {"eu-west-a": "down", "us-east-a": "down"}
    timeline.happened(START_S + 9.0, "fault", "us-east is dead")
    assert timeline.tables == 3
    assert [m.what for m in telling(timeline.moments, 2)] == ["table", "fault"], (
        "in order, the empty first one left out"
    )
