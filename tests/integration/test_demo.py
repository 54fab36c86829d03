"""The main job as a user runs it: the loop in processes, an outage, a broker that dies, and nothing left behind."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec
import psutil
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient

from streams.contract import topics
from streams.contract.records import Fleet, Route, RoutingTable
from streams.contract.topics import Topic
from streams.runtime import admin, clock
from streams.settings import Settings
from tradewind.demo.watch import Onlooker, watching
from tradewind.fleets import publish

pytestmark = [pytest.mark.kafka, pytest.mark.chaos]
DEMO = [sys.executable, "-m", "tradewind", "demo"]
EXAMPLES = Path(__file__).parents[2] / "examples"


@contextlib.contextmanager
def started(folder: Path, *words: str) -> Iterator[subprocess.Popen[str]]:
    """A demo of its own process group, in `folder`; one that still runs at the end is killed."""
    command = [*DEMO, "--data", str(folder), *words]
    with (
        (folder.parent / "demo.err").open("w") as err,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=err, text=True, start_new_session=True) as demo,
    ):
        try:
            yield demo
        finally:
            demo.kill()


def left(folder: Path) -> list[str]:
    """Command lines of processes that have to do with `folder`."""
    found = []
    for process in psutil.process_iter(["cmdline", "environ"]):
        words = " ".join(process.info["cmdline"] or [])
        told = (process.info["environ"] or {}).get("TRADEWIND_STATE_DIR", "")
        if process.pid != os.getpid() and (str(folder) in words or told == str(folder)):
            found.append(words)
    return found


def until(true: Callable[[], bool], what: str, within_s: float) -> None:
    deadline_s = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < deadline_s, f"not within {within_s} s: {what}"
        time.sleep(0.05)


def until_ready(demo: subprocess.Popen[str], err: Path) -> None:
    until(lambda: "ready in" in err.read_text() or demo.poll() is not None, "ready", 60)
    assert demo.poll() is None, err.read_text()


def test_a_region_and_then_the_broker_die_and_no_request_is_lost(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    words = ("--seconds", "42", "--outage", "eu-west@8-16", "--broker-outage", "18", "--rps", "20", "--json")
    with started(folder, *words) as demo:
        out, _ = demo.communicate(timeout=150)
    said = (tmp_path / "demo.err").read_text()
    assert demo.returncode == 0, said
    report: dict[str, Any] = json.loads(out)
    assert report["broker"] == {"name": "Apache Kafka", "version": "4.4.0", "embedded": True}
    assert report["requests"] > 200
    assert report["lost_servable"] == 0, report["errors"]
    assert report["evidence_to_table_ms"]["n"] == 2
    assert report["dead_letters"] == 0
    assert report["continued"] is not None, "the gateways could be asked"
    assert [one["name"] for one in report["restarts"]] == ["kafka"]
    eu = {s["at_s"]: s["share"] for s in report["shares"] if s["region"] == "eu-west"}
    assert eu.get(0.0, 0) > 0.05
    assert eu.get(10.0, 0) == 0
    away = report["broker_outage"]
    assert away["failed"] == 0
    assert away["table_at_s"] is not None, "the loop went on after the broker came back"
    assert left(folder) == []
    assert any((folder / "log").iterdir())


def heard(bootstrap: str, prefix: str, topic: Topic) -> list[Any]:
    """All that stands on a topic."""

    async def read() -> list[Any]:
        consumer = AIOKafkaConsumer(topic.full(prefix), bootstrap_servers=bootstrap, auto_offset_reset="earliest")
        await consumer.start()
        try:
            fetched = await consumer.getmany(timeout_ms=5000)
            return [msgspec.json.decode(one.value) for messages in fetched.values() for one in messages]
        finally:
            await consumer.stop()

    return asyncio.run(read())


def test_the_sovereign_scenario_breaks_no_law_and_says_what_became_of_each_tier(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    words = ("--scenario", "sovereign", "--seconds", "25", "--surge", "3x@10", "--json")
    with started(folder, *words) as demo:
        until_ready(demo, tmp_path / "demo.err")
        note = json.loads((folder / "demo.json").read_text())
        at = note["bootstrap_servers"], note["topic_prefix"]
        prices, grids = heard(*at, topics.SPOT_PRICES), heard(*at, topics.CARBON_INTENSITY)
        out, _ = demo.communicate(timeout=120)
    assert demo.returncode == 0, (tmp_path / "demo.err").read_text()
    assert {price["pool"].rsplit("/", 1)[1] for price in prices} == {"spot"}
    assert {grid["grid_zone"] for grid in grids} == {"DE", "IE", "BE", "US-PJM", "IN"}
    report: dict[str, Any] = json.loads(out)
    assert report["scenario"] == "sovereign"
    assert (report["breaches"], report["breached"]) == (0, [])
    served = report["requests"] - report["shed"] - report["failed"]
    assert report["judged"] >= served > 200, "each that was served stands in an endpoint's own notes"
    assert report["lost_servable"] == 0
    assert report["dead_letters"] == 0
    tiers = report["share_by_tier"]
    assert tiers.keys() == {"premium", "standard", "sheddable"}
    for tier in tiers.values():
        assert tier.keys() == {"before", "during"}
        assert all(of["arrived"] == of["served"] + of["shed"] + of["failed"] for of in tier.values())
    assert sum(of["arrived"] for tier in tiers.values() for of in tier.values()) == report["requests"]
    assert report["spill"].keys() == {"europe", "america", "asia"}
    assert all("quick" in classes for classes in report["spill"].values()), "simple requests have their own class"
    assert report["converged_s"] is not None
    assert left(folder) == []


def test_the_spot_scenario_takes_machines_back_and_no_answer_that_can_go_on_loses_a_word(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    words = ("--scenario", "spot", "--spot-notice", "6", "--seconds", "32", "--json")
    with started(folder, *words) as demo:
        out, _ = demo.communicate(timeout=150)
    assert demo.returncode == 0, (tmp_path / "demo.err").read_text()
    report: dict[str, Any] = json.loads(out)
    assert report["sessions"]["threatened"] >= 3
    assert report["sessions_kept"] == 1.0, report
    assert (
        report["sessions"]["whole_answers"] >= report["sessions"]["answers"] - report["sessions"]["threatened_unable"]
    )
    assert report["lost_servable"] == 0
    assert report["streams_left"].get("moved: notice", 0) >= 1
    assert [one["endpoint"] for one in report["drains"]] == ["eu-spot-a"]
    assert report["drained_s"] < 3.0
    assert report["dead_letters"] == 0
    assert left(folder) == []


def test_in_the_surge_scenario_plans_are_made_carried_out_and_heard_of(tmp_path: Path) -> None:
    folder, err = tmp_path / "run", tmp_path / "demo.err"
    words = ("--scenario", "surge", "--surge", "10x@1", "--cold-start", "1", "--json")
    with started(folder, *words) as demo:
        until(
            lambda: re.search(r"(?m)^\S+: (?:[3-9]|\d\d) ready, 0 starting", err.read_text()) is not None,
            "launches for the surge",
            90,
        )
        time.sleep(2)  # what is ready is looked at each second
        demo.send_signal(signal.SIGINT)
        out, _ = demo.communicate(timeout=60)
    assert demo.returncode == 0, err.read_text()
    report: dict[str, Any] = json.loads(out)
    assert report["plans"]["made"] >= 4, "one for each pool"
    assert report["plans"]["raised"] >= 1
    assert report["plans"]["carried_out"] >= 1
    assert report["replicas"][0]["ready"] == 4
    assert report["replicas"][-1]["ready"] > 4
    assert report["shed_by_tier"].keys() == {"premium", "standard", "sheddable"}
    assert (report["lost_servable"], report["dead_letters"], report["restarts"]) == (0, 0, [])
    assert left(folder) == []


def told_by_examples(folder: Path) -> str:
    """What `follow_table.py` printed until its first pick, after `produce_metrics.py` had sent its record."""
    bootstrap = json.loads((folder / "demo.json").read_text())["bootstrap_servers"]
    sent = subprocess.run(
        [sys.executable, EXAMPLES / "produce_metrics.py", bootstrap], capture_output=True, text=True, timeout=30
    )
    assert sent.returncode == 0, sent.stderr
    words = [sys.executable, EXAMPLES / "follow_table.py", folder / "router.key.pub", bootstrap]
    printed = folder.parent / "follow.out"
    with printed.open("w") as out, subprocess.Popen(words, stdout=out, stderr=subprocess.STDOUT) as follower:
        try:
            until(lambda: " -> " in printed.read_text() or follower.poll() is not None, "a pick", 30)
        finally:
            follower.kill()
    return printed.read_text()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_demo_told_to_stop_ends_cleanly_and_still_reports(tmp_path: Path, number: int) -> None:
    folder = tmp_path / "run"
    with started(folder, "--json") as demo:
        until_ready(demo, tmp_path / "demo.err")
        followed = told_by_examples(folder) if number == signal.SIGINT else None
        demo.send_signal(number)
        out, _ = demo.communicate(timeout=30)
    assert demo.returncode == 0
    report = json.loads(out)
    assert report["broker"]["embedded"]
    assert report["dead_letters"] == 0, "what the example sends is as the contract wants it"
    assert left(folder) == []
    if followed is not None:
        assert re.search(r"^llama-3-8b \d+\.\d+: .+\n  \w+@\w+ -> (eu-west|us-east|ap-south)-[ab]$", followed, re.M), (
            followed
        )


async def topics_on(bootstrap: str) -> set[str]:
    client = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await client.start()
    try:
        return {name for name in await client.list_topics() if not name.startswith("__")}  # those are the broker's own
    finally:
        await client.close()


async def test_a_demo_on_another_kafka_keeps_to_itself_and_cleans_up(kafka: str, tmp_path: Path) -> None:
    other = Settings(bootstrap_servers=kafka, topic_prefix=f"prod-{uuid4().hex[:8]}")
    await admin.create(other)
    await publish(Fleet(fleet="production", version=1, services=(), origins=(), endpoints=()), other)
    before = await topics_on(kafka)

    with started(tmp_path / "a", "--bootstrap-servers", kafka, "--topic-prefix", other.topic_prefix) as demo:
        await asyncio.to_thread(demo.communicate, timeout=60)
    said = (tmp_path / "demo.err").read_text()
    assert demo.returncode == 1
    assert "carries the fleet production" in said

    with started(tmp_path / "b", "--bootstrap-servers", kafka, "--seconds", "5", "--json") as demo:
        out, _ = await asyncio.to_thread(demo.communicate, timeout=90)
    said = (tmp_path / "demo.err").read_text()
    assert demo.returncode == 0, said
    assert json.loads(out)["failed"] == 0
    assert "begin with tradewind-demo-" in said
    async with asyncio.timeout(20):
        while await topics_on(kafka) != before:  # noqa: ASYNC110 - brokers delete in their own time
            await asyncio.sleep(0.1)


async def test_the_onlooker_counts_from_when_it_came_and_still_knows_the_table_in_force(kafka: str) -> None:
    settings = Settings(bootstrap_servers=kafka, topic_prefix=f"look-{uuid4().hex[:8]}")
    await admin.create(settings)
    onlooker = Onlooker()
    async with AIOKafkaProducer(bootstrap_servers=kafka, acks="all") as producer:

        async def say(topic: Topic, value: bytes) -> None:
            await producer.send_and_wait(topic.full(settings.topic_prefix), value, key=b"s")

        await say(topics.ROUTING_TABLE, msgspec.json.encode(table(1)))
        await say(topics.DEAD_LETTERS, b"of yesterday")
        async with watching(onlooker, settings, clock.now_s) as watched:
            await say(topics.DEAD_LETTERS, b"of today")  # at once: nobody waits for the onlooker
            await say(topics.ROUTING_TABLE, msgspec.json.encode(table(2)))
            async with asyncio.timeout(20):
                while not onlooker.published or not onlooker.dead_letters:
                    assert not watched.done()
                    await asyncio.sleep(0.01)
    assert (onlooker.published, onlooker.dead_letters) == (1, 1)
    assert [(version, why) for _, version, why in onlooker.moves] == [(2, "because 2")]


def table(version: int) -> RoutingTable:
    """Each version routes to an endpoint of its own."""
    route = Route(origin="o", class_="c", slo_p95_ms=1, endpoints=(f"e{version}",), shares=(1.0,))
    return RoutingTable(
        service="s", epoch=1, version=version, issued_at_s=0, expires_at_s=1, fleet_version=1, default_class="c",
        endpoints=(), routes=(route,), reason=f"because {version}",
    )  # fmt: skip


def test_a_demo_stopped_while_it_starts_leaves_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with started(folder, "--json") as demo:
        until(lambda: (folder / "kafka").exists(), "the broker's folder", 30)
        demo.send_signal(signal.SIGINT)
        out, _ = demo.communicate(timeout=30)
    assert demo.returncode == 130
    assert out == ""
    assert left(folder) == []


def test_a_killed_demo_leaves_no_process_behind(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with started(folder, "--json") as demo:
        until_ready(demo, tmp_path / "demo.err")
        assert len(left(folder)) > 10
        demo.kill()
        demo.communicate(timeout=10)
    until(lambda: left(folder) == [], "all gone", 10)


def child_of(demo: subprocess.Popen[str], *words: str) -> psutil.Process:
    """The one process below the demo whose command has all `words`."""
    below = psutil.Process(demo.pid).children(recursive=True)
    (found,) = [p for p in below if set(words) <= set(p.cmdline()) and p.status() != psutil.STATUS_ZOMBIE]
    return found


def test_what_is_killed_by_hand_comes_back_and_a_dead_broker_holds_nothing_up(tmp_path: Path) -> None:
    folder, err = tmp_path / "run", tmp_path / "demo.err"
    with started(folder, "--json") as demo:
        until_ready(demo, err)
        (folder / "outcomes.jsonl").mkdir()
        child_of(demo, "kafka.Kafka").kill()
        until(lambda: "kafka is gone (killed by SIGKILL)" in err.read_text(), "noticed", 1.0)
        child_of(demo, "gateway", "--origin", "europe").kill()
        until(lambda: "gateway-europe is gone (killed by SIGKILL)" in err.read_text(), "noticed", 1.0)
        for name in ("gateway-europe", "kafka"):
            until(lambda n=name: f"{n} is back" in err.read_text(), f"{name} is back", 30)  # type: ignore[misc]
        child_of(demo, "kafka.Kafka").kill()
        demo.send_signal(signal.SIGINT)
        began_s = time.monotonic()
        out, _ = demo.communicate(timeout=30)
        assert time.monotonic() - began_s < 8, "requests under way, children, a report: five seconds at most each"
    report = json.loads(out)
    assert demo.returncode == 1, "the outcomes could not be kept"
    assert f"{folder / 'outcomes.jsonl'} could not be written (Is a directory)" in err.read_text()
    assert {one["name"] for one in report["restarts"]} == {"kafka", "gateway-europe"}
    assert all(one["why"] == "killed by SIGKILL" for one in report["restarts"])
    assert report["broker_outage"]["back_at_s"] > report["broker_outage"]["at_s"]
    assert report["ended_early"] is None
    assert left(folder) == []
