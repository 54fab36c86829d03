"""An operator's hands without Kafka: what is judged, chosen and said, and what a command says when Kafka is away."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
from aiokafka.errors import GroupAuthorizationFailedError, TopicAuthorizationFailedError
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from typer.testing import CliRunner, Result

from router_sync.sign import Signer, Trust
from streams.contract import topics
from streams.contract.errors import BadSetting, Denied, Missing, TradewindError
from streams.contract.records import GatewayStatus, Order, RoutingTable
from streams.settings import load
from tests.replay.test_router_in_memory import World
from tests.unit.router_fleet import endpoint, fleet, request_class
from tradewind.cli import app
from tradewind.cli.drain import endpoint_names
from tradewind.hands import facts, kafka, letters, listeners, machine, state, status_text, table_text, tables
from tradewind.hands.orders import stranded
from tradewind.hands.replay import _fate, _send
from tradewind.hands.replay import _refused as refused_replay
from tradewind.hands.status import _gateway
from tradewind.hands.text import duration_s
from tradewind.ports import free_port

EXAMPLE = Path(__file__).parents[2] / "examples" / "tradewind.yaml"
OURS, THEIRS = (Signer(Ed25519PrivateKey.from_private_bytes(bytes([n]) * 32)) for n in (1, 2))
TRUST = Trust({OURS.kid: OURS.public})


class Got(NamedTuple):
    """A record as a consumer hands it out."""

    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes]] = []  # noqa: RUF012
    timestamp: int = 1_000_000
    partition: int = 0
    offset: int = 0


def said(*words: str) -> Result:
    return CliRunner().invoke(app, list(words))


def refused(*words: str) -> TradewindError:
    error = said(*words).exception
    assert isinstance(error, TradewindError), error
    return error


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever lies or runs where the tests are started is not looked at."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TRADEWIND_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.delenv("TRADEWIND_BOOTSTRAP_SERVERS", raising=False)


@pytest.fixture
def nobody() -> str:
    """An address where no Kafka is."""
    return f"127.0.0.1:{free_port()}"


# ---------------------------------------------------------------- tables


def a_table(**more: Any) -> RoutingTable:
    world = World()
    return msgspec.structs.replace(world.tables()[-1], **more)


def record(table: RoutingTable, signer: Signer = OURS) -> Got:
    key, value = table.service.encode(), msgspec.json.encode(table)
    return Got(key, value, list(signer.seal(key, value)))


def test_of_the_tables_on_the_topic_the_highest_that_a_trusted_key_signed_is_followed() -> None:
    mine, newer, forged = a_table(version=3), a_table(version=5), a_table(version=9)
    found = tables.newest([record(newer), record(mine), record(forged, THEIRS)], TRUST)
    assert (found.held["chat"].table.version, found.held["chat"].signature, found.held["chat"].kid) == (
        5, "good", OURS.kid,
    )  # fmt: skip
    assert "is not trusted" in found.refused["chat"]


def test_without_a_trusted_key_it_is_said_that_signatures_are_not_checked() -> None:
    held = tables.newest([record(a_table(version=9), THEIRS)], None).held["chat"]
    assert (held.signature, held.kid) == ("not checked", None)
    assert "signature not checked" in "\n".join(table_text.lines(held, 1001.0))


def test_a_table_under_another_service_s_key_and_one_that_cannot_be_read_are_not_followed() -> None:
    strange = Got(b"other", msgspec.json.encode(a_table()))
    found = tables.newest([strange, Got(b"chat", b"{"), Got(b"gone", None)], None)
    assert found.held == {}
    assert found.refused.keys() == {"other", "chat"}


def test_a_table_is_shown_with_what_stands_behind_each_share() -> None:
    held = tables.newest([record(a_table())], TRUST).held["chat"]
    lines = list(table_text.lines(held, 1002.0, "eu", "interactive"))
    assert "expires in 58 s" in lines[1]
    assert sum("interactive from eu" in line for line in lines) == 1
    assert not any("batch" in line or "from us" in line for line in lines)
    told = table_text.as_json(held, 1070.0, "eu", "interactive")
    assert told["expired"] is True
    [route] = told["routes"]
    assert sum(share["share"] for share in route["shares"]) == pytest.approx(1.0)
    assert {"endpoint", "share", "region", "state", "cost_usd_per_request", "latency_p95_ms"} == set(route["shares"][0])


def test_what_a_drained_endpoint_had_and_who_took_it_is_told_per_route() -> None:
    world = World()
    world.live(4)
    before = world.tables()[-1]
    world.tell(Order(endpoint="eu-west-a", drain=True, by="ann", at_s=world.now_s))
    world.carrier.run_until(world.now_s + 0.02)
    moved = tables.gained(before, world.tables()[-1], "eu-west-a")
    assert {(route["origin"], route["class"]) for route in moved} >= {("eu", "interactive")}
    for route in moved:
        assert route["has"] == 0.0
        assert sum(route["others"].values()) == pytest.approx(route["had"], abs=1e-3)


# ---------------------------------------------------------------- orders


def test_draining_the_only_one_that_serves_a_class_is_noticed() -> None:
    kinds = (request_class("eu-only", jurisdictions=("IE",)), request_class("free"))
    two = fleet(kinds, (endpoint("eu-west-a"), endpoint("us-east-a", "us-east")))
    assert stranded(two, "eu-west-a", ()) == ["chat/eu-only"]
    assert stranded(two, "eu-west-a", {"us-east-a"}) == ["chat/eu-only", "chat/free"]
    assert stranded(two, "us-east-a", ()) == []


def test_a_mistyped_endpoint_is_answered_with_the_one_that_was_meant() -> None:
    with pytest.raises(BadSetting, match="Did you mean eu-west-a"):
        facts.endpoint_of(fleet(), "eu-wst-a")
    with pytest.raises(BadSetting, match="There are ap-south-a"):
        facts.endpoint_of(fleet(), "xyz")


def test_the_last_readable_word_by_key_holds_and_a_tombstone_removes() -> None:
    order = msgspec.json.encode(Order(endpoint="a", drain=True, at_s=1))
    words = facts.last_words([Got(b"a", order), Got(b"b", order), Got(b"b", None), Got(b"a", b"nonsense")], Order)
    assert words.keys() == {"a"}


@pytest.mark.parametrize("text", ["", "5", "m", "1h 5m", "-3s", "0s", "1w"])
def test_a_length_of_time_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(BadSetting, match="--for"):
        duration_s("--for", text)


def test_a_length_of_time_beyond_all_clocks_is_told_the_most_there_may_be() -> None:
    assert duration_s("--for", "11574d") == 11574 * 86400
    with pytest.raises(BadSetting, match="longer than nothing, and at most 11574 days"):
        duration_s("--for", "11575d")


def test_endpoints_of_the_file_here_are_completed(tmp_path: Path) -> None:
    assert endpoint_names("eu") == []
    (tmp_path / "tradewind.yaml").write_bytes(EXAMPLE.read_bytes())
    names = endpoint_names("")
    assert names
    assert endpoint_names(names[0][:-1])[0].startswith(names[0][:-1])


# ---------------------------------------------------------------- dead letters


def dead(value: bytes = b'{"a":1}', headers: dict[str, str] | None = None) -> letters.Letter:
    place = {
        topics.DEAD_TOPIC: "orders.v1", topics.DEAD_PARTITION: "0", topics.DEAD_OFFSET: "7",
        topics.DEAD_FIELD: "endpoint", topics.DEAD_REASON: "is not there", "content-type": "application/json",
    }  # fmt: skip
    return letters.letter(Got(b"k", value, [(k, v.encode()) for k, v in (place | (headers or {})).items()], offset=4))


def test_a_dead_letter_knows_where_it_stood_and_keeps_what_was_said_of_its_value() -> None:
    one = dead()
    assert (one.place, one.topic, one.partition, one.offset, one.field) == ("0/4", "orders.v1", 0, 7, "endpoint")
    assert one.headers == [("content-type", b"application/json")]
    assert not one.truncated
    assert letters.as_json(one, value=True)["value"] == '{"a":1}'


def test_a_record_that_no_runner_wrote_is_shown_all_the_same() -> None:
    one = letters.letter(Got(None, None, [(topics.DEAD_OFFSET, b"x")]))
    assert (one.topic, one.offset, letters.pretty(one)) == ("", -1, "")


@pytest.mark.parametrize(
    ("value", "shown"),
    [(b'{"a":1}', '{\n  "a": 1\n}'), (b"plain", "plain"), (b"\xff\x00", "b'\\xff\\x00'"), (b"a\x1b[2J", "'a\\x1b[2J'")],
)
def test_a_value_is_shown_as_one_reads_it_and_never_upsets_a_terminal(value: bytes, shown: str) -> None:
    assert letters.pretty(dead(value)) == shown


def test_a_value_in_msgpack_is_shown_as_json() -> None:
    packed = dead(msgspec.msgpack.encode({"a": 1}), {"content-type": "application/msgpack"})
    assert letters.pretty(packed) == '{\n  "a": 1\n}'


@pytest.mark.parametrize("text", ["", "0", "0/", "0/x", "0/5-3", "a/1", "0/1-", "0/1-2-3"])
def test_a_selection_that_names_nothing_is_refused(text: str) -> None:
    with pytest.raises(BadSetting, match="PARTITION/OFFSET"):
        letters.selected(text)


def test_cut_letters_and_those_that_were_replayed_and_refused_again_are_not_sent() -> None:
    known, metrics = ["endpoint-metrics.v1"], {topics.DEAD_TOPIC: "endpoint-metrics.v1"}
    assert refused_replay(dead(headers=metrics), known, again=False) is None
    cut = refused_replay(dead(headers=metrics | {topics.DEAD_LENGTH: "5000000"}), known, again=True)
    assert cut is not None
    assert cut.fate == "truncated"
    second = dead(headers=metrics | {topics.REPLAYED_FROM: "0/1"})
    assert (fate := refused_replay(second, known, again=False)) is not None
    assert fate.fate == "refused again"
    assert refused_replay(second, known, again=True) is None
    strange = refused_replay(dead(headers={topics.DEAD_TOPIC: "my.topic"}), known, again=True)
    assert strange is not None
    assert strange.fate == "unknown topic"


@pytest.mark.parametrize(
    ("topic", "says"),
    [
        (topics.ORDERS, "give the order anew"),
        (topics.FLEET, "publish it anew"),
        (topics.ROUTING_TABLE, "routing-table.v1 is not sent again"),
        (topics.ENDPOINT_HEALTH, "endpoint-health.v1 is not sent again"),
    ],
)
def test_what_would_go_over_newer_words_is_never_sent_again(topic: topics.Topic, says: str) -> None:
    one = refused_replay(dead(headers={topics.DEAD_TOPIC: topic.name}), [t.name for t in topics.TOPICS], again=True)
    assert one is not None
    assert (one.fate, says in one.says) == ("not raw input", True)


async def test_a_letter_is_sent_to_the_partition_that_the_dry_run_names() -> None:
    class Producer:
        async def send_and_wait(self, topic: str, _: Any, *, partition: int, **__: Any) -> None:
            sent.append(f"{topic}/{partition}")

    sent: list[str] = []
    settings, widths = load(topic_prefix="mine"), {"arrivals.v1": 4}
    said = {topics.DEAD_TOPIC: "arrivals.v1", topics.DEAD_PARTITION: "99"}
    for key in (b"k", b""):
        one = msgspec.structs.replace(dead(headers=said), key=key)
        await _send(Producer(), settings, one, widths)
        assert sent.pop() == _fate(one, settings, widths, "would be sent").to


async def test_a_right_that_lacks_is_named_with_the_line_that_grants_it() -> None:
    settings = load(bootstrap_servers="kafka:9092")
    for error, right in (
        (TopicAuthorizationFailedError("t.orders.v1"), "WRITE the topic t.orders.v1"),
        (TopicAuthorizationFailedError({"b", "a"}), "WRITE the topic a, nor WRITE the topic b"),
        (GroupAuthorizationFailedError("g"), "WRITE the group g"),
    ):
        with pytest.raises(Denied, match=f"may not {right}. Grant it: kafka-acls.sh"):
            async with kafka.answering(settings, operation="WRITE"):
                raise error


def test_a_topic_may_be_named_with_its_prefix_and_an_unknown_one_is_refused() -> None:
    settings = load(topic_prefix="mine")
    assert letters.contract_name("mine.orders.v1", settings) == letters.contract_name("orders.v1", settings)
    with pytest.raises(BadSetting, match=r"endpoint-metrics\.v1"):
        letters.contract_name("metrics", settings)


# ---------------------------------------------------------------- status


def status(**more: Any) -> state.Status:
    told: dict[str, Any] = {
        "at_s": 1000.0, "tradewind": "1", "kafka": "x", "topic_prefix": "t", "fleet_version": 1, "services": ("chat",),
        "tables": (table_state(),),
        "groups": tuple(state.GroupState(room=r, group=r, state="Stable", members=1) for r in ("streams", "router")),
        "endpoints": (state.EndpointHealthState(endpoint="a", verdict="up", rps=1.0, p95_ms=9.0, reason=""),),
    }  # fmt: skip
    return state.judged(state.Status(**(told | more)), beat_s=5.0)


def table_state(**more: Any) -> state.TableState:
    told: dict[str, Any] = {"service": "chat", "epoch": 1, "version": 2, "fleet_version": 1, "issued_at_s": 998.0,
                            "expires_at_s": 1300.0, "age_s": 2.0, "signature": "good", "reason": ""}  # fmt: skip
    return state.TableState(**(told | more))


def gateway_state(**more: Any) -> state.GatewayState:
    told: dict[str, Any] = {
        "gateway": "gw", "service": "chat", "epoch": 1, "version": 2, "heard_s": 2.0, "table_age_s": 2.0,
        "expired": False, "refused": {}, "dropped": {}, "behind": False,
    }  # fmt: skip
    return state.GatewayState(**(told | more))


def test_where_all_is_well_nothing_is_wrong() -> None:
    assert status(gateways=(gateway_state(),)).ok


STUCK = state.ProcessState(name="gw", role="gateway", pid=7, state="not ready")
DOWN = state.EndpointHealthState(endpoint="a", verdict="down", rps=0.0, p95_ms=None, reason="5 connect errors")


@pytest.mark.parametrize(
    ("more", "wrong"),
    [
        ({"tables": ()}, "no table to follow for chat"),
        ({"tables": (table_state(age_s=60.0),)}, "is 60 s old"),
        ({"tables": (table_state(expires_at_s=940.0),)}, "expired 60 s ago"),
        ({"tables": (table_state(stranded=("batch@eu",)),)}, "nowhere to go, gateways answer 503: batch@eu"),
        ({"tables": (table_state(age_s=9.0),), "fleet_version": 4}, "is of fleet version 1, not 4"),
        ({"groups": (state.GroupState(room="router", group="g", state="Empty", members=0),)}, "no worker of router"),
        (
            {"groups": (state.GroupState(room="streams", group="g", state="Stable", members=1,
                                         lag=(state.Lag(topic="arrivals.v1", behind=99_999),)),)},
            "99999 records behind",
        ),
        ({"gateways": (gateway_state(behind=True),)}, "follows an old table"),
        ({"gateways": (gateway_state(heard_s=100.0),)}, "gateway gw was heard 100 s ago"),
        ({"gateways": (gateway_state(version=None, refused={"signature": 3}),)}, "refused: signature 3"),
        ({"endpoints": (DOWN,)}, "endpoint a is down: 5 connect errors"),
        ({"processes": (STUCK,)}, "gw (pid 7): not ready"),
    ],
)  # fmt: skip
def test_what_a_human_should_see_to_is_said(more: dict[str, Any], wrong: str) -> None:
    found = status(**more)
    assert not found.ok
    assert any(wrong in line for line in found.wrong), found.wrong


def test_a_gateway_that_has_held_a_table_for_long_while_newer_ones_came_is_on_an_old_table() -> None:
    current = tables.newest([record(a_table(version=50))], None)
    held = {"epoch": 1000, "at_s": 2000.0, "gateway": "gw", "service": "chat"}

    def behind(**more: Any) -> bool:
        return _gateway(GatewayStatus(**(held | more)), current, 2001.0, 5.0).behind

    assert behind(version=10, age_s=200.0)
    assert not behind(version=49, age_s=4.0)  # it spoke before the newest came
    assert not behind(version=50, age_s=200.0)  # nothing newer came: the router is silent, which is said elsewhere
    assert not behind(version=None, age_s=None)


def test_what_is_as_it_was_ordered_or_long_gone_is_not_wrong() -> None:
    drained = msgspec.structs.replace(DOWN, order=Order(endpoint="a", drain=True, at_s=1))
    others = state.EndpointHealthState(endpoint="b", verdict="up", rps=1.0, p95_ms=9.0, reason="")
    assert status(endpoints=(drained, others), gateways=(gateway_state(heard_s=90_000.0),)).ok


def forecasting(now: str) -> state.GroupState:
    return state.GroupState(room="forecasting", group="g", state=now, members=0)


def process(role: str) -> state.ProcessState:
    return state.ProcessState(name=role, role=role, pid=7, state="ready")


@pytest.mark.parametrize(
    ("now", "roles", "told"),
    [
        ("Dead", (), False),
        ("Dead", ("streams", "router"), False),
        ("Empty", ("streams", "router"), False),
        ("Empty", (), True),
        ("Empty", ("streams", "forecasting"), True),
    ],
)
def test_of_forecasting_nothing_is_told_where_nobody_means_to_run_it(
    now: str, roles: tuple[str, ...], told: bool
) -> None:
    found = status(groups=(forecasting(now),), processes=tuple(map(process, roles)))
    assert ("no worker of forecasting runs" in found.noted) is told
    assert any(line.split()[:2] == ["forecasting", now] for line in status_text.lines(found)) is told


# ---------------------------------------------------------------- doctor


def test_a_private_key_that_others_can_read_fails(tmp_path: Path) -> None:
    assert machine.key(tmp_path).state == "skipped"
    key = tmp_path / "router.key"
    key.write_text("x")
    key.chmod(0o644)
    assert (machine.key(tmp_path).state, machine.key(tmp_path).remedy.startswith("chmod 600")) == ("fail", True)
    key.chmod(0o600)
    assert machine.key(tmp_path).state == "ok"


def test_a_bad_configuration_file_fails_and_a_good_one_tells_the_gateways_ports(tmp_path: Path) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text("services: 7\n")
    assert machine.config(bad)[0].state == "fail"
    good, ports = machine.config(EXAMPLE)
    assert (good.state, bool(ports)) == ("ok", True)
    assert machine.config(None)[0].state == "skipped"


def test_who_listens_on_a_port_is_named() -> None:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        one.listen()
        port = one.getsockname()[1]
        assert "(pid " in (listeners.listener(port) or "")
        [check] = [c for c in machine.ports(load(), {"eu": port}) if c.name == f"port {port}"]
        assert check.state == "warn"
    assert listeners.listener(port) is None


def test_state_that_is_not_there_yet_is_looked_at_where_it_will_be(tmp_path: Path) -> None:
    assert str(tmp_path) in machine.disk(tmp_path / "a" / "b").says


# ---------------------------------------------------------------- Kafka is away


@pytest.mark.parametrize(
    "words",
    [("table", "show"), ("table", "watch"), ("drain", "a"), ("undrain", "a"), ("notice", "a"), ("dead-letters", "list"),
     ("dead-letters", "show", "0/1"), ("dead-letters", "replay", "0/1")],
)  # fmt: skip
def test_while_kafka_is_away_each_command_is_one_sentence_with_the_address(words: tuple[str, ...], nobody: str) -> None:
    error = refused(*words, "--bootstrap-servers", nobody)
    assert isinstance(error, Missing)
    assert nobody in error.what


def test_status_says_that_kafka_is_away_as_json_too(nobody: str) -> None:
    answer = said("status", "--bootstrap-servers", nobody, "--json")
    told = json.loads(answer.stdout)
    assert (answer.exit_code, told["ok"], len(told["wrong"])) == (1, False, 1)
    assert nobody in told["wrong"][0]


def test_the_doctor_looks_at_the_machine_while_kafka_is_away(nobody: str) -> None:
    answer = said("doctor", "--bootstrap-servers", nobody, "--json")
    told = json.loads(answer.stdout)
    states = {check["name"]: check["state"] for check in told["checks"]}
    assert (answer.exit_code, told["ok"], states["kafka"], states["topics"]) == (1, False, "fail", "skipped")
    assert states["python"] == "ok"
    assert all(check.get("remedy") for check in told["checks"] if check["state"] in ("warn", "fail"))


def test_a_replay_that_names_nothing_is_refused_before_kafka_is_asked() -> None:
    assert isinstance(refused("dead-letters", "replay"), BadSetting)
    assert isinstance(refused("dead-letters", "replay", "0/1", "--since", "1h"), BadSetting)


@pytest.mark.parametrize("words", [("status",), ("drain",), ("undrain",), ("notice",), ("doctor",), ("table", "show"),
                                   ("table", "watch"), ("dead-letters", "list"), ("dead-letters", "show"),
                                   ("dead-letters", "replay")])  # fmt: skip
def test_every_command_s_help_has_examples(words: tuple[str, ...]) -> None:
    answer = said(*words, "--help")
    assert answer.exit_code == 0
    assert "Examples" in answer.stdout
    assert "--json" in answer.stdout


def test_wrong_usage_is_exit_status_2() -> None:
    assert said("drain").exit_code == 2
    assert said("status", "--nonsense").exit_code == 2
