"""The least rights of each role: as the map says, printed as an operator can use them."""

from __future__ import annotations

import asyncio
import json
import shlex
from typing import Any

import pytest
from aiokafka.errors import GroupAuthorizationFailedError, KafkaConnectionError, TopicAuthorizationFailedError
from typer.testing import CliRunner, Result

from streams.contract import topics
from streams.contract.errors import BadSetting
from streams.contract.rights import ROLE, ROLES, Right, grants
from streams.runtime import preflight
from streams.runtime.access import Access
from streams.runtime.step import Step
from streams.settings import Settings
from tradewind.cli import app
from tradewind.embedded.properties import Ports, server_properties
from tradewind.embedded.secured import Secured
from tradewind.flow import rooms

ROOMS = rooms(Settings())
MAY = Access(sasl_mechanism="PLAIN", sasl_username="u", sasl_password_file="p", security_protocol="SASL_SSL")  # type: ignore[arg-type]


def names(role: str, operation: str) -> set[str]:
    return {r.name for r in ROLE[role].rights("p") if (r.resource, r.operation) == ("topic", operation)}


@pytest.mark.parametrize("room", ROOMS)
def test_a_rooms_rights_are_what_its_steps_read_and_write_and_no_more(room: str) -> None:
    steps: tuple[Step, ...] = ROOMS[room]
    assert names(room, "READ") == {reads.topic.full("p") for step in steps for reads in step.reads}
    assert names(room, "WRITE") == {topic.full("p") for step in steps for topic in step.writes}
    assert Right("group", f"p-{room}", "READ") in ROLE[room].rights("p")


def test_whatever_the_router_and_the_streams_read_somebody_may_write() -> None:
    written = {topic for role in ROLES for topic in role.writes}
    read = {topic for role in ROLES for topic in role.reads}
    assert read <= written


def test_only_the_router_may_write_tables() -> None:
    assert [role.name for role in ROLES if topics.ROUTING_TABLE in role.writes] == ["router"]


def test_nobody_writes_all_topics_and_only_auditors_read_them_all() -> None:
    assert [role.name for role in ROLES if role.every] == ["operator", "auditor", "admin"]
    assert not any("WRITE" in role.every for role in ROLES)
    assert [role.name for role in ROLES if "READ" in role.every] == ["auditor"]
    assert [role.name for role in ROLES if "CREATE" in role.every] == ["admin"]


def test_rights_become_as_few_lines_as_can_be() -> None:
    lines = grants("User:gw", ROLE["gateway"].rights("tw"), "kafka:9093")
    assert [shlex.split(line)[9:] for line in lines] == [
        ["Read", "--topic", "tw.routing-table.v1", "--topic", "tw.sessions.v1"],
        [
            *("Write", "--topic", "tw.arrivals.v1", "--topic", "tw.endpoint-metrics.v1"),
            *("--topic", "tw.gateway-status.v1", "--topic", "tw.sessions.v1"),
        ],
    ]
    (line,) = grants("User:CN=it's me,O=x", [Right("topic", "tw.", "DESCRIBE_CONFIGS", "prefixed")], "k:1")
    words = shlex.split(line)
    assert words[words.index("--allow-principal") + 1] == "User:CN=it's me,O=x"
    assert words[-6:] == ["--operation", "DescribeConfigs", "--topic", "tw.", "--resource-pattern-type", "prefixed"]


def said(*words: str) -> Result:
    return CliRunner().invoke(app, ["topics", "plan", *words], env={"TRADEWIND_CONFIG": ""})


def test_the_plan_is_one_json_object_with_topics_and_rights() -> None:
    plan = json.loads(said("--json", "--topic-prefix", "mine").stdout)
    assert {topic["name"] for topic in plan["topics"]} == {topic.full("mine") for topic in topics.TOPICS}
    assert [role["role"] for role in plan["roles"]] == list(ROLE)
    router: dict[str, Any] = next(role for role in plan["roles"] if role["role"] == "router")
    assert router["principal"] == "User:router"
    assert {"resource": "group", "name": "mine-router", "operation": "READ", "pattern": "literal"} in router["rights"]


