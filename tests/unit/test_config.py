"""tradewind.yaml as a whole: what is wrong is said at once with its line, and each value knows where it came from."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest
from ruamel.yaml import YAML
from typer.testing import CliRunner, Result

from router_sync.actuators.section import Actuators
from router_sync.fleet import BadFleet, Problem
from streams.contract.errors import BadSetting, Missing, TradewindError
from streams.settings import DEFAULT, environment
from tradewind import running
from tradewind.cli import app
from tradewind.cli.options import settled
from tradewind.cli.roles import gateway_config
from tradewind.config import actuators, schema
from tradewind.config.actuators import actuators_of
from tradewind.config.gateway import OWN, common
from tradewind.config.sources import settle
from tradewind.config.whole import parse, read
from tradewind.up.folder import taken

ROOT = Path(__file__).parents[2]
GOOD = """\
fleet: mine
version: 3
services:
  - name: chat
    default_class: interactive
    classes:
      - {name: interactive, slo_p95_ms: 400, tier: premium}
      - {name: legal, slo_p95_ms: 400, jurisdictions: [NO]}
origins:
  - {name: north, jurisdiction: NO, rtt_ms: {oslo: 5, york: 80}}
  - {name: west, jurisdiction: US, rtt_ms: {oslo: 80, york: 5}}
endpoints:
  - name: oslo-a
    url: http://10.0.0.1:8000
    services: [chat]
    provider: hydro
    region: oslo
    zone: oslo-1
    jurisdiction: NO
    replicas: 2
    capacity_rps: 50
    price_usd_per_h: 0.5
  - name: york-a
    url: http://10.0.0.2:8000
    services: [chat]
    provider: coal
    region: york
    zone: york-1
    jurisdiction: US
    replicas: 1
    capacity_rps: 50
    price_usd_per_h: 0.4
settings:
  bootstrap_servers: kafka:9092
  window_s: 30
  state_dir: state
gateway:
  ports: {north: 8080, west: 8081}
  keys: keys.yaml
  deadlines: {connect_s: 0.5}
  limits:
    max_concurrent: 10
"""
ACTING = (
    GOOD
    + """\
actuators:
  pools:
    - {pool: "hydro/*", kind: kubernetes, namespace: inference, name: "vllm-{zone}", most: 12, mode: act}
    - pool: "coal/*"
      kind: webhook
      url: https://hook.example/x
      secret: {env: HOOK}
