"""What load does to latency, as it is learnt; and the bounded trials of those who were slow."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable

import numpy as np
import pytest

from router_sync.curve import FULLEST, KNEE
from router_sync.curves import LEARN_S, Curves, Lesson, Size
from router_sync.explore import EXPLORE, FIRST_S, Explorer
from router_sync.layout import layout
from tests.unit.router_fleet import endpoint, fleet, request_class

PLAN = layout(fleet([request_class()], [endpoint("a"), endpoint("b", "us-east")]))
ROW = ("a", "chat", "interactive")
SIZES = {"a": Size(64.0, 100.0, 120.0), "b": Size(64.0, 100.0, 120.0)}


def lesson(
    inside_ms: float, in_flight: float | None, whole_ms: float = 640.0, rps: float = 10.0, **more: float
) -> Lesson:
    return Lesson(ROW, inside_ms, whole_ms, rps, in_flight, more.get("tokens", 0.0))


def taught(latency: Callable[[float], float], loads: list[float], seed: int = 1) -> Curves:
    """Curves after each of `loads` (requests in flight) has been there for two minutes; a p95 looks back on one."""
    curves, rng, now_s = Curves(), random.Random(seed), 0.0
    past: deque[float] = deque(maxlen=round(60 / LEARN_S))
    for load in loads:
        for _ in range(round(120 / LEARN_S)):
            now_s += LEARN_S
            past.append(latency(load / 64.0))
            curves.learn([lesson(max(past) * rng.uniform(0.95, 1.05), load)], SIZES, now_s)
    return curves


def test_what_was_never_measured_is_as_declared_and_doubles_until_it_is_full() -> None:
    curve = Curves().curve(PLAN)
    assert curve.base_ms.tolist() == [[120.0, 120.0]]
    full = curve.extra_ms(np.array([[0.0, 100.0], [0.0, 100.0]]))
    assert full[0, 0].tolist() == pytest.approx([0.0, 120.0])


def test_a_slope_is_learnt_from_loads_that_differ() -> None:
    curves = taught(lambda n: 100.0 + 300.0 * n, [6.4, 32.0, 12.8, 51.2, 6.4, 38.4] * 3)
    curve = curves.curve(PLAN)
    assert curve.slope_ms[0, 0] == pytest.approx(300.0, rel=0.2)
    assert curve.base_ms[0, 0] == pytest.approx(100.0, rel=0.25)


def test_a_knee_is_learnt_as_a_knee() -> None:
    """Nothing happens up to it; beyond, a queue: no request pays for it that leaves the endpoint below."""
    curves = taught(lambda n: 100.0 + 1500.0 * max(0.0, n - KNEE), [6.4, 32.0, 57.6, 25.6, 70.4, 12.8] * 2)
    curve = curves.curve(PLAN)
    at = curve.extra_ms(np.array([[0.0, 40.0, 60.0, 100.0]] * 2))[0, 0]
    assert at[1] <= 40.0
    assert at[3] >= 250.0


def test_who_is_slow_while_it_is_full_is_crowded_and_who_is_slow_while_idle_is_slow() -> None:
    """As soon as its load is known for as long as a p95 looks back."""
    full, idle = taught(lambda n: 800.0, [128.0]), taught(lambda n: 800.0, [2.0])
    assert full.curve(PLAN).base_ms[0, 0] < 250.0
    assert idle.curve(PLAN).base_ms[0, 0] > 600.0


def test_traffic_that_comes_does_not_make_an_endpoint_look_slower() -> None:
    """Its p95 rises threefold with the load; what it costs a request that comes when it is empty stays."""
    loads = [6.4, 32.0, 12.8, 51.2] * 3
    calm, busy = taught(lambda n: 100.0 + 300.0 * n, loads), taught(lambda n: 100.0 + 300.0 * n, [*loads, 57.6, 57.6])
    assert busy.curve(PLAN).base_ms[0, 0] == pytest.approx(calm.curve(PLAN).base_ms[0, 0], rel=0.3)


def test_an_endpoint_that_grows_slow_at_the_same_load_is_known_at_once() -> None:
    curves = taught(lambda n: 100.0, [12.8] * 3)
    curves.learn([lesson(400.0, 12.8)], SIZES, 365.0)
    assert curves.curve(PLAN).base_ms[0, 0] > 300.0


def test_noise_moves_a_base_by_next_to_nothing() -> None:
    curves, seen = Curves(), []
    rng = random.Random(3)
    for n in range(100):
        curves.learn([lesson(100.0 * rng.uniform(0.85, 1.15), 12.8)], SIZES, n * LEARN_S)
        seen.append(float(curves.curve(PLAN).base_ms[0, 0]))
    assert max(seen[40:]) / min(seen[40:]) < 1.05


def test_long_prompts_are_no_reason_to_call_an_endpoint_crowded() -> None:
    curves, rng = Curves(), random.Random(5)
    for n in range(960):
        tokens, load = rng.choice([200.0, 4000.0]), (6.4, 51.2)[n // 24 % 2]
        curves.learn([lesson(100.0 + 50.0 * tokens / 1000.0, load, tokens=tokens)], SIZES, n * LEARN_S)
    assert curves.curve(PLAN).slope_ms[0, 0] < 20.0


def test_places_taken_grow_without_end_towards_saturation_and_are_capped() -> None:
    curve = Curves().curve(PLAN)
    filled = curve.filled(np.array([[0.0, 50.0, 100.0, 190.0, 1e6]] * 2))[0]
    assert (np.diff(filled) >= 0).all()
    assert np.diff(filled)[1] > np.diff(filled)[0]
    assert filled[-1] == FULLEST


def test_in_flight_is_known_by_littles_law_where_nobody_counts() -> None:
    curves = Curves()
    curves.learn([lesson(100.0, None, whole_ms=640.0, rps=10.0)], SIZES, 0.0)
    assert curves.load["a"] == pytest.approx(6.4 / 64.0)


def test_who_left_the_fleet_is_forgotten() -> None:
    curves = taught(lambda n: 100.0, [12.8])
    curves.keep({"b": 0})
    assert curves.at == curves.load == curves.ease_s == curves.measured_s == {}


# ---------------------------------------------------------------- trials


def slow(curves: Curves, now_s: float, ms: float = 900.0) -> None:
    """A minute, until `now_s`, in which it was so slow."""
    for n in range(13):
        curves.learn([lesson(ms, 6.4)], SIZES, now_s - 60.0 + n * LEARN_S)


def looked(explorer: Explorer, curves: Curves, now_s: float) -> frozenset[str]:
    return explorer.advance(PLAN, curves.curve(PLAN), curves.measured_s, now_s)


def test_who_was_slow_and_is_not_measured_any_more_is_tried_with_a_little() -> None:
    curves, explorer = Curves(), Explorer()
    slow(curves, 0.0)
    looked(explorer, curves, 10.0)
    assert explorer.trials(PLAN).tolist() == [1.0, 1.0]
    looked(explorer, curves, 1.0 + FIRST_S)
    assert explorer.trials(PLAN).tolist() == [EXPLORE, 1.0]
    assert explorer.hopeful(PLAN, curves.curve(PLAN)).base_ms[0].tolist() == [120.0, 120.0]


def test_a_trial_that_fails_is_followed_by_one_after_twice_the_time() -> None:
    curves, explorer = Curves(), Explorer()
    slow(curves, 0.0)
    looked(explorer, curves, 5.0)
    looked(explorer, curves, 65.0)
    slow(curves, 130.0)
    looked(explorer, curves, 135.0)
    assert explorer.trials(PLAN)[0] == 1.0
    looked(explorer, curves, 130.0 + 1.9 * FIRST_S)
    assert explorer.trials(PLAN)[0] == 1.0
    looked(explorer, curves, 130.0 + 2.1 * FIRST_S)
    assert explorer.trials(PLAN)[0] == EXPLORE


def test_a_trial_that_goes_well_is_said_once() -> None:
    curves, explorer = Curves(), Explorer()
    slow(curves, 0.0)
    looked(explorer, curves, 5.0)
    looked(explorer, curves, 65.0)
    slow(curves, 130.0, ms=110.0)
    assert looked(explorer, curves, 135.0) == {"a"}
    assert looked(explorer, curves, 136.0) == frozenset()
    assert explorer.trials(PLAN).tolist() == [1.0, 1.0]
