"""What the router does about prices, carbon, budgets, capacity that is short, and those who were slow."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from streams.contract.records import (
    Budget,
    Capacity,
    CarbonIntensity,
    Fleet,
    RoutingTable,
    SpotPrice,
)
from tests.replay.test_router_in_memory import EU, World, share_of
from tests.unit.router_fleet import endpoint, fleet, request_class

LOOSE = request_class(slo_p95_ms=5000.0)
PAIR = [
    endpoint("eu-west-a", grid_zone="IE", power_w=10_000.0),
    endpoint("us-east-a", "us-east", grid_zone="US", power_w=10_000.0),
]


def with_budget(of: Fleet, *budgets: Budget) -> Fleet:
    return msgspec.structs.replace(of, budgets=budgets)


def last(world: World) -> RoutingTable:
    return world.tables()[-1]


def price(world: World, pool: str, usd: float) -> SpotPrice:
    return SpotPrice(pool=pool, price_usd_per_h=usd, effective_at_s=world.now_s, observed_at_s=world.now_s)


def carbon(world: World, zone: str, g: float) -> CarbonIntensity:
    return CarbonIntensity(
        grid_zone=zone, kind="average", basis="measured", carbon_g_per_kwh=g, valid_from_s=world.now_s,
        valid_until_s=world.now_s + 3600,
    )  # fmt: skip


def busy(rps: int, *classes: str) -> dict[tuple[str, str], int]:
    return {(origin, c): rps for origin in ("eu", "us") for c in classes}


def test_traffic_follows_the_spot_price_and_the_decision_names_it() -> None:
    world = World(fleet([LOOSE], PAIR))
    world.live(10, busy(20, "interactive"))
    assert share_of(last(world), EU) == 1.0
    world.tell(price(world, PAIR[1].pool, 0.05))
    world.live(10, busy(20, "interactive"))
    assert share_of(last(world), ["us-east-a"]) == 1.0
    assert {c.endpoint: c.price_usd for c in world.decisions()[-1].considered[0].candidates}["us-east-a"] == (
        pytest.approx(0.05 / 3600 / 100)
    )


def test_traffic_follows_the_sun_where_carbon_has_a_price() -> None:
    world = World(fleet([LOOSE], PAIR))
    for zone, g in (("IE", 600.0), ("US", 20.0)):
        world.tell(carbon(world, zone, g))
    world.live(25, busy(20, "interactive"))
    assert share_of(last(world), ["us-east-a"]) > 0.9
    for zone, g in (("IE", 20.0), ("US", 600.0)):
        world.tell(carbon(world, zone, g))
    world.live(25, busy(20, "interactive"))
    assert share_of(last(world), EU) == 1.0


def test_a_table_tells_how_its_budgets_stand_and_the_next_router_goes_on_from_there() -> None:
    of = with_budget(fleet([LOOSE], PAIR), Budget(name="spend", unit="usd", per_day=0.001))
    world = World(of)
    world.live(120, busy(60, "interactive"))
    (spent,) = last(world).budgets
    assert spent.spent > 0.001
    assert spent.price > 0.0


def test_what_is_beyond_capacity_is_shed_from_the_lowest_tier_the_same_at_all_gateways() -> None:
    classes = [request_class("premium", tier="premium"), request_class("batch", slo_p95_ms=5000.0, tier="sheddable")]
    world = World(fleet(classes, PAIR))
    world.live(10, busy(20, "premium", "batch"))
    assert {r.admit for r in last(world).routes} == {1.0}
    world.live(15, busy(60, "premium", "batch"))
    admits = {(r.origin, r.class_): r.admit for r in last(world).routes}
    assert admits["eu", "premium"] == admits["us", "premium"] == 1.0
    batch = (admits["eu", "batch"] + admits["us", "batch"]) / 2
    assert batch == pytest.approx((0.85 * 200 - 120) / 120, abs=0.06)
    world.live(40, busy(20, "premium", "batch"))
    assert {r.admit for r in last(world).routes} == {1.0}


def test_a_replica_that_goes_takes_its_capacity_with_it_at_once() -> None:
    ends = [endpoint("eu-west-a", replicas=3), endpoint("us-east-a", "us-east", replicas=3)]
    world = World(fleet([LOOSE], ends))
    world.live(10, busy(140, "interactive"))
    ready = Capacity(pool=ends[0].pool, at_s=world.now_s, ready=1)
    world.tell(ready)
    world.carrier.run_until(world.now_s + 0.02)
    world.live(3, busy(140, "interactive"))
    table = last(world)
    assert next(e for e in table.endpoints if e.name == "eu-west-a").capacity_rps == 100.0
    load = sum(140.0 * share_of(table, ["eu-west-a"], origin) for origin in ("eu", "us"))
    assert load <= 101.0


def test_a_new_endpoint_of_a_running_fleet_is_let_in_step_by_step() -> None:
    world = World(fleet([LOOSE], [PAIR[1]]))
    world.live(5)
    world.tell(fleet([LOOSE], [PAIR[1], endpoint("eu-west-a", price_usd_per_h=0.1)], version=2))
    world.live(25)
    shares: list[Any] = [share_of(t, EU) for t in world.tables() if t.fleet_version == 2]
    assert 0.0 < min(s for s in shares if s > 0) <= 0.2
    assert shares[-1] == 1.0
