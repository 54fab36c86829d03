"""Law in the loop: routes by origin, an outage that must not spill, rules that change, rules nobody could follow."""

from __future__ import annotations

import random

import msgspec

from router_sync.client import Picker
from router_sync.table import NOWHERE
from streams.contract.records import Fleet, Policy, RoutingTable, Rule
from streams.contract.topics import DEAD_FIELD, DEAD_LETTERS
from tests.replay.test_router_in_memory import EU, World, used
from tests.unit.router_fleet import fleet, request_class

HOME = Policy(
    name="gdpr",
    rules=(
        Rule(id="stays", when={"data_class": ("personal",), "origin_country": ("DE",)}, require={"country": ("IE",)}),
    ),
)
CLASSES = [request_class("interactive", data_class="personal"), request_class("batch", tier="sheddable")]


def under(*policies: Policy, version: int = 1) -> Fleet:
    return msgspec.structs.replace(fleet(CLASSES, version=version), policies=policies)


def reach(table: RoutingTable, origin: str, class_: str) -> set[str]:
    route = next(r for r in table.routes if (r.origin, r.class_) == (origin, class_))
    return {*route.endpoints, *route.fallbacks}


def test_a_rule_may_ask_where_a_request_comes_from() -> None:
    [table] = World(under(HOME)).tables()
    assert reach(table, "eu", "interactive") == set(EU)
    assert len(reach(table, "us", "interactive")) == len(reach(table, "eu", "batch")) == 6
    assert table.policies == (HOME,)
    assert {route.origin_country for route in table.routes} == {"DE", "US"}


def test_an_outage_of_all_that_is_allowed_never_spills() -> None:
    world = World(under(HOME))
    world.live(3)
    world.lose(*EU)
    world.live(5)
    for table in world.tables():
        assert reach(table, "eu", "interactive") <= set(EU)
        picker = Picker(table, rng=random.Random(1), clock=lambda: 0.0)
        assert {pick.endpoint.name for _ in range(50) if (pick := picker.pick("eu", "interactive"))} <= set(EU)
    assert not reach(world.tables()[-1], "eu", "batch") & set(EU), "who may, has moved"


def test_other_rules_hold_from_the_next_table_on_without_damping() -> None:
    world = World(under())
    world.live(3)
    world.tell(under(HOME, version=2))
    world.live(2)
    first, *_ = [table for table in world.tables() if table.fleet_version == 2]
    assert reach(first, "eu", "interactive") == set(EU)
    assert first.policies == (HOME,)


def test_a_class_that_rules_close_has_an_empty_route_that_names_them() -> None:
    shut = Policy(name="ours", rules=(Rule(id="closed", when={"class": ("batch",)}, deny={"place": ("cloud",)}),))
    [table] = World(under(shut)).tables()
    batch = [route for route in table.routes if route.class_ == "batch"]
    assert {(route.endpoints, route.fallbacks, route.reason) for route in batch} == {
        ((), (), f"{NOWHERE}: ours/closed")
    }
    picker = Picker(table, rng=random.Random(1), clock=lambda: 0.0)
    assert [denial.ref for denial in picker.closed("eu", "batch")] == ["ours/closed"]
    assert picker.pick("eu", "interactive") is not None


def test_a_fleet_whose_rules_leave_a_class_nothing_is_a_dead_letter_and_the_old_law_stays() -> None:
    world = World(under(HOME))
    lost = Policy(name="ours", rules=(Rule(id="hds", require={"certificate": ("hds",)}),))
    broken = Policy(name="ours", rules=(Rule(id="two", require={"place": ("cloud",)}, deny={"place": ("edge",)}),))
    for version, policy in ((2, lost), (3, broken)):
        world.tell(under(policy, version=version))
    world.live(2)
    letters = [dict(letter.headers) for letter in world.carrier.said(DEAD_LETTERS)]
    assert {letter[DEAD_FIELD] for letter in letters} == {b"policies[0].rules[0]"}
    assert {table.fleet_version for table in world.tables()} == {1}
    assert used(world.tables()[-1])
