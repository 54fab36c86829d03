"""The risk of spot pools as a stage: what is heard, what is said, and what comes back after a restart."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest

from forecasting.flow import steps
from forecasting.spot.watch import REPEATS_S
from forecasting.spot_risk import AGAIN_S, ExpectLosses, RiskState
from streams.contract import records as r
from streams.contract.topics import CAPACITY, CAPACITY_PLAN, FLEET, INTERRUPTIONS, SPOT_PRICES, SPOT_RISK, TOPIC_OF
from streams.runtime.batch import Batch, Message
from streams.runtime.step import Heard
from streams.settings import load
from tests.replay.pools import endpoint, fleet

T0 = 1_763_938_800.0
HOUR_S = 3600.0
ENDS = (
    endpoint("a", market="spot", zone="eu-1a"),
    endpoint("a2", market="spot", zone="eu-1a", instance="big"),
    endpoint("b", market="spot", zone="eu-1b"),
    endpoint("od"),
)
A, A2, B, OD = (e.pool for e in ENDS)


def heard(*records: msgspec.Struct, at_s: float = 0.0) -> Heard[Any]:
    """Records of one topic; their messages' time counts from T0."""
    messages = [Message(n, int((T0 + at_s) * 1000), b"k", b"") for n in range(len(records))]
    return Heard(Batch(TOPIC_OF[type(records[0])].name, 0, messages), np.arange(len(records)), [*records])


class Scene:
    """A stage and its state; seconds count from T0."""

    def __init__(self) -> None:
        self.stage = ExpectLosses()
        self.state: RiskState = self.stage.empty()

    def hears(self, *records: msgspec.Struct, at_s: float = 0.0) -> Scene:
        self.state = self.stage.fold(self.state, heard(*records, at_s=at_s))
        return self

    def says(self, now_s: float) -> dict[str, r.SpotRisk]:
        self.state = self.stage.advance(self.state, T0 + now_s)
        return {record.pool: record for record in self.stage.view(self.state, T0 + now_s)}


def saw(pool: str, at_s: float, ready: int, failed: int = 0) -> r.Capacity:
    return r.Capacity(pool=pool, at_s=T0 + at_s, ready=ready, failed=failed)


def notice(name: str, at_s: float, kind: Any = "terminate") -> r.Interruption:
    return r.Interruption(endpoint=name, kind=kind, notice_at_s=T0 + at_s, deadline_at_s=T0 + at_s + 120)


@pytest.fixture
def scene() -> Scene:
    scene = Scene().hears(fleet(ENDS))
    for pool in (A, A2, B):
        scene.hears(saw(pool, 0.0, 4))
    return scene


def test_spot_pools_are_judged_and_others_are_not(scene: Scene) -> None:
    said = scene.says(10.0)
    assert said.keys() == {A, A2, B}
    assert all(0 < record.low_per_h <= record.hazard_per_h <= record.high_per_h for record in said.values())
    assert all(record.risk_usd_per_h > 0 and record.reasons for record in said.values())


def test_a_record_is_said_again_when_it_differs_or_after_ten_minutes(scene: Scene) -> None:
    first = scene.says(2 * HOUR_S)
    assert scene.says(2 * HOUR_S + 10) == {}
    assert scene.says(2 * HOUR_S + AGAIN_S).keys() == first.keys()


def test_a_loss_is_urgent_and_raises_the_hazard_there_and_around(scene: Scene) -> None:
    before = scene.says(5 * HOUR_S)
    scene.hears(saw(A, 5 * HOUR_S + 1, 1), at_s=5 * HOUR_S + 1)
    assert scene.stage.urgent(scene.state)
    after = scene.says(5 * HOUR_S + 2)
    assert after[A].hazard_per_h > 5 * before[A].hazard_per_h
    assert after[A2].hazard_per_h == pytest.approx(before[A2].hazard_per_h * 1.19, rel=0.02)
    assert after[B].hazard_per_h == pytest.approx(before[B].hazard_per_h * 1.34, rel=0.02)
    assert any("the zone" in reason for reason in after[A2].reasons)


def test_what_was_planned_to_go_raises_nothing(scene: Scene) -> None:
    before = scene.says(5 * HOUR_S)
    plan = r.CapacityPlan(
        pool=A, plan_id="x", made_at_s=T0 + 5 * HOUR_S + 1, want=1, have=4, not_before_s=T0, reason=""
    )
    scene.hears(saw(A, 5 * HOUR_S + 30, 1), at_s=5 * HOUR_S + 30).hears(plan, at_s=5 * HOUR_S + 31)
    assert scene.says(5 * HOUR_S + 40).get(A, before[A]).hazard_per_h <= before[A].hazard_per_h


