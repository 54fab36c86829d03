"""The parts of `tradewind up`: versions, ports, keys, the watched file, and what is said of tables that move."""

from __future__ import annotations

import os
import shlex
import socket
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp.test_utils import make_mocked_request
from typer.testing import CliRunner

from router_sync.fleet import BadFleet
from router_sync.gateway.access import load_access
from router_sync.gateway.address import http_service, is_http
from streams.contract.errors import BadSetting, Denied, Missing, Stop
from streams.contract.records import Fleet, Route, RoutingTable, TableEndpoint
from streams.settings import Settings, settle
from tests.unit.router_fleet import endpoint, fleet, request_class
from tradewind.cli import app
from tradewind.cli.up import _curl
from tradewind.config.draft import Origin, Place, draft
from tradewind.config.gateway import GatewaySection
from tradewind.config.whole import Whole, parse, read
from tradewind.ports import free_port
from tradewind.up import credentials
from tradewind.up.children import Children, environment_for, referenced
from tradewind.up.folder import taken
from tradewind.up.kafka import next_version, wants_embedded
from tradewind.up.moves import moved
from tradewind.up.ports import gateway_ports
from tradewind.up.run import Ready, Up, until_taken
from tradewind.up.watch import Watched, need_restart

PLACES = [
    Place(name=f"{region}-a", url=f"http://10.0.0.{number}:8000", region=region, country=country)
    for number, (region, country) in enumerate({"eu-west": "IE", "us-east": "US", "ap-south": "IN"}.items(), 1)
]
EXAMPLE = draft("chat", PLACES, [Origin("eu", "DE"), Origin("us", "US"), Origin("ap", "IN")])


def version_after(new: Fleet, *there: Fleet) -> int:
    return next_version(new, {f.fleet: f for f in there}, Settings(), now_s=1000.5).version


def numbered(version: int, **changed: Any) -> Fleet:
    return msgspec.structs.replace(fleet(), version=version, **changed)


def test_a_first_fleet_has_the_files_version_or_the_time() -> None:
    assert version_after(numbered(0)) == 1000
    assert version_after(numbered(7)) == 7


def test_what_changed_gets_the_next_version_and_what_did_not_keeps_its_own() -> None:
    other = numbered(0, endpoints=(endpoint("elsewhere"),))
    assert version_after(other, numbered(7)) == 8
    assert version_after(msgspec.structs.replace(other, version=20), numbered(7)) == 20
    assert version_after(numbered(0), numbered(7)) == 7
    assert version_after(numbered(3), numbered(7)) == 7
    assert version_after(numbered(9), numbered(7)) == 9


def test_another_fleet_under_the_prefix_is_not_written_over() -> None:
    with pytest.raises(BadSetting, match="carry the fleet theirs"):
        version_after(numbered(1, fleet="mine"), numbered(1, fleet="theirs"))


def whole(text: str = EXAMPLE) -> Whole:
    return parse(text, Path("tradewind.yaml"))


def test_a_usual_port_that_is_taken_gives_way_and_one_asked_for_is_insisted_on() -> None:
    said: list[str] = []
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        port = busy.getsockname()[1]
        section = GatewaySection({}, {"eu": port})
        with pytest.raises(BadSetting, match=r"gateway\.ports\.eu"):
            gateway_ports(whole().fleet, section, Path("f.yaml"), said.append)
    ports = gateway_ports(whole().fleet, GatewaySection({}, {"eu": free_port()}), Path("f.yaml"), said.append)
    assert set(ports) == {"eu", "us", "ap"}
    assert len(set(ports.values())) == 3
    assert all((f"{port} is taken" in " ".join(said)) == (ports[name] != port) for name, port in
               (("us", 8081), ("ap", 8082)))  # fmt: skip


def test_a_key_is_made_once_for_its_owner_alone_and_gateways_know_it(tmp_path: Path) -> None:
    first = credentials.load_or_make(tmp_path, fleet())
    again = credentials.load_or_make(tmp_path, fleet())
    assert (first.new, again.new, first.key == again.key) == (True, False, True)
    for path in (first.key_file, first.hashes):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert first.key not in first.hashes.read_text()
    load_access(first.hashes, anonymous=False)
    assert list(tmp_path.glob(".*")) == []


