"""The broker's settings, and the words it is started with."""

from __future__ import annotations

from pathlib import Path

from tradewind.embedded.properties import Ports, render, server_properties
from tradewind.embedded.runtime import FAST, Runtime
from tradewind.ports import free_port

PORTS = Ports(broker=19092, controller=19093)


def test_everything_is_bound_to_loopback() -> None:
    properties = server_properties(PORTS)
    assert properties["listeners"] == "PLAINTEXT://127.0.0.1:19092,CONTROLLER://127.0.0.1:19093"
    assert properties["advertised.listeners"] == "PLAINTEXT://127.0.0.1:19092"
    assert properties["controller.quorum.voters"] == "1@127.0.0.1:19093"


def test_topics_are_only_made_by_name_and_groups_may_have_short_sessions() -> None:
    properties = server_properties(PORTS)
    assert properties["auto.create.topics.enable"] == "false"
    assert properties["group.min.session.timeout.ms"] == "1000"
    assert properties["group.initial.rebalance.delay.ms"] == "0"


def test_the_disk_is_bounded_unless_asked_otherwise() -> None:
    bounded = server_properties(PORTS)
    assert int(bounded["log.segment.bytes"]) < int(bounded["log.retention.bytes"]) < 2**30
    assert server_properties(PORTS, retention_bytes=-1)["log.retention.bytes"] == "-1"


def test_the_file_has_a_property_a_line() -> None:
    text = render(server_properties(PORTS))
    assert dict(line.split("=", 1) for line in text.splitlines()) == server_properties(PORTS)


def test_ports_that_are_picked_are_free_and_differ() -> None:
    preferred = free_port()
    ports = Ports.pick(preferred)
    assert ports.broker == preferred
    assert ports.controller not in (0, preferred)


def test_options_given_come_after_our_own_so_that_they_win() -> None:
    runtime = Runtime(java=Path("/j/java"), jars=(Path("/c/a.jar"), Path("/c/b.jar")), version="4.4.0")
    words = runtime.command("kafka.Kafka", "server.properties", jvm=FAST, scratch=Path("/d/tmp"))
    assert words[0] == "/j/java"
    assert words.index("-Xmx384m") < words.index("-Xmx1g")
    assert words[-4:] == ["-cp", "/c/a.jar:/c/b.jar", "kafka.Kafka", "server.properties"]
