"""The demand forecast as a stage: minutes are summed, closed, learnt from and spoken of once; a week is remembered."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import pytest

from forecasting import demand as expect
from forecasting import minutes
from forecasting.demand import GRACE_S, HORIZONS_S, ExpectDemand, Expected
from forecasting.minutes import IDLE
from forecasting.models.fit import refit
from forecasting.protocol import Forecasters
from streams.contract.records import Demand, DemandForecast, DemandHistory
from streams.contract.topics import DEMAND, DEMAND_HISTORY
from streams.runtime.batch import Batch, Message
from streams.runtime.step import Heard, Refusal
from tests.unit.pretend_forecasters import MEAN_S, Spy

T0 = 1_763_938_800.0
"""A whole hour."""


def spy() -> Forecasters:
    return Spy()


def slot(at_s: float, arrived: int, source: str = "arrivals.v1/0", origin: str = "eu", slot_s: float = 1.0) -> Demand:
    return Demand(
        source=source, at_s=T0 + at_s, slot_s=slot_s, service=("chat",), origin=(origin,), class_=("batch",),
        arrived=(arrived,), admitted=(arrived,), shed=(0,), failed=(0,),
    )  # fmt: skip


def history(rpm: Sequence[float | None], made_at_s: float = 0.0, origin: str = "eu", ends_s: float = 0.0) -> Any:
    return DemandHistory(
        service="chat", origin=origin, class_="batch", made_at_s=T0 + made_at_s, slot_s=MEAN_S,
        first_at_s=T0 + ends_s - MEAN_S * len(rpm), rpm=tuple(rpm),
    )  # fmt: skip


class Scene:
    """A stage and its state; seconds count from T0. The minute from T0 on is the first that is heard whole."""

    def __init__(self) -> None:
        self.stage = ExpectDemand(model=spy, refits=False)
        self.state: Expected = self.stage.empty()
        self.hears(slot(-30.0, 1))

    def heard(self, *records: Any, stamps_s: Sequence[float] | None = None) -> Heard[Any]:
        stamps = stamps_s or [r.at_s - T0 + r.slot_s if isinstance(r, Demand) else r.made_at_s - T0 for r in records]
        messages = [Message(n, int((T0 + s) * 1000), b"k", b"") for n, s in enumerate(stamps)]
        topic = DEMAND if isinstance(records[0], Demand) else DEMAND_HISTORY
        return Heard(Batch(topic.name, 0, messages), np.arange(len(records)), list(records))

    def hears(self, *records: Any, stamps_s: Sequence[float] | None = None) -> None:
        self.state = self.stage.fold(self.state, self.heard(*records, stamps_s=stamps_s))

    def refused(self, *records: Any, stamps_s: Sequence[float] | None = None) -> list[Refusal]:
        return list(self.stage.screen(self.state, self.heard(*records, stamps_s=stamps_s)))

    def says(self, now_s: float) -> list[DemandForecast]:
        self.state = self.stage.advance(self.state, T0 + now_s)
        return [said for said in self.stage.view(self.state, T0 + now_s) if isinstance(said, DemandForecast)]

    def model(self, origin: str = "eu") -> tuple[Spy, int]:
        """Who models it, and in which row."""
        block, row = divmod(self.state.minutes.places["chat", origin, "batch"], expect.BLOCK)
        model = self.state.blocks[block].model
        assert isinstance(model, Spy)
        return model, row

    def taught(self, origin: str = "eu") -> list[tuple[float, float | None]]:
        model, row = self.model(origin)
        return [(minute - T0 / 60, None if math.isnan(value) else value) for minute, value in model.taught[row]]


# ---------------------------------------------------------------- minutes


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
    scene.hears(slot(5.0, 60))
    assert scene.says(60.0 + GRACE_S - 0.1) == []
    (said,) = scene.says(60.0 + GRACE_S)
    assert (said.service, said.origin, said.class_, said.model) == ("chat", "eu", "batch", "spy")
    assert said.made_at_s == T0 + 60
    assert [horizon.ahead_s for horizon in said.horizons] == list(HORIZONS_S)
    assert said.horizons[0].rps == pytest.approx({"0.5": 0.5, "0.9": 0.9, "0.95": 0.95, "0.99": 0.99})
    assert (said.horizons[0].provide_rps, said.horizons[0].slot_s) == (10.0, 60.0)
    assert (said.spike, said.spike_within_s, said.pattern) == (0.25, 600.0, "steady")
    assert msgspec.json.decode(msgspec.json.encode(said), type=DemandForecast) == said
    assert scene.says(60.0 + GRACE_S + 1) == []
    assert scene.says(119.0 + GRACE_S) == []
    assert len(scene.says(120.0 + GRACE_S)) == 1


def test_a_series_that_rests_and_bursts_is_said_to_and_a_young_one_to_be_young() -> None:
    scene = Scene()
    scene.hears(slot(5.0, 200), slot(6.0, 1, origin="us"))
    assert {said.origin: said.pattern for said in scene.says(60.0 + GRACE_S)} == {"eu": "on_off", "us": "young"}


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


def test_a_series_without_demand_for_more_than_a_day_gives_its_place_to_another() -> None:
    scene = Scene()
    scene.hears(slot(5.0, 1))
    scene.hears(slot(60.0 * IDLE - 60, 2, origin="asia"))
    scene.says(60.0 * IDLE + GRACE_S)
    assert scene.state.minutes.places.keys() == {("chat", "eu", "batch"), ("chat", "asia", "batch")}
    scene.hears(slot(60.0 * IDLE + 60, 8, origin="us"))
    assert [said.origin for said in _at_last(scene, 60.0 * (IDLE + 2) + GRACE_S)] == ["asia", "us"]
    assert scene.taught("us") == [(IDLE + 1, 8.0)]
    assert scene.state.minutes.places["chat", "us", "batch"] == 0


def test_after_a_long_silence_everything_begins_as_in_the_beginning() -> None:
    scene = Scene()
    scene.hears(slot(5.0, 1))
    _at_last(scene, 1e7)
    assert not scene.state.minutes.places
    scene.hears(slot(1e7, 8), stamps_s=[1e7])
    (said,) = _at_last(scene, 1e7 + 40)
    assert said.made_at_s == T0 + 1e7 // 60 * 60 + 60
    assert scene.taught() == [(1e7 // 60, 8.0)]


def _at_last(scene: Scene, now_s: float) -> list[DemandForecast]:
    """What is said when all minutes that wait are learnt."""
    said = []
    for _ in range(10):
        said += scene.says(now_s)
        now_s += 0.1
    return said


def test_slots_longer_than_a_minute_and_slots_from_the_future_are_refused() -> None:
    scene = Scene()
    good, long, early = slot(0.0, 1, slot_s=60.0), slot(0.0, 1, slot_s=61.0), slot(600.0, 1)
    refused = scene.refused(good, long, early, stamps_s=[60.0, 61.0, 539.0])
    assert [(r.position, r.field) for r in refused] == [(1, "slot_s"), (2, "at_s")]


def test_series_beyond_those_kept_apart_are_left_out_and_said_to_be(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(minutes, "SERIES", 2)
    scene = Scene()
    scene.hears(*(slot(5.0, 1, source=origin, origin=origin) for origin in ("c", "b", "a")))
    with caplog.at_level(logging.WARNING, "tradewind"):
        scene.says(60.0 + GRACE_S)
    assert scene.state.minutes.places.keys() == {("chat", "a", "batch"), ("chat", "b", "batch")}
    assert [r.message for r in caplog.records] == ["series_left_out"]


# ---------------------------------------------------------------- many series


def test_more_series_than_a_block_holds_are_learnt_in_another_a_moment_later() -> None:
    scene = Scene()
    origins = [f"o{n:02}" for n in range(expect.BLOCK + 3)]
    scene.hears(*(slot(5.0, 6, source=origin, origin=origin) for origin in origins))
    first = scene.says(60.0 + GRACE_S)
    then = scene.says(60.0 + GRACE_S + 1)
    assert [len(first), len(then)] == [expect.BLOCK, 3]
    assert {said.origin for said in first + then} == set(origins)


def test_minutes_that_wait_are_learnt_in_parts_and_spoken_of_when_all_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expect, "AT_ONCE", 4)
    scene = Scene()
    scene.hears(*(slot(60.0 * n, n + 1) for n in range(10)), stamps_s=[60.0 * n + 1 for n in range(10)])
    assert scene.says(600.0 + GRACE_S) == []
    assert scene.says(601.0 + GRACE_S) == []
    (said,) = scene.says(602.0 + GRACE_S)
    assert said.made_at_s == T0 + 600
    assert scene.taught() == [(n, n + 1) for n in range(10)]


# ---------------------------------------------------------------- what is remembered


def test_once_an_hour_a_series_says_what_it_held() -> None:
    scene = Scene()
    said = []
    for minute in range(130):
        scene.hears(slot(60.0 * minute, 3))
        scene.says(60.0 * (minute + 1) + GRACE_S)
        told = scene.stage.view(scene.state, T0 + 60.0 * (minute + 1) + GRACE_S)
        said += [record for record in told if isinstance(record, DemandHistory)]
    assert [record.made_at_s - T0 for record in said] == [60.0 + GRACE_S, 3660.0 + GRACE_S, 7260.0 + GRACE_S]
    assert (said[1].first_at_s, said[1].slot_s, said[1].rpm) == (T0, MEAN_S, (3.0,) * 61)
    assert msgspec.json.decode(msgspec.json.encode(said[1]), type=DemandHistory) == said[1]


@pytest.mark.parametrize("first", ["history", "demand"])
def test_a_series_that_is_born_recalls_its_history_whichever_was_read_first(first: str) -> None:
    scene = Scene()
    told = {"history": history([1.0, None, 2.0]), "demand": slot(5.0, 1)}
    scene.hears(told.pop(first))
    scene.hears(*told.values())
    scene.says(60.0 + GRACE_S)
    model, row = scene.model()
    number, means = model.recalled[row]
    assert number == (T0 - 3 * MEAN_S) / MEAN_S
    assert means == pytest.approx([1.0, math.nan, 2.0], nan_ok=True)


def test_the_newest_history_holds() -> None:
    scene = Scene()
    scene.hears(history([5.0], made_at_s=10.0), history([4.0], made_at_s=5.0))
    scene.hears(slot(5.0, 1))
    scene.says(60.0 + GRACE_S)
    model, row = scene.model()
    assert model.recalled[row][1] == [5.0]


def test_after_a_restart_a_series_that_sleeps_is_spoken_of_and_one_that_left_long_ago_is_not() -> None:
    scene = Scene()
    scene.hears(history([5.0, 0.0]), history([7.0], origin="us", ends_s=-60.0 * IDLE))
    scene.hears(slot(5.0, 1, origin="asia"))
    assert [said.origin for said in scene.says(60.0 + GRACE_S)] == ["asia", "eu"]
    assert scene.taught("eu") == [(0.0, 0.0)]


def test_a_history_between_slots_is_refused() -> None:
    scene = Scene()
    odd = msgspec.structs.replace(history([1.0]), first_at_s=T0 + 7)
    assert [(r.position, r.field) for r in scene.refused(history([1.0]), odd)] == [(1, "first_at_s")]


# ---------------------------------------------------------------- refits


def test_nothing_is_fitted_before_a_day_of_lessons_or_without_scikit_learn() -> None:
    scene = Scene()
    scene.hears(slot(5.0, 1))
    scene.says(60.0 + GRACE_S)
    assert ExpectDemand(model=spy, refits=True).question(scene.state) is None
    lessons = scene.state.lessons
    lessons.fitted, lessons.newest, lessons._count = 0, expect.REFIT, expect.LEAST_LESSONS
    question = ExpectDemand(model=spy, refits=True).question(scene.state)
    assert question is not None
    assert (question.ask, question.deadline_s) == (refit, expect.REFIT_WITHIN_S)
    assert scene.stage.question(scene.state) is None


def test_trees_that_were_better_are_listened_to_by_all_and_by_those_that_come() -> None:
    scene = Scene()
    scene.hears(slot(5.0, 1))
    scene.says(60.0 + GRACE_S)
    shipped = expect.shipped()["spikes"].packed()
    scene.state.lessons.newest = 77
    scene.state = scene.stage.answer(scene.state, {"spikes": shipped})
    assert scene.model()[0].adopted == ["spikes"]
    assert scene.state.lessons.fitted == 77
    scene.hears(*(slot(65.0, 6, source=f"o{n}", origin=f"o{n}") for n in range(expect.BLOCK)))
    scene.says(125.0 + GRACE_S)
    assert [block.model.adopted for block in scene.state.blocks if isinstance(block.model, Spy)] == [["spikes"]] * 2


def test_where_nothing_was_better_all_stays_and_the_next_day_is_waited_for() -> None:
    scene = Scene()
    scene.state.lessons.newest = 77
    scene.state = scene.stage.answer(scene.state, {})
    assert (scene.state.trees, scene.state.lessons.fitted) == ({}, 77)
