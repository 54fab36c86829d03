"""Table orders at the router: shares are held by word; law, health, drains and the fleet still move what they must."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import msgspec
import numpy as np
import pytest

from router_sync.holding import Holding, left, within, words
from streams.contract.records import Order, Route, RoutingTable, TableOrder
from streams.contract.topics import DEAD_FIELD, DEAD_LETTERS, DEAD_REASON, TABLE_ORDERS
from tests.replay.test_router_in_memory import EU, World, share_of, taken_over
from tests.unit.router_fleet import endpoint, fleet, request_class
from tests.unit.test_router_decides import now

A, B = "eu-west-a", "eu-west-b"
CALM = {("eu", "interactive"): 40, ("us", "interactive"): 40}
SURGE = {("eu", "interactive"): 380, ("us", "interactive"): 20}


def hold(world: World, *, on: bool = True, for_s: float | None = None, **more: Any) -> TableOrder:
    until_s = None if for_s is None else world.now_s + for_s
    order = TableOrder(
        service="chat", hold=on, reason="bad deploy", by="ann", at_s=world.now_s, until_s=until_s, **more
    )
    world.tell(order)
    return order


def soon(world: World) -> RoutingTable:
    """The first table said within 20 ms from now."""
    before = len(world.tables())
    world.carrier.run_until(world.now_s + 0.02)
    return world.tables()[before]


def route(table: RoutingTable, origin: str = "eu", class_: str = "interactive") -> Route:
    return next(r for r in table.routes if (r.origin, r.class_) == (origin, class_))


def dead(world: World) -> list[tuple[str, str]]:
    letters = [dict(m.headers) for m in world.carrier.said(DEAD_LETTERS)]
    return [(one[DEAD_FIELD].decode(), one[DEAD_REASON].decode()) for one in letters]


def by(**shares: float) -> Route:
    """A route of interactive@eu; names with _ for -."""
    names = tuple(name.replace("_", "-") for name in shares)
    return Route(origin="eu", class_="interactive", slo_p95_ms=400, endpoints=names, shares=tuple(shares.values()))


def test_a_frozen_table_says_by_whom_at_once_and_no_demand_moves_its_shares() -> None:
    world = World()
    world.live(10, CALM)
    before = route(world.tables()[-1])
    order = hold(world)
    table = soon(world)
    assert table.held == "held by ann: bad deploy"
    assert table.reason.startswith(table.held)
    world.live(20, SURGE)
    assert {(route(t).endpoints, route(t).shares) for t in world.tables() if t.issued_at_s >= order.at_s} == {
        (before.endpoints, before.shares)
    }
    lost = [c.unserved_rps for d in world.decisions()[-1:] for c in d.considered if c.origin == "eu"]
    assert lost[0] == 0.0, "decided when it was frozen; demand moves nothing, so nothing was decided since"


def test_unfrozen_the_surge_it_was_kept_from_spills_over() -> None:
    world = World()
    world.live(10, CALM)
    hold(world)
    world.live(10, SURGE)
    assert share_of(world.tables()[-1], EU) == 1.0
    hold(world, on=False)
    assert soon(world).reason.startswith("held no more")
    world.live(8, SURGE)
    assert world.tables()[-1].held == ""
    assert share_of(world.tables()[-1], EU) < 0.6


@pytest.mark.parametrize("ends", ["time", "tombstone"])
def test_a_hold_ends_by_itself_and_by_a_tombstone(ends: str) -> None:
    world = World()
    world.live(4)
    hold(world, for_s=5.0 if ends == "time" else None)
    world.live(4)
    assert world.tables()[-1].held
    if ends == "tombstone":
        world.carrier.send(TABLE_ORDERS, "chat", None)
    world.live(3)
    assert world.tables()[-1].held == ""


def test_a_rollback_goes_to_the_named_shares_at_once_and_is_a_new_version() -> None:
    world = World()
    world.live(6, CALM)
    last = world.tables()[-1]
    hold(world, routes=(by(us_east_a=0.75, eu_west_a=0.25),), of="1000.2")
    table = soon(world)
    assert (table.epoch, table.version) == (last.epoch, last.version + 1)
    assert dict(zip(route(table).endpoints, route(table).shares, strict=True)) == {"us-east-a": 0.75, A: 0.25}
    assert table.held == "held at 1000.2 by ann: bad deploy"
    assert route(table, "us") == route(last, "us"), "routes that the order does not name are decided as ever"
    world.live(10, CALM)
    assert share_of(world.tables()[-1], ["us-east-a"]) == 0.75


def test_health_moves_what_it_must_of_held_shares_the_rest_keeps_its_proportions_and_they_come_back_gently() -> None:
    world = World()
    world.live(6)
    hold(world, routes=(by(eu_west_a=0.5, us_east_a=0.3, ap_south_a=0.2),))
    world.live(2)
    world.lose(A)
    world.carrier.run_until(world.now_s + 0.02)
    gone = world.tables()[-1]
    assert (share_of(gone, ["us-east-a"]), share_of(gone, ["ap-south-a"])) == (0.6, 0.4)
    assert gone.evidence_at_s == world.down[A]
    world.down.clear()
    world.live(16)
    shares = [share_of(t, [A]) for t in world.tables() if t.issued_at_s > gone.issued_at_s]
    assert shares == sorted(shares)
    assert max(b - a for a, b in pairwise(shares)) <= 0.11
    assert shares[-1] == 0.5
    assert share_of(world.tables()[-1], ["us-east-a"]) == 0.3


def test_a_drain_moves_what_it_must_of_held_shares() -> None:
    world = World()
    world.live(4)
    hold(world, routes=(by(eu_west_a=0.5, us_east_a=0.5),))
    world.live(1)
    world.tell(Order(endpoint=A, drain=True, at_s=world.now_s))
    assert share_of(soon(world), ["us-east-a"]) == 1.0


def test_law_is_above_a_rollback() -> None:
    world = World(fleet([request_class(jurisdictions=("IE",)), request_class("batch")]))
    world.live(4)
    hold(world, routes=(by(us_east_a=0.75, eu_west_a=0.25),))
    table = soon(world)
    assert share_of(table, [A]) == 1.0
    assert "us-east-a" not in route(table).fallbacks


def test_where_nothing_of_it_can_be_used_a_flow_is_free_until_something_can() -> None:
    world = World()
    world.live(4)
    hold(world, routes=(by(eu_west_a=1.0),))
    world.live(1)
    world.lose(A)
    world.carrier.run_until(world.now_s + 0.02)
    assert share_of(world.tables()[-1], [B]) == 1.0
    assert world.tables()[-1].held.endswith("; nothing is left of 1 of its routes")
    world.down.clear()
    world.live(14)
    assert share_of(world.tables()[-1], [A]) == 1.0
    assert not world.tables()[-1].held.endswith("routes")


def test_endpoints_that_leave_the_fleet_leave_held_shares_and_get_them_back_when_they_return() -> None:
    world = World()
    world.live(4)
    hold(world, routes=(by(eu_west_a=0.5, us_east_a=0.5),))
    world.live(1)
    world.tell(fleet(endpoints=[endpoint("us-east-a", "us-east"), endpoint(B)], version=2))
    world.live(2)
    assert share_of(world.tables()[-1], ["us-east-a"]) == 1.0
    world.tell(fleet(version=3))
    world.live(2)
    assert 0.0 < share_of(world.tables()[-1], [A]) < 0.5, "as whoever comes back, step by step"
    world.live(12)
    assert share_of(world.tables()[-1], [A]) == 0.5


def test_a_router_that_takes_over_holds_on_even_where_the_order_named_no_routes() -> None:
    world = World()
    world.live(6, {("eu", "interactive"): 150})
    hold(world)
    world.live(4, CALM)
    last = world.tables()[-1]
    table = taken_over(world, world.now_s + 1.0)
    assert table.epoch > last.epoch
    assert table.held.endswith("by ann: bad deploy")
    assert [(r.endpoints, r.shares) for r in table.routes] == [(r.endpoints, r.shares) for r in last.routes]


def test_other_services_are_decided_as_ever_over_the_capacity_that_held_ones_leave() -> None:
    chat = fleet([request_class()]).services[0]
    both = (chat, msgspec.structs.replace(chat, name="image"))
    ends = [
        endpoint(f"{region}-{z}", region, services=("chat", "image")) for region in ("eu-west", "us-east") for z in "ab"
    ]
    world = World(msgspec.structs.replace(fleet([request_class()], ends, demand_rps=95.0), services=both))
    all_at_a = msgspec.structs.replace(by(eu_west_a=1.0), origin="eu")
    hold(world, routes=(all_at_a,))
    world.live(10)
    image = next(t for t in reversed(world.tables()) if t.service == "image")
    assert sum(share_of(image, [A], origin) * 95.0 for origin in ("eu", "us")) <= 6.0
    assert image.held == ""


@pytest.mark.parametrize(
    ("order", "field", "reason"),
    [
        ({"service": "chatt"}, "service", "is not in the fleet: did you mean chat?"),
        ({"routes": (by(eu_west_a=0.5),)}, "routes[0].shares", "do not add up to 1"),
        ({"routes": (by(moon=1.0),)}, "routes", "none of them fits the fleet"),
        ({"routes": (by(eu_west_a=1.0), by(eu_west_b=1.0))}, "routes", "is there twice"),
    ],
)
def test_orders_that_hold_nothing_or_contradict_themselves_are_dead_letters(
    order: dict[str, Any], field: str, reason: str
) -> None:
    world = World()
    world.live(2)
    world.tell(TableOrder(**({"service": "chat", "hold": True, "at_s": world.now_s} | order)))
    world.live(1)
    [(told, why)] = dead(world)
    assert told == field
    assert reason in why
    assert world.tables()[-1].held == ""


def test_an_order_under_another_key_than_its_service_is_a_dead_letter() -> None:
    world = World()
    world.live(2)
    world.carrier.send(TABLE_ORDERS, "image", msgspec.json.encode(TableOrder(service="chat", hold=True, at_s=1)))
    world.live(1)
    assert [field for field, _ in dead(world)] == ["key"]


def test_held_shares_keep_proportions_within_what_is_open_and_ramps() -> None:
    problem = now(fleet()).problem
    wanted = np.zeros(problem.may.shape)
    wanted[:, :3] = (0.5, 0.3, 0.2)
    assert within(problem, wanted, np.ones(len(problem.kin)))[0, :3].tolist() == [0.5, 0.3, 0.2]
    most = problem.most_share.copy()
    most[0] = 0.1
    ramped = within(problem, wanted, most)
    assert ramped[0, :3].round(6).tolist() == [0.1, 0.54, 0.36]
    alone = np.zeros(problem.may.shape)
    alone[:, 0] = 1.0
    assert within(problem, alone, most)[0, 0] == 1.0, "there is nowhere else"


def test_what_is_left_to_decide_has_neither_the_held_flows_nor_their_capacity() -> None:
    at = now(fleet())
    rows = np.zeros(len(at.plan.flows), bool)
    rows[0] = True
    shares = np.zeros(at.plan.may.shape)
    shares[0, 0] = 1.0
    rest = left(at, Holding(rows, shares, {})).problem
    assert (rest.demand_rps[0], rest.capacity_rps[0]) == (0.01, 80.0)
    assert rest.demand_rps[1:].tolist() == at.problem.demand_rps[1:].tolist()
    assert left(at, Holding(rows & False, shares * 0, {})) is at


def test_words_without_a_reason_name_the_operator_alone() -> None:
    assert words(TableOrder(service="chat", hold=True, at_s=0)) == "held by an operator"
