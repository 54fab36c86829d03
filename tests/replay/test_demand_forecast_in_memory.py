"""Arrivals become demand, demand becomes forecasts: two rooms on the memory carrier, and hours in seconds."""

from __future__ import annotations

import random
from itertools import pairwise

import msgspec
import pytest

from forecasting.demand import HORIZONS_S
from forecasting.flow import steps as forecasting_steps
from streams.contract.records import Arrivals, DemandForecast, DemandHistory
from streams.contract.topics import ARRIVALS, DEAD_LETTERS, DEMAND_FORECAST, DEMAND_HISTORY
from streams.flow import steps as streams_steps
from streams.runtime.batch import Batch, Message
from streams.runtime.memory import MemoryCarrier
from streams.runtime.runner import Runner
from streams.runtime.step import Since, Step
from streams.settings import load

T0 = 1_763_938_800.0
SETTINGS = load(tick_s=5.0)
DEMAND_STEP = next(step for step in streams_steps(SETTINGS) if step.name == "demand")
FORECAST = next(step for step in forecasting_steps(SETTINGS) if step.name == "forecast")


def history(rpm: tuple[float, ...]) -> DemandHistory:
    """That ends at T0."""
    return DemandHistory(
        service="chat", origin="eu", class_="batch", made_at_s=T0, first_at_s=T0 - 300 * len(rpm), rpm=rpm
    )


class Day:
    """Two gateways of one origin that are asked about `rpm` times a minute each, in slots of ten seconds."""

    def __init__(self, seed: int = 7) -> None:
        self.rng = random.Random(seed)
        self.carrier = MemoryCarrier([DEMAND_STEP, FORECAST], now_s=T0)
        self.seq = 0

    def live(self, minutes: int, rpm: int) -> None:
        for _ in range(minutes * 6):
            at_s = self.carrier.now_s
            self.carrier.run_until(at_s + 10)
            for gateway in ("gw-a", "gw-b") if rpm else ():
                self.seq += 1
                count = max(0, round(self.rng.gauss(rpm / 6, rpm / 60)))
                self.carrier.send(ARRIVALS, gateway, msgspec.json.encode(self.arrivals(gateway, at_s, count)))

    def arrivals(self, gateway: str, at_s: float, count: int) -> Arrivals:
        return Arrivals(
            gateway=gateway, origin="eu", boot=1, seq=self.seq, at_s=at_s, slot_s=10.0, service=("chat",),
            class_=("batch",), arrived=(count,), admitted=(count,), shed=(0,), failed=(0,),
        )  # fmt: skip

    def said(self) -> list[DemandForecast]:
        messages = self.carrier.said(DEMAND_FORECAST)
        return [msgspec.json.decode(m.value or b"", type=DemandForecast) for m in messages]


@pytest.fixture(scope="module")
def day() -> Day:
    day = Day()
    day.live(120, rpm=600)
    return day


def test_once_a_minute_every_series_is_spoken_of_from_its_first_whole_minute_on(day: Day) -> None:
    said = day.said()
    made = [record.made_at_s for record in said]
    assert made == [made[0] + 60 * n for n in range(len(said))]
    assert made[0] - T0 <= 120
    assert {(r.service, r.origin, r.class_, r.model) for r in said} == {("chat", "eu", "batch", "ensemble")}
    assert all([h.ahead_s for h in record.horizons] == list(HORIZONS_S) for record in said)
    assert {m.key for m in day.carrier.said(DEMAND_FORECAST)} == {b"chat/eu/batch"}
    assert day.carrier.said(DEAD_LETTERS) == []


def test_in_its_first_minutes_a_series_is_expected_to_stay_and_to_burst_once_in_a_while(day: Day) -> None:
    """As others did that were as young: they often stayed, and now and then came in force."""
    for record in day.said()[:10]:
        assert record.pattern == "young"
        for horizon in record.horizons:
            assert horizon.rps["0.5"] == pytest.approx(20.0, rel=0.15)
            assert horizon.rps["0.5"] <= horizon.rps["0.95"] < 40.0
            assert horizon.rps["0.95"] <= horizon.rps["0.99"] < 200.0


def test_steady_demand_is_expected_to_stay_where_it_is_with_room_above(day: Day) -> None:
    for horizon in day.said()[-1].horizons:
        assert horizon.rps["0.5"] == pytest.approx(20.0, abs=1.5)
        assert 20.0 < horizon.rps["0.99"] < 24.0


def restarted(day: Day, step: Step) -> list[bytes | None]:
    """What a worker says at once that starts now, and reads what `step` restores from."""
    runner, now_s = Runner(step), day.carrier.now_s
    runner.assign(0)
    for reads in step.reads:
        messages = day.carrier.said(reads.topic)
        if isinstance(reads.restore, Since):
            since_ms = (now_s - reads.restore.seconds) * 1000
            messages = [m for m in messages if m.timestamp >= since_ms]
        runner.hear(Batch(reads.topic.name, 0, messages), now_s)
    return [out.value for out in runner.tick(now_s) if out.topic == DEMAND_FORECAST.name]


def test_a_worker_that_starts_anew_says_what_the_one_before_it_said(day: Day) -> None:
    assert restarted(day, FORECAST) == [day.carrier.said(DEMAND_FORECAST)[-1].value]


def test_a_worker_that_starts_anew_knows_from_the_history_what_comes_at_this_time_of_day() -> None:
    """Yesterday was calm but for an hour that lies ahead now."""
    calm, warned = Day(), Day()
    rpm = tuple(1200.0 if 95 <= 5 * n < 155 else 60.0 for n in range(288))
    warned.carrier.send(DEMAND_HISTORY, "chat/eu/batch", msgspec.json.encode(history(rpm)))
    for day in (calm, warned):
        day.live(62, rpm=60)
    one, other = calm.said()[-1], warned.said()[-1]
    assert other.horizons[-1].rps["0.95"] > 2 * one.horizons[-1].rps["0.95"], "an hour ahead it was busy yesterday"
    assert other.horizons[0].rps["0.5"] == pytest.approx(one.horizons[0].rps["0.5"], rel=0.5), "and now it was calm"
    assert (one.pattern, other.pattern) == ("young", "steady")


def test_once_an_hour_each_series_leaves_a_week_of_itself_on_its_topic(day: Day) -> None:
    said = [msgspec.json.decode(m.value or b"", type=DemandHistory) for m in day.carrier.said(DEMAND_HISTORY)]
    assert [b.made_at_s - a.made_at_s for a, b in pairwise(said)] == [3600.0] * (len(said) - 1)
    known = [rpm for rpm in said[-1].rpm if rpm is not None]
    assert known == pytest.approx([1200.0] * len(known), rel=0.1)
    assert len(known) >= 11


def test_an_outage_of_all_gateways_is_bridged_and_not_learnt_from() -> None:
    day = Day()
    day.live(60, rpm=600)
    before = day.said()[-1].horizons[0].rps
    day.live(20, rpm=0)
    during = day.said()[-1]
    assert during.made_at_s > T0 + 60 * 75, "it goes on speaking"
    assert during.horizons[0].rps["0.99"] == pytest.approx(before["0.99"], rel=0.25)
    day.live(10, rpm=600)
    assert day.said()[-1].horizons[0].rps["0.99"] < 24.0


def test_equal_inputs_give_equal_bytes() -> None:
    def run() -> list[Message]:
        day = Day(seed=3)
        day.live(45, rpm=120)
        return day.carrier.said(DEMAND_FORECAST)

    assert run() == run() != []
