"""Old tables, decisions, explanations and their files, without Kafka: what is found, what is gone, what is said."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import polars
import pytest
from typer.testing import CliRunner

from router_sync.sign import Trust
from streams.contract.errors import BadSetting, Missing
from streams.contract.records import Candidate, Considered, Decision, Order, Route
from streams.contract.topics import DECISIONS, FLEET, ROUTING_TABLE, TABLE_ORDERS, Topic
from streams.runtime.batch import Message
from streams.runtime.memory import latest
from streams.settings import load
from tests.replay.test_router_in_memory import EU, TRUST, World
from tests.unit.log_consumer import LogConsumer, answers
from tests.unit.router_fleet import endpoint, fleet
from tradewind.cli import app
from tradewind.hands import decision_files, explain, explain_text, old_tables, table_diff, verify
from tradewind.hands.decisions import all_of, backwards, number_of, past

SETTINGS = load(topic_prefix="mine")
TOPICS = (FLEET, ROUTING_TABLE, DECISIONS, TABLE_ORDERS)


@pytest.fixture(scope="module")
def world() -> World:
    """EU goes down and comes back by and by: many decisions."""
    world = World()
    world.live(4)
    world.lose(*EU)
    world.live(3)
    world.down.clear()
    world.live(14)
    return world


def consumer(world: World, **kept: Callable[[list[Message]], list[Message]]) -> LogConsumer:
    """Of the world's topics; `kept` changes what is left of one, by its name up to the dot."""
    logs: dict[Topic, list[Message]] = {}
    for topic in TOPICS:
        keep = kept.get(topic.name.partition(".")[0].replace("-", "_"), list)
        logs[topic] = keep(world.carrier.said(topic))
    return LogConsumer(SETTINGS, logs)


def compacted(messages: list[Message]) -> list[Message]:
    return list(latest(messages).values())


def nothing(messages: list[Message]) -> list[Message]:
    return []


async def at(world: World, number: tuple[int, int], trust: Trust | None = TRUST, **kept: Any) -> old_tables.Old:
    return await old_tables.at(consumer(world, **kept), SETTINGS, trust, "chat", number)


def routes(table: Any) -> dict[tuple[str, str], dict[str, float]]:
    return {(r.origin, r.class_): dict(zip(r.endpoints, r.shares, strict=True)) for r in table.routes}


async def test_an_old_table_is_found_as_it_was_while_the_topic_keeps_it(world: World) -> None:
    for table in world.tables():
        old = await at(world, (table.epoch, table.version))
        assert routes(old.table) == routes(table)
        assert old.number <= (table.epoch, table.version)


async def test_when_it_was_compacted_away_its_decision_says_its_shares(world: World) -> None:
    for decision in world.decisions():
        number = decision.epoch, decision.version
        old = await at(world, number, routing_table=compacted)
        was = next(t for t in world.tables() if (t.epoch, t.version) == number)
        for key, shares in routes(old.table).items():
            assert shares == pytest.approx(routes(was)[key], abs=1e-3)
            assert sum(shares.values()) == pytest.approx(1.0)
        assert old.missing == ()


async def test_a_decision_that_no_signed_table_vouches_for_brings_nothing_back(world: World) -> None:
    def forged(messages: list[Message]) -> list[Message]:
        value = (messages[1].value or b"").replace(b'"share":', b'"share":0.', 1)
        return [messages[0], messages[1]._replace(value=value), *messages[2:]]

    second = world.decisions()[1]
    with pytest.raises(Missing, match=r"is gone.*no decision that a signed table vouches for goes back so far") as gone:
        await at(world, (second.epoch, second.version), routing_table=compacted, decisions=forged)
    third = world.decisions()[2]
    assert f"The oldest that can still be found is {third.epoch}.{third.version}" in str(gone.value)


async def test_without_decisions_the_tables_that_are_left_are_all_there_is(world: World) -> None:
    last = world.tables()[-1]
    assert routes((await at(world, (last.epoch, last.version), decisions=nothing)).table) == routes(last)
    with pytest.raises(Missing, match="is gone"):
        await at(world, (last.epoch, 1), decisions=nothing, routing_table=compacted)
    with pytest.raises(BadSetting, match=f"The table in force is {last.epoch}.{last.version}"):
        await at(world, (last.epoch + 1, 1))


