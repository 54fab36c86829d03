"""The router lives through outages on the memory carrier: the same step as on Kafka, with a clock of its own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Any

import msgspec
import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from router_sync.flow import steps
from router_sync.sign import Signer, Trust
from router_sync.stage import Router
from router_sync.state import RouterState
from streams.contract.records import Decision, Demand, EndpointHealth, Fleet, Record, RoutingTable
from streams.contract.topics import (
    DEAD_LETTERS,
    DEAD_REASON,
    DECISIONS,
    DEMAND,
    ENDPOINT_HEALTH,
    FLEET,
    ROUTING_TABLE,
    TABLE_ORDERS,
    TOPIC_OF,
)
from streams.runtime.batch import Batch, Message
from streams.runtime.memory import MemoryCarrier
from streams.runtime.runner import Runner
from streams.runtime.step import Heard
from streams.settings import Settings
from tests.unit.router_fleet import demand, endpoint, fleet, health, request_class

SIGNER = Signer(Ed25519PrivateKey.from_private_bytes(bytes(32)))
TRUST = Trust({SIGNER.kid: SIGNER.public})
START_S = 1000.0
SETTINGS = Settings(table_heartbeat_s=5.0, table_ttl_s=60.0)


class World:
    """A router, and somebody who speaks for its endpoints once a second."""

    def __init__(self, of: Fleet | None = None, now_s: float = START_S) -> None:
        self.fleet = of or fleet()
        self.names = [e.name for e in self.fleet.endpoints]
        self.carrier = MemoryCarrier(steps(SETTINGS, SIGNER), now_s=now_s)
        self.down: dict[str, float] = {}
        self.tell(self.fleet)
        self.carrier.run_until(now_s)

    @property
    def now_s(self) -> float:
        return self.carrier.now_s

    def tell(self, record: Record, signer: Signer | None = None) -> None:
        topic = TOPIC_OF[type(record)]
        key, value = topic.key_of(record).encode(), msgspec.json.encode(record)
        self.carrier.send(topic, key, value, signer.seal(key, value) if signer else ())

    def said(self) -> None:
        self.tell(health(self.names, self.now_s, self.down))

    def live(self, seconds: int, arrived: Mapping[tuple[str, str], int] | None = None) -> None:
        for _ in range(seconds):
            self.said()
            if arrived:
                self.tell(demand(float(int(self.now_s)), arrived))
            self.carrier.run_until(self.now_s + 1.0)

    def lose(self, *names: str) -> None:
        """`names` fail now; it is heard half a second later, between two ticks."""
        self.down |= dict.fromkeys(names, self.now_s)
        self.carrier.run_until(self.now_s + 0.5)
        self.said()

    def tables(self) -> list[RoutingTable]:
        return [msgspec.json.decode(m.value or b"", type=RoutingTable) for m in self.carrier.said(ROUTING_TABLE)]

    def decisions(self) -> list[Decision]:
        return [msgspec.json.decode(m.value or b"", type=Decision) for m in self.carrier.said(DECISIONS)]


def used(table: RoutingTable) -> set[str]:
    return {name for route in table.routes for name in (*route.endpoints, *route.fallbacks)}


def share_of(table: RoutingTable, names: Iterable[str], origin: str = "eu", class_: str = "interactive") -> float:
    route = next(r for r in table.routes if (r.origin, r.class_) == (origin, class_))
    wanted = set(names)
    return sum(share for name, share in zip(route.endpoints, route.shares, strict=True) if name in wanted)


EU = ("eu-west-a", "eu-west-b")


def test_a_fleet_becomes_a_signed_table_at_once() -> None:
    world = World()
    [message] = world.carrier.said(ROUTING_TABLE)
    assert TRUST.verify(message.headers, message.key or b"", message.value or b"") == SIGNER.kid
    [table] = world.tables()
    assert (table.epoch, table.version, table.service, table.reason) == (1000, 1, "chat", "first table")
    assert table.expires_at_s - table.issued_at_s == 60.0
    assert table.evidence_at_s is None
    assert share_of(table, EU) == 1.0
    assert [d.version for d in world.decisions()] == [1]


def test_a_lost_region_leaves_the_table_within_twenty_milliseconds() -> None:
    world = World()
    world.live(8)
    before = world.tables()
    world.lose(*EU)
    heard_s = world.now_s
    world.carrier.run_until(heard_s + 0.02)
    first = world.tables()[len(before)]
    assert first.issued_at_s - heard_s <= 0.02
    assert not used(first) & set(EU)
    assert {e.name for e in first.endpoints if e.state == "down"} == set(EU)
    assert first.evidence_at_s == world.down["eu-west-a"]
    assert (first.epoch, first.version) == (before[-1].epoch, before[-1].version + 1)
    assert "region eu-west down: 2 of 2 endpoints down" in first.reason
    assert "interactive@eu: eu-west 100 % -> us-east 100 %" in first.reason
    decision = world.decisions()[-1]
    assert decision.method == "greedy"
    assert decision.inputs["endpoint-health.v1/0"] == len(world.carrier.said(ENDPOINT_HEALTH))
    assert {x.endpoint for c in decision.considered for x in c.excluded} == set(EU)


def test_one_lost_endpoint_moves_only_what_lay_there() -> None:
    world = World()
    world.live(3)
    before = world.tables()[-1]
    world.lose("eu-west-a")
    world.carrier.run_until(world.now_s + 0.02)
    after = world.tables()[-1]
    assert "eu-west-a" not in used(after)
    assert share_of(after, ["eu-west-b"]) == 1.0
    assert share_of(after, ["us-east-a"], "us") == share_of(before, ["us-east-a"], "us")


def test_a_recovered_region_is_let_in_gently_and_wholly() -> None:
    world = World()
    world.live(3)
    world.lose(*EU)
    world.live(3)
    world.down.clear()
    back_s = world.now_s
    world.live(16)
    shares = [(t.issued_at_s - back_s, share_of(t, EU)) for t in world.tables() if t.issued_at_s >= back_s]
    values = [share for _, share in shares]
    assert values == sorted(values), "it only grows"
    assert values[0] == 0.0
    assert max(b - a for a, b in pairwise(values)) <= 0.11
    assert all(share <= 0.2 for at_s, share in shares if at_s < 2)
    assert values[-1] == 1.0
    assert len(values) <= 16, "about a table a second"


def test_constant_inputs_say_nothing_but_heartbeats() -> None:
    world = World()
    arrived = {(o, c): 20 for o in ("eu", "us") for c in ("interactive", "batch")}
    world.live(30, arrived)
    settled = len(world.tables())
    world.live(60, arrived)
    later = world.tables()[settled:]
    assert len(later) == 12
    assert {t.reason for t in later} == {"unchanged"}
    assert len({t.routes for t in later}) == 1
    numbers = [(t.epoch, t.version) for t in world.tables()]
    assert numbers == sorted(set(numbers))


def test_a_surge_spills_over_and_flows_back() -> None:
    world = World()
    calm = {("eu", "interactive"): 20, ("us", "interactive"): 20}
    world.live(15, calm)
    assert share_of(world.tables()[-1], EU) == 1.0
    world.live(20, {("eu", "interactive"): 380, ("us", "interactive"): 20})
    spilt = world.tables()[-1]
    assert 0.3 < share_of(spilt, EU) <= 200 / 380 + 0.02
    world.live(25, calm)
    assert share_of(world.tables()[-1], EU) == 1.0


def test_law_holds_even_when_all_that_is_allowed_is_down() -> None:
    world = World(fleet([request_class("private", jurisdictions=("IE",)), request_class("batch")]))
    world.live(2)
    world.lose(*EU)
    world.live(3)
    for table in world.tables():
        assert all(set(r.endpoints) | set(r.fallbacks) <= set(EU) for r in table.routes if r.class_ == "private")
    last = world.tables()[-1]
    assert share_of(last, EU, class_="private") == 1.0
    assert share_of(last, EU, class_="batch") == 0.0


def test_a_new_fleet_is_followed_at_once_without_a_restart() -> None:
    world = World()
    world.live(3)
    smaller = fleet([request_class("interactive", jurisdictions=("US",))], version=2)
    world.tell(smaller)
    world.carrier.run_until(world.now_s + 0.02)
    table = world.tables()[-1]
    assert table.fleet_version == 2
    assert table.reason.startswith("fleet version 2")
    assert used(table) == {"us-east-a", "us-east-b"}


def test_the_same_fleet_said_again_changes_nothing() -> None:
    world = World()
    world.live(2)
    count = len(world.tables())
    world.tell(world.fleet)
    world.carrier.run_until(world.now_s + 0.5)
    assert len(world.tables()) == count


def test_a_fleet_that_does_not_fit_together_goes_to_the_dead_letters() -> None:
    world = World()
    world.tell(fleet(endpoints=[endpoint("a", services=("image",))], version=2))
    world.live(6)
    assert world.tables()[-1].fleet_version == 1
    assert world.carrier.said(DEAD_LETTERS)


def letters(world: World) -> list[bytes]:
    return [dict(m.headers)[DEAD_REASON] for m in world.carrier.said(DEAD_LETTERS)]


def test_an_older_fleet_and_one_of_another_name_change_nothing_and_are_set_aside() -> None:
    world = World(fleet(version=5))
    world.live(2)
    count = len(world.tables())
    world.tell(fleet([request_class("interactive", jurisdictions=("US",))], version=4))
    world.tell(msgspec.structs.replace(fleet([request_class("vip")], version=9), fleet="other"))
    world.carrier.run_until(world.now_s + 0.5)
    assert len(world.tables()) == count
    older, other = letters(world)
    assert b"is older than 5, which is in force" in older
    assert b"publish it under a prefix of its own" in other
    world.tell(fleet([request_class("interactive", jurisdictions=("US",))], version=6))
    world.carrier.run_until(world.now_s + 0.5)
    assert world.tables()[-1].fleet_version == 6


def test_the_highest_version_of_a_batch_holds_whatever_comes_after_it() -> None:
    router = Router()
    state = router.empty()
    several = [fleet(version=2), fleet(version=3), fleet(version=1)]
    batch = Batch(FLEET.name, 0, [Message(n, 0, b"", b"") for n in range(3)])
    said = Heard(batch, np.arange(3), several)
    assert [r.position for r in router.screen(state, said)] == [2]
    state = router.fold(state, said)
    assert state.plan is not None
    assert state.plan.fleet.version == 3


def test_evidence_just_after_a_tick_or_an_answer_does_not_wait() -> None:
    for after_s in (0.001, 0.005, 0.015):
        world = World()
        world.live(3)
        world.down |= dict.fromkeys(EU, world.now_s)
        world.carrier.run_until(world.now_s + after_s)
        world.said()
        world.carrier.run_until(world.now_s)
        assert world.tables()[-1].issued_at_s == world.now_s
        assert not used(world.tables()[-1]) & set(EU)


def test_what_follows_evidence_within_twenty_milliseconds_is_told_with_the_rest() -> None:
    world = World()
    world.live(3)
    count = len(world.tables())
    world.lose("eu-west-a")
    first_s = world.now_s
    for name in ("eu-west-b", "us-east-a"):
        world.carrier.run_until(world.now_s + 0.004)
        world.down[name] = world.now_s
        world.said()
    world.carrier.run_until(first_s + 0.1)
    at_s = [t.issued_at_s - first_s for t in world.tables()[count:] if "down" in t.reason]
    assert at_s == pytest.approx([0.0, 0.02])


def test_a_silent_source_evacuates_nobody_but_is_told() -> None:
    world = World()
    world.live(5)
    world.carrier.run_until(world.now_s + 30)
    last = world.tables()[-1]
    assert share_of(last, EU) == 1.0
    assert "6 endpoints silent, kept as they were" in last.reason


def taken_over(world: World, now_s: float) -> RoutingTable:
    """The first table of a router that starts at `now_s` with what is on the topics of `world`."""
    runner = Runner(steps(SETTINGS, SIGNER)[0])
    topics = (FLEET, TABLE_ORDERS, ENDPOINT_HEALTH, DEMAND, ROUTING_TABLE)
    said = {topic.name: world.carrier.said(topic) for topic in topics}
    runner.assign(0, {name: len(messages) for name, messages in said.items()})
    outs = [out for name, messages in said.items() for out in runner.hear(Batch(name, 0, messages), now_s)]
    first = next(out for out in outs if out.topic == ROUTING_TABLE.name)
    return msgspec.json.decode(first.value or b"", type=RoutingTable)


def test_a_router_that_takes_over_numbers_on_and_moves_nobody() -> None:
    world = World()
    world.live(4)
    world.lose(*EU)
    world.live(2)
    old = world.tables()[-1]
    for now_s in (world.now_s + 1, world.now_s - 900.0):
        first = taken_over(world, now_s)
        assert first.epoch == max(old.epoch + 1, int(now_s))
        assert first.version == 1
        assert first.reason.startswith("taken over; ")
        assert [r.shares for r in first.routes] == [r.shares for r in old.routes]
        assert [r.endpoints for r in first.routes] == [r.endpoints for r in old.routes]
        assert first.evidence_at_s is None, "that failure was answered by the router before"


def test_another_routers_higher_number_is_topped_but_an_unsigned_one_is_not_believed() -> None:
    world = World()
    world.live(2)
    last = world.tables()[-1]
    rogue = msgspec.structs.replace(last, epoch=last.epoch + 500, version=3)
    world.tell(rogue)
    world.live(6)
    assert world.tables()[-1].epoch == last.epoch
    assert len(world.carrier.said(DEAD_LETTERS)) == 1
    world.tell(rogue, SIGNER)
    world.live(6)
    assert world.tables()[-1].epoch == last.epoch + 501


def test_endpoints_nobody_knows_change_nothing() -> None:
    world = World()
    world.live(2)
    count = len(world.tables())
    world.tell(health(["moon-a"], world.now_s, {"moon-a": 1.0}, source="endpoint-metrics.v1/1"))
    world.tell(msgspec.structs.replace(demand(world.now_s, {("moon", "interactive"): 5}), source="x"))
    world.live(4)
    assert all(share_of(t, EU) == 1.0 for t in world.tables())
    assert len(world.tables()) <= count + 2


def test_equal_inputs_give_equal_bytes() -> None:
    def day() -> list[Message]:
        world = World()
        world.live(5, {("eu", "interactive"): 90})
        world.lose(*EU)
        world.live(3)
        world.down.clear()
        world.live(14)
        return [*world.carrier.said(ROUTING_TABLE), *world.carrier.said(DECISIONS)]

    assert day() == day()


def test_records_mean_the_same_however_they_are_cut_into_batches() -> None:
    def last(batch: int) -> RoutingTable:
        carrier = MemoryCarrier(steps(SETTINGS, SIGNER), now_s=START_S, batch=batch)
        records: list[Record] = [fleet()]
        records += [demand(START_S + n, {("eu", "interactive"): 100 + n}) for n in range(10)]
        records += [health([e.name for e in fleet().endpoints], START_S + n, {"eu-west-a": 1.0}) for n in range(10)]
        for record in records:
            assert isinstance(record, Fleet | Demand | EndpointHealth)
            topic = TOPIC_OF[type(record)]
            carrier.send(topic, topic.key_of(record), msgspec.json.encode(record))
        carrier.run_until(START_S + 3)
        value = carrier.said(ROUTING_TABLE)[-1].value
        return msgspec.json.decode(value or b"", type=RoutingTable)

    one, many = last(1), last(5000)
    assert one.routes == many.routes
    assert one.endpoints == many.endpoints


def test_services_that_share_capacity_are_solved_together_under_one_number() -> None:
    chat = fleet([request_class()]).services[0]
    both = (chat, msgspec.structs.replace(chat, name="image"))
    ends = [
        endpoint(f"{region}-{z}", region, services=("chat", "image")) for region in ("eu-west", "us-east") for z in "ab"
    ]
    world = World(msgspec.structs.replace(fleet([request_class()], ends, demand_rps=95.0), services=both))
    world.live(3)
    newest = world.tables()[-2:]
    assert {t.service for t in newest} == {"chat", "image"}
    assert len({(t.epoch, t.version) for t in newest}) == 1
    load = {e.name: sum(95.0 * share_of(t, [e.name], o) for t in newest for o in ("eu", "us")) for e in ends}
    assert max(load.values()) <= 100.0 + 0.1
    assert sum(load.values()) == pytest.approx(380.0)


def started(of: Fleet | None = None) -> tuple[Router, RouterState]:
    """A router that has said its first table, without a carrier."""
    router = Router()
    state = router.fold(router.empty(), heard(of or fleet()))
    return router, router.advance(state, START_S)


def heard(record: Record) -> Heard[Any]:
    batch = Batch(TOPIC_OF[type(record)].name, 0, [Message(0, int(START_S * 1000), b"", b"")])
    return Heard(batch, np.arange(1), [record])


def test_a_view_only_reads_and_speaks_once_a_moment() -> None:
    router, state = started()
    assert list(router.view(state, START_S)) == list(router.view(state, START_S)) != []
    assert list(router.view(state, START_S + 1)) == []
    assert list(router.view(router.advance(state, START_S), START_S)) == []


def test_a_question_that_failed_is_asked_again_after_the_next_view_not_before() -> None:
    router, state = started()
    assert router.question(state) is not None
    assert router.question(state) is None
    state = router.advance(state, START_S + 1)
    assert router.question(state) is not None


def test_half_a_move_whose_question_fails_is_gone_to_the_end_all_the_same() -> None:
    router, state = started()
    state.asked, state.ask, state.again_at_s = state.ask, None, START_S + 1
    for second in (2, 3):
        state = router.advance(state, START_S + second)
        question = router.question(state)
        assert question is not None, "asked because only half the way was gone, and again when that failed"
    state = router.answer(state, question.ask(*question.given))
    state = router.advance(state, START_S + 4)
    assert router.question(state) is None


def test_questions_keep_a_distance_and_noise_asks_none() -> None:
    router, state = started()
    question = router.question(state)
    assert question is not None
    state = router.advance(router.answer(state, question.ask(*question.given)), START_S + 0.1)
    names = [e.name for e in fleet().endpoints]
    state = router.fold(state, heard(health(names, START_S, dict.fromkeys(EU, START_S))))
    state = router.advance(state, START_S + 0.2)
    assert router.question(state) is None, "the greedy shares are in force meanwhile"
    state = router.advance(state, START_S + 0.6)
    question = router.question(state)
    assert question is not None
    state = router.answer(state, question.ask(*question.given))
    for second in range(1, 20):
        arrived = {(o, c): 20 + (-1) ** second for o in ("eu", "us") for c in ("interactive", "batch")}
        state = router.fold(state, heard(demand(START_S + second, arrived)))
        state = router.advance(state, START_S + second)
        assert router.question(state) is None


def test_an_answer_about_a_fleet_that_is_gone_is_forgotten() -> None:
    router, state = started()
    question = router.question(state)
    assert question is not None
    late = question.ask(*question.given)
    state = router.fold(state, heard(fleet(endpoints=[endpoint("only")], version=2)))
    state = router.answer(router.advance(state, START_S + 1), late)
    state = router.advance(state, START_S + 2)
    assert state.last["chat"].routes[0].endpoints == ("only",)


def test_an_answer_from_before_an_outage_brings_nobody_back() -> None:
    router, state = started()
    question = router.question(state)
    assert question is not None
    late = question.ask(*question.given)
    names = [e.name for e in fleet().endpoints]
    state = router.fold(state, heard(health(names, START_S + 1, dict.fromkeys(EU, START_S))))
    assert router.urgent(state)
    state = router.answer(router.advance(state, START_S + 1), late)
    state = router.advance(state, START_S + 1.02)
    assert not used(state.last["chat"]) & set(EU)
