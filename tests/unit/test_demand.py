"""Arrivals become demand: which slots are said, what is refused, what is counted as left out."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest

from streams import demand as stage_module
from streams import flow, signals
from streams.contract.records import Arrivals, Demand, Endpoint, Fleet, Origin, RequestClass, Service
from streams.contract.topics import ARRIVALS, FLEET
from streams.demand import LENGTHS_S, DemandStage
from streams.runtime.batch import Batch, Message
from streams.runtime.step import Heard, Refusal
from streams.settings import load

T0 = 1_763_938_800.0
CLASSES = (RequestClass(name="a", slo_p95_ms=300), RequestClass(name="b", slo_p95_ms=300))
THE_FLEET = Fleet(
    version=1,
    services=(Service(name="chat", classes=CLASSES, default_class="a"),),
    origins=(Origin(name="eu", jurisdiction="DE", rtt_ms={}),),
    endpoints=(
        Endpoint(
            name="eu-1", url="http://127.0.0.1:1", services=("chat",), provider="p", region="r", zone="z",
            jurisdiction="DE", capacity_rps=1, price_usd_per_h=1,
        ),
    ),
)  # fmt: skip


class Scene:
    """A demand stage that hears arrivals at times counted from T0."""

    def __init__(self, **options: float) -> None:
        self.stage = DemandStage(**options)
        self.state = self.stage.empty()
        self.seq = 0

    def arrivals(self, at_s: float, slot_s: float = 1.0, count: int = 1, **more: Any) -> Arrivals:
        self.seq += 1
        told: dict[str, Any] = {"gateway": "gw", "origin": "eu", "boot": 1, "service": ("chat",), "class_": ("a",)}
        columns = {name: (count,) * len(more.get("service", ("chat",))) for name in ("arrived", "admitted")}
        zeros = {name: (0,) * len(more.get("service", ("chat",))) for name in ("shed", "failed")}
        return Arrivals(seq=self.seq, at_s=T0 + at_s, slot_s=slot_s, **(told | columns | zeros | more))

    def heard(self, *records: Any, stamp_s: float) -> Heard[Any]:
        topic = FLEET if isinstance(records[0], Fleet) else ARRIVALS
        messages = [Message(i, round((T0 + stamp_s) * 1000), b"k", b"") for i, _ in enumerate(records)]
        return Heard(Batch(topic.name, 0, messages), np.arange(len(records)), list(records))

    def hears(self, *records: Any, stamp_s: float) -> list[Refusal]:
        """Screened and folded as a runner would."""
        heard = self.heard(*records, stamp_s=stamp_s)
        refused = list(self.stage.screen(self.state, heard))
        heard = heard.without(refused)
        if heard.records:
            self.state = self.stage.fold(self.state, heard)
        return refused

    def says(self, at_s: float) -> list[Demand]:
        self.state = self.stage.advance(self.state, T0 + at_s)
        return list(self.stage.view(self.state, T0 + at_s))


def late() -> float:
    return signals.REGISTRY.get_sample_value("tradewind_observations_late_total") or 0.0


@pytest.mark.parametrize("slot_s", LENGTHS_S)
def test_a_slot_of_every_length_is_said_when_it_is_over_though_short_ones_have_gone_on(slot_s: float) -> None:
    scene = Scene()
    scene.hears(scene.arrivals(0.0, slot_s, 7), stamp_s=slot_s)
    scene.hears(*(scene.arrivals(float(second)) for second in range(int(slot_s) + 1)), stamp_s=slot_s + 1)
    said = {d.slot_s: d.arrived for d in scene.says(slot_s + 1) if d.at_s == T0}
    assert said[slot_s] == ((7,) if slot_s != 1.0 else (8,))


@pytest.mark.parametrize("slot_s", [60.0, 300.0, 3600.0, 0.3, 1.7, 11.0])
def test_odd_and_long_slots_are_refused_by_name_and_not_dropped_in_silence(slot_s: float) -> None:
    scene = Scene()
    (refused,) = scene.hears(scene.arrivals(0.0, slot_s), stamp_s=1.0)
    assert (refused.field, refused.value) == ("slot_s", str(slot_s))
    assert "0.1, 0.2, 0.5, 1, 2, 5, 10" in refused.reason


@pytest.mark.parametrize(("slot_s", "most"), [(0.1, 1_000_000), (1.0, 1_000_000), (10.0, 10_000_000)])
def test_more_arrivals_than_a_gateway_can_have_are_refused(slot_s: float, most: int) -> None:
    scene = Scene()
    over = scene.arrivals(0.0, slot_s, most // 2 + 1, service=("chat", "talk"), class_=("a", "a"))
    (refused,) = scene.hears(scene.arrivals(0.0, slot_s, most), over, stamp_s=slot_s)
    assert (refused.position, refused.field, refused.value) == (1, "arrived", str(most + 2))
    assert f"more than the {most} requests" in refused.reason


def test_odd_slots_do_not_become_as_many_records() -> None:
    scene = Scene()
    odd = [scene.arrivals(n / 1000, 0.1 + n / 1000) for n in range(3000)]
    refused = scene.hears(*odd, stamp_s=4.0)
    assert len(refused) + len(scene.says(4.0)) <= 3000
    assert len(scene.says(4.0)) <= len(LENGTHS_S)


def test_what_comes_after_its_slot_was_said_last_is_counted_as_late() -> None:
    scene = Scene(lateness_s=5.0)
    scene.hears(scene.arrivals(20.0), stamp_s=21.0)
    before = late()
    scene.hears(scene.arrivals(15.5, count=3), stamp_s=21.0)
    assert late() == before
    scene.hears(scene.arrivals(10.0, count=4), stamp_s=21.0)
    assert late() == before + 4
    scene.says(90.0)
    scene.hears(scene.arrivals(11.0, count=5), stamp_s=90.0)
    assert late() == before + 9


def test_lateness_is_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    step = next(s for s in flow.steps(load(lateness_s=17.0)) if s.name == "demand")
    assert step.stage.lateness_s == 17.0
    assert [reads.topic.name for reads in step.shared] == [FLEET.name]


def test_what_a_full_slot_has_no_room_for_is_counted_and_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def counted(name: str, **labels: str) -> float:
        return signals.REGISTRY.get_sample_value(f"tradewind_{name}_total", labels) or 0.0

    def figures() -> tuple[float, float]:
        full = {"event": "demand_slot_full", "level": "warning"}
        return counted("records_refused", step="demand", topic=ARRIVALS.name), counted("events", **full)

    monkeypatch.setattr(stage_module, "KEYS", 2)
    scene, before = Scene(), figures()
    for name in ("s1", "s2", "s3", "s4", "s1"):
        scene.hears(scene.arrivals(0.0, service=(name,)), stamp_s=1.0)
    assert [d.service for d in scene.says(1.0)] == [("s1", "s2")]
    assert figures() == (before[0] + 2, before[1] + 1)


# ---------------------------------------------------------------- who may speak


def test_what_the_fleet_does_not_know_is_refused_by_name() -> None:
    scene = Scene()
    scene.hears(THE_FLEET, stamp_s=0.0)
    refused = scene.hears(
        scene.arrivals(0.0),
        scene.arrivals(0.0, origin="mars"),
        scene.arrivals(0.0, service=("talk",)),
        scene.arrivals(0.0, service=("chat", "chat"), class_=("a", "c")),
        stamp_s=1.0,
    )
    assert [(r.position, r.field, r.value) for r in refused] == [
        (1, "origin", "'mars'"), (2, "service", "'talk'"), (3, "class", "'c'"),
    ]  # fmt: skip
    assert "name one of a, b" in refused[2].reason
    assert [d.arrived for d in scene.says(1.0)] == [(1,)]


def test_before_a_fleet_is_heard_names_have_to_be_fit_all_the_same() -> None:
    scene = Scene()
    refused = scene.hears(
        scene.arrivals(0.0, gateway="g w"), scene.arrivals(0.0, origin="e u"), scene.arrivals(0.0, service=("a b",)),
        scene.arrivals(0.0, class_=("a\n",)), scene.arrivals(0.0, origin="e u", service=(), class_=()), stamp_s=1.0,
    )  # fmt: skip
    assert [r.field for r in refused] == ["gateway", "origin", "service", "class", "origin"]


def test_what_was_heard_before_the_fleet_and_is_not_in_it_is_forgotten() -> None:
    scene = Scene()
    scene.hears(scene.arrivals(0.0), scene.arrivals(0.0, origin="mars"), scene.arrivals(1.0, origin="mars"), stamp_s=2)
    scene.hears(THE_FLEET, stamp_s=2.0)
    assert [(d.at_s - T0, d.origin) for d in scene.says(2.0)] == [(0.0, ("eu",))]


def test_a_new_fleet_judges_anew() -> None:
    scene = Scene()
    scene.hears(THE_FLEET, stamp_s=0.0)
    assert scene.hears(scene.arrivals(0.0), stamp_s=1.0) == []
    only_b = msgspec.structs.replace(THE_FLEET.services[0], classes=CLASSES[1:], default_class="b")
    scene.hears(msgspec.structs.replace(THE_FLEET, version=2, services=(only_b,)), stamp_s=1.0)
    assert [r.field for r in scene.hears(scene.arrivals(1.0), stamp_s=2.0)] == ["class"]
    assert scene.says(2.0) == []