async def test_steps_count_changes_of_shares_and_no_heartbeats(world: World) -> None:
    changes = [world.tables()[0]]
    for table in world.tables():
        if not old_tables.same(changes[-1], table):
            changes.append(table)
    assert len(changes) > 5
    for steps in range(len(changes)):
        old = await old_tables.back(consumer(world), SETTINGS, TRUST, "chat", steps)
        assert old_tables.same(old.table, changes[-1 - steps])
    with pytest.raises(Missing, match=f"{len(changes)} changes ago is gone"):
        await old_tables.back(consumer(world), SETTINGS, TRUST, "chat", len(changes))


async def test_a_service_without_a_table_is_named_and_a_mistyped_one_is_meant(world: World) -> None:
    with pytest.raises(Missing, match="There is no table of chat to follow"):
        await old_tables.in_force(consumer(world, routing_table=nothing), SETTINGS, TRUST, "chat")
    with pytest.raises(BadSetting, match="Did you mean chat"):
        await old_tables.in_force(consumer(world), SETTINGS, TRUST, "chatt")


def test_what_left_the_fleet_is_left_out_and_the_rest_adds_up() -> None:
    world = World()
    table = msgspec.structs.replace(
        world.tables()[0],
        routes=(
            Route(
                origin="eu", class_="interactive", slo_p95_ms=400, endpoints=("gone", "eu-west-a"), shares=(0.75, 0.25)
            ),
            Route(origin="mars", class_="interactive", slo_p95_ms=400, endpoints=("eu-west-a",), shares=(1.0,)),
        ),
    )
    old = old_tables.Old(number=(1, 1), table=table, missing=("batch@us",))
    kept, left_out = old_tables.fitted(old, "chat", fleet(endpoints=[endpoint("eu-west-a")]))
    assert [(r.endpoints, r.shares) for r in kept] == [(("eu-west-a",), (1.0,))]
    assert left_out == [
        "batch@us: not all of its shares are known",
        "interactive@eu: gone is not in the fleet any more",
        "interactive@mars: eu-west-a is not in the fleet any more",
    ]


def test_of_a_decision_that_does_not_name_a_route_whole_the_route_is_left_out() -> None:
    def route(origin: str, share: float) -> Considered:
        used = Candidate(endpoint="eu-west-a", price_usd=1e-6, latency_usd=0.0, share=share)
        return Considered(origin=origin, class_="interactive", demand_rps=1.0, candidates=(used,))

    decision = Decision(
        service="chat", epoch=1, version=2, made_at_s=3.0, reason="", method="lp",
        considered=(route("eu", 1.0), route("us", 0.6)),
    )  # fmt: skip
    old = old_tables.of_decision(decision, World().tables()[0])
    assert [r.origin for r in old.table.routes] == ["eu"]
    assert old.missing == ("interactive@us",)


# ---------------------------------------------------------------- decisions


