"""What demos play and measure: scenario files, the judge of law, tiers, spill, settling, and markets that move."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any, get_type_hints

import msgspec
import pytest

from router_sync.fleet import misfits
from router_sync.policy.law import law_of
from streams.contract.errors import BadSetting
from streams.contract.records import Fleet, Policy, Route, RoutingTable, Rule, TableEndpoint
from tests.unit.router_fleet import endpoint, fleet, request_class
from tradewind.cli import demo as cli_demo
from tradewind.demo import markets, parts, report, scenarios
from tradewind.demo.acts import ACTS
from tradewind.demo.book import Book
from tradewind.demo.parts.law import why_not
from tradewind.demo.parts.run import Run
from tradewind.demo.watch import Onlooker
from tradewind.load import Outcome, parse_surges
from tradewind.pretend.ledger import Ledger, Received, read

every_scenario = pytest.mark.parametrize("name", scenarios.names())

# ---------------------------------------------------------------- files


@every_scenario
def test_a_scenario_asks_only_for_what_there_is(name: str) -> None:
    _, scenario, of = scenarios.load(name)
    assert list(misfits(of)) == []
    assert set(scenario.shows) <= parts.PARTS.keys()
    assert set(scenario.acts) <= ACTS.keys()
    assert scenario.mix.keys() == {origin.name for origin in of.origins}
    (service,) = of.services
    for shares in scenario.mix.values():
        assert shares.keys() <= {c.name for c in service.classes}
        assert sum(shares.values()) == pytest.approx(1.0)
    assert scenario.streams.keys() <= {c.name for c in service.classes}
    assert scenario.carbon_g_per_kwh.keys() <= {e.grid_zone for e in of.endpoints}


@every_scenario
def test_its_endpoints_have_ports_of_their_own(name: str) -> None:
    ports = [int(e.url.rsplit(":", 1)[1]) for e in scenarios.load(name).fleet.endpoints]
    assert len(set(ports)) == len(ports)


def test_the_usual_one_comes_first_and_another_name_is_refused() -> None:
    assert scenarios.names()[0] == scenarios.DEFAULT == "loop"
    with pytest.raises(BadSetting, match="loop, sovereign"):
        scenarios.load("lop")


def test_the_command_names_every_scenario() -> None:
    (option,) = get_type_hints(cli_demo.demo, include_extras=True)["scenario"].__metadata__
    assert all(name in option.help for name in scenarios.names())


def test_the_sovereign_fleet_has_law_tiers_an_edge_site_and_simple_requests() -> None:
    _, _, of = scenarios.load("sovereign")
    classes = {c.name: c for c in of.services[0].classes}
    assert len(of.origins) >= 3
    assert {c.tier for c in classes.values()} == {"premium", "standard", "sheddable"}
    assert any(c.jurisdictions for c in classes.values())
    assert any(c.simple_class and classes[c.simple_class].complexity == "simple" for c in classes.values())
    assert [e.region for e in of.endpoints if e.edge] == ["eu-edge"]
    assert len({e.provider for e in of.endpoints}) >= 3
    assert len({e.market for e in of.endpoints}) >= 3


# ---------------------------------------------------------------- law


EU_ONLY = request_class("private", jurisdictions=("IE",), data_class="personal")


def judged(of: Fleet, class_: str = "private", at: str = "us-east-a") -> str | None:
    named = next(c for c in of.services[0].classes if c.name == class_)
    return why_not(of, "chat", named, of.origins[0], next(e for e in of.endpoints if e.name == at))


def ruled(rule: Rule, default: Any = "allow") -> Fleet:
    kinds = [request_class("private", data_class="personal"), request_class("open")]
    return msgspec.structs.replace(fleet(kinds), policies=(Policy(name="p", default=default, rules=(rule,)),))


def test_the_judge_knows_countries_a_class_names() -> None:
    assert judged(fleet([EU_ONLY])) == "not in US"
    assert judged(fleet([EU_ONLY]), at="eu-west-a") is None


def test_the_judge_agrees_with_the_router_on_every_pair_of_every_scenario() -> None:
    for name in scenarios.names():
        of = scenarios.load(name).fleet
        law = law_of(of)
        for service, origin, one in product(of.services, of.origins, of.endpoints):
            for class_ in service.classes:
                lawful = why_not(of, service.name, class_, origin, one) is None
                assert law.allows((service.name, origin.name, class_.name), one.name) == lawful


@pytest.mark.parametrize(
    ("rule", "default", "personal", "public"),
    [
        (Rule(id="r", when={"data_class": ("personal",)}, require={"country": ("IE", "DE")}), "allow", "p/r", None),
        (Rule(id="r", deny={"provider": ("aws",), "region": ("us-east",)}), "allow", "p/r", "p/r"),
        (Rule(id="r", deny={"provider": ("aws",), "region": ("eu-west",)}), "allow", None, None),
        (Rule(id="r", unless={"data_class": ("personal",)}, deny={"country": ("US",)}), "allow", None, "p/r"),
        (Rule(id="r", allow={"country": ("US",)}), "deny", None, None),
        (Rule(id="r", allow={"country": ("IE",)}), "deny", "p: no rule allows it", "p: no rule allows it"),
        (Rule(id="r", require={"certificate": ("hds",)}), "allow", "p/r", "p/r"),
        (Rule(id="r", when={"origin_country": ("FR",)}, deny={"country": ("US",)}), "allow", None, None),
    ],
)
def test_the_judge_reads_rules_as_the_contract_has_them(
    rule: Rule, default: Any, personal: str | None, public: str | None
) -> None:
    of = ruled(rule, default)
    assert (judged(of), judged(of, "open")) == (personal, public)


# ---------------------------------------------------------------- breaches


def run(of: Fleet | None = None, **more: Any) -> Run:
    return Run(**{"fleet": of or fleet([EU_ONLY, request_class()]), "outcomes": (), **more})


def test_whoever_was_received_where_law_forbids_it_is_a_breach_whatever_gateways_say() -> None:
    at_home, abroad = Received(1.0, "eu", "private"), Received(2.0, "us", "private")
    anybody = Received(3.0, "us", "interactive")
    found = parts.measured(
        run(received={"eu-west-a": [at_home, anybody], "us-east-a": [abroad, abroad, anybody]}), ["breaches"]
    )
    assert (found["breaches"], found["judged"]) == (2, 5)
    assert found["breached"] == ["2 of private@us at us-east-a (not in US)"]
    assert parts.told(found, ["breaches"])[0].startswith("2 of 5 requests were where law forbids it")


def test_whoever_does_not_say_who_he_is_is_a_breach_too() -> None:
    found = parts.measured(run(received={"eu-west-a": [Received(1.0, "eu", "stranger"), Received(1.0)]}), ["breaches"])
    assert found["breaches"] == 2


def test_an_endpoints_own_notes_survive_its_death_and_a_torn_line(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    assert list(read(path)) == []
    for number in range(2):
        ledger = Ledger(path)
        ledger.note(Received(float(number), "eu", "private"))
    ledger.close()
    with path.open("ab") as file:
        file.write(b'{"at_s": 3')
    assert list(read(path)) == [Received(0.0, "eu", "private"), Received(1.0, "eu", "private")]
    Ledger(None).note(Received(1.0))  # nobody asked for it


# ---------------------------------------------------------------- tiers


TIERED = fleet([request_class("chat", tier="premium", slo_p95_ms=100.0), request_class("batch", tier="sheddable")])


def outcome(at_s: float, cls: str = "chat", **more: Any) -> Outcome:
    said: dict[str, Any] = {"origin": "eu", "stream": False, "ok": True, "total_ms": 50.0, "region": "eu-west"}
    return Outcome(at_s=at_s, cls=cls, **(said | more))


def shed(at_s: float, cls: str = "batch") -> Outcome:
    return outcome(at_s, cls, ok=False, error="shed", region=None)


def test_each_tier_is_told_before_in_and_after_the_surge() -> None:
    outcomes = [outcome(1), outcome(11), outcome(12, total_ms=300.0), outcome(21), outcome(2, "batch"), shed(13)]
    outcomes.append(outcome(14, "batch", ok=False, error="connect"))
    found = parts.measured(run(TIERED, outcomes=outcomes, surges=parse_surges("3x@10-20")), ["share_by_tier"])
    tiers = found["share_by_tier"]
    assert list(tiers) == ["premium", "sheddable"]
    assert list(tiers["premium"]) == ["before", "during", "after"]
    during = tiers["premium"]["during"]
    assert (during.arrived, during.served, during.p95_ms, during.in_slo) == (2, 2, 300.0, 0.5)
    during = tiers["sheddable"]["during"]
    assert (during.arrived, during.served, during.shed, during.failed, during.share) == (2, 0, 1, 1, 0.0)
    assert (during.p95_ms, during.in_slo) == (None, None)
    assert "sheddable during the surge: 0 of 2 served, 1 shed, 1 failed" in parts.told(found, ["share_by_tier"])


def test_requests_count_as_of_the_class_they_were_taken_as_of() -> None:
    found = parts.measured(run(TIERED, outcomes=[outcome(1, "chat", taken_as="batch")]), ["share_by_tier"])
    assert list(found["share_by_tier"]) == ["sheddable"]
    assert parts.told(found, ["share_by_tier"]) == [
        "sheddable: 1 of 1 served, 0 shed, 0 failed; p95 50 ms, 100.0% in time"
    ]


def test_streams_are_judged_by_their_first_token() -> None:
    stream = outcome(1, stream=True, ttft_ms=40.0, total_ms=9000.0)
    found = parts.measured(run(TIERED, outcomes=[stream]), ["share_by_tier"])
    assert found["share_by_tier"]["premium"]["before"].in_slo == 1.0


# ---------------------------------------------------------------- spill


def test_spill_is_what_was_served_beyond_the_nearest_region_that_law_allows() -> None:
    ends = [endpoint(name, at) for name, at in (("eu-a", "eu-west"), ("us-a", "us-east"), ("ap-a", "ap-south"))]
    of = fleet([EU_ONLY, request_class()], ends)
    outcomes = [
        outcome(1, "interactive"), outcome(11, "interactive"), outcome(12, "interactive", region="us-east"),
        outcome(11, "private", origin="us"), shed(12, "interactive"),
    ]  # fmt: skip
    found = parts.measured(run(of, outcomes=outcomes, surges=parse_surges("3x@10")), ["spill"])
    assert found["spill"] == {
        "eu": {"interactive": {"before": 0.0, "during": 0.5}},
        "us": {"private": {"during": 0.0}},
    }
    assert "from eu: interactive 0% -> 50%" in parts.told(found, ["spill"])[0]


def test_an_edge_site_is_near_and_does_not_make_the_cloud_behind_it_far() -> None:
    of = scenarios.load("sovereign").fleet
    outcomes = [
        outcome(1, "chat", origin="europe", region=region, ok=True) for region in ("eu-edge", "eu-west", "us-east")
    ]
    found = parts.measured(run(of, outcomes=outcomes), ["spill"])
    assert found["spill"]["europe"]["chat"]["before"] == pytest.approx(1 / 3, abs=0.001)


# ---------------------------------------------------------------- settling


def table(version: int, east: float) -> RoutingTable:
    ends = tuple(
        TableEndpoint(
            name=name, url="http://a", provider="p", region=region, zone="z", jurisdiction="DE", capacity_rps=1,
            concurrency=1, cost_usd_per_request=0, latency_p95_ms=1,
        )
        for name, region in (("w1", "west"), ("w2", "west"), ("e", "east"))
    )  # fmt: skip
    west = (1.0 - east) * (version % 2), (1.0 - east) * (1 - version % 2)  # twins: which of them is nobody's business
    route = Route(origin="eu", class_="chat", slo_p95_ms=1, endpoints=("w1", "w2", "e"), shares=(*west, east))
    return RoutingTable(
        service="s", epoch=1, version=version, issued_at_s=0, expires_at_s=1, fleet_version=1, default_class="chat",
        endpoints=ends, routes=(route,),
    )  # fmt: skip


def settled(*shares: tuple[float, float], surge: str = "3x@10", **more: Any) -> float | None:
    """From tables as (when, share of the east)."""
    tables = [(at_s, table(number, east)) for number, (at_s, east) in enumerate(shares)]
    outcomes = [outcome(12), outcome(13), outcome(40)]
    told: float | None = parts.measured(
        run(TIERED, outcomes=outcomes, surges=parse_surges(surge), tables=tables, **more), ["converged_s"]
    )["converged_s"]
    return told


def test_tables_have_settled_when_every_later_one_is_like_the_last() -> None:
    assert settled((5, 0.0), (12, 0.3), (14, 0.5), (16, 0.53), (30, 0.52)) == 4.0
    assert settled((5, 0.0), (12, 0.5), (14, 0.0), (16, 0.5), (30, 0.5)) == 6.0, "it came back"
    assert settled((5, 0.5), (12, 0.5), (30, 0.5)) == 0.0, "nothing had to move"


def test_what_never_settles_shows_and_what_was_not_measured_is_not_told() -> None:
    assert settled((5, 0.0), (12, 0.5), (20, 0.0), (30, 0.5)) == 20.0
    assert settled((5, 0.0), surge="3x@10") is None
    assert settled((5, 0.0), (12, 0.5), (41, 0.0)) == 2.0, "a table after the load is no answer to the surge"
    assert settled((5, 0.0), (12, 0.5), surge="") is None
    assert parts.told({"converged_s": None}, ["converged_s"]) == []


# ---------------------------------------------------------------- the report


def test_parts_are_fields_of_the_report_like_any_other() -> None:
    made = report.make(Book(), Onlooker(), report.Broker("k", "4", True), None, seconds=9, startup_s=1)
    assert "parts" not in made.fields()
    assert not {"breaches", "spill"} & made.fields().keys(), "what nobody measured is not told"
    found = parts.measured(run(scenarios.load("sovereign").fleet), scenarios.load("sovereign").scenario.shows)
    whole = msgspec.structs.replace(made, scenario="sovereign", parts=found)
    said = msgspec.json.decode(msgspec.json.encode(whole.fields()))
    assert (said["scenario"], said["breaches"], said["converged_s"], said["spill"]) == ("sovereign", 0, None, {})
    assert "0 of 0 requests were where law forbids it" in report.told(whole)


def test_what_was_shed_did_not_fail_and_is_told_apart() -> None:
    book = Book()
    for one in (outcome(1), shed(2), outcome(3, ok=False, error="connect")):
        book.add(one)
    made = report.make(book, Onlooker(), report.Broker("k", "4", True), None, seconds=9, startup_s=1)
    assert (made.requests, made.shed, made.failed, made.lost_servable, made.errors) == (3, 1, 1, 1, {"connect": 1})
    assert "1 shed" in report.told(made)


# ---------------------------------------------------------------- markets


def test_prices_and_carbon_move_within_bounds_and_are_the_same_in_each_run() -> None:
    _, scenario, of = scenarios.load("sovereign")
    seconds = range(0, 360, 10)
    waves = [[record.price_usd_per_h for record in markets.prices(of, float(s), 1e9)] for s in seconds]
    lists = [e.price_usd_per_h for e in of.endpoints if e.market == "spot"]
    for listed, wave in zip(lists, zip(*waves, strict=True), strict=True):
        assert min(wave) >= listed * 0.74
        assert max(wave) <= listed * 1.26
        assert max(wave) > 1.2 * min(wave), "it moves"
    assert waves == [[r.price_usd_per_h for r in markets.prices(of, float(s), 1e9)] for s in seconds]
    grids = list(markets.carbon(scenario.carbon_g_per_kwh, 0.0, 1e9))
    assert {grid.grid_zone for grid in grids} == {e.grid_zone for e in of.endpoints}
    assert all(grid.valid_from_s < grid.valid_until_s for grid in grids)


def test_a_fleet_without_spot_has_no_prices_to_tell() -> None:
    assert list(markets.prices(fleet(), 0.0, 1e9)) == []
