"""What surrounds a room on a worker: its log, its build, where it leaves nothing behind. No Kafka in here."""

from __future__ import annotations

import gc
import logging
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition

from streams import settings, signals
from streams.contract import topics
from streams.contract.errors import Missing, Stop
from streams.runtime import admin, kafka, worker
from streams.runtime.batch import Message, Messagelike
from streams.runtime.room import Room
from streams.runtime.sender import Sender
from streams.runtime.shared import SharedReader
from streams.runtime.step import Earliest, Reads
from tests.contract.counting import steps
from tradewind.ports import free_port


def line(text: str, at_s: float, name: str = "some.library") -> logging.LogRecord:
    record = logging.LogRecord(name, logging.WARNING, __file__, 1, text, (), None)
    record.created = at_s
    return record


def test_a_library_says_the_same_thing_once_in_five_seconds() -> None:
    seldom = worker._Seldom()
    assert [seldom.filter(line("away", at_s)) for at_s in (100.0, 101.0, 104.9, 105.1)] == [True, False, False, True]
    assert all(seldom.filter(line("ours", 6.0, "tradewind")) for _ in range(3))


def test_messages_without_end_do_not_fill_the_memory() -> None:
    seldom = worker._Seldom()
    for n in range(20_000):
        assert seldom.filter(line(f"request {n} failed", 100.0 + n / 100))
    assert len(seldom._said_at_s) <= worker._REMEMBERED
    assert not seldom.filter(line("request 19999 failed", 300.0))


def test_a_worker_says_which_version_and_role_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    async def stop(*_: Any) -> None:
        raise Stop("No Kafka in here", "Do not look for it")

    monkeypatch.setattr(worker, "_work", stop)
    monkeypatch.setattr(worker, "_end_within", lambda *_: None)
    monkeypatch.setattr(signals, "log_to", lambda *_: None)
    assert worker.run_worker(steps(), settings.Settings(), "rehearsal", 0) == 1
    told = [s for s in next(iter(signals.BUILD.collect())).samples if s.labels["role"] == "rehearsal"]
    assert [(s.labels["version"], s.value) for s in told] == [("0.1.0", 1.0)]


def test_a_workers_last_sentence_says_whose_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(worker, "_end_within", lambda *_: None)
    monkeypatch.setattr(signals, "log_to", lambda *_: None)
    monkeypatch.setattr(admin, "REACH_S", 0.6)
    away = settings.Settings(bootstrap_servers=f"127.0.0.1:{free_port()}")
    assert worker.run_worker(steps(), away, "rehearsal", 0) == 1
    assert capsys.readouterr().err.splitlines()[-1].startswith("tradewind: Kafka cannot be reached at 127.0.0.1:")


async def test_a_library_is_heard_again_once_kafka_was_reached(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(admin, "REACH_S", 0.6)
    level = logging.getLogger("aiokafka").level
    away = settings.Settings(bootstrap_servers=f"127.0.0.1:{free_port()}")
    with pytest.raises(Missing):
        await worker._work(steps(), away, "rehearsal", 0)
    assert [r.getMessage() for r in caplog.records if r.name.startswith("aiokafka")] == []
    assert logging.getLogger("aiokafka").level == level


async def test_a_worker_that_cannot_build_its_app_leaves_nothing_half_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    async def nothing(*_: Any) -> None: ...

    def gone(*_: Any) -> None:
        raise FileNotFoundError(2, "No such file or directory")

    for of, name in ((Sender, "start"), (SharedReader, "start")):
        monkeypatch.setattr(of, name, nothing)
    monkeypatch.setattr(kafka, "build_app", gone)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        with pytest.raises(FileNotFoundError) as failed:
            async with worker.carried(steps(), settings.Settings(), "rehearsal"):
                pass
        gc.collect()
    assert [str(w.message) for w in warned] == []
    assert "the folder it was started in gone" in worker._cause(failed.value)


def test_a_cause_names_its_path() -> None:
    failed = ExceptionGroup("several", [PermissionError(13, "Permission denied", "/srv/state")])
    assert worker._cause(failed) == "[Errno 13] Permission denied: '/srv/state'"


async def test_nothing_is_left_where_a_worker_was_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for state_dir in (Path(".tradewind"), tmp_path / "a {strange} one"):
        mine = settings.Settings(state_dir=state_dir)
        app = kafka.build_app(steps(), mine, "room", Room(steps(), mine, lambda _: None, _no_answer))
        assert app.conf.datadir == state_dir / "faust"
        await app.on_first_start()
    assert os.listdir(tmp_path) == []


async def _no_answer(_: Any) -> None:
    return None


async def test_a_shared_reader_tells_when_its_topic_begins_again() -> None:
    told: list[tuple[list[int], bool]] = []

    def hear(_: topics.Topic, __: int, records: Sequence[Messagelike], *, anew: bool = False) -> None:
        told.append(([r.offset for r in records], anew))

    reader = SharedReader([Reads(topics.FLEET, Earliest(), everyone=True)], settings.Settings(), hear)
    key = TopicPartition("tradewind.fleet.v1", 0)
    fetches = [[0, 1], [5], [0], [1, 2], [0, 1, 2, 3]]

    async def getmany(timeout_ms: int) -> dict[Any, list[Message]]:
        return {key: [Message(offset, 0, b"k", b"v") for offset in fetches.pop(0)]}

    await reader._consumer.stop()
    reader._consumer = SimpleNamespace(getmany=getmany)  # type: ignore[assignment]
    while fetches:
        await reader._read(1)
    assert told == [([0, 1], False), ([5], False), ([0], True), ([1, 2], False), ([0, 1, 2, 3], True)]