@pytest.mark.parametrize(
    ("section", "needed"),
    [({}, True), ({"anonymous": False}, True), ({"anonymous": True}, False), ({"keys": "/k"}, False)],
)
def test_a_key_is_made_only_where_the_file_says_nobody_may_call(section: Mapping[str, Any], needed: bool) -> None:
    assert credentials.needed(section) is needed


def test_a_folder_is_one_ups_at_a_time(tmp_path: Path) -> None:
    with taken(tmp_path / "new"), pytest.raises(Missing, match=f"process {os.getpid()}"), taken(tmp_path / "new"):
        pass
    with taken(tmp_path / "new"):
        pass
    (tmp_path / "file").touch()
    with pytest.raises(Missing, match="state_dir"), taken(tmp_path / "file"):
        pass


def test_children_are_told_these_settings_and_no_others(tmp_path: Path) -> None:
    settings = Settings(topic_prefix="mine", state_dir=tmp_path, window_s=30)
    told = environment_for(settings, {"PATH": "/bin", "TRADEWIND_SASL_USERNAME": "old", "TRADEWIND_WINDOW_S": "40"})
    assert told["PATH"] == "/bin"
    assert (told["TRADEWIND_WINDOW_S"], told["TRADEWIND_TOPIC_PREFIX"]) == ("30", "mine")
    assert told["TRADEWIND_CONFIG"] == ""
    assert "TRADEWIND_SASL_USERNAME" not in told


UPSTREAMS = """gateway:
  upstreams:
    eu-west-a: {credential: {env: EU_KEY}, headers: {x-team: tw, x-extra: {env: EXTRA_KEY}}}
    default: {credential: {file: key}}
"""


