"""Decisions are a chain that signed tables vouch for: whoever alters, drops or puts one in is found out."""

from __future__ import annotations

import hashlib

import msgspec
import pytest

from router_sync.audit import Audit, ChainState
from router_sync.chain import fits
from streams.contract.records import Decision
from streams.contract.topics import DECISIONS
from streams.runtime.batch import Message
from tests.replay.test_router_in_memory import EU, World, taken_over


def lived() -> World:
    """A world with some decisions behind it."""
    world = World()
    world.live(3)
    world.lose(*EU)
    world.live(3)
    world.down.clear()
    world.live(6)
    return world


def read(messages: list[Message], anchor: str | None) -> ChainState:
    audit = Audit()
    for message in messages:
        audit.take(f"0/{message.offset}", message.key or b"", message.value or b"")
    [state] = audit.judged({"chat": anchor} if anchor is not None else {})
    return state


def altered(message: Message, **more: object) -> Message:
    decision = msgspec.structs.replace(msgspec.json.decode(message.value or b"", type=Decision), **more)
    return message._replace(value=msgspec.json.encode(decision))


def forged(after: Message, **more: object) -> Message:
    """A decision that somebody else made up behind `after`, its digest right."""
    was = msgspec.json.decode(after.value or b"", type=Decision)
    open_ = msgspec.structs.replace(was, previous=was.digest, digest="", reason="made up", **more)
    digest = hashlib.sha256(msgspec.json.encode(open_)).hexdigest()
    return after._replace(value=msgspec.json.encode(msgspec.structs.replace(open_, digest=digest)), offset=99)


@pytest.fixture(scope="module")
def world() -> World:
    return lived()


def test_every_decision_holds_the_digest_of_the_one_before_and_every_table_that_of_its_own(world: World) -> None:
    decisions = world.decisions()
    assert len(decisions) >= 4
    assert [d.previous for d in decisions] == ["", *(d.digest for d in decisions[:-1])]
    by_number = {(d.epoch, d.version): d.digest for d in decisions}
    last = ""
    for table in world.tables():
        last = by_number.get((table.epoch, table.version), last)
        assert table.decision == last
    for message in world.carrier.said(DECISIONS):
        digest = msgspec.json.decode(message.value or b"", type=Decision).digest
        assert fits(message.value or b"", digest)
        assert not fits(message.value or b"", "")


def test_a_whole_chain_is_vouched_for_from_its_first_decision_to_its_last(world: World) -> None:
    state = read(world.carrier.said(DECISIONS), world.tables()[-1].decision)
    assert (state.ok, state.begins, state.vouched, state.noted) == (True, True, state.decisions, ())
    assert (state.first, state.last) == ("1000.1", f"1000.{world.decisions()[-1].version}")


def test_what_retention_let_go_is_told_and_breaks_nothing(world: World) -> None:
    state = read(world.carrier.said(DECISIONS)[2:], world.tables()[-1].decision)
    assert (state.ok, state.begins, state.vouched) == (True, False, state.decisions)


def test_an_altered_decision_is_named(world: World) -> None:
    said = list(world.carrier.said(DECISIONS))
    said[1] = altered(said[1], reason="nothing happened")
    state = read(said, world.tables()[-1].decision)
    assert [(f.place, f.says) for f in state.breaks] == [("0/1", "was altered: its digest does not fit its bytes")]


def test_an_altered_decision_with_a_digest_of_its_own_breaks_the_one_behind_it(world: World) -> None:
    said = list(world.carrier.said(DECISIONS))
    was = msgspec.json.decode(said[1].value or b"", type=Decision)
    new = msgspec.structs.replace(was, reason="nothing happened", digest="")
    digest = hashlib.sha256(msgspec.json.encode(new)).hexdigest()
    said[1] = said[1]._replace(value=msgspec.json.encode(msgspec.structs.replace(new, digest=digest)))
    state = read(said, world.tables()[-1].decision)
    assert state.breaks[0].place == "0/2"
    assert state.breaks[0].says.startswith("the one before it is missing")
    assert [f.place for f in state.noted] == ["0/0", "0/1"], "what comes before the gap nobody vouches for"


def test_a_dropped_decision_is_missed(world: World) -> None:
    said = world.carrier.said(DECISIONS)
    state = read([*said[:2], *said[3:]], world.tables()[-1].decision)
    assert [f.place for f in state.breaks] == [f"0/{said[3].offset}"]
    cut = read(said[:-1], world.tables()[-1].decision)
    assert "the table in force names a decision that is not here" in cut.breaks[0].says


def test_a_made_up_decision_is_vouched_for_by_no_table(world: World) -> None:
    said = list(world.carrier.said(DECISIONS))
    same = read([*said[:2], forged(said[0]), *said[2:]], world.tables()[-1].decision)
    assert "comes behind the same decision as" in same.breaks[0].says
    another = read([*said[:2], forged(said[0], epoch=2000), *said[2:]], world.tables()[-1].decision)
    assert another.ok
    assert (another.noted[0].place, another.noted[0].number) == ("0/99", "2000.1")
    assert "no signed table vouches for it" in {f.says for f in another.noted}
    assert another.vouched == another.decisions - 1


def test_decisions_made_since_the_table_was_read_are_no_finding(world: World) -> None:
    decisions = world.decisions()
    state = read(world.carrier.said(DECISIONS), decisions[-3].digest)
    assert (state.ok, state.noted, state.vouched) == (True, (), len(decisions) - 2)


def test_without_a_table_the_chain_is_checked_and_nobody_vouches_for_it(world: World) -> None:
    state = read(world.carrier.said(DECISIONS), None)
    assert (state.ok, state.vouched) == (True, None)


def test_decisions_from_before_there_was_a_chain_are_told_apart_and_none_may_follow_it(world: World) -> None:
    said = world.carrier.said(DECISIONS)
    old = altered(said[0], digest="", previous="")
    state = read([old, old, *said], world.tables()[-1].decision)
    assert (state.ok, state.noted[0].says) == (True, "2 decisions are of a time before there was a chain")
    state = read([*said, old], None)
    assert [f.says for f in state.breaks] == ["has no digest, and those before it have"]


def test_what_cannot_be_read_or_stands_under_another_key_is_a_break(world: World) -> None:
    [first] = world.carrier.said(DECISIONS)[:1]
    audit = Audit()
    audit.take("0/0", b"image", first.value or b"")
    audit.take("0/1", b"chat", b"{")
    [state] = audit.judged({})
    assert [f.says.split(":")[0] for f in state.breaks] == ["stands under the key image", "cannot be read"]


def test_a_router_that_takes_over_goes_on_where_the_last_one_stopped() -> None:
    world = lived()
    last = world.tables()[-1]
    first = taken_over(world, world.now_s + 1)
    assert first.decision not in ("", last.decision)
    decision = world.decisions()[-1]
    assert decision.digest == last.decision


def test_a_loop_that_somebody_made_up_ends_the_audit_all_the_same(world: World) -> None:
    said = list(world.carrier.said(DECISIONS))[:1]
    loop = altered(said[0], digest="a" * 64, previous="a" * 64)
    state = read([loop], "a" * 64)
    assert [f.says for f in state.breaks] == ["was altered: its digest does not fit its bytes"]