async def test_decisions_are_read_from_either_end(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tradewind.hands.decisions.CHUNK", 3)
    forward = [one.place async for one in all_of(consumer(world), SETTINGS)]
    assert [one.place async for one in backwards(consumer(world), SETTINGS)] == forward[::-1]
    assert len(forward) == len(world.decisions())
    late_s = world.decisions()[-2].made_at_s
    assert [one.place async for one in all_of(consumer(world), SETTINGS, late_s)] == forward[-2:]


async def test_vouched_for_is_what_lies_on_the_way_from_the_table(world: World) -> None:
    found = [one async for one in past(consumer(world), SETTINGS, "chat", world.tables()[-1].decision)]
    assert [one.vouched for one in found] == [True] * len(world.decisions())
    middle = world.decisions()[3]
    partly = [one.vouched async for one in past(consumer(world), SETTINGS, "chat", middle.digest)]
    assert partly == [False] * (len(found) - 4) + [True] * 4
    assert [one async for one in past(consumer(world), SETTINGS, "image", "")] == []


@pytest.mark.parametrize("text", ["", "7", "7.", ".7", "a.b", "7.1.2", "-1.2", "1" * 60 + ".1"])
def test_a_number_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(BadSetting, match=r"Write EPOCH\.VERSION"):
        number_of("--to", text)


async def test_exported_lines_verify_as_the_topic_does(world: World, tmp_path: Path) -> None:
    file = tmp_path / "decisions.jsonl"
    out = io.BytesIO()
    assert await decision_files.write_lines(all_of(consumer(world), SETTINGS), out) == len(world.decisions())
    file.write_bytes(out.getvalue())
    [state] = verify.of_file(file, None).services
    assert (state.ok, state.decisions, state.vouched) == (True, len(world.decisions()), None)
    lines = file.read_bytes().splitlines()
    file.write_bytes(b"\n".join([*lines[:2], lines[2].replace(b"eu-west", b"eu-east"), b"nonsense", *lines[3:]]))
    found = verify.of_file(file, "chat")
    assert [f.place for f in found.services[0].breaks] == ["line 3"]
    text = "\n".join(verify.lines(found))
    assert "chat  BROKEN" in text
    assert "BROKEN at line 3, decision 1000." in text
    assert not verify.of_file(file, None).ok


async def test_parquet_has_a_row_for_each_endpoint_and_route_with_the_sum_of_its_parts(
    world: World, tmp_path: Path
) -> None:
    file = tmp_path / "decisions.parquet"
    assert await decision_files.write_parquet(all_of(consumer(world), SETTINGS), file) == len(world.decisions())
    frame = polars.read_parquet(file)
    pairs = sum(len(c.candidates) + len(c.excluded) for d in world.decisions() for c in d.considered)
    assert frame.height == pairs
    used = frame.filter(polars.col("allowed"))
    summed = used.select(polars.sum_horizontal(polars.col("^(price|egress|carbon|latency|risk|rule)_usd$"))).to_series()
    assert (summed - used["total_usd"]).abs().max() < 1e-12  # type: ignore[operator]
    assert set(frame.filter(~polars.col("allowed"))["kind"]) == {"health"}


async def test_parquet_of_no_decisions_is_a_file_all_the_same(world: World, tmp_path: Path) -> None:
    file = tmp_path / "none.parquet"
    assert await decision_files.write_parquet(all_of(consumer(world, decisions=nothing), SETTINGS), file) == 0
    assert polars.read_parquet(file).height == 0


def said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, told: LogConsumer, *words: str) -> Any:
    answers(monkeypatch, told)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TRADEWIND_TOPIC_PREFIX", SETTINGS.topic_prefix)
    monkeypatch.setenv("TRADEWIND_STATE_DIR", str(tmp_path))
    return CliRunner().invoke(app, list(words))


