"""The command lines of gateways and routers: files, flags, and keys that are said aloud."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from multidict import CIMultiDict, CIMultiDictProxy
from typer.testing import CliRunner

from router_sync.gateway.access import load_access
from router_sync.keys import load_or_make, load_trust, public_path
from streams.contract.errors import BadSetting
from tradewind.cli import app
from tradewind.cli.roles import gateway_config

FILE = """
origin: europe
anonymous: true
name: edge-7
trust: [a.pub, b.pub]
admin_port: 9000
bootstrap_servers: kafka:9092
limits: {max_concurrent: 7}
deadlines: {stall_s: 5}
retries: {generation: false}
probing: {every_s: 3}
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "gateway.yaml"
    path.write_text(text)
    return path


def test_a_file_reaches_every_setting_of_a_gateway(tmp_path: Path) -> None:
    config, _ = gateway_config(written(tmp_path, FILE), {})
    assert (config.origin, config.name, config.admin_port) == ("europe", "edge-7", 9000)
    assert config.trust == (Path("a.pub"), Path("b.pub"))
    assert config.limits.max_concurrent == 7
    assert config.deadlines.stall_s == 5
    assert not config.retries.generation
    assert config.probing.every_s == 3
    assert config.bootstrap_servers == "kafka:9092"
    assert config.state_dir == Path(".tradewind/edge-7")


def test_a_flag_goes_before_the_file_and_the_file_before_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRADEWIND_BOOTSTRAP_SERVERS", "other:9092")
    monkeypatch.setenv("TRADEWIND_TOPIC_PREFIX", "mine")
    config, _ = gateway_config(written(tmp_path, FILE), {"name": "edge-8", "admin_port": 0})
    assert (config.name, config.admin_port, config.state_dir) == ("edge-8", 0, Path(".tradewind/edge-8"))
    assert (config.bootstrap_servers, config.prefix) == ("kafka:9092", "mine")


@pytest.mark.parametrize("text", ["", "- a", "{", "1: 2"])
def test_a_file_that_is_no_list_of_settings_is_refused_with_its_name(tmp_path: Path, text: str) -> None:
    with pytest.raises(BadSetting, match=r"gateway\.yaml"):
        gateway_config(written(tmp_path, text), {})


def test_a_file_that_is_not_there_is_refused_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(BadSetting, match=r"nowhere\.yaml"):
        gateway_config(tmp_path / "nowhere.yaml", {})


def test_an_address_of_kafka_in_a_gateway_s_file_is_blamed_on_the_file_and_one_in_a_flag_on_the_flag(
    tmp_path: Path,
) -> None:
    file = written(tmp_path, FILE.replace("kafka:9092", "''"))
    with pytest.raises(BadSetting, match=r"gateway\.yaml: bootstrap_servers = ''"):
        gateway_config(file, {})
    with pytest.raises(BadSetting, match="flag: bootstrap_servers"):
        gateway_config(file, {"bootstrap_servers": ""})
    with pytest.raises(BadSetting, match=r"gateway\.yaml: prefix = 'a b'"):
        gateway_config(written(tmp_path, f"{FILE}prefix: a b\n"), {})


