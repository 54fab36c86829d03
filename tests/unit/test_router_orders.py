"""Operators' orders at the router: a drained endpoint leaves the table at once, comes back by word or by time."""

from __future__ import annotations

import msgspec
import pytest

from router_sync.flow import steps
from router_sync.orders import words
from router_sync.table import DRAINED, LEAST_BAD
from streams.contract.errors import TableRefused
from streams.contract.records import Capacity, Decision, Fleet, Order, RoutingTable
from streams.contract.topics import (
    DEAD_FIELD,
    DEAD_LETTERS,
    DEAD_REASON,
    DECISIONS,
    ORDERS,
    ROUTING_TABLE,
    TOPIC_OF,
)
from streams.runtime.memory import MemoryCarrier
from tests.replay.test_router_in_memory import SETTINGS, SIGNER, World, share_of, used
from tests.unit.router_fleet import endpoint, fleet, request_class

A, B = "eu-west-a", "eu-west-b"


def order(world: World, name: str = A, *, drain: bool = True, for_s: float | None = None) -> Order:
    until_s = None if for_s is None else world.now_s + for_s
    one = Order(endpoint=name, drain=drain, reason="new driver", by="ann", at_s=world.now_s, until_s=until_s)
    world.tell(one)
    return one


def at_once(world: World) -> RoutingTable:
    """The first table said within 20 ms from now; a solved one may follow it."""
    before = len(world.tables())
    world.carrier.run_until(world.now_s + 0.02)
    return world.tables()[before]


def state_of(table: RoutingTable, name: str) -> str:
    return next(e.state for e in table.endpoints if e.name == name)


def dead(world: World) -> list[dict[str, bytes]]:
    return [dict(m.headers) for m in world.carrier.said(DEAD_LETTERS)]


def test_a_drained_endpoint_has_left_the_table_within_twenty_milliseconds_and_the_reason_says_who_and_why() -> None:
    world = World()
    world.live(8)
    assert share_of(world.tables()[-1], [A]) > 0
    order(world)
    table = at_once(world)
    assert A not in used(table)
    assert state_of(table, A) == "drain"
    assert table.reason.startswith("eu-west-a is drained by ann: new driver")
    assert share_of(table, [B]) == 1.0
    assert table.evidence_at_s is None


@pytest.mark.parametrize("name", ["eu-west-a", "ap-south-a"])
def test_who_has_no_replica_left_is_told_of_and_not_called_drained_by_an_order(name: str) -> None:
    """Whether its share has to move or it had none, so that a heartbeat is the first to say so."""
    world = World()
    world.live(8)
    pool = next(e.pool for e in fleet().endpoints if e.name == name)
    world.tell(Capacity(pool=pool, at_s=world.now_s, ready=0))
    world.live(12)
    first = next(table for table in world.tables() if state_of(table, name) == "drain")
    assert f"{name} has no ready replica" in first.reason
    assert "drained" not in first.reason


def test_the_order_holds_while_tables_go_on_and_the_others_carry_the_load() -> None:
    world = World()
    world.live(4)
    order(world)
    world.live(40, {("eu", "interactive"): 40, ("us", "batch"): 20})
    assert not any(A in used(t) for t in world.tables() if t.issued_at_s > 1004.5)
    assert world.tables()[-1].reason.endswith("drained: eu-west-a")


def test_undrained_it_is_ready_at_once_and_is_loaded_step_by_step() -> None:
    world = World()
    world.live(4, {("eu", "interactive"): 150})
    order(world)
    world.live(4, {("eu", "interactive"): 150})
    order(world, drain=False)
    table = at_once(world)
    assert state_of(table, A) == "ready"
    assert "eu-west-a is back" in table.reason
    world.live(2, {("eu", "interactive"): 150})
    assert share_of(world.tables()[-1], [A]) <= 0.3 + 1e-6
    world.live(30, {("eu", "interactive"): 150})
    assert share_of(world.tables()[-1], [A]) > 0.3


def test_a_tombstone_ends_an_order_too() -> None:
    world = World()
    world.live(4)
    order(world)
    world.live(2)
    world.carrier.send(ORDERS, A, None)
    assert state_of(at_once(world), A) == "ready"


def test_an_order_with_an_end_ends_by_itself_at_a_tick() -> None:
    world = World()
    world.live(4)
    order(world, for_s=5.0)
    world.live(4)
    assert state_of(world.tables()[-1], A) == "drain"
    world.live(3)
    assert state_of(world.tables()[-1], A) == "ready"


def test_an_order_for_an_endpoint_that_is_not_in_the_fleet_is_a_dead_letter_with_a_hint() -> None:
    world = World()
    world.live(2)
    order(world, "eu-west-aa")
    world.live(1)
    [letter] = dead(world)
    assert letter[DEAD_FIELD] == b"endpoint"
    assert b"did you mean eu-west-a?" in letter[DEAD_REASON]


def test_an_order_under_another_key_than_its_endpoint_is_a_dead_letter() -> None:
    world = World()
    world.live(2)
    value = msgspec.json.encode(Order(endpoint=A, drain=True, at_s=world.now_s))
    world.carrier.send(ORDERS, B, value)
    world.live(1)
    assert [letter[DEAD_FIELD] for letter in dead(world)] == [b"key"]
    assert state_of(world.tables()[-1], A) == "ready"


