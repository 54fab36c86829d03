"""The fleet file: what is read from it, and that all that is wrong is said at once, with its line."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from router_sync.fleet import BadFleet, load, misfits, parse, with_version
from streams.contract.records import Policy, Rule
from tests.unit.router_fleet import endpoint, fleet

EXAMPLE = Path(__file__).parents[2] / "examples" / "tradewind.yaml"
SMALL = """\
services:
  - name: chat
    default_class: interactive
    classes:
      - {name: interactive, slo_p95_ms: 400, jurisdictions: [NO]}
origins:
  - {name: north, jurisdiction: NO, rtt_ms: {oslo: 5}}
endpoints:
  - name: oslo-a
    url: http://127.0.0.1:18101
    services: [chat]
    provider: hydro
    region: oslo
    zone: oslo-1
    jurisdiction: NO
    capacity_rps: 50
    price_usd_per_h: 0.5
"""


def wrong(text: str) -> list[tuple[str, str]]:
    """(line, field) of each problem."""
    with pytest.raises(BadFleet) as caught:
        parse(text)
    return [(p.where.partition(":")[2], p.field) for p in caught.value.problems]


def test_the_example_is_three_regions_of_two_endpoints_at_two_providers() -> None:
    example = load(EXAMPLE)
    assert len(example.endpoints) == 6
    assert len({e.region for e in example.endpoints}) == 3
    assert len({e.provider for e in example.endpoints}) == 2
    assert [o.name for o in example.origins] == ["eu", "us", "ap"]
    assert [c.name for c in example.services[0].classes] == ["interactive", "batch"]
    assert len({e.url for e in example.endpoints}) == 6


def test_norway_stays_a_country() -> None:
    small = parse(SMALL)
    assert small.endpoints[0].jurisdiction == "NO"
    assert small.services[0].classes[0].jurisdictions == ("NO",)


def test_a_version_is_the_files_or_zero_until_somebody_numbers_it() -> None:
    assert parse(SMALL).version == 0
    assert parse("version: 7\n" + SMALL).version == 7
    assert with_version(parse(SMALL), 3).version == 3


def test_everything_wrong_with_fields_is_said_at_once_with_its_line() -> None:
    text = SMALL.replace("capacity_rps: 50", "capacity_rps: -1").replace("jurisdiction: NO\n", "jurisdiction: XX\n")
    text = text.replace("    zone: oslo-1\n", "").replace("provider: hydro", "providr: hydro").replace(":18101", ":x")
    assert set(wrong(text)) == {
        ("10", "endpoints[0].url"),
        ("12", "endpoints[0].providr"),
        ("9", "endpoints[0].provider"),
        ("9", "endpoints[0].zone"),
        ("14", "endpoints[0].jurisdiction"),
        ("15", "endpoints[0].capacity_rps"),
    }


def test_everything_that_does_not_fit_together_is_said_at_once() -> None:
    text = SMALL.replace("default_class: interactive", "default_class: batch").replace("oslo: 5", "bergen: 5")
    text += SMALL.partition("endpoints:\n")[2].replace("[chat]", "[chat, image]")
    assert set(wrong(text)) == {
        ("3", "services[0].default_class"),
        ("7", "origins[0].rtt_ms"),
        ("18", "endpoints[1].name"),
        ("20", "endpoints[1].services"),
    }


def test_a_class_that_may_be_processed_nowhere_is_a_mistake() -> None:
    assert wrong(SMALL.replace("jurisdictions: [NO]", "jurisdictions: [DE]")) == [
        ("5", "services[0].classes[0].jurisdictions")
    ]


@pytest.mark.parametrize(("code", "meant"), [("UK", "GB"), ("EU", "Name each country"), ("XX", "ISO 3166-1")])
def test_a_wrong_country_is_answered_with_the_right_one(code: str, meant: str) -> None:
    with pytest.raises(BadFleet, match=meant):
        parse(SMALL.replace("jurisdiction: NO\n", f"jurisdiction: {code}\n"))


@pytest.mark.parametrize(
    "text",
    ["", "[]", "services", "services: [", "a: 1\na: 2\n", "services: 3\n", "services: []\n", "\t", "a: !!python/x 1"],
)
def test_what_is_no_fleet_is_refused_with_a_remedy(text: str) -> None:
    with pytest.raises(BadFleet) as caught:
        parse(text)
    assert caught.value.problems
    assert all(p.remedy and p.where.startswith("tradewind.yaml") for p in caught.value.problems)


@pytest.mark.parametrize("value", ["yes", ".nan", ".inf", "'50'", "[50]", "{a: 1}", ""])
def test_a_capacity_is_a_finite_positive_number(value: str) -> None:
    assert wrong(SMALL.replace("capacity_rps: 50", f"capacity_rps: {value}")) == [("16", "endpoints[0].capacity_rps")]


def test_a_missing_file_is_said_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(BadFleet, match=r"fleet\.yaml.*No such file"):
        load(tmp_path / "fleet.yaml")


def test_policies_that_a_program_made_are_judged_as_those_of_a_file() -> None:
    def wrong(*policies: Policy) -> list[tuple[str, object]]:
        return [(path, value) for path, value, _ in misfits(msgspec.structs.replace(fleet(), policies=policies))]

    good = Policy(name="a", rules=(Rule(id="x", deny={"country": ("KP",)}),))
    assert wrong(good) == []
    assert wrong(good, good) == [("policies[1].name", "a")]
    uk = Policy(name="b", rules=(Rule(id="x", when={"origin_country": ("UK",)}, deny={"country": ("KP",)}),))
    assert wrong(good, uk) == [("policies[1].rules[0].when.origin_country", "UK")]
    assert wrong(Policy(name="c", rules=())) == [("policies[0].rules", [])]
    assert wrong(Policy(name="d", rules=(Rule(id="x"),))) == [("policies[0].rules[0]", "x")]
    hds = Policy(name="e", rules=(Rule(id="x", when={"origin": ("us",)}, require={"certificate": ("hds",)}),))
    assert wrong(hds) == [
        ("policies[0].rules[0]", "chat/interactive from us"),
        ("policies[0].rules[0]", "chat/batch from us"),
    ]


def test_a_fleet_made_by_a_program_is_judged_by_the_same_rules() -> None:
    assert not list(misfits(fleet()))
    [(path, value, _)] = misfits(fleet(endpoints=[endpoint("a", services=("chat", "image"))]))
    assert (path, value) == ("endpoints[0].services", "image")