def test_credentials_of_endpoints_are_told_to_gateways_and_not_to_workers(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("k")
    section = parse(EXAMPLE + UPSTREAMS, tmp_path / "tradewind.yaml").gateway
    secrets = referenced(section.fields["upstreams"])
    assert secrets == {"EU_KEY", "EXTRA_KEY"}
    environ = {"PATH": "/bin", "EU_KEY": "a", "EXTRA_KEY": "b"}
    children = Children(Settings(state_dir=tmp_path), environ, of_gateways=secrets)
    workers, gateways = children._workers._environ, children._gateways._environ
    assert workers is not None
    assert gateways is not None
    assert environ.items() <= gateways.items()
    assert workers == {name: value for name, value in gateways.items() if name not in secrets}


def test_secrets_of_actuators_are_told_to_them_alone(tmp_path: Path) -> None:
    environ = {"PATH": "/bin", "EU_KEY": "a", "HOOK": "b"}
    children = Children(Settings(state_dir=tmp_path), environ, of_gateways={"EU_KEY"}, of_actuators={"HOOK"})
    told = {name: getattr(children, f"_{name}")._environ for name in ("workers", "gateways", "actuators")}
    assert {name: {*environ} & {*given} for name, given in told.items()} == {
        "workers": {"PATH"}, "gateways": {"PATH", "EU_KEY"}, "actuators": {"PATH", "HOOK"},
    }  # fmt: skip


def test_kafka_is_embedded_only_where_nobody_says_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRADEWIND_BOOTSTRAP_SERVERS", raising=False)
    assert wants_embedded(settle({}))
    assert not wants_embedded(settle({"bootstrap_servers": "kafka:9092"}))
    with pytest.raises(BadSetting, match="bootstrap_servers"):
        wants_embedded(settle({"security_protocol": "SSL"}))


def test_a_watched_file_is_read_when_it_changed_and_its_mistakes_are_told_once(tmp_path: Path) -> None:
    file = tmp_path / "tradewind.yaml"
    file.write_text(EXAMPLE)
    watched = Watched(read(file))
    assert watched.look() is None
    file.write_text(EXAMPLE)
    os.utime(file, (1, 1))
    assert watched.look() is None, "touched, and the same"
    file.write_text(EXAMPLE.replace("zone: eu-west-1", "zones: eu-west-1"))
    bad = watched.look()
    assert isinstance(bad, BadFleet)
    assert len(bad.problems) == 2
    assert watched.look() is None
    file.write_text(EXAMPLE)
    assert isinstance(watched.look(), Whole)


def test_a_policy_that_the_file_names_is_watched_with_it(tmp_path: Path) -> None:
    file, ours = tmp_path / "tradewind.yaml", tmp_path / "ours.yaml"
    ours.write_text("rules: [{id: a, deny: {market: [spot]}}]\n")
    file.write_text(f"{EXAMPLE}\npolicies: [./ours.yaml]\n")
    watched = Watched(read(file))
    assert watched.look() is None
    ours.write_text("rules: [{id: b, deny: {market: [spot]}}]\n")
    new = watched.look()
    assert isinstance(new, Whole)
    assert new.fleet.policies[0].rules[0].id == "b"
    assert watched.look() is None
    ours.write_text("rules: [{id: b}]\n")
    assert isinstance(watched.look(), BadFleet)
    file.write_text(EXAMPLE)
    assert isinstance(watched.look(), Whole)
    ours.write_text("rules: []\n")
    assert watched.look() is None, "nobody names it any more"


def test_a_file_that_is_away_for_a_moment_is_waited_for(tmp_path: Path) -> None:
    file = tmp_path / "tradewind.yaml"
    file.write_text(EXAMPLE)
    watched = Watched(read(file))
    assert watched.look() is None
    file.unlink()
    looks = [watched.look() for _ in range(6)]
    assert [look is None for look in looks] == [True, True, True, False, True, True]
    file.write_text(EXAMPLE)
    assert watched.look() is None, "back, and the same"


def test_an_edit_made_while_all_else_starts_is_not_missed(tmp_path: Path) -> None:
    file = tmp_path / "tradewind.yaml"
    file.write_text(EXAMPLE)
    watched = Watched(read(file))
    file.write_text(EXAMPLE.replace("capacity_rps: 20", "capacity_rps: 30"))
    assert isinstance(watched.look(), Whole)


async def test_a_new_fleet_waits_for_a_kafka_that_is_away_and_says_so_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tradewind.up.run._AGAIN_S", 0.0)
    answers: list[Fleet | Stop] = [Missing("Kafka is away", "Wait"), Missing("Kafka is away", "Wait"), numbered(8)]
    said: list[str] = []

    async def send() -> Fleet:
        answer = answers.pop(0)
        if isinstance(answer, Stop):
            raise answer
        return answer

    assert (await until_taken(send, said.append)).version == 8
    assert len(said) == 1
    answers.append(Denied("no right to write", "Grant it"))
    with pytest.raises(Denied):
        await until_taken(send, said.append)


def test_what_is_only_read_at_the_start_is_named() -> None:
    new = whole(EXAMPLE + "settings: {window_s: 30}\ngateway: {ports: {eu: 8090}, drain_s: 2}\n")
    renamed = whole(EXAMPLE.replace("- name: ap\n", "- name: asia\n"))
    assert list(need_restart(whole(), new)) == ["settings.window_s", "gateway.drain_s", "gateway.ports.eu"]
    assert list(need_restart(whole(), renamed)) == ["origin ap", "origin asia"]
    assert list(need_restart(new, new)) == []
    acting = whole(EXAMPLE + 'actuators: {pools: [{pool: "*", kind: dry_run}]}\n')
    assert list(need_restart(whole(), acting)) == ["actuators"]


def an_up(tmp_path: Path, said: list[str], text: str = EXAMPLE) -> Up:
    return Up(whole(text), Settings(state_dir=tmp_path), None, {}, said.append, pid=1, moves=False)


async def test_what_is_changed_and_changed_back_needs_no_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    run = an_up(tmp_path, said)

    async def publish(new: Fleet, _settings: Settings) -> Fleet:
        return new

    monkeypatch.setattr("tradewind.up.run.publish_next", publish)
    await run._take_over(whole(EXAMPLE + "gateway: {drain_s: 2}\n"))
    assert sum("restart needed" in words for words in said) == 1
    said.clear()
    await run._take_over(whole())
    assert not any("restart needed" in words for words in said), "the file and what runs agree"


async def test_a_fleet_that_is_refused_leaves_callers_their_classes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    run = an_up(tmp_path, said)
    run.credential = credentials.load_or_make(tmp_path, run.fleet)
    before = run.credential.hashes.read_text()
    answers: list[Stop | None] = [Denied("no right to write", "Grant it"), None]

    async def publish(new: Fleet, _settings: Settings) -> Fleet:
        if (stop := answers.pop(0)) is not None:
            raise stop
        return new

    monkeypatch.setattr("tradewind.up.run.publish_next", publish)
    new = whole(EXAMPLE.replace("interactive", "hasty"))
    await run._take_over(new)
    assert "stays in force" in said[-1]
    assert run.credential.hashes.read_text() == before
    await run._take_over(new)
    assert "hasty" in run.credential.hashes.read_text()


def ready(service: str, api: str) -> Ready:
    return Ready(
        pid=1, ready_after_s=1.0, state_dir="s", bootstrap_servers="h:1", embedded=True, topic_prefix="p", fleet="f",
        fleet_version=1, services={service: api}, gateways={"eu": "http://127.0.0.1:8080"}, api_key_file="s/api-key",
        trust_file="s/t", processes=(),
    )  # fmt: skip


@pytest.mark.parametrize("service", ["index", "team/index:v1"])
def test_what_is_printed_for_an_http_service_is_addressed_to_it(tmp_path: Path, service: str) -> None:
    words = shlex.split(_curl(an_up(tmp_path, []), ready(service, "http")))
    url = words[-1]
    assert words == ["curl", "-H", "Authorization: Bearer $(cat s/api-key)", url]
    request = make_mocked_request("GET", url.removeprefix("http://127.0.0.1:8080"))
    assert is_http(request)
    assert http_service(request) == (service, "/")


def test_the_file_is_named_as_an_argument_or_as_an_option_and_not_as_both(tmp_path: Path) -> None:
    away = str(tmp_path / "away.yaml")
    both = CliRunner().invoke(app, ["up", away, "--config", away])
    assert both.exit_code == 2
    (tmp_path / "broken.yaml").write_text("fleet: 1")
    one = CliRunner().invoke(app, ["up", "--config", str(tmp_path / "broken.yaml")])
    assert isinstance(one.exception, BadFleet)
    assert "broken.yaml" in str(one.exception)


def table(version: int, shares: tuple[float, ...] = (0.5, 0.5), state: Any = "ready") -> RoutingTable:
    names = ("a", "b")
    return RoutingTable(
        service="chat", epoch=1, version=version, issued_at_s=1.0, expires_at_s=2.0, fleet_version=1,
        default_class=request_class().name, reason="b fell",
        endpoints=tuple(_row(name, state if name == "b" else "ready") for name in names),
        routes=(Route(origin="eu", class_="interactive", slo_p95_ms=400.0, endpoints=names, shares=shares),),
    )  # fmt: skip


def _row(name: str, state: Any) -> TableEndpoint:
    return TableEndpoint(
        name=name, url="http://h:1", state=state, region="r", zone="z", provider="p", jurisdiction="DE",
        capacity_rps=1.0, concurrency=1, cost_usd_per_request=0.0, latency_p95_ms=1.0,
    )  # fmt: skip


def test_a_table_that_moves_is_told_with_its_reason_and_a_heartbeat_is_not() -> None:
    assert moved(None, table(1)) is None
    assert moved(table(1), table(2)) is None
    assert moved(table(1), table(2, (0.504, 0.496))) is None
    assert moved(table(1), table(2, (0.9, 0.1))) == "chat table 2: b fell"
    assert moved(table(1), table(2, (1.0, 0.0), "down")) == "chat table 2: b fell (b ready -> down)"
