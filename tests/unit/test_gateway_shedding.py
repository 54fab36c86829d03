"""Saturation as one gateway sees it, ceilings per tier, and how premium lives through a surge of batch."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import pytest

from router_sync.client import Picker
from router_sync.gateway import Ceiling, Tiers, checked
from router_sync.gateway.refusal import Refusal
from router_sync.gateway.saturation import Kind, Load
from router_sync.gateway.sessions import Sessions
from router_sync.gateway.shedding import REFRESH_S, Shedding
from streams.contract.errors import BadSetting
from streams.contract.records import Route
from tests.unit.gateway_queue import BATCH, CHAT, SLO_MS, SLOTS, Asked, Queue, route, table

STREAM, WHOLE = Kind("m", "chat", streamed=True), Kind("m", "batch", streamed=False)

# ---------------------------------------------------------------- an endpoint


def lived(
    *latency_ms: float, load: Load | None = None, kind: Kind = STREAM, held: int = 1, from_s: float = 0.0
) -> Load:
    """An endpoint that answered so, every 0.1 s."""
    load = load or Load()
    for number, latency in enumerate(latency_ms):
        load.answered(kind, latency, SLO_MS, held, from_s + number / 10)
    return load


def test_in_flight_counts_against_what_the_table_says_an_endpoint_holds() -> None:
    assert [Load().saturation(held, 8, 0.0) for held in (0, 4, 8, 99)] == [0.0, 0.5, 1.0, 2.0]


def test_what_was_held_well_is_room_whatever_the_table_says() -> None:
    assert lived(*[100.0] * 50, held=20).saturation(20, 8, 5.0) == pytest.approx(0.5, abs=0.01)
    assert lived(*[100.0] * 50, *[900.0] * 50, held=20).saturation(20, 8, 10.0) > 1.0


def test_answers_that_leave_the_usual_are_late_by_what_the_slo_leaves() -> None:
    assert lived(*[100.0] * 100).lateness(10.0) == 0.0
    assert lived(*[100.0] * 100, *[175.0] * 60).lateness(15.9) == pytest.approx(0.5, abs=0.1)
    assert lived(*[100.0] * 100, *[250.0] * 60).lateness(15.9) == pytest.approx(1.0, abs=0.1)
    assert lived(*[100.0] * 100, *[9000.0] * 60).lateness(15.9) == pytest.approx(2.0, abs=0.15)


def test_whoever_is_usually_slow_is_not_late_for_that() -> None:
    assert lived(*[900.0] * 100).lateness(10.0) == 0.0
    assert lived(*[900.0] * 100, *[1300.0] * 60).lateness(15.9) < 0.5


def test_one_long_answer_among_many_proves_nothing() -> None:
    assert lived(*[100.0] * 100, 60_000.0).lateness(10.1) <= 2 / 16


def test_long_and_short_answers_in_turn_are_usual() -> None:
    rng = random.Random(1)
    load, late = Load(), 0
    for number in range(10_000):
        load.answered(STREAM, rng.expovariate(1 / 100), SLO_MS, 1, number / 50)
        late += load.lateness(number / 50) > Tiers().sheddable.begins
    assert late <= 10


def test_answers_are_compared_with_their_like() -> None:
    """Streams to the first token, then whole answers only: nothing is late."""
    load = lived(*[80.0] * 100)
    lived(*[4000.0] * 100, load=load, kind=WHOLE, from_s=10.0)
    assert load.lateness(20.0) == 0.0


def test_a_patient_class_tells_what_an_impatient_one_would_meet() -> None:
    load = lived(*[100.0] * 100, *[400.0] * 60, kind=WHOLE)
    assert load.lateness(15.9) == pytest.approx(2.0, abs=0.15)


def test_an_overload_does_not_pass_for_usual_within_minutes() -> None:
    load = lived(*[100.0] * 100)
    for number in range(3000):
        load.answered(STREAM, 900.0, SLO_MS, 1, 10 + number / 10)
    assert load.lateness(310.0) > 0.5


def test_who_gets_no_requests_is_tried_again() -> None:
    load = lived(*[100.0] * 100, *[900.0] * 60)
    assert load.lateness(16.0) > 1.9
    assert load.lateness(20.0) < 0.25


def test_throttling_is_the_latest_answer_of_all() -> None:
    load = lived(*[100.0] * 100)
    for number in range(20):
        load.refused(STREAM, 10 + number / 10)
    assert load.lateness(12.0) > 1.0


# ---------------------------------------------------------------- ceilings


class Time:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


class Bench:
    """One gateway's shedding over tables, with requests in flight as one likes."""

    def __init__(self, *routes: Route, others: Sequence[Route] = (), **config: Any) -> None:
        self.time, self.in_flight = Time(), Counter[str]()
        self.pickers = {"m": Picker(table(*routes), rng=random.Random(1), clock=self.time)}
        if others:
            self.pickers["n"] = Picker(table(*others, service="n"), rng=random.Random(2), clock=self.time)
        self.shedding = Shedding(Tiers(**config), self.pickers, self.in_flight.__getitem__, random.Random(3), self.time)

    def hold(self, share: float) -> None:
        """`share` of what each endpoint can hold is in flight."""
        for name in self.pickers["m"].endpoints:
            self.in_flight[name] = round(share * SLOTS)
        self.time.now_s += 2 * REFRESH_S

    def ask(self, of: Route, filled: float = 0.0, session: tuple[str, str, str] | None = None) -> Refusal | None:
        return self.shedding.refusal(self.pickers["m"], of, filled, session)

    def shed(self, of: Route, count: int = 1000, **more: Any) -> float:
        return sum(self.ask(of, **more) is not None for _ in range(count)) / count


