"""`tradewind policy`, and warnings where fleets are checked and published."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import msgspec
import pytest
from typer.testing import CliRunner, Result

from router_sync.fleet import BadFleet, load
from router_sync.policy.file import shipped
from streams.contract.errors import BadSetting, TradewindError
from streams.settings import environment
from tradewind import fleets
from tradewind.cli import app

FLEET = (Path(__file__).parents[2] / "examples" / "tradewind.yaml").read_text()
OURS = """\
policies:
  - gdpr
  - name: ours
    rules:
      - {id: spot, deny: {market: [spot]}, reason: why, source: s}
"""


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(environment()):
        if name.upper().startswith("TRADEWIND_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    Path("tradewind.yaml").write_text(f"{FLEET}\n{OURS}")


def said(*words: str) -> Result:
    return CliRunner().invoke(app, words)


def refused(*words: str) -> TradewindError:
    error = said(*words).exception
    assert isinstance(error, TradewindError), error
    return error


def told(*words: str) -> Any:
    return json.loads(said(*words, "--json").stdout)


def test_check_counts_what_is_there_and_warns() -> None:
    answer = said("policy", "check")
    assert answer.exit_code == 0
    assert answer.stdout == "tradewind.yaml is good: 2 policies, 7 rules over 6 endpoints\n"
    assert "warning: tradewind.yaml:" in answer.stderr
    assert "it denies nothing" in answer.stderr
    assert said("policy", "check", "--strict").exit_code == 1
    found = told("policy", "check")
    assert found["good"]
    assert {warning["file"].rpartition("/")[2] for warning in found["warnings"]} == {"tradewind.yaml", "gdpr.yaml"}


def test_check_of_a_policy_alone_and_of_a_bad_one() -> None:
    Path("p.yaml").write_text("rules:\n  - {id: a, deny: {country: [UK]}}\n")
    assert isinstance(refused("policy", "check", "p.yaml"), BadFleet)
    found = told("policy", "check", "p.yaml")
    assert not found["good"]
    assert (found["problems"][0]["line"], found["problems"][0]["field"]) == (2, "rules[0].deny.country")
    Path("p.yaml").write_text("rules:\n  - {id: a, deny: {country: [GB]}}\n")
    assert said("policy", "check", "p.yaml").stdout == "p.yaml is good: the policy p, 1 rule\n"


def test_a_file_that_is_no_mapping_is_not_repeated_it_may_be_a_secret() -> None:
    Path("api-key").write_text("sk-secret-1\n")
    Path("tradewind.yaml").write_text(f"{FLEET}\npolicies: [./api-key]\n")
    for words in (
        ("policy", "check", "api-key"), ("policy", "check"), ("config", "check"), ("replay", "api-key"),
        ("gateway", "--config", "api-key"),
    ):  # fmt: skip
        assert "sk-secret-1" not in str(refused(*words))


@pytest.mark.parametrize(
    ("text", "said"), [("", "it is empty"), ("# later\n", "it is empty"), ("- a\n", "it is a list")]
)
def test_a_file_with_nothing_of_use_is_told_with_what_it_would_begin(text: str, said: str) -> None:
    Path("f.yaml").write_text(text)
    for words, begin in (
        (("policy", "check"), "name, default and rules"),
        (("policy", "test"), "cases"),
        (("replay",), "name, fleet and demand"),
        (("fleet", "check"), "services, origins and endpoints"),
    ):
        error = str(refused(*words, "f.yaml"))
        assert f"f.yaml cannot be used ({said}). Begin with {begin}" in error


def test_fleet_check_and_config_check_warn_too() -> None:
    for words in (("fleet", "check", "tradewind.yaml"), ("config", "check")):
        answer = said(*words)
        assert answer.exit_code == 0
        assert "it denies nothing" in answer.stderr
        assert any("it denies nothing" in str(warning) for warning in told(*words)["warnings"])


def test_what_is_published_with_warnings_is_told_as_events(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "tradewind"):
        fleets.warn(load("tradewind.yaml"))
    events = [record.fields for record in caplog.records if record.getMessage() == "fleet_caution"]  # type: ignore[attr-defined]
    assert any("it denies nothing" in event["remedy"] for event in events)
    caplog.clear()
    crowd = load("tradewind.yaml")
    far = msgspec.structs.replace(crowd.endpoints[2], services=("embed",))
    many = tuple(msgspec.structs.replace(far, name=f"far-{n}") for n in range(40))
    fleets.warn(msgspec.structs.replace(crowd, endpoints=(*crowd.endpoints, *many)))
    names = [record.getMessage() for record in caplog.records]
    assert (names.count("fleet_caution"), names.count("fleet_cautions")) == (fleets.TOLD, 1)


def test_explain_tells_of_each_endpoint_whether_and_why() -> None:
    text = said("policy", "explain", "--service", "chat", "--class", "interactive", "--origin", "eu").stdout
    assert text.startswith("chat/interactive from eu: data_class personal, tier premium, origin_country DE, tenant not")
    assert "  eu-west-a   allowed\n" in text
    assert "gdpr/default denies what no rule allows, and within-the-eea, adequate-country" in text
    (flow,) = told("policy", "explain", "--class", "interactive", "--origin", "us", "--endpoint", "us-east-a")["flows"]
    assert flow["endpoints"] == [
        {"endpoint": "us-east-a", "allowed": True, "serves": True, "denied_by": [], "extra_usd": 0.0}
    ]


def test_explain_tells_what_is_wished_for() -> None:
    Path("tradewind.yaml").write_text(f"{FLEET}\npolicies: [batch-cheapest, edge-first, chat-under-200ms]\n")
    text = said("policy", "explain", "--class", "batch", "--origin", "eu").stdout
    assert "wish: batch-cheapest/dollars-decide weighs latency 0: nobody waits for batch" in text
    text = said("policy", "explain", "--class", "interactive", "--origin", "eu").stdout
    assert "wish: chat-under-200ms/quick wants p95 at the caller under 200 ms" in text
    flows = told("policy", "explain")["flows"]
    assert len(flows) == 6


@pytest.mark.parametrize("flag", ["--service", "--class", "--origin", "--endpoint"])
def test_explain_knows_no_name_that_is_not_of_the_fleet(flag: str) -> None:
    assert isinstance(refused("policy", "explain", flag, "moon"), BadSetting)


def test_test_tries_the_cases_of_a_file_or_of_a_shipped_policy() -> None:
    assert said("policy", "test", "gdpr").stdout == "12 cases, none failed\n"
    Path("c.yaml").write_text("policies: [gdpr]\ncases:\n  - {name: no, request: {}, target: {}, expect: allow}\n")
    answer = said("policy", "test", "c.yaml")
    assert answer.exit_code == 1
    assert answer.stdout.startswith("c.yaml:3: no: expected to be allowed, and denied: gdpr/default")
    assert answer.stdout.endswith("1 case, 1 failed\n")
    assert told("policy", "test", "c.yaml")["failed"][0]["where"] == "c.yaml:3"
    assert isinstance(refused("policy", "test", "not-here.yaml"), BadFleet)
    assert f"Name a file, or one of {', '.join(shipped())}" in str(refused("policy", "test", "nosuch"))


def test_show_lists_and_prints_what_is_shipped() -> None:
    listed = said("policy", "show").stdout.splitlines()
    assert [line.split()[0] for line in listed] == list(shipped())
    Path("ours.yaml").write_text(said("policy", "show", "gdpr").stdout)
    assert said("policy", "check", "ours.yaml").exit_code == 0
    assert told("policy", "show", "gdpr")["name"] == "gdpr"
    assert isinstance(refused("policy", "show", "moon"), BadSetting)
