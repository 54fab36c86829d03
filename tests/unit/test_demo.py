"""The demo's parts that need no processes: words for outages, the onlooker's notes, the report, the folder."""

from __future__ import annotations

import asyncio
import contextlib
import io
import re
import subprocess
import sys
from importlib.resources import files
from pathlib import Path
from typing import cast

import msgspec
import pytest
from rich.console import Console
from typer.testing import CliRunner

from router_sync import fleet as fleets
from streams import signals
from streams.contract import topics
from streams.contract.errors import BadSetting, Missing, Stop
from streams.contract.records import Fleet, Route, RoutingTable, TableEndpoint
from streams.settings import Settings
from tradewind.cli import app
from tradewind.cli import demo as cli_demo
from tradewind.demo import elsewhere, report, rounds
from tradewind.demo.book import Book
from tradewind.demo.continued import Continued, counted
from tradewind.demo.folder import MARK, fresh_folder
from tradewind.demo.options import Options
from tradewind.demo.outage import Outage, parse_outage
from tradewind.demo.play import OUTCOMES, Play
from tradewind.demo.pretend_fleet import STATE, PretendFleet, moved, placed
from tradewind.demo.restarts import Restart, Restarts
from tradewind.demo.screen import Screen, hint
from tradewind.demo.watch import Onlooker, _see
from tradewind.load import Counters, Outcome
from tradewind.load.surge import Surge
from tradewind.ports import Reserved
from tradewind.processes import News, Processes

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


def test_an_outage_after_the_end_of_the_run_is_refused() -> None:
    with pytest.raises(BadSetting, match="--seconds is 30"):
        parse_outage("eu-west@30", REGIONS, 30.0)
    assert parse_outage("eu-west@29", REGIONS, 30.0).at_s == 29


def test_the_onlooker_measures_from_the_first_failed_attempt_to_the_table_without_the_endpoint() -> None:
    onlooker = Onlooker()
    for table, now_s in ((_table(1), 10.0), (_table(2, ("a", "b"), 10.9), 11.0), (_table(3, ("a", "b")), 12.0)):
        onlooker.see(topics.ROUTING_TABLE.name, msgspec.json.encode(table), now_s)
    assert onlooker.evidence_ms == pytest.approx([100.0, 100.0])
    assert onlooker.published == 3
    assert [(version, why) for _, version, why in onlooker.moves] == [(1, "because 1"), (2, "because 2")]


def test_tables_of_an_older_run_are_compared_with_but_not_counted() -> None:
    onlooker = Onlooker(since_s=100.0)
    for table, now_s, old in (
        (_table(1), 101.0, True),
        (_table(2, ("a",), 7.0), 101.0, True),
        (_table(3, ("a", "b"), 8.0), 102.0, False),  # what an older run met is not this one's
        (_table(4, ("a", "b", "c"), 102.9), 103.0, False),
    ):
        onlooker.see(topics.ROUTING_TABLE.name, msgspec.json.encode(table), now_s, old=old)
    assert (onlooker.published, onlooker.table_at_s) == (2, [102.0, 103.0])
    assert onlooker.evidence_ms == pytest.approx([100.0])
    assert [version for _, version, _ in onlooker.moves] == [3, 4]


def _booked(outcomes: list[Outcome], kept: int = 100) -> Book:
    book = Book(kept)
    for outcome in outcomes:
        book.add(outcome)
    return book


def _made(book: Book, outage: Outage | None = None) -> report.Report:
    return report.make(book, Onlooker(), report.Broker("k", "4", True), outage, seconds=9, startup_s=1)


def test_a_failure_counts_as_servable_unless_it_was_the_callers_own_doing() -> None:
    outcomes = [_outcome(1), _outcome(2, ok=False, error="truncated"), _outcome(3, ok=False, error="client_4xx")]
    made = _made(_booked(outcomes))
    assert (made.requests, made.failed, made.lost_servable) == (3, 2, 1)
    assert made.errors == {"truncated": 1, "client_4xx": 1}