def test_a_shared_port_needs_a_name(tmp_path: Path) -> None:
    flags: dict[str, Any] = {"origin": "eu", "trust": [tmp_path], "reuse_port": True, "anonymous": True}
    with pytest.raises(BadSetting, match="name"):
        gateway_config(None, flags)
    assert gateway_config(None, {**flags, "name": "two"})[0].reuse_port


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the worker would have carried."""
    carried: list[Any] = []

    def run_worker(of: Any, *_: Any) -> int:
        carried.extend(of)
        return 0

    monkeypatch.setattr("streams.runtime.worker.run_worker", run_worker)
    monkeypatch.setattr("streams.signals.log_to", lambda *_: None)
    return carried


def test_a_router_signs_with_each_of_its_keys_and_says_how_to_trust_them(
    tmp_path: Path, steps: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    with caplog.at_level("INFO", logger="tradewind"):
        result = CliRunner().invoke(app, ["worker", "router", "--key", str(old), "--key", str(new)])
    assert result.exit_code == 0
    step = next(step for step in steps if step.name == "router")
    assert len(step.seal(b"m", b"{}")) == 2
    for path in (old, new):
        line = public_path(path).read_text().partition(" #")[0]
        assert line in result.stderr
        assert any(line == getattr(record, "fields", {}).get("trust") for record in caplog.records)
    assert len(load_trust(public_path(old), public_path(new)).keys) == 2
    assert not result.stdout


def test_more_keys_than_gateways_look_at_are_refused(tmp_path: Path, steps: list[Any]) -> None:
    keys = [word for number in range(5) for word in ("--key", str(tmp_path / str(number)))]
    result = CliRunner().invoke(app, ["worker", "router", *keys])
    assert isinstance(result.exception, BadSetting)
    assert not steps


def test_the_gateway_of_a_command_line_is_the_gateway_that_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[Any] = []
    monkeypatch.setattr("router_sync.gateway.run", ran.append)
    monkeypatch.setattr("streams.signals.log_to", lambda *_: None)
    file = written(tmp_path, json.dumps({"origin": "europe", "trust": ["a.pub"], "keys": "k.yaml"}))
    result = CliRunner().invoke(app, ["gateway", "--config", str(file), "--port", "0", "--admin-port", "9001"])
    assert result.exit_code == 0, result.output
    (config,) = ran
    assert (config.origin, config.port, config.admin_port, config.name) == ("europe", 0, 9001, "gateway-1")
    assert not config.anonymous


def test_check_says_whether_a_gateway_could_start_and_starts_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load_or_make(tmp_path / "router.key")
    monkeypatch.setattr("streams.signals.log_to", lambda *_: None)
    said: dict[str, Any] = {
        "origin": "europe", "trust": [str(tmp_path / "router.key.pub")], "anonymous": True,
        "upstreams": {"a": {"credential": {"env": "TRY_THIS_KEY"}}},
    }  # fmt: skip
    asked = ["gateway", "--config", str(written(tmp_path, json.dumps(said))), "--check"]
    result = CliRunner().invoke(app, asked)
    assert isinstance(result.exception, BadSetting)
    assert result.exception.field == "upstreams.a.credential.env"
    monkeypatch.setenv("TRY_THIS_KEY", "sk-1")
    result = CliRunner().invoke(app, asked)
    assert result.exit_code == 0, result.output
    assert "could start" in result.stderr
    assert "sk-1" not in result.output


def test_a_key_is_shown_once_and_its_entry_lets_it_in(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["keys", "make", "--tenant", "acme", "--class", "chat", "--class", "batch"])
    assert result.exit_code == 0
    (key,) = [line.strip() for line in result.stderr.splitlines() if line.strip().startswith("tw-")]
    assert key not in result.stdout
    file = tmp_path / "keys.yaml"
    file.write_text(f"keys:\n{result.stdout}")
    who = load_access(file, anonymous=False).who(CIMultiDictProxy(CIMultiDict({"Authorization": f"Bearer {key}"})))
    assert (who.tenant, who.classes) == ("acme", ("chat", "batch"))
    hashed = CliRunner().invoke(app, ["keys", "hash"], input=f"{key}\n")
    assert hashed.stdout.strip() in result.stdout
    told = json.loads(CliRunner().invoke(app, ["keys", "make", "--tenant", "acme", "--json"]).stdout)
    assert told["classes"] == []
    assert told["key"] not in told["entry"]


@pytest.mark.parametrize(
    ("words", "given"), [(["make", "--tenant", "a b"], ""), (["hash"], " "), (["hash"], "two keys")]
)
def test_what_is_no_key_or_no_name_is_refused(words: list[str], given: str) -> None:
    result = CliRunner().invoke(app, ["keys", *words], input=given)
    assert isinstance(result.exception, BadSetting)
    assert not result.stdout
