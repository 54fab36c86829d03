"""Who is let in where not all can be: as many as the share says, evenly, in no pattern; sessions in progress first."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router_sync.client import Picker
from router_sync.client.admission import OVERDRAFT, Admission
from router_sync.client.pick import ADMIT_S
from streams.contract.records import Route, RoutingTable

FLOW = ("eu", "batch")


def admission(seed: int = 1) -> Admission:
    return Admission(random.Random(seed).random)


@given(st.lists(st.floats(0.0, 0.999), max_size=300), st.integers(0, 99))
def test_after_any_requests_those_let_in_are_the_sum_of_their_shares_give_or_take_one(
    shares: list[float], seed: int
) -> None:
    one, let_in, due = admission(seed), 0, 0.0
    for share in shares:
        let_in, due = let_in + one.admits(FLOW, share), due + share
        assert abs(let_in - due) <= 1.0 + 1e-9


@given(st.lists(st.tuples(st.floats(0.0, 0.999), st.booleans()), max_size=300), st.integers(0, 99))
def test_sessions_in_progress_overdraw_by_some_requests_and_no_more(
    requests: list[tuple[float, bool]], seed: int
) -> None:
    one, ahead = admission(seed), 0.0
    for share, in_progress in requests:
        ahead += one.admits(FLOW, share, in_progress=in_progress) - share
        assert ahead <= OVERDRAFT + 1.0 + 1e-9


def test_no_window_of_a_hundred_requests_is_far_from_the_share() -> None:
    one = admission()
    let_in = [one.admits(FLOW, 0.3) for _ in range(10_000)]
    windows = [sum(let_in[at : at + 100]) for at in range(0, 10_000, 100)]
    assert min(windows) >= 28
    assert max(windows) <= 32


def test_callers_that_take_turns_are_let_in_alike() -> None:
    one, counts = admission(), Counter[int]()
    for number in range(10_000):
        counts[number % 2] += one.admits(FLOW, 0.5)
    assert counts[0] / 5000 == pytest.approx(0.5, abs=0.05)
    assert counts[1] / 5000 == pytest.approx(0.5, abs=0.05)


def test_sessions_in_progress_are_kept_while_new_ones_make_up_for_them() -> None:
    one, rng, counts = admission(), random.Random(2), Counter[tuple[bool, bool]]()
    for _ in range(10_000):
        in_progress = rng.random() < 0.3
        counts[in_progress, one.admits(FLOW, 0.5, in_progress=in_progress)] += 1
    assert counts[True, False] == 0
    assert (counts[True, True] + counts[False, True]) / 10_000 == pytest.approx(0.5, abs=0.01)


def test_sessions_alone_beyond_the_share_are_shed_too() -> None:
    one = admission()
    assert sum(one.admits(FLOW, 0.25, in_progress=True) for _ in range(1000)) == pytest.approx(250, abs=OVERDRAFT + 1)


def test_once_there_is_room_nobody_makes_up_for_anything() -> None:
    one = admission()
    for _ in range(100):
        one.admits(FLOW, 0.5, in_progress=True)
    assert one.admits(FLOW, 1.0)
    assert sum(one.admits(FLOW, 0.9) for _ in range(100)) >= 89


def test_a_share_of_nothing_lets_nobody_in() -> None:
    one = admission()
    assert not any(one.admits(FLOW, 0.0, in_progress=True) for _ in range(100))


# ---------------------------------------------------------------- a picker's


class Time:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def table(admit: float, version: int = 1) -> RoutingTable:
    route = Route(origin="eu", class_="batch", slo_p95_ms=300, endpoints=(), shares=(), admit=admit)
    return RoutingTable(
        service="m", epoch=1, version=version, issued_at_s=0, expires_at_s=1e9, fleet_version=1,
        default_class="batch", endpoints=(), routes=(route,),
    )  # fmt: skip


def let_in(picker: Picker, room: float = 1.0, count: int = 1000) -> int:
    route = picker.route("eu", "batch")
    assert route is not None
    return sum(picker.admits(route, room=room) for _ in range(count))


def test_a_picker_lets_in_what_the_table_says_times_the_room_that_is_seen() -> None:
    picker = Picker(table(0.5), rng=random.Random(1), clock=Time())
    assert let_in(picker) == pytest.approx(500, abs=1)
    assert let_in(picker, room=0.5) == pytest.approx(250, abs=2)
    picker.adopt(table(1.0, version=2))
    assert let_in(picker) == 1000


def test_a_table_that_is_not_renewed_sheds_nobody_for_long() -> None:
    time = Time()
    picker = Picker(table(0.0), rng=random.Random(1), clock=time)
    assert let_in(picker) == 0
    time.now_s += ADMIT_S
    assert let_in(picker) == 1000
    picker.adopt(table(0.0, version=2))  # the same routes: it is still so
    assert let_in(picker) == 0
