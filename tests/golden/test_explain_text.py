"""What `tradewind explain` and `tradewind table diff` print: people read it at three in the morning.

After a change that is meant: `python -m tests.golden.test_explain_text` writes the files anew; review the difference.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from streams.contract.records import (
    Candidate,
    Considered,
    Decision,
    Exclusion,
    Policy,
    Route,
    RoutingTable,
    Rule,
    TableEndpoint,
)
from tests.unit.router_fleet import fleet, request_class
from tradewind.hands import explain_text, table_diff
from tradewind.hands.explain import Explained, Which, explained

HERE = Path(__file__).parent
M = 1e-6


def decision() -> Decision:
    """An outage was answered; of one route everything is told, of the other the law leaves little."""
    interactive = Considered(
        origin="eu", class_="interactive", demand_rps=180.0, unserved_rps=12.5, left_out=3,
        candidates=(
            Candidate(endpoint="eu-west-b", share=0.6, price_usd=5 * M, latency_usd=1.3 * M, carbon_usd=0.4 * M,
                      crowd_usd=375 * M, load=1.0, p95_ms=132.0),
            Candidate(endpoint="us-east-a", share=0.4, price_usd=2.5 * M, latency_usd=520 * M, carbon_usd=0.9 * M,
                      egress_usd=0.36 * M, crowd_usd=12.2 * M, load=0.62, p95_ms=412.0),
            Candidate(endpoint="ap-south-a", share=0.0, price_usd=9 * M, latency_usd=900 * M, risk_usd=2 * M,
                      rule_usd=30 * M, crowd_usd=0.0, load=0.1, p95_ms=640.0),
            Candidate(endpoint="us-east-b", share=0.0, price_usd=2.5 * M, latency_usd=520 * M, load=0.2, p95_ms=412.0),
        ),
        excluded=(
            Exclusion(endpoint="eu-west-a", reason="5 connect errors in a row", kind="health"),
            Exclusion(endpoint="eu-west-c", reason="eu-west-c is drained by ann: new driver", kind="order"),
            Exclusion(endpoint="eu-west-d", reason="no ready replica", kind="capacity"),
        ),
    )  # fmt: skip
    private = Considered(
        origin="eu", class_="private", demand_rps=4.0,
        candidates=(Candidate(endpoint="eu-west-b", share=1.0, price_usd=5 * M, latency_usd=0.1 * M, load=1.0),),
        excluded=tuple(
            Exclusion(endpoint=f"us-east-{z}", reason="rule eu-only: in IE only, not in US", kind="law") for z in "abcd"
        ),
    )  # fmt: skip
    return Decision(
        service="chat", epoch=1_763_938_800, version=41, made_at_s=1_763_938_900.0, method="lp", gap=0.0004,
        reason="eu-west-a down: 5 connect errors in a row; interactive@eu: eu-west 100 % -> eu-west 60 %, us-east 40 %",
        considered=(interactive, private), digest="d" * 64,
    )  # fmt: skip


def endpoint(name: str, **more: object) -> TableEndpoint:
    told = {
        "name": name, "url": "http://127.0.0.1:1", "provider": "aws", "region": name[:-2], "zone": name,
        "jurisdiction": "IE", "capacity_rps": 100.0, "concurrency": 64, "cost_usd_per_request": 2.5 * M,
        "latency_p95_ms": 120.0,
    }  # fmt: skip
    return msgspec.convert(told | more, TableEndpoint)


def table(version: int, **more: object) -> RoutingTable:
    route = Route(
        origin="eu", class_="interactive", slo_p95_ms=400, endpoints=("eu-west-a", "eu-west-b"), shares=(0.5, 0.5)
    )
    told = RoutingTable(
        service="chat", epoch=1_763_938_800, version=version, issued_at_s=1_763_938_000.0 + 20 * version,
        expires_at_s=1_763_939_900.0, fleet_version=3, default_class="interactive",
        endpoints=(endpoint("eu-west-a"), endpoint("eu-west-b"), endpoint("us-east-a")), routes=(route,),
        decision="d" * 64,
    )  # fmt: skip
    return msgspec.structs.replace(told, **more)


def of_everything() -> Explained:
    held = "held at 1763938800.40 by ann: strange bill"
    known = fleet([request_class(), request_class("private")])
    return explained(decision(), table(45, held=held), known, Which(service="chat"), vouched=True)


def of_one_endpoint() -> Explained:
    which = Which(service="chat", origin="eu", class_="interactive", endpoint="us-west-z", number=(1_763_938_800, 42))
    return explained(decision(), table(45), fleet(), which, vouched=False)


def of_two_tables() -> table_diff.TableDiff:
    route = Route(
        origin="eu", class_="interactive", slo_p95_ms=300, endpoints=("eu-west-b", "us-east-a"), shares=(0.75, 0.25),
        jurisdictions=("IE", "US"),
    )  # fmt: skip
    ends = (endpoint("eu-west-a", state="down"), endpoint("eu-west-b", latency_p95_ms=180.0),
            endpoint("us-east-a", cost_usd_per_request=3 * M), endpoint("ap-south-a"))  # fmt: skip
    gdpr = Policy(name="gdpr", rules=(Rule(id="eu-only", require={"country": ("IE",)}),))
    later = table(57, routes=(route,), endpoints=ends, policies=(gdpr,), fleet_version=4, held="held by ann",
                  reason="eu-west-a down: 5 connect errors in a row")  # fmt: skip
    return table_diff.diff(table(42), later)


TOLD = {
    "explain.txt": lambda: explain_text.lines(of_everything(), 1_763_938_905.0),
    "explain_endpoint.txt": lambda: explain_text.lines(of_one_endpoint(), 1_763_938_905.0),
    "table_diff.txt": lambda: table_diff.lines(of_two_tables()),
}


@pytest.mark.parametrize("name", TOLD)
def test_the_text_is_as_it_was(name: str) -> None:
    assert "\n".join(TOLD[name]()) + "\n" == (HERE / name).read_text()


if __name__ == "__main__":
    for name, told in TOLD.items():
        (HERE / name).write_text("\n".join(told()) + "\n")
