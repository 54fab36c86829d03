"""The main job as a user runs it: the loop in processes, an outage, a broker that dies, and nothing left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

pytestmark = [pytest.mark.kafka, pytest.mark.chaos]
DEMO = [sys.executable, "-m", "tradewind", "demo"]


def started(folder: Path, *words: str) -> subprocess.Popen[str]:
    """A demo of its own process group, in `folder`."""
    with (folder.parent / "demo.err").open("w") as err:
        return subprocess.Popen(
            [*DEMO, "--data", str(folder), *words],
            stdout=subprocess.PIPE,
            stderr=err,
            text=True,
            start_new_session=True,
        )


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
    eu = {s["at_s"]: s["share"] for s in report["shares"] if s["region"] == "eu-west"}
    assert eu.get(0.0, 0) > 0.05
    assert eu.get(10.0, 0) == 0
    away = report["broker_outage"]
    assert away["failed"] == 0
    assert away["table_at_s"] is not None, "the loop went on after the broker came back"
    assert left(folder) == []
    assert any((folder / "log").iterdir())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_demo_told_to_stop_ends_cleanly_and_still_reports(tmp_path: Path, number: int) -> None:
    folder = tmp_path / "run"
    with started(folder, "--json") as demo:
        until(lambda: "ready in" in (tmp_path / "demo.err").read_text(), "ready", 60)
        demo.send_signal(number)
        out, _ = demo.communicate(timeout=30)
    assert demo.returncode == 0
    assert json.loads(out)["broker"]["embedded"]
    assert left(folder) == []


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
        until(lambda: "ready in" in (tmp_path / "demo.err").read_text(), "ready", 60)
        assert len(left(folder)) > 10
        demo.kill()
        demo.communicate(timeout=10)
    until(lambda: left(folder) == [], "all gone", 10)
