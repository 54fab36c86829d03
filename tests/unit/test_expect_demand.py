"""The demand forecast as a stage: minutes are summed, closed, learnt from and spoken of once."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import msgspec
import numpy as np
import pytest

from forecasting import demand as expect
from forecasting.demand import GRACE_S, HORIZONS_S, ExpectDemand, Expected
from forecasting.protocol import Forecaster
from streams.contract.records import Demand, DemandForecast
from streams.contract.topics import DEMAND
from streams.runtime.batch import Batch, Message
from streams.runtime.step import Heard, Refusal

T0 = 1_763_938_800.0
"""A whole minute."""


class Spy:
    """A model that remembers what it was taught, and forecasts it."""

    name = "spy"

    def __init__(self) -> None:
        self.taught: list[tuple[float, float | None]] = []

    def learn(self, at_s: float, value: float | None) -> None:
        self.taught.append(((at_s - T0) / 60, value))

    def forecast(self, ahead_s: float, quantiles: Sequence[float]) -> tuple[float, ...] | None:
        return None if ahead_s > HORIZONS_S[0] else tuple(60.0 * q for q in quantiles)


def spy() -> Forecaster:
    return Spy()


def slot(at_s: float, arrived: int, source: str = "arrivals.v1/0", origin: str = "eu", slot_s: float = 1.0) -> Demand:
    return Demand(
        source=source, at_s=T0 + at_s, slot_s=slot_s, service=("chat",), origin=(origin,), class_=("batch",),
        arrived=(arrived,), admitted=(arrived,), shed=(0,), failed=(0,),
    )  # fmt: skip


class Scene:
    """A stage and its state; seconds count from T0."""

    def __init__(self) -> None:
        self.stage = ExpectDemand(model=spy)
        self.state: Expected = self.stage.empty()
        self.hears(slot(-30.0, 1))

    def heard(self, *records: Demand, stamps_s: Sequence[float] | None = None) -> Heard[Demand]:
        stamps = stamps_s or [r.at_s - T0 + r.slot_s for r in records]
        messages = [Message(n, int((T0 + s) * 1000), b"k", b"") for n, s in enumerate(stamps)]
        return Heard(Batch(DEMAND.name, 0, messages), np.arange(len(records)), list(records))

    def hears(self, *records: Demand, stamps_s: Sequence[float] | None = None) -> None:
        self.state = self.stage.fold(self.state, self.heard(*records, stamps_s=stamps_s))

    def refused(self, *records: Demand, stamps_s: Sequence[float] | None = None) -> list[Refusal]:
        return list(self.stage.screen(self.state, self.heard(*records, stamps_s=stamps_s)))

    def says(self, now_s: float) -> list[DemandForecast]:
        self.state = self.stage.advance(self.state, T0 + now_s)
        return list(self.stage.view(self.state, T0 + now_s))

    def taught(self, origin: str = "eu") -> list[tuple[float, float | None]]:
        model = self.state.series["chat", origin, "batch"].model
        assert isinstance(model, Spy)
        return model.taught


def test_a_minute_is_the_sum_of_its_slots_over_all_sources_and_the_last_word_on_a_slot_holds() -> None:
    scene = Scene()
    scene.hears(slot(0.0, 3), slot(0.0, 5), slot(0.0, 2, source="arrivals.v1/1"), slot(59.0, 4), slot(60.0, 50))
    scene.says(60.0 + GRACE_S)
    assert scene.taught() == [(0.0, 11.0)]


def test_the_minute_under_way_when_the_first_word_came_is_left_out() -> None:
    scene = Scene()
    scene.hears(slot(-10.0, 9), slot(5.0, 1))
    scene.says(60.0 + GRACE_S)
    assert scene.taught() == [(0.0, 1.0)]


def test_a_closed_minute_is_spoken_of_once_with_its_end_and_in_requests_per_second() -> None:
    scene = Scene()
    scene.hears(slot(5.0, 1))
    assert scene.says(60.0 + GRACE_S - 0.1) == []
    (said,) = scene.says(60.0 + GRACE_S)
    assert (said.service, said.origin, said.class_, said.model) == ("chat", "eu", "batch", "spy")
    assert said.made_at_s == T0 + 60
    (horizon,) = said.horizons
    assert horizon.ahead_s == 300.0
    assert horizon.rps == {"0.5": 0.5, "0.9": 0.9, "0.95": 0.95, "0.99": 0.99}
    assert msgspec.json.decode(msgspec.json.encode(said), type=DemandForecast) == said
    assert scene.says(60.0 + GRACE_S + 1) == []
    assert scene.says(119.0 + GRACE_S) == []
    assert len(scene.says(120.0 + GRACE_S)) == 1


def test_what_comes_after_a_minute_was_closed_changes_nothing() -> None:
    scene = Scene()
    scene.hears(slot(5.0, 1))
    scene.hears(slot(6.0, 7), stamps_s=[60.0 + GRACE_S])
    scene.says(60.0 + GRACE_S)
    scene.hears(slot(7.0, 7), stamps_s=[60.0 + GRACE_S])
    assert scene.taught() == [(0.0, 1.0)]


def test_nobody_heard_is_a_gap_and_others_heard_is_no_demand() -> None:
    scene = Scene()
    scene.hears(slot(5.0, 1), slot(130.0, 4, origin="us"))
    scene.says(180.0 + GRACE_S)
    assert scene.taught("eu") == [(0.0, 1.0), (1.0, None), (2.0, 0.0)]
    assert scene.taught("us") == [(2.0, 4.0)]


def test_a_series_without_demand_is_forgotten_when_the_longest_horizon_cannot_see_it_any_more() -> None:
    scene = Scene()
    scene.hears(slot(5.0, 1))
    scene.says(expect.MEMORY_S + GRACE_S)
    assert len(scene.state.series) == 1
    scene.says(expect.MEMORY_S + GRACE_S + 60)
    assert scene.state.series == {}
    scene.says(1e8)
    scene.hears(slot(1e8, 1))
    assert scene.state.open.keys() == {int((T0 + 1e8) // 60)}


def test_slots_longer_than_a_minute_and_slots_from_the_future_are_refused() -> None:
    scene = Scene()
    good, long, early = slot(0.0, 1, slot_s=60.0), slot(0.0, 1, slot_s=61.0), slot(600.0, 1)
    refused = scene.refused(good, long, early, stamps_s=[60.0, 61.0, 539.0])
    assert [(r.position, r.field) for r in refused] == [(1, "slot_s"), (2, "at_s")]


def test_series_beyond_those_kept_apart_are_left_out_and_said_to_be(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(expect, "SERIES", 2)
    scene = Scene()
    scene.hears(*(slot(5.0, 1, source=origin, origin=origin) for origin in ("c", "b", "a")))
    with caplog.at_level(logging.WARNING, "tradewind"):
        scene.says(60.0 + GRACE_S)
    assert scene.state.series.keys() == {("chat", "a", "batch"), ("chat", "b", "batch")}
    assert [r.message for r in caplog.records] == ["series_left_out"]