"""
)


@pytest.fixture(autouse=True)
def _nothing_of_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(environment()):
        if name.upper().startswith("TRADEWIND_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "keys.yaml").write_text("keys: []")


def written(text: str = GOOD, name: str = "tradewind.yaml") -> Path:
    path = Path(name)
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return path


def problems(text: str) -> list[Problem]:
    with pytest.raises(BadFleet) as caught:
        parse(text, Path("tradewind.yaml"))
    return list(caught.value.problems)


def said(*words: str) -> Result:
    return CliRunner().invoke(app, list(words))


# (what is replaced, by what, line, field, a part of the remedy)
WRONG = {
    "a market that is none": ("zone: oslo-1", "market: gold", 18, "endpoints[0].market",
                              "Choose one of on_demand, spot, reserved, owned."),
    "a field that is misspelt": ("zone: oslo-1", "zones: oslo-1", 18, "endpoints[0].zones", "Did you mean zone?"),
    "a section that is misspelt": ("settings:", "setings:", 33, "setings", "Did you mean settings?"),
    "a price in words": ("price_usd_per_h: 0.5", "price_usd_per_h: cheap", 22, "endpoints[0].price_usd_per_h",
                         "a number"),
    "a capacity of nothing": ("capacity_rps: 50\n    price_usd_per_h: 0.4", "capacity_rps: 0\n    price_usd_per_h: 0.4",
                              31, "endpoints[1].capacity_rps", "> 0"),
    "a value left empty": ("provider: hydro", "provider:", 16, "endpoints[0].provider", "Write a text"),
    "a country by its name": ("jurisdiction: US\n    rep", "jurisdiction: USA\n    rep", 29,
                              "endpoints[1].jurisdiction", "ISO 3166-1"),
    "Norway as YAML 1.1 reads it": ("jurisdiction: NO\n    rep", "jurisdiction: false\n    rep", 19,
                                    "endpoints[0].jurisdiction", "ISO 3166-1"),
    "the wrong code for a country": ("jurisdiction: US, rtt", "jurisdiction: UK, rtt", 11,
                                     "origins[1].jurisdiction", "GB"),
    "an address without http": ("http://10.0.0.1:8000", "10.0.0.1:8000", 14, "endpoints[0].url", "http(s)://host:port"),
    "one name for two endpoints": ("name: york-a", "name: oslo-a", 23, "endpoints[1].name", "names are unique"),
    "one address for two endpoints": ("http://10.0.0.2:8000", "http://10.0.0.1:8000/", 24, "endpoints[1].url",
                                      "count twice"),
    "a round trip that is missing": ("rtt_ms: {oslo: 5, york: 80}", "rtt_ms: {oslo: 5}", 10, "origins[0].rtt_ms",
                                     "york"),
    "a default class that is none": ("default_class: interactive", "default_class: chatty", 5,
                                     "services[0].default_class", "interactive, legal"),
    "a service nobody knows": ("services: [chat]\n    provider: coal", "services: [chat, image]\n    provider: coal",
                               25, "endpoints[1].services", "Name a service of this file"),
    "a law that nothing satisfies": ("jurisdictions: [NO]", "jurisdictions: [DE]", 8,
                                     "services[0].classes[1].jurisdictions", "NO, US only"),
    "no endpoints": (GOOD[GOOD.index("endpoints:"):GOOD.index("settings:")], "endpoints: []\n", 12, "endpoints",
                     "List at least one"),
    "a tab": ("    zone: oslo-1", "\tzone: oslo-1", 18, "YAML", "no tabs"),
    "a field twice": ("window_s: 30", "window_s: 30\n  window_s: 31", 36, "YAML", "once"),
    "a bracket left open": ("services: [chat]\n    provider: hydro", "services: [chat\n    provider: hydro", 16, "YAML",
                            "brackets"),
    "a setting that is misspelt": ("window_s: 30", "windows: 30", 35, "settings.windows", "Did you mean window_s?"),
    "a setting out of its range": ("window_s: 30", "window_s: 3000", 35, "settings.window_s", "equal to 600"),
    "a setting in words": ("window_s: 30", "window_s: long", 35, "settings.window_s", "integer"),
    "a broker whose port is none": ("kafka:9092", "a:b", 34, "settings.bootstrap_servers", "HOST:PORT"),
    "a password file that is not there": (
        "window_s: 30", "security_protocol: SASL_SSL\n  sasl_mechanism: PLAIN\n  sasl_username: me\n"
        "  sasl_password_file: secret", 38, "settings.sasl_password_file", "paths start where tradewind.yaml is"),
    "settings that are a list": ("settings:\n  bootstrap_servers: kafka:9092\n  window_s: 30\n  state_dir: state",
                                 "settings: [a]", 33, "settings", "Write a mapping"),
    "a gateway's field that is misspelt": ("keys: keys.yaml", "key: keys.yaml", 39, "gateway.key", "you mean keys?"),
    "a field that is one gateway's own": ("keys: keys.yaml", "origin: north\n  keys: keys.yaml", 39, "gateway.origin",
                                          "one per origin"),
    "a field that belongs to the settings": ("keys: keys.yaml", "prefix: x\n  keys: keys.yaml", 39, "gateway.prefix",
                                             "topic_prefix"),
    "a file of keys that is not there": ("keys: keys.yaml", "keys: other.yaml", 39, "gateway.keys", "There is no"),
    "a deadline out of its range": ("connect_s: 0.5", "connect_s: 0", 40, "gateway.deadlines.connect_s", "> 0"),
    "a limit that is misspelt": ("max_concurrent: 10", "max_concurent: 10", 42, "gateway.limits.max_concurent",
                                 "Did you mean max_concurrent?"),
    "a port twice": ("west: 8081", "west: 8080", 38, "gateway.ports.west", "north has it already"),
    "a port that is none": ("west: 8081", "west: 80810", 38, "gateway.ports.west", "1 to 65535"),
    "a port of an origin nobody knows": ("west: 8081", "wset: 8081", 38, "gateway.ports.wset", "Did you mean west?"),
    "credentials for an endpoint nobody knows": ("keys: keys.yaml", "keys: keys.yaml\n  upstreams: {york-b: {}}", 40,
                                                 "gateway.upstreams.york-b", "Did you mean york-a?"),
    "an endpoint that is our own gateway": ("http://10.0.0.2:8000", "http://localhost:8080", 24, "endpoints[1].url",
                                            "gateway of north listens there"),
}  # fmt: skip


WRONG_ACTUATORS = {
    "a mode that is none": ("actuators:", "actuators:\n  mode: acts", 44, "actuators.mode", "Choose one of dry_run"),
    "a kind that is misspelt": ("kind: webhook", "kind: webhok", 47, "actuators.pools[1].kind", "Did you mean"),
    "an actuator without a kind": ("      kind: webhook\n", "", 46, "actuators.pools[1].kind", "pool and kind, one of"),
    "an actuator that is no mapping": ('    - pool: "coal/*"', '    - aws\n    - pool: "coal/*"', 46,
                                       "actuators.pools[1].kind", "Write a mapping"),
    "actuators that are no list": ("actuators:\n  pools:\n", "actuators:\n  pools: {a: b}\nx:\n", 44,
                                   "actuators.pools", "List entries"),
    "an actuator's field that is misspelt": ("most: 12", "mosts: 12", 45, "actuators.pools[0].mosts",
                                             "Did you mean most?"),
    "an actuator's number out of its range": ("most: 12", "most: -1", 45, "actuators.pools[0].most", ">= 0"),
    "an actuator's field that lacks": ("namespace: inference, ", "", 45, "actuators.pools[0].namespace", "Add it"),
    "an address that is read on the way": ("https://hook.example/x", "http://hook.example/x", 46, "actuators.pools[1]",
                                           "allow_http"),
    "a secret written down": ("secret: {env: HOOK}", "secret: whsec_aGVsbG8", 49, "actuators.pools[1].secret",
                              "Write a mapping with any of file, env"),
    "a secret's file that is not there": ("secret: {env: HOOK}", "secret: {file: hook}", 49,
                                          "actuators.pools[1].secret.file", "There is no"),
    "a pool that the fleet has not": ('"coal/*"', '"cole/*"', 46, "actuators.pools[1].pool", "fits no pool"),
    "a pool that an entry before it has": ('"hydro/*"', '"*"', 46, "actuators.pools[1].pool", "put it before them"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_one_wrong_thing_is_told_with_line_field_value_and_remedy(name: str) -> None:
    old, new, line, field, remedy = WRONG[name]
    assert GOOD.count(old) == 1, "the test replaces one thing"
    found = problems(GOOD.replace(old, new))
    [problem] = [p for p in found if p.field == field]
    assert problem.where == f"tradewind.yaml:{line}"
    assert remedy in problem.remedy
    assert len(found) <= 2, "nothing is told that only follows from it, but a field that is missing then"


@pytest.mark.parametrize("name", WRONG_ACTUATORS)
def test_one_wrong_thing_of_actuators_is_told_the_same_way(name: str) -> None:
    old, new, line, field, remedy = WRONG_ACTUATORS[name]
    assert ACTING.count(old) == 1, "the test replaces one thing"
    [problem] = [p for p in problems(ACTING.replace(old, new)) if p.field == field]
    assert problem.where == f"tradewind.yaml:{line}"
    assert remedy in problem.remedy


@pytest.mark.parametrize("written", ["secret: whsec_aGVsbG8", "secrets: whsec_aGVsbG8", "key: {value: whsec_aGVsbG8}"])
def test_a_secret_that_was_written_down_is_not_said_again(written: str) -> None:
    found = problems(ACTING.replace("secret: {env: HOOK}", written))
    assert "aGVsbG8" not in str(found)
    assert "aGVsbG8" not in "".join(str(problem) for problem in found)


def test_zero_replicas_everywhere_serve_nobody() -> None:
    [problem] = problems(GOOD.replace("replicas: 2", "replicas: 0").replace("replicas: 1", "replicas: 0"))
    assert (problem.where, problem.field) == ("tradewind.yaml:4", "services[0].name")
    assert "oslo-a, york-a" in problem.remedy


def test_everything_that_is_wrong_is_said_at_once_in_the_order_of_its_lines() -> None:
    text = GOOD.replace("provider: hydro", "provider: a b").replace("window_s: 30", "window_s: 3000\n  hots: x")
    text = text.replace("max_concurrent: 10", "max_concurrent: many").replace("connect_s: 0.5", "conect_s: 0.5")
    assert [(p.where.partition(":")[2], p.field) for p in problems(text)] == [
        ("16", "endpoints[0].provider"),
        ("35", "settings.window_s"),
        ("36", "settings.hots"),
        ("41", "gateway.deadlines.conect_s"),
        ("43", "gateway.limits.max_concurrent"),
    ]


def test_a_good_file_is_read_whole_and_its_paths_start_where_it_is(tmp_path: Path) -> None:
    (tmp_path / "deploy").mkdir()
    (tmp_path / "deploy" / "keys.yaml").write_text("keys: []")
    whole = read(written(ACTING, name="deploy/tradewind.yaml"))
    assert whole.fleet.version == 3
    assert whole.settings.values["state_dir"] == tmp_path / "deploy" / "state"
    assert whole.gateway.fields["keys"] == str(tmp_path / "deploy" / "keys.yaml")
    assert whole.gateway.fields["deadlines"] == {"connect_s": 0.5}
    assert [whole.gateway.port(origin, n) for n, origin in enumerate(("north", "west"))] == [8080, 8081]
    assert whole.actuators is not None
    assert [(entry.kind, entry.pool, entry.mode) for entry in whole.actuators.pools] == [
        ("kubernetes", "hydro/*", "act"), ("webhook", "coal/*", None),
    ]  # fmt: skip


def test_the_section_of_actuators_is_read_alone_and_as_it_was_written_down(tmp_path: Path) -> None:
    path = written(ACTING + '    - {pool: "*", kind: keda, namespace: n, name: x, kubeconfig: keys.yaml}\n')
    section = actuators_of(path)
    assert section.pools[2].kubeconfig == tmp_path / "keys.yaml"  # type: ignore[attr-defined]
    copy = tmp_path / "run.json"
    copy.write_bytes(msgspec.json.encode(actuators.written(section)))
    assert actuators_of(copy) == section
    assert actuators.referenced(section) == {"HOOK"}
    path.write_text(GOOD)
    assert read(path).actuators is None
    assert actuators_of(path) == Actuators(), "without the section nothing is changed"


def test_what_the_section_of_actuators_says_is_shown_with_its_lines() -> None:
    written(ACTING)
    shown = {one["field"]: one for one in json.loads(said("config", "show", "--json").stdout)["actuators"]}
    assert shown["actuators.mode"] == {"field": "actuators.mode", "value": "dry_run", "source": "default"}
    assert shown["actuators.pools[0].most"]["source"] == "tradewind.yaml:45"
    assert shown["actuators.pools[1].secret.env"]["value"] == "HOOK", "where a secret is may be said"
    written()
    assert json.loads(said("config", "show", "--json").stdout)["actuators"] == []


def test_two_actuators_cannot_listen_on_one_port() -> None:
    more = '    - {pool: "*", kind: keda, port: 6000, http_port: 6000}\n'
    found = problems(ACTING.replace('    - pool: "coal/*"', more + '    - pool: "coal/*"'))
    assert ("actuators.pools[1].http_port", "pools[1].port has it already: give each its own.") in [
        (problem.field, problem.remedy) for problem in found
    ]


def test_the_bundled_example_is_good() -> None:
    assert len(read(ROOT / "examples" / "tradewind.yaml").fleet.endpoints) == 6


def test_a_flag_beats_the_environment_that_beats_a_running_up_that_beats_the_file_and_that_the_default(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TRADEWIND_STATE_DIR", str(tmp_path))
    up = running.Running(
        pid=running.os.getpid(), started_at_s=1.0, bootstrap_servers="up:1", topic_prefix="ups", fleet="mine",
        gateways={}, processes=(),
    )  # fmt: skip
    running.note(tmp_path, up)
    assert settled().bootstrap_servers == "up:1"
    written()
    settings, sources = settle(None, {})
    assert (settings.bootstrap_servers, settings.topic_prefix, settings.window_s) == ("up:1", "ups", 30)
    assert sources["bootstrap_servers"].startswith("running `up`")
    assert sources["window_s"].startswith("tradewind.yaml:")
    assert settle(None, {}, beside_up=False).sources["bootstrap_servers"] == "tradewind.yaml:34"
    assert sources["state_dir"] == "environment TRADEWIND_STATE_DIR"
    assert sources["tick_s"] == DEFAULT
    monkeypatch.setenv("TRADEWIND_WINDOW_S", "40")
    assert (settled().window_s, settled(window_s=50).window_s) == (40, 50)
    assert settle(None, {"window_s": 50}).sources["window_s"] == "flag"


def test_beside_a_running_up_a_file_that_has_become_unusable_takes_nobodys_hands_away(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TRADEWIND_STATE_DIR", str(tmp_path))
    written("settings: {window_s: many}")
    with pytest.raises(BadFleet):
        settled()
    up = running.Running(
        pid=running.os.getpid(), started_at_s=1.0, bootstrap_servers="up:1", topic_prefix="ups", fleet="mine",
        gateways={}, processes=(),
    )  # fmt: skip
    running.note(tmp_path, up)
    assert settled().bootstrap_servers == "up:1"


@pytest.mark.parametrize("text", ["http://root:s3cret@h:1", "settings: {sasl_password: s3cret}"])
def test_no_problem_repeats_a_password(text: str) -> None:
    whole = (
        f"{GOOD.partition('settings:')[0]}{text}"
        if text.startswith("settings")
        else GOOD.replace("http://10.0.0.1:8000", text)
    )
    with pytest.raises(BadFleet) as bad:
        read(written(whole))
    assert "s3cret" not in str(bad.value)
    assert all("s3cret" not in str(problem.told()) for problem in bad.value.problems)


def test_a_variable_names_the_file_and_an_empty_one_says_that_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    written()
    monkeypatch.setenv("TRADEWIND_CONFIG", "")
    assert settled().window_s == 60
    monkeypatch.setenv("TRADEWIND_CONFIG", str(written("settings: {window_s: 20}", "other.yaml")))
    assert settled().window_s == 20
    assert settled(Path("tradewind.yaml")).window_s == 30


def test_a_bad_setting_of_the_file_stops_every_command_and_a_bad_variable_is_called_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    written(GOOD.replace("window_s: 30", "window_s: 3000"))
    with pytest.raises(BadFleet, match=r"tradewind\.yaml:35: settings\.window_s = 3000"):
        settled()
    written()
    monkeypatch.setenv("TRADEWIND_WINDOW_S", "1")
    with pytest.raises(BadSetting, match="environment TRADEWIND_WINDOW_S"):
        settled()


def test_an_up_whose_process_is_gone_is_none(tmp_path: Path) -> None:
    assert running.read(tmp_path) is None
    (tmp_path / running.NOTE).write_text("{")
    assert running.read(tmp_path) is None
    up = running.Running(
        pid=2**22 + 7, started_at_s=1.0, bootstrap_servers="x:1", topic_prefix="t", fleet="f", gateways={}, processes=()
    )
    running.note(tmp_path, up)
    assert running.read(tmp_path) is None
    running.forget(tmp_path)
    running.forget(tmp_path)
    assert not list(tmp_path.glob("*up.json*"))


def test_an_up_that_was_killed_is_none_though_its_process_id_is_used_again(tmp_path: Path) -> None:
    up = running.Running(
        pid=os.getpid(), started_at_s=1.0, bootstrap_servers="x:1", topic_prefix="t", fleet="f", gateways={},
        processes=(),
    )  # fmt: skip
    with taken(tmp_path):
        running.note(tmp_path, up)
        assert running.read(tmp_path) == running.read(tmp_path) == up
        with pytest.raises(Missing, match="Another `tradewind up` runs"), taken(tmp_path):
            pass
    assert running.read(tmp_path) is None
    with taken(tmp_path):  # having looked has left no lock behind
        assert running.read(tmp_path) == up


def test_a_file_that_is_not_there_is_wrong_usage() -> None:
    assert said("config", "check", "nowhere.yaml").exit_code == 2
    assert said("gateway", "--config", "nowhere.yaml").exit_code == 2


def test_check_says_all_as_json_and_fails() -> None:
    written(GOOD.replace("zone: oslo-1", "zones: oslo-1"))
    result = said("config", "check", "--json")
    assert result.exit_code == 1
    told = json.loads(result.stdout)
    assert not told["good"]
    assert {"file": "tradewind.yaml", "line": 18, "field": "endpoints[0].zones", "value": "oslo-1",
            "remedy": "Did you mean zone?"} in told["problems"]  # fmt: skip


def test_check_of_a_good_file_succeeds_and_without_a_file_names_the_remedy() -> None:
    result = said("config", "check")
    assert isinstance(result.exception, TradewindError)
    assert "tradewind init" in str(result.exception)
    written()
    assert said("config", "check").stdout == "tradewind.yaml is good: 2 endpoints, 1 service, 2 origins\n"
    assert json.loads(said("config", "check", "--json").stdout) == {"good": True, "problems": [], "warnings": []}


def shown(*words: str) -> dict[str, Any]:
    told = json.loads(said("config", "show", "--json", *words).stdout)
    return {row["field"]: (row["value"], row["source"]) for row in (*told["settings"], *told["gateway"])}


def test_show_tells_each_value_and_where_it_came_from(monkeypatch: pytest.MonkeyPatch) -> None:
    written()
    monkeypatch.setenv("TRADEWIND_TICK_S", "2")
    told = shown("--topic-prefix", "mine")
    assert told["topic_prefix"] == ("mine", "flag")
    assert told["tick_s"] == (2.0, "environment TRADEWIND_TICK_S")
    assert told["window_s"] == (30, "tradewind.yaml:35")
    assert told["replication"] == (1, "default")
    assert told["gateway.deadlines.connect_s"] == (0.5, "tradewind.yaml:40")
    assert told["gateway.deadlines.stall_s"] == (2.0, "default")
    assert told["gateway.ports.north"] == (8080, "tradewind.yaml:38")
    assert "tradewind.yaml:35" in said("config", "show").stdout


def test_show_names_the_file_of_a_password_and_never_what_is_in_it(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("open-sesame")
    secret.chmod(0o600)
    security = "security_protocol: SASL_SSL\n  sasl_mechanism: PLAIN\n  sasl_username: me\n  sasl_password_file: secret"
    written(GOOD.replace("window_s: 30", security))
    assert shown()["sasl_password_file"] == (str(secret), "tradewind.yaml:38")
    assert "open-sesame" not in said("config", "show").stdout + said("config", "show", "--json").stdout


def test_the_schema_takes_what_the_reader_takes_and_refuses_what_is_misspelt() -> None:
    judge = jsonschema.Draft202012Validator(json.loads(said("config", "schema").stdout))
    judge.check_schema(judge.schema)
    good = YAML(typ="safe", pure=True).load(GOOD)
    judge.validate(good)
    judge.validate(YAML(typ="safe", pure=True).load((ROOT / "examples" / "tradewind.yaml").read_text()))
    for name in (
        "a field that is misspelt", "a setting that is misspelt", "a limit that is misspelt", "a setting in words",
        "a gateway's field that is misspelt", "a capacity of nothing", "a port that is none",
    ):  # fmt: skip
        old, new, *_ = WRONG[name]
        assert list(judge.iter_errors(YAML(typ="safe", pure=True).load(GOOD.replace(old, new)))), name


def test_the_schema_takes_policies_as_people_write_them() -> None:
    judge = jsonschema.Draft202012Validator(schema.schema())
    whole = YAML(typ="safe", pure=True).load(GOOD)
    rule: dict[str, Any] = {"id": "a", "when": {"tenant": "acme"}, "require": {"country": ["$home"]}}
    policy = {"name": "p", "lists": {"home": ["NO"]}, "rules": [rule]}
    judge.validate({**whole, "policies": ["gdpr", "./ours.yaml", policy], "budgets": []})
    for wrong in ({"deny": {"tenant": ["a"]}}, {"whem": {}}, {"require": {}}, {"limit_p95_ms": "200"}):
        assert not judge.is_valid({**whole, "policies": [{**policy, "rules": [{**rule, **wrong}]}]}), wrong


def test_the_schema_in_the_docs_is_as_generated() -> None:
    assert (ROOT / schema.PLACE).read_bytes() == schema.text(), "run `python -m tradewind.config.schema --write`"


def test_every_field_of_a_gateway_is_its_own_or_common() -> None:
    assert not OWN.keys() & common().keys()
    assert {"limits", "deadlines", "keys", "drain_s"} <= common().keys()


def test_a_gateway_takes_its_part_of_a_whole_file() -> None:
    file = written()
    Path("state").mkdir()
    Path("state/router.key.pub").write_text("x")
    config, _ = gateway_config(file, {"origin": "west"})
    assert (config.origin, config.port, config.bootstrap_servers) == ("west", 8081, "kafka:9092")
    assert config.limits.max_concurrent == 10
    assert config.trust == (Path.cwd() / "state" / "router.key.pub",)
    assert config.keys == Path.cwd() / "keys.yaml"
    assert gateway_config(None, {"origin": "north"})[0].port == 8080, "the one that lies here"


def test_version_tells_what_is_installed_and_which_formats_it_speaks() -> None:
    told = json.loads(said("version", "--json").stdout)
    assert {"tradewind", "python", "faust", "aiokafka"} <= told.keys()
    assert told["formats"]["routing_table"] == "routing-table.v1"
    assert told["tradewind"] in said("version").stdout


def test_a_secret_that_stands_in_the_file_by_mistake_is_repeated_nowhere() -> None:
    for upstream in (
        "{york-a: {credential: hunter2}}",
        "{york-a: {headers: {x-key: hunter2, x-key: hunter2}}}",
        "{york-a: {credential: {token: hunter2}}}",
    ):
        told = [str(problem) for problem in problems(f"{GOOD}  upstreams: {upstream}\n")]
        assert told
        assert "hunter2" not in " ".join(told)


def test_a_header_that_is_called_like_a_reference_is_not_shown() -> None:
    headers = "{my.file: hunter2, x.env: hunter3, x-key: {file: keys.yaml}, api.token: {env: TOKEN}}"
    written(f"{GOOD}  upstreams: {{york-a: {{headers: {headers}}}}}\n")
    told = said("config", "show").stdout + said("config", "show", "--json").stdout
    assert "hunter" not in told
    assert "TOKEN" in told, "where a secret is may be said"


@pytest.mark.parametrize("bad", ["[" * 3000, "!!bool x", "!!int x", "2020-13-45"])
def test_what_trips_the_library_is_a_problem_of_the_file(bad: str) -> None:
    [problem] = problems(f"{GOOD}nested: {bad}\n")
    assert problem.field == "YAML"


def test_a_file_of_keys_that_a_gateway_would_not_take_is_told_beforehand() -> None:
    Path("keys.yaml").write_text("keys: [{sha256: short, tenant: acme}]")
    [problem] = problems(GOOD)
    assert (problem.where, problem.field) == ("tradewind.yaml:39", "gateway.keys")
    assert "sha256" in problem.remedy


def test_a_certificate_that_a_gateway_would_not_take_is_told_beforehand() -> None:
    Path("cert.pem").write_text("no certificate")
    [problem] = problems(f"{GOOD}  tls: {{cert_file: cert.pem, key_file: cert.pem}}\n")
    assert (problem.where, problem.field) == ("tradewind.yaml:43", "gateway.tls.cert_file")
    assert "PEM" in problem.remedy


def test_a_worker_takes_the_settings_of_a_whole_file(monkeypatch: pytest.MonkeyPatch) -> None:
    carried: list[Any] = []

    def run_worker(_: Any, settings: Any, *__: Any) -> int:
        carried.append(settings)
        return 0

    monkeypatch.setattr("streams.runtime.worker.run_worker", run_worker)
    assert said("worker", "streams", "--config", str(written(name="other.yaml"))).exit_code == 0
    assert said("worker", "streams", "--config", "other.yaml", "--topic-prefix", "mine").exit_code == 0
    assert [(s.bootstrap_servers, s.window_s, s.topic_prefix) for s in carried] == [
        ("kafka:9092", 30, "tradewind"),
        ("kafka:9092", 30, "mine"),
    ]
