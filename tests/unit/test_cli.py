"""The command line: what is asked wrongly, or of somebody who is away, is answered in one sentence."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import typer
from aiohttp import web
from typer.testing import CliRunner, Result

from router_sync import fleet as fleets
from streams.contract import topics
from streams.contract.errors import BadSetting, Missing, TradewindError
from streams.contract.records import Fleet
from streams.runtime import admin
from streams.settings import Settings
from tradewind import fleets as publishing
from tradewind.cli import app
from tradewind.demo.pretend_fleet import STATE, break_region
from tradewind.ports import free_port

EXAMPLE = Path(__file__).parents[2] / "examples" / "tradewind.yaml"


def said(*words: str) -> Result:
    return CliRunner().invoke(app, list(words))


def refused(*words: str) -> TradewindError:
    """The error of ours that the command ends with; `main` prints it as one sentence."""
    error = said(*words).exception
    assert isinstance(error, TradewindError), error
    return error


def too_long() -> Fleet:
    fleet = fleets.load(EXAMPLE)
    one = fleet.endpoints[0]
    many = tuple(msgspec.structs.replace(one, name=f"{one.name}-{number}") for number in range(5000))
    return msgspec.structs.replace(fleet, endpoints=many)


@pytest.fixture
def no_kafka(monkeypatch: pytest.MonkeyPatch) -> str:
    """An address where nobody listens, and little patience."""
    monkeypatch.setattr(admin, "REACH_S", 0.5)
    return f"127.0.0.1:{free_port()}"


def test_publishing_while_kafka_is_away_is_one_sentence_with_the_address(no_kafka: str) -> None:
    error = refused("fleet", "publish", str(EXAMPLE), "--bootstrap-servers", no_kafka)
    assert isinstance(error, Missing)
    assert no_kafka in str(error)


async def test_a_producer_that_cannot_start_is_closed_and_said(no_kafka: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def all_there(*_: object, **__: object) -> list[admin.Difference]:
        return []

    monkeypatch.setattr(admin, "require", all_there)  # Kafka dies between the look at the topic and the sending
    with pytest.raises(Missing, match="did not take the fleet"):
        await publishing.publish(fleets.load(EXAMPLE), Settings(bootstrap_servers=no_kafka))


async def test_a_fleet_too_long_for_its_topic_is_refused_before_kafka_is_asked(no_kafka: str) -> None:
    with pytest.raises(BadSetting, match=str(topics.MAX_VALUE_BYTES)):
        await publishing.publish(too_long(), Settings(bootstrap_servers=no_kafka))


def test_fleet_check_says_that_a_fleet_is_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    fleet = too_long()
    monkeypatch.setattr(fleets, "read_file", lambda _: (fleet, []))
    assert isinstance(refused("fleet", "check", str(EXAMPLE)), BadSetting)
    answer = said("fleet", "check", str(EXAMPLE), "--json")
    assert answer.exit_code == 1
    assert "bytes" in json.loads(answer.stdout)["problems"][0]


def test_fleet_check_counts_what_a_good_fleet_has() -> None:
    answer = said("fleet", "check", str(EXAMPLE), "--json")
    assert answer.exit_code == 0
    assert json.loads(answer.stdout)["problems"] == []


@pytest.mark.parametrize(
    ("words", "flag"),
    [
        (("--seconds", "10", "--outage", "eu-west@10", "--bootstrap-servers", "x:1"), "--outage"),
        (("--seconds", "10", "--broker-outage", "12"), "--broker-outage"),
        (("--broker-outage", "5", "--bootstrap-servers", "x:1"), "--broker-outage"),
        (("--surge", "much", "--bootstrap-servers", "x:1"), "--surge"),
    ],
)
def test_a_demo_that_could_not_do_as_told_is_refused_before_anything_starts(
    tmp_path: Path, words: tuple[str, ...], flag: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tradewind.cli.demo._runtime", lambda _: object())
    error = refused("demo", "--data", str(tmp_path / "run"), *words)
    assert isinstance(error, BadSetting)
    assert flag in error.field
    assert not (tmp_path / "run").exists()


def test_help_says_what_mends_a_dead_endpoint() -> None:
    text = " ".join(said("fault", "--help").stdout.replace("│", " ").split())
    assert "none mends all but dead" in text
    assert "press the number of its region in the demo's terminal" in text


def test_an_end_of_death_is_refused_since_the_dead_hear_no_order(tmp_path: Path) -> None:
    error = refused("fault", "eu-west", "--kind", "dead", "--for", "3", "--data", str(tmp_path))
    assert isinstance(error, BadSetting)
    assert "terminal" in error.remedy


def test_endpoints_that_are_all_dead_are_told_how_they_come_back(tmp_path: Path) -> None:
    _note(tmp_path, free_port())
    assert "Press the number of the region" in str(refused("fault", "r", "--kind", "none", "--data", str(tmp_path)))


async def test_an_order_tells_who_took_it_and_who_is_silent(tmp_path: Path) -> None:
    async def take(request: web.Request) -> web.Response:
        return web.json_response(await request.json())

    served = web.Application()
    served.router.add_post("/fault", take)
    runner = web.AppRunner(served)
    await runner.setup()
    try:
        port = free_port()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        _note(tmp_path, port, free_port(avoid={port}))
        assert await break_region(tmp_path, "r", {"kind": "none"}) == (["e0"], ["e1"])
        assert await break_region(tmp_path, "r", {"kind": "dead"}) == (["e0"], ["e1"]), "the dead do not die again"
    finally:
        await runner.cleanup()


def _note(folder: Path, *ports: int) -> None:
    doors = [{"endpoint": f"e{n}", "region": "r", "admin_port": port} for n, port in enumerate(ports)]
    (folder / STATE).write_bytes(msgspec.json.encode({"endpoints": doors}))


def options(command: Any, *path: str) -> Iterator[tuple[str, set[str]]]:
    """Each command below `command`, by its whole name, with its options."""
    for name, below in getattr(command, "commands", {}).items():
        yield from options(below, *path, name)
    if path and not hasattr(command, "commands"):
        yield " ".join(path), {option for param in command.params for option in param.opts}


def test_options_are_shared_as_the_operations_page_says() -> None:
    speaks = {name: o for name, o in options(typer.main.get_command(app)) if "--bootstrap-servers" in o}
    assert all("--topic-prefix" in has for has in speaks.values())
    assert {name for name, has in speaks.items() if "--config" not in has} == {"demo"}
    assert {name for name, has in speaks.items() if "--json" not in has} == {"worker", "gateway", "fleet publish"}