def test_a_run_longer_than_what_is_kept_still_counts_every_request() -> None:
    book = _booked([_outcome(1, ok=False, error="reset")] + [_outcome(float(second)) for second in range(9)], kept=4)
    made = _made(book)
    assert len(book.last) == 4
    assert (made.requests, made.failed, made.lost_servable, made.errors) == (10, 1, 1, {"reset": 1})


def test_quantiles_are_cut_at_the_outage() -> None:
    made = _made(_booked([_outcome(float(second)) for second in range(9)]), Outage("eu", 3, 6))
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
        assert [p.name for p in folder.iterdir()] == [MARK]


@pytest.mark.parametrize("keep", [True, False])
def test_a_folder_that_is_not_a_demos_is_neither_emptied_nor_taken(tmp_path: Path, keep: bool) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter").write_text("years")
    with pytest.raises(Missing, match="not a demo's folder") as refused, fresh_folder(tmp_path, keep=keep):
        pass
    assert "--data" in refused.value.remedy
    assert [p.name for p in tmp_path.rglob("*")] == ["thesis", "chapter"]


def test_a_link_in_the_folder_is_removed_and_what_it_points_to_stays(tmp_path: Path) -> None:
    folder, other = tmp_path / "run", tmp_path / "other"
    other.mkdir()
    (other / "note").write_text("x")
    with fresh_folder(folder, keep=False):
        (folder / "to_folder").symlink_to(other)
        (folder / "to_file").symlink_to(other / "note")
        (folder / "to_nothing").symlink_to(tmp_path / "gone")
    with fresh_folder(folder, keep=False):
        assert [p.name for p in folder.iterdir()] == [MARK]
    assert (other / "note").read_text() == "x"


