"""Who is about to go is drained at once, serves where nothing else is left, and comes back step by step."""

from __future__ import annotations

from typing import Any

from streams.contract.records import Interruption, RoutingTable, TableEndpoint
from streams.contract.topics import DEAD_LETTERS
from tests.replay.test_router_in_memory import EU, World, share_of, used
from tests.unit.router_fleet import endpoint, fleet, request_class


def notice(world: World, name: str, after_s: float | None, kind: Any = "preempt", **more: Any) -> Interruption:
    deadline_s = None if after_s is None else world.now_s + after_s
    return Interruption(endpoint=name, kind=kind, notice_at_s=world.now_s, deadline_at_s=deadline_s, **more)


def noticed(world: World, *notices: Interruption) -> RoutingTable:
    """The table just after the notices came."""
    for said in notices:
        world.tell(said)
    world.carrier.run_until(world.now_s + 0.02)
    return world.tables()[-1]


def told_of(table: RoutingTable, name: str) -> TableEndpoint:
    return next(e for e in table.endpoints if e.name == name)


def test_a_notice_drains_at_once_and_says_by_when_to_leave() -> None:
    world = World()
    world.live(5)
    said = notice(world, "eu-west-a", 120.0)
    table = noticed(world, said)
    assert table.issued_at_s - said.notice_at_s <= 0.02
    assert "eu-west-a" not in used(table)
    assert told_of(table, "eu-west-a").state == "drain"
    assert told_of(table, "eu-west-a").leave_by_s == said.deadline_at_s
    assert "eu-west-a leaves in 120 s: preempt notice" in table.reason
    excluded = [x for c in world.decisions()[-1].considered for x in c.excluded]
    assert {x.reason for x in excluded} == {"eu-west-a leaves: preempt notice"}


def test_without_a_deadline_it_is_to_be_left_now() -> None:
    world = World()
    world.live(5)
    table = noticed(world, notice(world, "eu-west-a", None, "outage"))
    assert told_of(table, "eu-west-a").leave_by_s == table.issued_at_s
    assert "eu-west-a leaves now: outage notice" in table.reason


def test_advice_moves_nobody() -> None:
    world = World()
    world.live(5)
    count = len(world.tables())
    assert "eu-west-a" in used(noticed(world, notice(world, "eu-west-a", 120.0, "rebalance")))
    assert len(world.tables()) == count


def test_where_nothing_else_is_left_who_is_about_to_go_still_serves() -> None:
    world = World(fleet([request_class("private", jurisdictions=("IE",)), request_class("batch")]))
    world.live(5)
    table = noticed(world, *(notice(world, name, 30.0) for name in EU))
    assert share_of(table, EU, class_="private") == 1.0
    assert share_of(table, EU, class_="batch") == 0.0
    private = next(r for r in table.routes if r.class_ == "private" and r.origin == "eu")
    assert private.reason == "every allowed endpoint is about to go, or down"


def test_who_is_still_there_a_minute_after_its_deadline_is_let_in_step_by_step() -> None:
    world = World()
    world.live(5)
    noticed(world, *(notice(world, name, 10.0) for name in EU))
    world.live(65)
    assert share_of(world.tables()[-1], EU) == 0.0
    world.live(30)
    shares = [share_of(t, EU) for t in world.tables()[-40:]]
    assert shares[-1] == 1.0
    assert any(0.0 < share < 0.5 for share in shares)


def test_some_replicas_less_is_less_capacity_and_no_drain() -> None:
    world = World(fleet([request_class()], [endpoint("eu-west-a", replicas=4), endpoint("eu-west-b")]))
    world.live(5)
    same = notice(world, "eu-west-a", 30.0, replicas=1)
    table = noticed(world, same, same)
    assert told_of(table, "eu-west-a").capacity_rps == 300.0, "a notice that is said twice is one"
    table = noticed(world, notice(world, "eu-west-a", 31.0, replicas=1), notice(world, "eu-west-a", 30.0, replicas=1))
    assert told_of(table, "eu-west-a").capacity_rps == 100.0
    assert told_of(table, "eu-west-a").state == "ready"
    assert told_of(table, "eu-west-a").leave_by_s is None


def test_notices_for_strangers_and_with_impossible_deadlines_are_set_aside() -> None:
    world = World()
    world.live(5)
    noticed(world, notice(world, "moon-a", 30.0), notice(world, "eu-west-a", -30.0))
    assert len(world.carrier.said(DEAD_LETTERS)) == 2
    assert "eu-west-a" in used(world.tables()[-1])


def test_an_earlier_deadline_is_told_at_once() -> None:
    world = World()
    world.live(5)
    noticed(world, notice(world, "eu-west-a", 3600.0, "maintenance"))
    world.live(3)
    soon = notice(world, "eu-west-a", 30.0)
    assert told_of(noticed(world, soon), "eu-west-a").leave_by_s == soon.deadline_at_s
