"""Cases: the shipped ones hold, and one that does not is told with its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from router_sync.fleet import BadFleet
from router_sync.policy.cases import load, tried
from router_sync.policy.file import path_of, shipped
from tests.unit.test_router_fleet import SMALL

POLICY = """\
name: p
rules:
  - {id: home, when: {tenant: [acme]}, require: {country: [DE]}}
  - {id: quick, limit_p95_ms: 200}
  - {id: edge, prefer: {place: [edge]}, worth_usd: 0.5}
  - {id: light, weigh: {latency: 0}}
cases:
"""


def failures(path: Path, text: str) -> list[str]:
    path.write_text(text)
    return [f"{Path(one.where).name}: {one.said}" for one in tried(load(path)) if one.said]


@pytest.mark.parametrize("name", shipped())
def test_what_a_shipped_policy_is_meant_to_say_it_says(name: str) -> None:
    docket = load(path_of(name, Path()))
    assert len(docket.cases) >= 3
    assert [outcome for outcome in tried(docket) if outcome.said] == []


def test_cases_that_hold_say_nothing(tmp_path: Path) -> None:
    cases = """\
  - {name: a, request: {tenant: acme}, target: {country: US}, expect: deny, by: [home]}
  - {name: b, request: {tenant: acme}, target: {country: US}, expect: deny, by: [p/home]}
  - {name: c, request: {tenant: globex}, target: {country: US, certificate: [hds]}, expect: allow}
  - {name: d, request: {}, limit_p95_ms: 200, weigh: {latency: 0, price: 1}}
  - {name: e, request: {}, target: {place: cloud}, extra_usd: 0.5}
"""
    assert failures(tmp_path / "p.yaml", POLICY + cases) == []


@pytest.mark.parametrize(
    ("case", "said"),
    [
        ("request: {tenant: acme}, target: {country: US}, expect: allow", "expected to be allowed, and denied: p/home"),
        ("request: {tenant: acme}, target: {country: DE}, expect: deny, by: [home]", "denied by home, and allowed"),
        ("request: {}, target: {}, expect: deny, by: [edge]", "denied by edge, and denied by p/home"),
        ("request: {}, limit_p95_ms: null", "expected limit_p95_ms none, and it is 200"),
        ("request: {}, weigh: {latency: 1}", "expected latency to weigh 1, and it weighs 0"),
        ("request: {}, target: {place: edge}, extra_usd: 0.5", "expected extra_usd 0.5, and it is 0"),
    ],
)
def test_a_case_that_does_not_hold_is_told_with_its_line(case: str, said: str, tmp_path: Path) -> None:
    (told,) = failures(tmp_path / "p.yaml", f"{POLICY}  - {{name: a, {case}}}\n")
    assert told.startswith("p.yaml:8: ")
    assert said in told


@pytest.mark.parametrize(
    ("case", "field"),
    [
        ("request: {tenant: acme}", "cases[0].expect"),
        ("request: {tenant: acme}, expect: deny", "cases[0].target"),
        ("request: {tennant: acme}, target: {}, expect: deny", "cases[0].request"),
        ("request: {}, target: {land: DE}, expect: deny", "cases[0].target.land"),
        ("request: {}, target: {country: [DE]}, expect: deny", "cases[0].target.country"),
        ("request: {}, target: {country: DE}, expect: allow, by: [home]", "cases[0].by"),
        ("request: {}, target: {country: DE}, expect: perhaps", "cases[0].expect"),
        ("target: {country: DE}, expect: allow", "cases[0].request"),
    ],
)
def test_a_case_that_makes_no_sense_is_a_problem(case: str, field: str, tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(f"{POLICY}  - {{name: a, {case}}}\n")
    with pytest.raises(BadFleet) as caught:
        load(tmp_path / "p.yaml")
    assert [problem.field for problem in caught.value.problems] == [field]


def test_cases_may_be_of_several_policies_in_a_file_of_their_own(tmp_path: Path) -> None:
    cases = """\
policies: [gdpr, pci-on-prem]
cases:
  - name: both deny
    request: {data_class: cardholder, origin_country: DE}
    target: {country: US, market: spot, certificate: [pci-dss]}
    expect: deny
    by: [our-own-machines]
"""
    assert failures(tmp_path / "c.yaml", cases) == []


def test_cases_of_a_fleet_name_its_classes_and_endpoints(tmp_path: Path) -> None:
    (tmp_path / "tradewind.yaml").write_text(SMALL + "policies: [gdpr]\n")
    cases = """\
fleet: ./tradewind.yaml
cases:
  - {name: a, request: {service: chat, origin: north, class: interactive}, target: {endpoint: oslo-a}, expect: allow}
  - name: if it moved
    request: {service: chat, origin: north, class: interactive, data_class: personal}
    target: {endpoint: oslo-a, country: US}
    expect: deny
    by: [gdpr/default, class/jurisdictions]
  - {name: c, request: {service: chat, origin: south, class: interactive}, target: {endpoint: oslo-a}, expect: allow}
  - {name: d, request: {service: chat, origin: north, class: interactive}, target: {endpoint: moon}, expect: allow}
"""
    assert failures(tmp_path / "c.yaml", cases) == [
        "c.yaml:9: service, origin and class have to be of the fleet, not chat, south, interactive",
        "c.yaml:10: the endpoint moon is not of the fleet",
    ]


ONE = "cases: [{name: a, request: {}, weigh: {risk: 1}}]\n"


@pytest.mark.parametrize(
    "text",
    ["cases: []\n", "policies: [gdpr]\n", f"policies: [gdpr]\nfleet: ./t.yaml\n{ONE}", ONE, f"fleet: 3\n{ONE}",
     f"fleet: ./x.yaml\n{ONE}"],
)  # fmt: skip
def test_a_file_without_cases_or_without_policies_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "t.yaml").write_text(SMALL)
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(BadFleet):
        load(tmp_path / "c.yaml")
