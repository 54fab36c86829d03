"""Arrivals become demand, demand becomes forecasts: two rooms on the memory carrier, and hours in seconds."""

from __future__ import annotations

import random

import msgspec
import pytest

from forecasting.demand import HORIZONS_S
from forecasting.flow import steps as forecasting_steps
from streams.contract.records import Arrivals, DemandForecast
from streams.contract.topics import ARRIVALS, DEAD_LETTERS, DEMAND, DEMAND_FORECAST
from streams.flow import steps as streams_steps
from streams.runtime.batch import Batch, Message
from streams.runtime.memory import MemoryCarrier
from streams.runtime.runner import Runner
from streams.runtime.step import Since
from streams.settings import load

T0 = 1_763_938_800.0
SETTINGS = load(tick_s=5.0)
DEMAND_STEP = next(step for step in streams_steps(SETTINGS) if step.name == "demand")
FORECAST = next(step for step in forecasting_steps(SETTINGS) if step.name == "forecast")


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


def test_once_a_minute_every_series_is_spoken_of_horizon_after_horizon(day: Day) -> None:
    said = day.said()
    made = [record.made_at_s for record in said]
    assert made == [made[0] + 60 * n for n in range(len(said))]
    assert {(r.service, r.origin, r.class_, r.model) for r in said} == {("chat", "eu", "batch", "lv_add")}
    # 30 residuals at 5 min take 36 minutes; at 60 min 91
    assert made[0] - T0 < 60 * 40
    assert [h.ahead_s for h in said[0].horizons] == [300.0]
    assert [h.ahead_s for h in said[-1].horizons] == list(HORIZONS_S)
    assert {m.key for m in day.carrier.said(DEMAND_FORECAST)} == {b"chat/eu/batch"}
    assert day.carrier.said(DEAD_LETTERS) == []


def test_steady_demand_is_expected_to_stay_where_it_is_with_room_above(day: Day) -> None:
    for horizon in day.said()[-1].horizons:
        assert horizon.rps["0.5"] == pytest.approx(20.0, abs=1.5)
        assert 20.0 < horizon.rps["0.99"] < 24.0


def test_a_worker_that_starts_anew_says_what_the_one_before_it_said(day: Day) -> None:
    (reads,) = FORECAST.reads
    assert isinstance(reads.restore, Since)
    messages: list[Message] = day.carrier.said(DEMAND)
    runner = Runner(FORECAST)
    runner.assign(0, {DEMAND.name: len(messages)})
    assert runner.hear(Batch(DEMAND.name, 0, messages), day.carrier.now_s) == []
    outs = runner.tick(day.carrier.now_s)
    assert [out.value for out in outs] == [day.carrier.said(DEMAND_FORECAST)[-1].value]


def test_an_hour_of_steady_demand_and_more_is_restored_whole_from_what_the_step_reads() -> None:
    """A tick is a minute here, so that six hours are short."""
    settings = load(tick_s=60.0)
    step = next(step for step in forecasting_steps(settings) if step.name == "forecast")
    steady = Day()
    steady.carrier = MemoryCarrier([*(s for s in streams_steps(settings) if s.name == "demand"), step], now_s=T0)
    steady.live(380, rpm=60)
    messages, now_s = steady.carrier.said(DEMAND), steady.carrier.now_s
    (reads,) = step.reads
    assert isinstance(reads.restore, Since)
    since_ms = (now_s - reads.restore.seconds) * 1000
    recent = [m for m in messages if m.timestamp >= since_ms]
    assert len(recent) < len(messages)
    runner = Runner(step)
    runner.assign(0)
    runner.hear(Batch(DEMAND.name, 0, recent), now_s)
    assert [out.value for out in runner.tick(now_s)] == [steady.carrier.said(DEMAND_FORECAST)[-1].value]


def test_an_outage_of_all_gateways_is_bridged_and_not_learnt_from() -> None:
    day = Day()
    day.live(60, rpm=600)
    before = day.said()[-1].horizons[0].rps
    day.live(20, rpm=0)
    during = day.said()[-1]
    assert during.made_at_s > T0 + 60 * 75, "it goes on speaking"
    assert during.horizons[0].rps["0.99"] == pytest.approx(before["0.99"], rel=0.1)
    day.live(10, rpm=600)
    assert day.said()[-1].horizons[0].rps["0.99"] < 24.0


def test_equal_inputs_give_equal_bytes() -> None:
    def run() -> list[Message]:
        day = Day(seed=3)
        day.live(45, rpm=120)
        return day.carrier.said(DEMAND_FORECAST)

    assert run() == run() != []
