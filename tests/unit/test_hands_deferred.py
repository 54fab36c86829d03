"""The commands of deferred work without Kafka: what may be handed in, what is told of it. And help of new commands."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from typer.testing import CliRunner

from streams.contract.errors import BadSetting, Missing, TradewindError
from streams.contract.records import Release
from streams.contract.topics import DEFERRED, FLEET, RELEASES
from streams.settings import load
from tests.unit.deferred_world import NOON_S, H, Night, carbon, green_fleet, job
from tests.unit.log_consumer import LogConsumer, answers
from tests.unit.router_fleet import fleet
from tradewind.cli import app
from tradewind.hands import deferred
from tradewind.hands.text import columns
from tradewind.ports import free_port

SETTINGS = load(topic_prefix="mine")


def wanted(**more: Any) -> Any:
    told = {"class_": None, "origin": "eu", "within_s": 6 * H, "now_s": NOON_S, "job": "j", "requests": 10} | more
    return deferred.wanted(green_fleet(), "chat", **told)


def test_the_only_class_that_may_wait_need_not_be_named() -> None:
    found = wanted()
    assert (found.class_, found.origin, found.deadline_at_s) == ("nightly", "eu", NOON_S + 6 * H)


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"class_": "interactive"}, "Its requests may not wait"),
        ({"class_": "nightl"}, "Did you mean nightly"),
        ({"origin": None}, "Say where it comes from: eu, us"),
        ({"origin": "mars"}, "There are eu, us"),
        ({"within_s": 40 * 24 * H}, "At most 28d"),
    ],
)
def test_what_cannot_be_handed_in_is_refused_with_what_could(more: dict[str, Any], says: str) -> None:
    with pytest.raises(BadSetting, match=says):
        wanted(**more)


def test_where_no_class_may_wait_it_is_said_how_one_could() -> None:
    with pytest.raises(BadSetting, match="give one `defer_s` in the fleet"):
        deferred.wanted(fleet(), "chat", None, "eu", H, NOON_S, job="j", requests=1)
    two = green_fleet().services[0]
    both = msgspec.structs.replace(two, classes=(*two.classes, msgspec.structs.replace(two.classes[1], name="weekly")))
    known = msgspec.structs.replace(green_fleet(), services=(both,))
    with pytest.raises(BadSetting, match="these may wait: nightly, weekly"):
        deferred.wanted(known, "chat", None, "eu", H, NOON_S, job="j", requests=1)


def night() -> Night:
    night = Night(green_fleet(), tick_s=10.0)
    night.say(*carbon({0: 500.0, 3: 90.0}), job("waits"), job("soon", within_s=0.2 * H))
    night.until(0.5)
    night.say(job("new", at_s=NOON_S + 0.5 * H))
    return night


def consumer(of: Night) -> LogConsumer:
    return LogConsumer(SETTINGS, {topic: of.carrier.said(topic) for topic in (FLEET, DEFERRED, RELEASES)})


async def test_jobs_are_listed_with_what_was_said_of_them_last() -> None:
    found = await deferred.jobs(consumer(night()), SETTINGS)
    assert [(one.job.job, one.state) for one in found] == [
        ("soon", "released"), ("waits", "planned"), ("new", "handed in"),
    ]  # fmt: skip
    told = columns(deferred.rows(found, NOON_S + 0.5 * H))
    assert told[1].split()[:3] == ["soon", "chat/nightly", "from"]
    assert "begins at 2025-11-24 03:00:00Z, in 2 h" in told[2]
    assert "instead of" in told[2]
    assert "nothing said of it yet" in told[3]


def test_a_word_on_a_job_handed_in_again_later_is_not_of_this_one() -> None:
    word = Release(
        job="j", service="chat", made_at_s=5, release_at_s=5, released=True, usd_per_request=0, now_usd_per_request=0
    )
    assert deferred._job(job("j", at_s=NOON_S), word).state == "handed in"


def said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, of: Night, *words: str) -> Any:
    answers(monkeypatch, consumer(of))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TRADEWIND_TOPIC_PREFIX", SETTINGS.topic_prefix)
    monkeypatch.setenv("TRADEWIND_STATE_DIR", str(tmp_path))
    return CliRunner().invoke(app, list(words))


def test_released_jobs_are_listed_on_demand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    of = night()
    assert "soon" not in said(monkeypatch, tmp_path, of, "defer", "list").stdout
    assert "soon" in said(monkeypatch, tmp_path, of, "defer", "list", "--all").stdout
    assert said(monkeypatch, tmp_path, of, "defer", "list", "--service", "image").stdout == "nothing waits\n"


def test_a_name_with_letters_that_none_may_have_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("defer", "submit", "chat", "--requests", "1", "--within", "1h", "--origin", "eu", "--job", "a b")
    error = said(monkeypatch, tmp_path, night(), *words).exception
    assert isinstance(error, BadSetting)
    assert "--job" in str(error)


NEW = [
    ("explain",), ("decisions", "show"), ("decisions", "export"), ("decisions", "verify"), ("table", "freeze"),
    ("table", "unfreeze"), ("table", "rollback"), ("table", "diff"), ("defer", "submit"), ("defer", "list"),
    ("defer", "cancel"),
]  # fmt: skip


@pytest.mark.parametrize("words", NEW)
def test_the_help_of_every_new_command_has_examples(words: tuple[str, ...]) -> None:
    answer = CliRunner().invoke(app, [*words, "--help"])
    assert answer.exit_code == 0
    assert "Examples" in answer.stdout
    assert "--json" in answer.stdout


@pytest.mark.parametrize(
    "words",
    [
        ("explain", "chat"), ("decisions", "show"), ("decisions", "verify"), ("table", "freeze", "chat"),
        ("table", "unfreeze", "chat"), ("table", "rollback", "chat", "--steps", "1"), ("table", "diff", "chat"),
        ("defer", "submit", "chat", "--requests", "1", "--within", "1h"), ("defer", "list"), ("defer", "cancel", "j"),
        ("decisions", "export", "d.jsonl"),
    ],
)  # fmt: skip
def test_while_kafka_is_away_each_new_command_is_one_sentence(
    words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TRADEWIND_STATE_DIR", str(tmp_path))
    nobody = f"127.0.0.1:{free_port()}"
    error = CliRunner().invoke(app, [*words, "--bootstrap-servers", nobody]).exception
    assert isinstance(error, TradewindError), error
    assert isinstance(error, Missing)
    assert nobody in error.what
    assert list(tmp_path.iterdir()) == []
