"""The next day by the hour: who told the last days best tells it, and Prophet says what is trend and time of day."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import numpy as np
import pytest
from typer.testing import CliRunner

from forecasting.models import day_ahead as days
from forecasting.models.day_ahead import DAY, WEEK, day_ahead, parts
from streams.contract.records import DemandForecast, DemandHistory, Horizon
from streams.contract.topics import DEMAND_FORECAST, DEMAND_HISTORY, Topic
from streams.runtime.batch import Message
from streams.settings import load
from tests.unit.log_consumer import LogConsumer, answers
from tradewind.cli import app
from tradewind.hands.demand import hourly, tomorrow

T0 = 1_763_942_400.0
"""A midnight."""
SETTINGS = load(topic_prefix="mine")


def waves(count: int, growth_per_day: float = 0.0, seed: int = 0) -> np.ndarray:
    """Hours that swing with the day around 100, and grow by so much of it."""
    hour = np.arange(count)
    noise = np.random.default_rng(seed).normal(0, 4, count)
    return 100 * (1 + growth_per_day * hour / DAY) + 60 * np.sin(hour / DAY * 2 * np.pi) + noise


def history(hours: np.ndarray, first_at_s: float = T0) -> DemandHistory:
    rpm = tuple(None if rps != rps else 60 * float(rps) for rps in np.repeat(hours, 12))
    return DemandHistory(
        service="chat", origin="eu", class_="batch", made_at_s=T0 + WEEK * 3600, first_at_s=first_at_s, rpm=rpm
    )


@pytest.fixture
def rules_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(days, "can_explain", lambda: False)


@pytest.mark.usefixtures("rules_alone")
def test_of_noise_around_the_same_day_the_mean_of_the_last_days_is_right_most_often() -> None:
    told = day_ahead(waves(6 * DAY), T0)
    assert told is not None
    assert told.model == "last_days" == min(told.wrong, key=lambda name: told.wrong[name])
    assert np.abs(told.hours - (100 + 60 * np.sin(np.arange(DAY) / DAY * 2 * np.pi))).mean() < 5


@pytest.mark.usefixtures("rules_alone")
def test_where_weekends_differ_last_week_tells_the_day_after_one() -> None:
    hours = np.concatenate([waves(5 * DAY), np.full(2 * DAY, 10.0)] * 3 + [waves(DAY)])
    told = day_ahead(hours[: 3 * WEEK], T0)
    assert told is not None
    assert told.model == "last_week"
    assert told.hours == pytest.approx(hours[2 * WEEK : 2 * WEEK + DAY])


@pytest.mark.usefixtures("rules_alone")
def test_what_comes_later_is_not_looked_at() -> None:
    hours = waves(8 * DAY)
    changed = hours.copy()
    changed[6 * DAY :] = 0
    one, other = day_ahead(hours[: 6 * DAY], T0), day_ahead(changed[: 6 * DAY], T0)
    assert one is not None
    assert other is not None
    assert one.model == other.model
    assert np.array_equal(one.hours, other.hours)


@pytest.mark.usefixtures("rules_alone")
@pytest.mark.parametrize("hours", [np.zeros(0), np.full(50, np.nan), np.ones(DAY - 1)])
def test_with_less_than_a_day_nothing_is_told(hours: np.ndarray) -> None:
    assert day_ahead(hours, T0) is None


@pytest.mark.usefixtures("rules_alone")
def test_without_prophet_nothing_is_explained_and_rules_tell() -> None:
    assert parts(waves(3 * DAY), T0) is None
    said = tomorrow(history(waves(3 * DAY)))
    assert said is not None
    assert (said.model, said.growth_per_day, said.by_hour) == ("yesterday", None, None)


def test_prophet_is_listened_to_where_demand_grows_and_says_how_much() -> None:
    pytest.importorskip("prophet")
    hours = waves(7 * DAY, growth_per_day=0.2)
    told, why = day_ahead(hours, T0), parts(hours, T0)
    assert told is not None
    assert why is not None
    assert told.model == "prophet"
    assert told.hours.mean() == pytest.approx(100 * (1 + 0.2 * 7.5), rel=0.05)
    assert why.growth_per_day == pytest.approx(20 / hours.mean(), rel=0.1)
    assert int(np.argmax(why.by_hour)) in (5, 6, 7)


def test_hours_are_whole_ones_and_gaps_stay_gaps() -> None:
    held = history(np.array([1.0, np.nan, 3.0]), first_at_s=T0 + 1800)
    begins_s, hours = hourly(held)
    assert begins_s == T0 + 3600
    assert hours == pytest.approx([1.0, 3.0])


def test_demand_is_told_by_flow_on_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(days, "can_explain", lambda: False)
    said = DemandForecast(
        service="chat", origin="eu", class_="batch", made_at_s=T0, model="ensemble", spike=0.25, pattern="steady",
        horizons=(Horizon(ahead_s=3600.0, rps={"0.5": 12.0, "0.95": 15.0}),),
    )  # fmt: skip

    def log(topic: Topic, *records: msgspec.Struct) -> list[Message]:
        return [
            Message(n, int(T0 * 1000), topic.key_of(r).encode(), msgspec.json.encode(r)) for n, r in enumerate(records)
        ]

    logs = {DEMAND_FORECAST: log(DEMAND_FORECAST, said), DEMAND_HISTORY: log(DEMAND_HISTORY, history(waves(4 * DAY)))}
    answers(monkeypatch, LogConsumer(SETTINGS, logs))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TRADEWIND_TOPIC_PREFIX", SETTINGS.topic_prefix)
    monkeypatch.setenv("TRADEWIND_STATE_DIR", str(tmp_path))
    told = CliRunner().invoke(app, ["demand"]).stdout
    assert "chat/eu/batch" in told
    assert "15/s" in told
    assert "25%" in told
    (flow,) = json.loads(CliRunner().invoke(app, ["demand", "chat", "--json"]).stdout)["flows"]
    assert len(flow["tomorrow"]["rps"]) == DAY
    assert CliRunner().invoke(app, ["demand", "image"]).stdout == "nothing was forecast\n"
    assert "Examples" in CliRunner().invoke(app, ["demand", "--help"]).stdout