def test_a_mark_that_is_a_link_makes_no_folder_ours(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (tmp_path / "note").write_text("x")
    (folder / MARK).symlink_to(tmp_path / "note")
    with pytest.raises(Missing, match="not a demo's folder"), fresh_folder(folder, keep=False):
        pass


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


def test_rounds_go_on_until_the_run_ends() -> None:
    options = Options(seconds=7210.0, rps=1.0)
    assert [rounds.lasts_s(options, at_s) for at_s in (0.0, 3600.0, 7200.0, 7210.0)] == [3600.0, 3600.0, 10.0, 0.0]
    assert rounds.lasts_s(Options(), 1e9) == 3600.0, "an endless run goes on"


def test_the_second_hour_has_load_and_surges_stay_where_the_run_has_them() -> None:
    def due(surge: str, from_s: float, to_s: float) -> int:
        """Requests of the second hour from `from_s` to `to_s` of the run."""
        at_s = 3600.0 + rounds.arrivals(Options(seconds=7200.0, rps=1.0, surge=surge), 1, 3600.0).at_s
        return int(((at_s >= from_s) & (at_s < to_s)).sum())

    assert due("", 3600, 7200) > 1800
    assert due("", 7100, 7200) > 0
    surges = "5x@10-20,3x@3700-3800"
    assert due(surges, 3600, 3700) == due("", 3600, 3700), "the surge of 10 s is over"
    assert due(surges, 3700, 3800) > 1.5 * due("", 3700, 3800)


def test_an_open_surge_goes_on_in_the_next_round() -> None:
    assert rounds.shifted([Surge(2.0, 10.0, float("inf"))], 3600.0) == (Surge(2.0, 0.0, float("inf")),)


def test_on_another_kafka_the_topics_get_a_prefix_of_the_runs_own(tmp_path: Path) -> None:
    first, second = (elsewhere.apart(Settings(), tmp_path, keep=False).topic_prefix for _ in range(2))
    assert first.startswith("tradewind-demo-")
    assert first != second


def test_a_prefix_that_was_asked_for_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert elsewhere.apart(Settings(topic_prefix="mine"), tmp_path, keep=False).topic_prefix == "mine"
    monkeypatch.setenv("TRADEWIND_TOPIC_PREFIX", "tradewind")
    assert elsewhere.apart(Settings(), tmp_path, keep=False).topic_prefix == "tradewind"


def test_a_kept_run_goes_on_under_its_prefix(tmp_path: Path) -> None:
    (tmp_path / STATE).write_text('{"topic_prefix": "tradewind-demo-0123"}')
    assert elsewhere.apart(Settings(), tmp_path, keep=True).topic_prefix == "tradewind-demo-0123"
    assert elsewhere.apart(Settings(), tmp_path, keep=False).topic_prefix != "tradewind-demo-0123"
    (tmp_path / STATE).write_text('{"topic_prefix": "tradewind"}')  # an embedded run's: not to be taken elsewhere
    assert elsewhere.apart(Settings(), tmp_path, keep=True).topic_prefix.startswith("tradewind-demo-")


def _fleet() -> Fleet:
    return fleets.load(Path(str(files("tradewind.demo") / "fleet.yaml")))


def test_endpoints_whose_ports_were_taken_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tradewind.ports.is_free", lambda port: port != 18103)
    wanted = _fleet()
    with Reserved() as ports:
        _, seats = placed(wanted, ports)
    there = next(s.port for s in seats if s.endpoint.name == "us-east-a")
    assert len({port for s in seats for port in (s.port, s.admin_port)}) == 2 * len(seats)
    assert there != 18103
    assert f"port 18103 is taken; the endpoint us-east-a listens on {there}" in moved(wanted, seats)


class Regions:
    """A pretend fleet that only notes what it is told; `broken` says what goes wrong at the next revival."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.broken: Exception | None = None
        self.up = True

    def whole(self, _: str) -> bool:
        return self.up

    def kill(self, region: str) -> None:
        self.told.append(f"kill {region}")
        self.up = False

    async def revive(self, region: str) -> None:
        self.told.append(f"revive {region}")
        if broken := self.broken:
            self.broken = None
            raise broken
        self.up = True


def _obeying(tmp_path: Path) -> tuple[Play, Regions, Screen]:
    play = Play(Options(seconds=5.0, data=tmp_path, bootstrap_servers="x:1"), Settings(), None, {})
    return play, Regions(), play.show.screen


async def test_keys_kill_and_mend_and_a_region_that_does_not_come_back_is_said(tmp_path: Path) -> None:
    play, regions, screen = _obeying(tmp_path)
    regions.broken = Stop("eu-west-a was not ready", "See its log")
    for key in "x922":
        play._press(key)
    obeying = asyncio.create_task(play._obey(cast(PretendFleet, regions)))
    async with asyncio.timeout(5):
        while len(screen.notes) < 2:  # noqa: ASYNC110 - notes wake nobody
            await asyncio.sleep(0)
    assert "eu-west-a was not ready" in screen.notes[-1]
    play._press("2")
    async with asyncio.timeout(5):
        while len(screen.notes) < 3:  # noqa: ASYNC110
            await asyncio.sleep(0)
    obeying.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await obeying
    assert regions.told == ["kill eu-west", "revive eu-west", "revive eu-west"]


async def test_a_defect_behind_a_key_is_not_lost(tmp_path: Path) -> None:
    play, regions, _ = _obeying(tmp_path)
    regions.broken, regions.up = ValueError("a defect"), False
    play._press("1")
    async with asyncio.timeout(5):
        with pytest.raises(ValueError, match="a defect"):
            await play._obey(cast(PretendFleet, regions))


def _said(onlooker_at: list[tuple[float, bool]]) -> list[str]:
    said: list[str] = []
    onlooker = Onlooker(say=said.append)
    for now_s, heard in onlooker_at:
        onlooker.listened(now_s, heard=heard)
    return said


def test_silence_on_the_topics_is_said_once_and_its_end_once() -> None:
    assert _said([(0.0, False), (60.0, False), (61.0, True), (65.0, False)]) == [], "nobody spoke yet, or just now"
    said = _said([(0.0, True), *((float(at_s), False) for at_s in range(1, 12)), (12.0, True), (13.0, True)])
    assert [words.split(":")[0] for words in said] == [
        "nothing was heard on the topics for 5 s",
        "the topics are heard again, after 12 s of silence",
    ]


def test_records_that_cannot_be_read_are_said_in_one_sentence() -> None:
    said: list[str] = []
    onlooker = Onlooker(say=said.append)
    good = msgspec.json.encode(_table(1))
    for at_s, value in enumerate((b"{", b"[]", b"\xff", good, *[b"{"] * 20, *[good] * 9)):
        _see(onlooker, topics.ROUTING_TABLE.name, value, float(at_s), old=False)
    assert len(said) == 2
    assert "cannot read a record on routing-table.v1" in said[0]
    assert "again" in said[1]


def _screen() -> Screen:
    """The demo's fleet in full play: notes, evidence, and more reasons than there is room for."""
    fleet = _fleet()
    onlooker, counters = Onlooker(), Counters()
    onlooker.tables["s"] = msgspec.structs.replace(_table(1 << 20), service="llama-3-8b")
    onlooker.evidence_ms = [123.4]
    onlooker.moves.extend((float(version), version, f"reason {version} " + "x" * 200) for version in range(30))
    origins = {origin.name: f"http://127.0.0.1:{18080 + n}" for n, origin in enumerate(fleet.origins)}
    screen = Screen(fleet, onlooker, counters, hint(origins, ["ap-south", "eu-west", "us-east"]))
    screen.notes.extend(f"note {number} " + "y" * 200 for number in range(5))
    return screen


def _lines(screen: Screen, width: int, height: int, at_s: float = 10.0) -> list[str]:
    console = Console(width=width, height=height, record=True, file=io.StringIO())
    console.print(screen.drawn(at_s, 40.0, width, height))
    return console.export_text().splitlines()


@pytest.mark.parametrize("width", [80, 140])
def test_the_screen_fits_its_terminal_with_whole_names_and_the_newest_reason_first(width: int) -> None:
    lines = _lines(_screen(), width, 24)
    shown = "\n".join(lines)
    assert len(lines) <= 23, "the cursor has a line too"
    assert max(map(len, lines)) <= width
    for endpoint in _fleet().endpoints:
        assert f"{endpoint.name} " in shown
    heading = next(line.split() for line in lines if line.strip().startswith("endpoint"))
    assert heading == ["endpoint", "verdict", "p95", "ms", "share"] or (width > 100 and "$/h" in heading)
    reasons = [int(found) for found in re.findall(r"reason (\d+)", shown)]
    assert reasons[0] == 29
    assert reasons == sorted(reasons, reverse=True)
    assert re.findall(r"note (\d)", shown) == ["4", "3", "2"]


def test_who_died_serves_nothing_a_few_seconds_later() -> None:
    screen = _screen()
    before = msgspec.structs.replace(_outcome(0.0), endpoint="eu-west-a")
    for tenth in range(200):  # 10 s of eu-west-a, then 10 s of us-east-a
        name = "eu-west-a" if tenth < 100 else "us-east-a"
        screen.recent.append(msgspec.structs.replace(before, at_s=tenth / 10, endpoint=name))

    def share(name: str, at_s: float) -> str:
        return next(line for line in _lines(screen, 80, 24, at_s) if line.startswith(name)).split()[3]

    assert share("eu-west-a", 10.0) not in ("0%", "100%"), "it has just died"
    assert (share("eu-west-a", 14.5), share("us-east-a", 14.5)) == ("0%", "100%")


def test_a_restart_is_noted_with_its_reason_and_when_it_was_over() -> None:
    restarts = Restarts()
    assert "kafka is gone (killed by SIGKILL)" in restarts.hear(News("kafka", "killed by SIGKILL", back=False), 3.04)
    assert restarts.missing("kafka")
    restarts.hear(News("worker-router", "exit code 1", back=False), 4.0)
    assert restarts.hear(News("kafka", "killed by SIGKILL", back=True), 8.0) == "kafka is back, after 5.0 s"
    assert not restarts.missing("kafka")
    assert restarts.all == [
        Restart("kafka", 3.0, "killed by SIGKILL", 8.0),
        Restart("worker-router", 4.0, "exit code 1"),
    ]
    made = msgspec.structs.replace(_made(_booked([])), restarts=restarts.all)
    assert "kafka was gone at 3 s (killed by SIGKILL) and was back at 8 s" in report.told(made)
    assert "worker-router was gone at 4 s (exit code 1) and did not come back" in report.told(made)


def test_streams_that_went_on_are_added_up_over_gateways_that_start_again() -> None:
    assert Continued({}).total is None
    continued = Continued({})
    for gateway, count in (("a", 0), ("b", 4), ("a", 3), ("a", 1), ("b", 4), ("a", 2)):
        continued.take(gateway, count)
    assert continued.total == 3 + 2 + 4
    made = msgspec.structs.replace(_made(_booked([])), continued=9)
    assert "9 streams broke off and went on at another endpoint" in report.told(made)


def test_the_count_of_streams_that_went_on_is_the_gateways_own_metric() -> None:
    before = counted(signals.exposition().decode())
    signals.CONTINUED.inc(2)
    assert counted(signals.exposition().decode()) == before + 2


@pytest.mark.parametrize("kind", ["folder", "full disk"])
def test_outcomes_that_cannot_be_kept_are_said_with_their_path(tmp_path: Path, kind: str) -> None:
    play, _, _ = _obeying(tmp_path)
    play.book.add(_outcome(1.0))
    path = tmp_path / OUTCOMES
    path.mkdir() if kind == "folder" else path.symlink_to("/dev/full")
    play._keep_outcomes(path)
    assert play.unkept is not None
    assert play.unkept.startswith(f"{path} could not be written")


class GivingUp:
    """Processes one of which dies too often."""

    async def keep(self, *_: object, **__: object) -> None:
        raise Stop("gateway-europe ended again", "See its log")


async def test_a_child_that_keeps_dying_ends_the_play_and_not_its_report(tmp_path: Path) -> None:
    play, regions, _ = _obeying(tmp_path)
    watched = asyncio.create_task(asyncio.Event().wait())
    nowhere = {"europe": "http://127.0.0.1:9"}
    async with asyncio.timeout(10):
        seconds, continued = await play._play(
            cast(Processes, GivingUp()), cast(PretendFleet, regions), nowhere, cast("asyncio.Task[None]", watched)
        )
    assert seconds < 5
    assert continued is None, "no gateway answered"
    assert play.ended_early == "gateway-europe ended again. See its log"


class Reporting:
    """A play that is over at once."""

    playing, stop = True, asyncio.Event()

    def __init__(self, unkept: str | None, made: report.Report) -> None:
        self.unkept, self._made = unkept, made

    async def run(self) -> report.Report:
        return self._made


@pytest.mark.parametrize(("unkept", "early"), [("x/outcomes.jsonl could not be written", None), (None, "a died again")])
@pytest.mark.parametrize("as_json", [True, False])
def test_the_report_is_printed_whatever_went_wrong_and_the_status_says_so(
    monkeypatch: pytest.MonkeyPatch, unkept: str | None, early: str | None, as_json: bool
) -> None:
    made = msgspec.structs.replace(_made(_booked([_outcome(1)])), ended_early=early)
    monkeypatch.setattr(cli_demo, "_play", lambda _: Reporting(unkept, made))
    ran = CliRunner().invoke(app, ["demo", *(["--json"] if as_json else [])])
    assert ran.exit_code == 1
    assert f"tradewind: {unkept or early}" in ran.stderr
    if as_json:
        assert msgspec.json.decode(ran.stdout)["requests"] == 1
    else:
        assert "1 requests in" in ran.stdout


def test_events_of_the_demos_own_process_are_no_bare_words_on_the_terminal() -> None:
    code = """if True:
        from tradewind import fleets
        from tradewind.cli import app, demo
        from tradewind.demo.scenarios import load
        demo._play = lambda options: fleets.warn(load("sovereign").fleet) or exit(3)
        app(["demo", "--scenario", "sovereign"])
    """
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (ran.returncode, ran.stderr) == (3, "")


def test_a_report_that_stdout_does_not_take_is_on_stderr() -> None:
    code = "from tradewind.cli.demo import _printed; print(_printed('the report'), file=__import__('sys').stderr)"
    with Path("/dev/full").open("w") as full:
        ran = subprocess.run([sys.executable, "-c", code], stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
    assert ran.returncode == 0, "and Python does not fail once more at its end"
    first, second = ran.stderr.splitlines()
    assert first == "the report"
    assert second.startswith("the report could not be written to stdout (No space left on device)")