def test_an_order_that_ends_before_it_begins_breaks_the_contract() -> None:
    with pytest.raises(msgspec.ValidationError, match="until_s 5 is not after at_s 9"):
        msgspec.json.decode(b'{"endpoint":"a","drain":true,"at_s":9,"until_s":5}', type=Order)


def of_two() -> Fleet:
    kinds = (request_class("eu-only", jurisdictions=("IE",)), request_class("free"))
    return fleet(kinds, (endpoint(A), endpoint("us-east-a", "us-east")))


def test_when_the_last_allowed_endpoint_is_drained_the_order_is_obeyed_and_the_loss_is_said() -> None:
    world = World(of_two())
    world.live(4)
    order(world)
    table = at_once(world)
    route = next(r for r in table.routes if (r.origin, r.class_) == ("eu", "eu-only"))
    assert route.endpoints == () == route.fallbacks
    assert route.reason == f"{DRAINED}; eu-west-a is drained by ann: new driver"
    assert "eu-only@eu: every allowed endpoint is drained, 20 requests/s unserved" in table.reason
    lost = [c.unserved_rps for c in world.decisions()[-1].considered if c.class_ == "eu-only"]
    assert lost == [20.0, 20.0]
    assert share_of(table, ["us-east-a"], class_="free") == 1.0


def test_a_route_that_was_left_with_nothing_is_served_again_as_soon_as_the_order_ends() -> None:
    world = World(of_two())
    world.live(4)
    order(world)
    world.live(15, {("eu", "eu-only"): 30, ("us", "free"): 30})
    order(world, drain=False)
    assert share_of(at_once(world), [A], class_="eu-only") == 1.0


def test_health_fails_open_among_those_that_are_not_drained() -> None:
    world = World(of_two())
    world.live(4)
    order(world, "us-east-a")
    world.live(2)
    world.lose(A)
    world.carrier.run_until(world.now_s + 0.02)
    route = next(r for r in world.tables()[-1].routes if (r.origin, r.class_) == ("eu", "free"))
    assert (route.endpoints, route.reason) == ((A,), LEAST_BAD)


def test_what_fails_on_drained_endpoints_says_nothing_of_their_region() -> None:
    three = [endpoint(f"eu-west-{z}") for z in "abc"] + [endpoint(f"us-east-{z}", "us-east") for z in "ab"]
    world = World(fleet(endpoints=three))
    world.live(4)
    order(world, A)
    order(world, B)
    world.live(2)
    world.down |= {A: world.now_s, B: world.now_s}
    world.live(4)
    assert state_of(world.tables()[-1], "eu-west-c") == "ready"
    assert share_of(world.tables()[-1], ["eu-west-c"]) == 1.0


def test_a_drained_endpoint_that_is_down_when_its_order_ends_stays_out() -> None:
    world = World()
    world.live(4)
    order(world)
    world.live(2)
    world.down |= {A: world.now_s}
    world.live(2)
    order(world, drain=False)
    table = at_once(world)
    assert state_of(table, A) == "down"
    assert A not in used(table)


def test_a_router_that_takes_over_finds_the_orders_again() -> None:
    world = World()
    world.live(4)
    order(world)
    world.live(2)
    carrier = MemoryCarrier(steps(SETTINGS, SIGNER), now_s=world.now_s)
    for topic in (ORDERS, TOPIC_OF[Fleet], ROUTING_TABLE):
        for message in world.carrier.said(topic):
            carrier.send(topic, message.key or b"", message.value, message.headers)
    carrier.run_until(world.now_s + 2.0)
    table = msgspec.json.decode(carrier.said(ROUTING_TABLE)[-1].value or b"", type=RoutingTable)
    assert table.issued_at_s >= world.now_s
    assert A not in used(table)
    assert state_of(table, A) == "drain"


def test_an_order_survives_another_version_of_the_fleet() -> None:
    world = World()
    world.live(4)
    order(world)
    world.live(1)
    world.tell(fleet(version=2))
    world.live(2)
    assert world.tables()[-1].fleet_version == 2
    assert state_of(world.tables()[-1], A) == "drain"


def test_a_decision_names_the_order_among_what_was_excluded() -> None:
    world = World()
    world.live(4)
    given = order(world)
    world.carrier.run_until(world.now_s + 0.02)
    last = msgspec.json.decode(world.carrier.said(DECISIONS)[-1].value or b"", type=Decision)
    assert {e.reason for c in last.considered for e in c.excluded} == {words(A, given)}


def test_a_table_that_uses_a_drained_endpoint_is_not_said() -> None:
    from router_sync.policy.law import law_of
    from router_sync.table import check

    world = World()
    table = world.tables()[-1]
    check(table, world.fleet, law_of(world.fleet))
    with pytest.raises(TableRefused, match="is drained by an operator"):
        check(table, world.fleet, law_of(world.fleet), drained={A})


def test_a_dead_letter_keeps_what_was_said_of_its_value_so_that_it_can_be_sent_again_as_it_was() -> None:
    world = World()
    world.live(1)
    told = [("content-type", b"application/json"), ("ce_id", b"7"), ("authorization", b"secret"), ("ce_x", bytes(2000))]
    world.carrier.send(ORDERS, A, b'{"endpoint":7}', told)
    world.live(1)
    [letter] = dead(world)
    assert (letter["content-type"], letter["ce_id"]) == (b"application/json", b"7")
    assert not {"authorization", "ce_x"} & letter.keys()