STANDARD = route("mail", "standard", 1000.0)


def test_the_sheddable_give_way_first_then_the_standard_then_premium() -> None:
    one, shed = Bench(CHAT, STANDARD, BATCH), []
    for share in (0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0):
        one.hold(share)
        shed.append(tuple(round(one.shed(of), 1) for of in (BATCH, STANDARD, CHAT)))
    assert shed == [
        (0.0, 0.0, 0.0), (0.0, 0.0, 0.0), (0.5, 0.0, 0.0), (1.0, 0.4, 0.0),
        (1.0, 0.9, 0.0), (1.0, 1.0, 0.0), (1.0, 1.0, 0.5), (1.0, 1.0, 1.0),
    ]  # fmt: skip


def test_where_nobody_is_above_there_is_nobody_to_give_way_to() -> None:
    alone = Bench(BATCH)
    alone.hold(1.5)
    assert alone.shed(BATCH) == 0.0


def test_a_higher_tier_of_another_service_counts() -> None:
    one = Bench(BATCH, others=[CHAT])
    one.hold(1.0)
    assert one.shed(BATCH) == 1.0


def test_a_higher_tier_elsewhere_does_not() -> None:
    one = Bench(BATCH, route("chat", "premium", ends=("c",)))
    one.hold(1.0)
    assert one.shed(BATCH) == 0.0


def test_a_full_gateway_sheds_the_sheddable_too() -> None:
    one = Bench(CHAT, BATCH)
    assert one.shed(BATCH, filled=0.75) == pytest.approx(0.5, abs=0.01)
    assert one.shed(CHAT, filled=0.99) == 0.0


def test_endpoints_that_are_down_are_not_met() -> None:
    one = Bench(CHAT, BATCH)
    one.hold(1.0)
    one.in_flight["b"] = 0
    local = one.pickers["m"].endpoints["a"]
    for _ in range(3):
        local.failed(100.0, "connect", local.begin())
    one.time.now_s += 2 * REFRESH_S
    assert one.shed(BATCH) == 0.0


def test_what_the_table_sheds_and_what_is_shed_here_say_so_apart() -> None:
    half = route("batch", "sheddable", 5000.0, admit=0.5)
    one = Bench(CHAT, half)
    refused = [refusal for _ in range(1000) if (refusal := one.ask(half)) is not None]
    assert len(refused) == pytest.approx(500, abs=1)
    assert {(one.status, one.code) for one in refused} == {(429, "shed")}
    assert {one.headers["x-tradewind-shed"] for one in refused} == {"table"}
    assert {one.headers["Retry-After"] for one in refused} == {"1", "2"}
    one.hold(1.0)
    refusal = one.ask(half)
    assert refusal is not None
    assert refusal.headers["x-tradewind-shed"] == "full"