def test_the_plan_of_one_role_is_ready_for_a_shell() -> None:
    lines = said("--role", "router", "--principal", "User:r-1", "--format", "kafka-acls").stdout.splitlines()
    assert lines[0].startswith("# router: ")
    assert all(line.startswith("kafka-acls.sh --bootstrap-server ") for line in lines[1:])
    assert all("--allow-principal User:r-1 --operation" in line for line in lines[1:])


def test_the_plan_of_topics_is_ready_for_a_shell_with_all_that_we_declare() -> None:
    lines = said("--format", "kafka-topics", "--topic-prefix", "mine").stdout.splitlines()
    assert len(lines) == len(topics.TOPICS)
    words = shlex.split(next(line for line in lines if " mine.arrivals.v1 " in line))
    assert words[:2] == ["kafka-topics.sh", "--bootstrap-server"]
    assert words[words.index("--partitions") + 1] == "4"
    assert {f"{k}={v}" for k, v in topics.ARRIVALS.config().items()} <= set(words)


def test_the_plan_for_people_has_a_line_a_topic_and_a_line_a_right() -> None:
    lines = said("--role", "follower").stdout.splitlines()
    assert len(lines) == 1 + len(topics.TOPICS) + 1 + 2
    assert lines[-1].split() == ["follower", "User:follower", "READ", "topic", "tradewind.routing-table.v1"]


@pytest.mark.parametrize("words", [("--role", "king"), ("--format", "xml"), ("--principal", "me")])
def test_a_plan_that_makes_no_sense_is_refused_with_what_would(words: tuple[str, str]) -> None:
    error = said(*words).exception
    assert isinstance(error, BadSetting)
    assert error.field == words[0]


def test_what_lacks_is_one_sentence_with_the_line_that_grants_it() -> None:
    sentence = str(preflight.denied(MAY, [Right("topic", "tw.a", "READ"), Right("group", "g", "READ")], "router"))
    assert sentence.startswith(
        "On Kafka User:u, in the role router, may not READ the topic tw.a, nor READ the group g. "
    )
    assert "--allow-principal User:u --operation Read --topic tw.a" in sentence
    assert "\n" not in sentence


def test_errors_of_missing_rights_are_put_in_words_and_others_left_as_they_are() -> None:
    say = preflight.words
    assert "User:u may not READ the group g." in say(MAY, GroupAuthorizationFailedError("g"), "READ")
    assert "may not WRITE the topic t." in say(MAY, TopicAuthorizationFailedError("t"), "WRITE")
    assert "READ the topic a, nor READ the topic b." in say(MAY, TopicAuthorizationFailedError({"b", "a"}), "READ")
    assert "may not WRITE the topic given." in say(MAY, TopicAuthorizationFailedError(), "WRITE", "given")
    assert say(MAY, KafkaConnectionError("gone"), "READ") == "KafkaConnectionError('gone')"


def test_the_same_words_pass_once_in_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(preflight.clock, "monotonic_s", lambda: now[0])
    seldom = preflight.Seldom(5.0)
    heard = []
    for now[0] in (100.0, 101.0, 104.9, 105.0, 106.0):
        heard += [word for word in "ab" if seldom.passes(word)]
    assert heard == ["a", "b", "a", "b"]


async def test_a_broker_that_is_away_says_nothing_of_rights() -> None:
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        assert await preflight.because(f"127.0.0.1:{port}", ROLE["streams"].rights("p")) is None
    assert await preflight.because(f"127.0.0.1:{port}") is None


def test_a_secured_broker_takes_names_over_tls_alone_and_asks_its_authorizer() -> None:
    secured = Secured(ca="CA", certificate="CERT", key="KEY", users={"admin": "pw-f00d"})
    properties = server_properties(Ports(broker=1, controller=2), secured=secured)
    assert properties["listeners"] == "SASL_SSL://127.0.0.1:1,CONTROLLER://127.0.0.1:2"
    assert properties["advertised.listeners"] == "SASL_SSL://127.0.0.1:1"
    assert properties["authorizer.class.name"].endswith("StandardAuthorizer")
    assert "allow.everyone.if.no.acl.found" not in properties
    assert "pw-f00d" not in repr(secured)
    assert not any("sasl" in name or "ssl" in name for name in server_properties(Ports(broker=1, controller=2)))
    with pytest.raises(ValueError, match="'admin' is missing"):
        Secured(ca="CA", certificate="CERT", key="KEY", users={})