def test_decisions_are_shown_exported_and_verified_by_command(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def types(*words: str) -> Any:
        return said(monkeypatch, tmp_path, consumer(world), "decisions", *words)

    shown = json.loads(types("show", "chat", "--limit", "2", "--json").stdout)["decisions"]
    assert [d["version"] for d in shown] == [d.version for d in world.decisions()[-2:]]
    assert len(types("show", "--limit", "3").stdout.splitlines()) == 4
    assert types("show", "image").stdout == "no decisions\n"
    assert json.loads(types("export", "d.jsonl", "--json").stdout) == {
        "file": "d.jsonl", "format": "jsonl", "decisions": len(world.decisions()),
    }  # fmt: skip
    assert isinstance(types("export", "d.jsonl").exception, BadSetting)
    assert isinstance(types("export", "d.csv").exception, BadSetting)
    assert "there is no folder none" in str(types("export", "none/d.jsonl").exception)
    assert types("export", "d.parquet", "--service", "chat").exit_code == 0
    assert len(types("export", "-").stdout.splitlines()) >= len(world.decisions())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["d.jsonl", "d.parquet"]
    whole = types("verify", "--json")
    assert (whole.exit_code, json.loads(whole.stdout)["services"][0]["vouched"]) == (0, len(world.decisions()))
    assert "whole: " in types("verify", "--file", "d.jsonl").stdout


def test_a_broken_chain_is_exit_status_1(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = consumer(world, decisions=lambda messages: [*messages[:3], *messages[4:]])
    answer = said(monkeypatch, tmp_path, told, "decisions", "verify")
    assert answer.exit_code == 1
    assert "BROKEN at 0/4" in answer.stdout
    assert "signatures of tables were not checked" in answer.stdout


# ---------------------------------------------------------------- explain


def which(**more: Any) -> explain.Which:
    return explain.Which(service="chat", **more)


async def explained(world: World, monkeypatch: pytest.MonkeyPatch, **more: Any) -> explain.Explained:
    answers(monkeypatch, consumer(world))
    return await explain.explain(SETTINGS, TRUST, which(**more))


async def test_the_table_in_force_is_explained_by_the_decision_it_names(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = await explained(world, monkeypatch)
    last, decision = world.tables()[-1], world.decisions()[-1]
    assert (found.number, found.decided) == (f"1000.{last.version}", f"1000.{decision.version}")
    assert found.vouched
    assert found.inputs == decision.inputs
    assert {(r.origin, r.class_) for r in found.routes} == set(routes(last))
    for route in found.routes:
        shares = {e.endpoint: e.share for e in route.endpoints if e.share}
        assert shares == pytest.approx(routes(last)[route.origin, route.class_], abs=1e-3)


async def test_an_old_table_is_explained_by_the_decision_that_held_then(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = next(d for d in world.decisions() if "region eu-west down" in d.reason)
    found = await explained(world, monkeypatch, number=(gone.epoch, gone.version), origin="eu", class_="interactive")
    [route] = found.routes
    assert {e.endpoint: e.state for e in route.endpoints if e.endpoint in EU} == dict.fromkeys(EU, "health")
    assert found.said_at_s is None
    text = "\n".join(explain_text.lines(found, world.now_s))
    assert "needs it to answer" in text
    one = await explained(world, monkeypatch, number=(gone.epoch, gone.version), endpoint="eu-west-a")
    assert all("eu-west-a" in {e.endpoint for e in route.endpoints} for route in one.routes)


async def test_what_was_not_made_yet_or_is_not_there_is_refused_by_name(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    for more, says in (
        ({"number": (9999, 1)}, "--version"),
        ({"origin": "mars"}, "--origin"),
        ({"class_": "interactiv"}, "Did you mean interactive"),
        ({"endpoint": "eu-west"}, "--endpoint"),
    ):
        with pytest.raises(BadSetting, match=says):
            await explained(world, monkeypatch, **more)
    with pytest.raises(Missing, match=r"The decision behind table 999\.1 of chat is not on the topic"):
        await explained(world, monkeypatch, number=(999, 1))


def test_explain_prints_a_page_and_one_json_object(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = said(monkeypatch, tmp_path, consumer(world), "explain", "chat", "--origin", "eu")
    assert page.exit_code == 0
    assert "no signed table vouches" not in page.stdout
    assert "signature not checked" in page.stdout
    told = json.loads(said(monkeypatch, tmp_path, consumer(world), "explain", "chat", "--json").stdout)
    states = {e["state"] for route in told["routes"] for e in route["endpoints"]}
    assert states <= {"all", "balanced", "full", "cheaper", "law", "order", "health", "capacity", "unnamed"}
    assert said(monkeypatch, tmp_path, consumer(world), "explain").exit_code == 2


def test_two_tables_that_differ_in_nothing_say_so() -> None:
    table = World().tables()[0]
    assert list(table_diff.lines(table_diff.diff(table, table)))[-1] == "  nothing else than the number and the time"


async def test_a_drained_endpoint_needs_to_be_undrained(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    world.live(3)
    world.tell(Order(endpoint="eu-west-a", drain=True, by="ann", at_s=world.now_s))
    world.live(2)
    found = await explained(world, monkeypatch, origin="eu", class_="interactive")
    assert "needs `tradewind undrain eu-west-a`" in "\n".join(explain_text.lines(found, world.now_s))
