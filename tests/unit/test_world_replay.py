"""`tradewind replay`: scenario files and all that can be wrong with them, the report, and what it can be asked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from typer.testing import CliRunner, Result

from router_sync.fleet import BadFleet
from streams.contract.errors import BadSetting, Missing
from streams.contract.records import DemandForecast
from streams.contract.topics import DEMAND_FORECAST
from streams.settings import Settings
from tradewind.cli import app
from tradewind.world.brain import House, settings_of
from tradewind.world.build import built
from tradewind.world.reading import BUNDLED, bundled, find, parse, read, seconds
from tradewind.world.replay import Options, replay
from tradewind.world.scenario import Whole
from tradewind.world.summary import Summary, cut
from tradewind.world.text import lines
from tradewind.world.world import World

OUTAGE = (BUNDLED / "outage.yaml").read_text("utf-8")


def said(*words: str) -> Result:
    return CliRunner().invoke(app, ["replay", *words])


def problems(text: str) -> list[str]:
    """What is wrong with a scenario, line by line."""
    with pytest.raises(BadFleet) as caught:
        parse(text, Path("my.yaml"))
    return [str(problem) for problem in caught.value.problems]


def with_(old: str, new: str) -> str:
    assert old in OUTAGE
    return OUTAGE.replace(old, new)


# ---------------------------------------------------------------- files


@pytest.mark.parametrize("name", bundled())
def test_bundled_scenarios_can_be_lived_through_and_say_what_they_are(name: str) -> None:
    whole = read(find(name))
    assert whole.scenario.name == name
    assert len(whole.scenario.says) > 40
    setup = built(whole)
    assert sorted(setup.notes) == list(setup.notes)
    assert len(list(setup.moments())) >= 2


def test_the_day_has_all_that_a_day_can_bring() -> None:
    day = read(find("day")).scenario
    assert {fault.kind for fault in day.faults} >= {"dead", "partial"}
    for part in (day.losses, day.prices, day.carbon_swings, day.surges, day.work):
        assert part
    assert len({item.origin for item in day.demand}) == 3


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("mean_rps: 45", "mean_rps: much", "demand[0].mean_rps = 'much' cannot be used. Write a number"),
        ("mean_rps: 45", "mean_rps: -1", "demand[0].mean_rps = -1 cannot be used"),
        ("lasts: 15m", "lasts: 15 minutes", "lasts = '15 minutes' cannot be used. Write a length of time"),
        ("lasts: 15m", "lasts: 9d", "Write from 1m to 7d"),
        ("start: 2026-06-16T12:00:00Z", "start: noon", "Write a time in UTC, as in 2026-06-16T00:00:00Z"),
        ("where: us-east,", "where: us-eats,", "Did you mean us-east?"),
        ("{at: 5m, lasts: 5m,", "{at: 16m, lasts: 5m,", "It lies after the end, 15m"),
        ("{at: 5m, lasts: 5m,", "{at: 5m, lasts: 0s,", "It has to be longer than nothing"),
        ("kind: dead", "kind: asleep", "faults[0].kind = 'asleep' cannot be used"),
        ("kind: dead", "kinds: dead", "Did you mean kind?"),
        ("{origin: europe, class: private,", "{origin: europa, class: private,", "Did you mean europe?"),
        ("{origin: europe, class: private,", "{origin: europe, class: privat,", "Did you mean private?"),
        ("demand:", "demands:", "Did you mean demand?"),
        ("jurisdiction: IE, replicas: 3", "jurisdiction: UK, replicas: 3", "The United Kingdom is GB"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_scenario_is_told_with_its_line_and_a_remedy(old: str, new: str, told: str) -> None:
    text = with_(old, new)
    line = text[: text.index(new)].count("\n") + 1
    found = problems(text)
    assert any(problem.startswith(f"my.yaml:{line}: ") and told in problem for problem in found), found


def test_all_that_is_wrong_is_told_at_once() -> None:
    text = (
        with_("mean_rps: 45", "mean_rps: x").replace("where: us-east,", "where: 7,").replace("lasts: 15m", "lasts: x")
    )
    assert len(problems(text)) == 3


def test_a_pool_has_one_endpoint_and_work_a_class_of_its_own() -> None:
    twice = with_("zone: eu-west-1b", "zone: eu-west-1a")
    assert any("has an endpoint already" in problem for problem in problems(twice))
    work = OUTAGE + "work:\n  - {origin: europe, class: private, requests: 100, within: 10m, rps: 1}\n"
    assert any("give work that waits its own class" in problem for problem in problems(work))


def test_a_fleet_may_lie_in_a_file_beside_the_scenario(tmp_path: Path) -> None:
    (tmp_path / "fleet.yaml").write_text(Path("tradewind/demo/fleet.yaml").read_text("utf-8"), "utf-8")
    scenario = "name: mine\nlasts: 2m\nfleet: fleet.yaml\ndemand:\n  - {origin: asia, class: batch, mean_rps: 3}\n"
    (tmp_path / "mine.yaml").write_text(scenario, "utf-8")
    whole = read(tmp_path / "mine.yaml")
    assert whole.fleet.fleet == "demo"
    (tmp_path / "mine.yaml").write_text(scenario.replace("fleet.yaml", "none.yaml"), "utf-8")
    with pytest.raises(BadFleet, match="No such file"):
        read(tmp_path / "mine.yaml")
    (tmp_path / "mine.yaml").write_text("name: mine\ndemand: []\n", "utf-8")
    with pytest.raises(BadFleet, match="or a file's name"):
        read(tmp_path / "mine.yaml")


def test_lengths_may_be_nothing() -> None:
    assert [seconds(length) for length in ("0s", "90s", "1h30m", "0.5m")] == [0.0, 90.0, 5400.0, 30.0]


# ---------------------------------------------------------------- runs


@pytest.fixture(scope="module")
def outage() -> Whole:
    return read(find("outage"))


def run(whole: Whole, **options: Any) -> Summary:
    return replay(whole, Settings(), Options(**options))


@pytest.fixture(scope="module")
def whole_run(outage: Whole) -> Summary:
    return run(outage)


def test_a_run_says_what_came_of_every_request_and_every_dollar(whole_run: Summary) -> None:
    requests = whole_run.requests
    assert requests.demand == requests.served + requests.late + requests.shed + requests.failed > 90_000
    assert (whole_run.conserved, whole_run.breaches, whole_run.dead_letters) == (True, 0, 0)
    for parts in (whole_run.by_class, whole_run.by_tier, whole_run.by_origin):
        assert sum(fates.demand for fates in parts.values()) == requests.demand
    assert sum(hour.requests.demand for hour in whole_run.hours) == requests.demand
    replica_h = 14 * 0.25
    assert whole_run.cost.replica_h == pytest.approx(replica_h, rel=1e-6)
    paid = 0.25 * (3 * (0.9 + 0.9 + 0.8 + 0.35) + 2 * 0.98)
    assert whole_run.cost.replicas_usd == pytest.approx(paid, rel=1e-6)
    assert 0 < whole_run.cost.used_usd < whole_run.cost.usd
    assert whole_run.simulated_s == 900.0
    assert len(whole_run.assumptions) > 5


def test_a_timeline_has_what_happened_and_the_tables_that_answer_it(whole_run: Summary) -> None:
    said = [(moment.what, moment.says) for moment in whole_run.timeline]
    assert ("fault", "us-east is dead, for 5m") in said
    dead = said.index(("fault", "us-east is dead, for 5m"))
    assert any(what == "table" and "us-east" in says and "down" in says for what, says in said[dead : dead + 4])
    assert any("is back" in says for _, says in said)
    assert [moment.at_s for moment in whole_run.timeline] == sorted(moment.at_s for moment in whole_run.timeline)


def test_equal_seeds_give_equal_reports_and_others_do_not(outage: Whole) -> None:
    def day(seed: int) -> bytes:
        found = run(outage, seed=seed, from_s=240.0, until_s=420.0)
        return msgspec.json.encode(msgspec.structs.replace(found, wall_s=0.0))

    assert day(5) == day(5)
    assert day(5) != day(6)


def test_a_part_of_a_scenario_is_lived_through_at_its_own_times(outage: Whole) -> None:
    found = run(outage, from_s=240.0, until_s=360.0)
    assert found.simulated_s == 120.0
    assert [m.says for m in found.timeline if m.what == "fault"] == ["us-east is dead, for 5m"]


@pytest.mark.parametrize(("options", "told"), [
    ({"from_s": 30.0}, "--from"), ({"until_s": 2000.0}, "--to"), ({"from_s": 600.0, "until_s": 600.0}, "--to"),
    ({"router": "fastest"}, "nearest"),
])  # fmt: skip
def test_what_cannot_be_asked_of_a_scenario_is_refused(outage: Whole, options: dict[str, Any], told: str) -> None:
    with pytest.raises(BadSetting, match=told):
        run(outage, **options)


def test_hindsight_tells_the_house_what_will_be_asked_and_none_tells_it_nothing(outage: Whole) -> None:
    def forecasts(expect: Any) -> list[DemandForecast]:
        setup = built(outage)
        house = House(setup.fleet, settings_of(Settings()), setup.start_s, 1, expect)
        house.carrier._forgotten = []
        world = World(setup, house, setup.start_s + 180.0, hindsight=expect == "hindsight")
        for _ in world.live():
            pass
        return [msgspec.json.decode(m.value or b"", type=DemandForecast) for m in house.carrier.said(DEMAND_FORECAST)]

    assert forecasts("none") == []
    known = forecasts("hindsight")
    assert {record.model for record in known} == {"hindsight"}
    assert {(r.origin, r.class_) for r in known} == {
        ("europe", "interactive"), ("america", "interactive"), ("europe", "private")}  # fmt: skip
    assert all(h.rps["0.5"] == h.rps["0.99"] > 10 for r in known for h in r.horizons)


# ---------------------------------------------------------------- the command


def test_the_command_prints_a_timeline_a_summary_and_what_was_assumed(tmp_path: Path) -> None:
    found = said("outage", "--from", "4m", "--to", "6m", "--events", "3", "--save", str(tmp_path / "run.json"))
    assert found.exit_code == 0, found.output
    for words in ("us-east is dead, for 5m", "hour", "class interactive", "paid", "law: 0 breaches", "assumed:"):
        assert words in found.stdout
    assert "smaller moves (--events N shows more" in found.stdout
    kept = json.loads((tmp_path / "run.json").read_text())
    assert kept["requests"]["demand"] == sum(kept["requests"][f] for f in ("served", "late", "shed", "failed"))
    assert len(kept["timeline"]) > 3


def test_the_command_says_one_object_with_all_of_it() -> None:
    found = said("outage", "--to", "1m", "--json", "--router", "nearest", "--seed", "9")
    whole = json.loads(found.stdout)
    assert (whole["router"], whole["seed"], whole["simulated_s"]) == ("nearest", 9, 60.0)
    assert whole["tables"]["said"] == 1


def test_the_command_lists_what_is_bundled() -> None:
    assert [line.split()[0] for line in said("--list").stdout.splitlines()] == bundled() == ["day", "outage"]
    assert [one["name"] for one in json.loads(said("--list", "--json").stdout)["scenarios"]] == bundled()


@pytest.mark.parametrize(
    ("words", "kind", "told"),
    [
        (("dya",), BadSetting, "Name a YAML file, or one of day, outage"),
        (("outage", "--expect", "luck"), BadSetting, "forecast, none, hindsight"),
        (("outage", "--to", "soon"), BadSetting, "length of time"),
        (("outage", "--save", "/nowhere/run.json"), Missing, "cannot be written (there is no folder /nowhere)"),
    ],
)
def test_what_is_asked_wrongly_is_one_sentence(words: tuple[str, ...], kind: type[Exception], told: str) -> None:
    error = said(*words).exception
    assert isinstance(error, kind)
    assert told in str(error)


def test_a_run_that_cannot_be_saved_is_told_all_the_same() -> None:
    answer = said("outage", "--to", "1m", "--json", "--save", "/dev/full")
    assert isinstance(answer.exception, Missing)
    assert json.loads(answer.stdout)["conserved"]


def test_a_run_that_is_ended_early_is_reported_as_far_as_it_came(outage: Whole) -> None:
    found = replay(outage, Settings(), Options(), lambda share, _at_s: share < 0.05)
    assert found.ended_early
    assert 40.0 < found.simulated_s < 120.0
    assert found.conserved
    assert any("lived in" in line for line in lines(cut(found, 5)))
