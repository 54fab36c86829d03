"""The demo's parts that need no processes: words for outages, the onlooker's notes, the report, the folder."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from streams.contract import topics
from streams.contract.errors import BadSetting, Missing
from streams.contract.records import Route, RoutingTable, TableEndpoint
from tradewind.demo import report
from tradewind.demo.outage import Outage, parse_outage
from tradewind.demo.play import fresh_folder
from tradewind.demo.watch import Seat
from tradewind.load import Outcome

REGIONS = ["ap-south", "eu-west"]


def _table(version: int, gone: tuple[str, ...] = (), evidence_at_s: float | None = None) -> RoutingTable:
    endpoints = tuple(
        TableEndpoint(
            name=name, url="http://127.0.0.1:1", provider="p", region="r", zone="z", jurisdiction="DE",
            state="down" if name in gone else "ready", capacity_rps=1, concurrency=1, cost_usd_per_request=0,
            latency_p95_ms=1,
        )
        for name in ("a", "b", "c")
    )  # fmt: skip
    route = Route(origin="o", class_="c", slo_p95_ms=1, endpoints=("a",), shares=(1.0,))
    return RoutingTable(
        service="s", epoch=1, version=version, issued_at_s=0, expires_at_s=1, fleet_version=1, default_class="c",
        endpoints=endpoints, routes=(route,), reason=f"because {version}", evidence_at_s=evidence_at_s,
    )  # fmt: skip


def _outcome(at_s: float, *, ok: bool = True, region: str | None = "eu", error: str | None = None) -> Outcome:
    return Outcome(at_s, "o", "c", True, ok, error, region=region, ttft_ms=10.0 * (1 + at_s), total_ms=100.0)  # type: ignore[arg-type]


def test_an_outage_without_an_end_lasts_twenty_seconds() -> None:
    assert parse_outage("eu-west@45", REGIONS) == Outage("eu-west", 45.0, 65.0)
    assert parse_outage("eu-west@1.5-3", REGIONS) == Outage("eu-west", 1.5, 3.0)


@pytest.mark.parametrize("words", ["eu-west", "@4", "eu-west@x", "mars@4", "eu-west@9-4"])
def test_a_wrong_outage_is_refused_with_flag_value_and_remedy(words: str) -> None:
    with pytest.raises(BadSetting, match="--outage") as refused:
        parse_outage(words, REGIONS)
    assert words in str(refused.value)
    assert refused.value.remedy


def test_the_onlooker_measures_from_the_first_failed_attempt_to_the_table_without_the_endpoint() -> None:
    seat = Seat()
    for table, now_s in ((_table(1), 10.0), (_table(2, ("a", "b"), 10.9), 11.0), (_table(3, ("a", "b")), 12.0)):
        seat.see(topics.ROUTING_TABLE.name, msgspec.json.encode(table), now_s)
    assert seat.evidence_ms == pytest.approx([100.0, 100.0])
    assert seat.published == 3
    assert [(version, why) for _, version, why in seat.moves] == [(1, "because 1"), (2, "because 2")]


def test_a_failure_counts_as_servable_unless_it_was_the_callers_own_doing() -> None:
    outcomes = [_outcome(1), _outcome(2, ok=False, error="truncated"), _outcome(3, ok=False, error="client_4xx")]
    made = report.make(outcomes, Seat(), report.Broker("k", "4", True), None, seconds=4, startup_s=1)
    assert (made.requests, made.failed, made.lost_servable) == (3, 2, 1)
    assert made.errors == {"truncated": 1, "client_4xx": 1}


def test_quantiles_are_cut_at_the_outage() -> None:
    outcomes = [_outcome(float(second)) for second in range(9)]
    made = report.make(outcomes, Seat(), report.Broker("k", "4", True), Outage("eu", 3, 6), seconds=9, startup_s=1)
    assert made.p95_ms == {"before": 30.0, "during": 60.0, "after": 90.0}


def test_shares_add_up_to_one_in_each_slot() -> None:
    found = report.shares([_outcome(0), _outcome(1, region="us"), _outcome(6), _outcome(7, ok=False)], every_s=5)
    assert [(s.at_s, s.region, s.share) for s in found] == [(0, "eu", 0.5), (0, "us", 0.5), (5, "eu", 1.0)]


def test_a_run_starts_from_an_empty_folder_unless_told_to_keep_it(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with fresh_folder(folder, keep=False):
        (folder / "old").mkdir()
        (folder / "note").write_text("x")
    with fresh_folder(folder, keep=True):
        assert (folder / "note").exists()
    with fresh_folder(folder, keep=False):
        assert [p.name for p in folder.iterdir()] == [".lock"]


def test_two_runs_do_not_share_a_folder(tmp_path: Path) -> None:
    with (
        fresh_folder(tmp_path, keep=False),
        pytest.raises(Missing, match="Another demo"),
        fresh_folder(tmp_path, keep=False),
    ):
        pass


def test_a_folder_that_cannot_be_written_is_said_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Missing, match="cannot be written"), fresh_folder(tmp_path / "file" / "run", keep=False):
        pass