def test_who_wants_no_ceilings_has_none() -> None:
    one = Bench(CHAT, BATCH, ceilings=False)
    one.hold(2.0)
    assert one.shed(BATCH) == 0.0


def test_sessions_in_progress_are_shed_last() -> None:
    half = route("batch", "sheddable", 5000.0, admit=0.5)
    one = Bench(CHAT, half)
    mine = ("m", "acme", "s1")
    while one.ask(half, session=mine) is not None:
        pass
    mixed = [(number % 5 == 0, one.ask(half, session=mine if number % 5 == 0 else None)) for number in range(1000)]
    assert not any(refusal for kept, refusal in mixed if kept)
    assert sum(refusal is not None for _, refusal in mixed) == pytest.approx(500, abs=12)


def test_sessions_are_forgotten_when_silent_or_too_many() -> None:
    sessions = Sessions(most=2)
    for number in range(3):
        sessions.keep(("m", "acme", str(number)), 0.0)
    assert [sessions.known(("m", "acme", str(number)), 1.0) for number in range(3)] == [False, True, True]
    assert not sessions.known(("m", "other", "1"), 1.0)
    assert not sessions.known(("m", "acme", "1"), 600.0)


def test_a_cliff_and_an_order_upside_down_are_refused_by_name() -> None:
    def config(**tiers: Any) -> None:
        checked("gateway.yaml", {"origin": "eu", "trust": ["a"], "anonymous": True, "tiers": tiers})

    with pytest.raises(BadSetting, match="leave room between"):
        config(sheddable={"begins": 0.5, "closed": 0.5})
    with pytest.raises(BadSetting, match="standard would give way before sheddable"):
        config(sheddable={"begins": 0.9, "closed": 1.2})
    with pytest.raises(BadSetting, match=r"tiers\.premium\.closed"):
        config(premium={"begins": 1.0, "closed": 2.5})
    assert Tiers().ceiling("sheddable") == Ceiling(begins=0.5, closed=1.0)
    assert msgspec.convert({"retry_after_s": 5}, Tiers).retry_after_s == 5


# ---------------------------------------------------------------- a surge


def surge(at_s: float) -> float:
    """Half of all capacity, and three times that from the tenth second on."""
    return 1.5 if at_s >= 10 else 0.5


def p95_ms(asked: Sequence[Asked], class_: str, from_s: float) -> float:
    took = [one.latency_ms for one in asked if one.class_ == class_ and one.at_s >= from_s and one.latency_ms]
    return float(np.quantile(took, 0.95))


def shed_share(asked: Sequence[Asked], class_: str, from_s: float = 0.0) -> float:
    of = [one.latency_ms is None for one in asked if one.class_ == class_ and one.at_s >= from_s]
    return sum(of) / len(of)


@pytest.mark.parametrize(("gateways", "concurrency"), [(1, SLOTS), (1, 64), (4, SLOTS), (4, 64)])
def test_a_surge_does_not_queue_premium_behind_batch(gateways: int, concurrency: int) -> None:
    """However many gateways share the endpoints, and whether or not anybody measured what these hold."""
    asked = Queue(surge, gateways=gateways, concurrency=concurrency).run(25)
    assert shed_share(asked, "chat") == 0.0
    assert p95_ms(asked, "chat", 13.0) < 2 * SLO_MS
    assert 0.35 < shed_share(asked, "batch", 13.0) < 0.65, "0.42 has to be"


def test_without_ceilings_it_would() -> None:
    asked = Queue(surge, config=Tiers(ceilings=False)).run(25)
    assert p95_ms(asked, "chat", 13.0) > 10 * SLO_MS


@pytest.mark.parametrize("load", [0.5, 0.7, 0.85])
@pytest.mark.parametrize(("gateways", "concurrency"), [(1, SLOTS), (4, SLOTS), (4, 64)])
def test_hardly_anything_is_shed_while_there_is_room(load: float, gateways: int, concurrency: int) -> None:
    asked = Queue(lambda _: load, gateways=gateways, concurrency=concurrency).run(25)
    assert shed_share(asked, "chat") == 0.0
    assert shed_share(asked, "batch") < 0.01
