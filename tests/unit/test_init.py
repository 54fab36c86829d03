"""`tradewind init`: what it writes can be used, and nothing is written over."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from router_sync.fleet import BadFleet
from streams.contract.errors import BadSetting, TradewindError
from tradewind.cli import app
from tradewind.config.draft import EXAMPLE, Origin, Place, draft, parse_endpoint, word
from tradewind.config.whole import parse, read

FLAGS = ("--service", "llama", "--endpoint", "a=http://10.0.0.1:8000@eu/NO,price=1.2,rps=5,replicas=3",
         "--endpoint", "b=https://b.example/base@us-east/US", "--origin", "eu/DE", "--origin", "1st/us")  # fmt: skip


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


def said(*words: str, answers: str = "") -> Result:
    return CliRunner().invoke(app, ["init", *words], input=answers)


def refused(*words: str) -> TradewindError:
    error = said(*words).exception
    assert isinstance(error, TradewindError), error
    return error


def test_flags_become_a_file_that_passes_its_own_check(tmp_path: Path) -> None:
    result = said("new", *FLAGS, "--yes")
    assert result.exit_code == 0, result.output
    assert "tradewind up new/tradewind.yaml" in result.stderr
    fleet = read(Path("new/tradewind.yaml")).fleet
    first, second = fleet.endpoints
    assert (first.name, first.url, first.region, first.jurisdiction) == ("a", "http://10.0.0.1:8000", "eu", "NO")
    assert (first.price_usd_per_h, first.capacity_rps, first.replicas) == (1.2, 5, 3)
    assert (second.url, second.services, second.zone) == ("https://b.example/base", ("llama",), "us-east-1")
    assert [(o.name, o.jurisdiction) for o in fleet.origins] == [("eu", "DE"), ("1st", "US")]
    assert fleet.origins[0].rtt_ms["eu"] < fleet.origins[0].rtt_ms["us-east"]


def test_without_flags_and_terminal_it_is_an_example_and_says_so() -> None:
    result = said()
    assert result.exit_code == 0
    assert "this is an example" in result.stderr
    text = Path("tradewind.yaml").read_text()
    assert text.startswith("# THIS IS AN EXAMPLE")
    assert len(read(Path("tradewind.yaml")).fleet.endpoints) == len(EXAMPLE)


def test_a_file_that_is_there_stays_unless_forced() -> None:
    Path("tradewind.yaml").write_text("mine")
    assert "--force" in str(refused())
    assert Path("tradewind.yaml").read_text() == "mine"
    assert said("--force").exit_code == 0
    assert Path("tradewind.yaml").read_text() != "mine"


def test_questions_are_asked_on_a_terminal_and_asked_again_when_an_answer_does_not_fit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tradewind.cli.init._on_terminal", lambda: True)
    answers = [
        "gpt oss", "gpt-oss",                                       # a name with a blank is asked for again
        "127.0.0.1:8001", "http://127.0.0.1:8001", "", "eu", "UK", "GB", "-1", "0.7", "",
        "http://127.0.0.1:8002", "endpoint-1", "far", "us", "US", "", "10",
        "",                                                          # no more endpoints
        "home", "DE",
    ]  # fmt: skip
    result = said(answers="\n".join(answers) + "\n")
    assert result.exit_code == 0, result.output
    assert "The United Kingdom is GB" in result.stderr
    assert "names are unique" in result.stderr
    fleet = read(Path("tradewind.yaml")).fleet
    assert [(e.name, e.jurisdiction, e.price_usd_per_h, e.capacity_rps) for e in fleet.endpoints] == [
        ("endpoint-1", "GB", 0.7, 20),
        ("far", "US", 1, 10),
    ]
    assert (fleet.services[0].name, fleet.origins[0].name) == ("gpt-oss", "home")
    assert "EXAMPLE" not in Path("tradewind.yaml").read_text()


@pytest.mark.parametrize(
    ("endpoint", "right"),
    [
        ("http://h:1@eu/DE", "NAME=URL@REGION/COUNTRY"),
        ("a=http://h:1", "NAME=URL@REGION/COUNTRY"),
        ("a=http://h:1@eu", "NAME=URL@REGION/COUNTRY"),
        ("a=h:1@eu/DE", "http(s)://host:port"),
        ("a b=http://h:1@eu/DE", "letters, digits"),
        ("a=http://h:1@eu/XX", "ISO 3166-1"),
        ("a=http://h:1@eu/DE,cost=1", "price=USD"),
        ("a=http://h:1@eu/DE,price=nan", "price=USD"),
    ],
)
def test_an_endpoint_that_cannot_be_is_told_what_would_be_right(endpoint: str, right: str) -> None:
    error = refused("--endpoint", endpoint)
    assert isinstance(error, BadSetting)
    assert right in str(error)
    assert not Path("tradewind.yaml").exists()


def test_two_endpoints_of_one_name_are_refused_before_anything_is_written() -> None:
    error = refused("sub", "--endpoint", "a=http://h:1@eu/DE", "--endpoint", "a=http://h:2@eu/DE")
    assert isinstance(error, BadFleet)
    assert "names are unique" in str(error)
    assert not Path("sub").exists()


@pytest.mark.parametrize("text", ["NO", "on", "1", "007", "1e3", "0x1f", "a:", "a#b", "eu-west", "y", "null", "1:30"])
def test_names_that_yaml_may_take_for_something_else_are_read_back_as_they_are(text: str) -> None:
    name = text if text != "a#b" else "a-b"
    place = Place(name=name, url="http://127.0.0.1:1", region=name, country="NO")
    fleet = parse(draft(name, [place], [Origin(name, "NO")]), Path("t.yaml")).fleet
    assert (fleet.endpoints[0].name, fleet.services[0].name, fleet.origins[0].name) == (name, name, name)
    assert word(text).strip('"') == text


def test_a_country_may_be_written_small() -> None:
    assert parse_endpoint("a=http://h:1@eu/de").country == "DE"