def test_a_notice_is_told_once_however_often_it_is_repeated() -> None:
    def losses(*times_s: float) -> float:
        scene = Scene().hears(fleet([endpoint("a", market="spot", replicas=2)]))
        for at_s in times_s:
            scene.hears(notice("a", at_s), at_s=at_s)
        (said,) = scene.says(3 * HOUR_S).values()
        evidence = said.evidence
        assert evidence is not None
        return evidence.losses

    assert losses(HOUR_S, HOUR_S + 5, HOUR_S + 10) == losses(HOUR_S) > 0
    assert losses(HOUR_S, HOUR_S + REPEATS_S) > losses(HOUR_S)


def test_advice_of_the_provider_is_a_sign_and_no_loss(scene: Scene) -> None:
    before = scene.says(5 * HOUR_S)
    after = scene.hears(notice("a", 5 * HOUR_S, "rebalance"), at_s=5 * HOUR_S).says(5 * HOUR_S + 1)
    assert after.keys() == {A}
    assert after[A].hazard_per_h == pytest.approx(2.01 * before[A].hazard_per_h, rel=0.02)
    assert after[A].evidence is not None
    assert after[A].evidence.losses == 0


def test_a_notice_for_an_endpoint_that_no_fleet_has_is_forgotten(scene: Scene) -> None:
    scene.hears(notice("nobody", 0.0))
    scene.says(10.0)
    assert len(scene.state.watch.notices) == 1
    scene.says(2 * HOUR_S)
    assert scene.state.watch.notices == []


def test_a_price_above_its_median_is_named(scene: Scene) -> None:
    def price(at_s: float, usd: float) -> r.SpotPrice:
        return r.SpotPrice(pool=A, price_usd_per_h=usd, effective_at_s=T0 + at_s, observed_at_s=T0 + at_s)

    calm = scene.hears(price(0.0, 0.3)).says(5 * HOUR_S)[A]
    dear = scene.hears(price(5 * HOUR_S, 0.6)).says(5 * HOUR_S + 10)[A]
    assert dear.hazard_per_h == pytest.approx(calm.hazard_per_h * 2**0.5, rel=0.01)
    assert any("price" in reason for reason in dear.reasons)
    assert dear.risk_usd_per_h > calm.risk_usd_per_h


def test_a_worker_that_starts_anew_goes_on_from_what_was_said(scene: Scene) -> None:
    for hour in range(1, 6):
        scene.hears(saw(A, hour * HOUR_S, 2), at_s=hour * HOUR_S).hears(
            saw(A, hour * HOUR_S + 60, 4), at_s=hour * HOUR_S
        )
        scene.says(hour * HOUR_S + 70)
    last = {**scene.state.said, **scene.says(6 * HOUR_S)}
    # compaction left the last word of each key alone
    anew = Scene().hears(*last.values(), at_s=6 * HOUR_S).hears(fleet(ENDS))
    for pool, at_s in ((A, 5 * HOUR_S + 60), (A2, 0.0), (B, 0.0)):
        anew.hears(saw(pool, at_s, 4), at_s=at_s)
    again = anew.says(6 * HOUR_S)
    for pool in (A, A2, B):
        assert again[pool].hazard_per_h == pytest.approx(last[pool].hazard_per_h, rel=0.01), pool


def test_its_own_words_change_nothing_once_it_speaks(scene: Scene) -> None:
    said = scene.says(HOUR_S)
    before = msgspec.json.encode(list(scene.says(2 * HOUR_S).values()))
    scene.hears(*(msgspec.structs.replace(record, hazard_per_h=9.0) for record in said.values()))
    assert scene.state.before == {}
    scene.state.said.clear()
    assert msgspec.json.encode(list(scene.says(2 * HOUR_S).values())) == before


def test_what_it_reads_is_what_it_folds() -> None:
    topics = {FLEET, SPOT_PRICES, INTERRUPTIONS, CAPACITY, CAPACITY_PLAN, SPOT_RISK}
    (step,) = (step for step in steps(load()) if step.name == "spot-risk")
    assert {reads.topic for reads in step.reads} == topics
