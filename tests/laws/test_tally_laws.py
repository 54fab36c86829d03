"""Sums of the last seconds: whatever came in, in whatever order, a plain dictionary says the same."""

from __future__ import annotations

from collections import Counter
from math import floor

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from streams.tally import MOST, Tally

ROWS, COLUMNS = 4, 3
WINDOW_S = 6
Item = tuple[int, int, int, int]  # row, column, second, amount
items = st.lists(
    st.tuples(
        st.integers(0, ROWS - 1),
        st.integers(0, COLUMNS - 1),
        st.integers(0, 40),
        st.one_of(st.integers(0, 5), st.just(2**53)),
    ),
    max_size=30,
)


def fold(tally: Tally, given_items: list[Item]) -> None:
    for column in range(COLUMNS):
        rows, seconds, amounts = (
            np.array([item[i] for item in given_items if item[1] == column], np.int64) for i in (0, 2, 3)
        )
        tally.fold(rows, column, seconds, amounts)


class Model:
    """What was added, item by item; nothing is thrown away before it is asked for."""

    def __init__(self) -> None:
        self.live: Counter[tuple[int, int, int]] = Counter()
        self.expired = -1

    def fold(self, given_items: list[Item]) -> None:
        for row, column, second, amount in given_items:
            if second > self.expired:
                self.live[row, column, second] += min(amount, MOST)

    def advance(self, now_s: float) -> None:
        self.expired = max(self.expired, floor(now_s) - WINDOW_S)
        for key in [key for key in self.live if key[2] <= self.expired]:
            del self.live[key]

    def total(self, since_s: int = -1) -> list[list[int]]:
        return [
            [
                sum(n for (r, c, s), n in self.live.items() if (r, c) == (row, column) and s >= since_s)
                for column in range(COLUMNS)
            ]
            for row in range(ROWS)
        ]


class TallyIsItsModel(RuleBasedStateMachine):
    """Any sequence of folds, of time passing and of rows given away."""

    @initialize()
    def begin(self) -> None:
        self.tally, self.model, self.now_s = Tally(COLUMNS, WINDOW_S), Model(), 0.0

    @rule(given_items=items)
    def hear(self, given_items: list[Item]) -> None:
        fold(self.tally, given_items)
        self.model.fold(given_items)

    @rule(by_s=st.floats(0, 8))
    def pass_time(self, by_s: float) -> None:
        self.now_s += by_s
        self.tally.advance(self.now_s)
        self.model.advance(self.now_s)

    @rule(back_s=st.floats(0, 50))
    def an_earlier_time_changes_nothing(self, back_s: float) -> None:
        self.tally.advance(max(0.0, self.now_s - back_s))

    @precondition(lambda self: hasattr(self, "tally"))
    @rule(rows=st.lists(st.integers(0, ROWS - 1), unique=True))
    def give_away(self, rows: list[int]) -> None:
        self.tally.clear(rows)
        for key in [key for key in self.model.live if key[0] in rows]:
            del self.model.live[key]

    @invariant()
    def they_agree(self) -> None:
        if hasattr(self, "tally"):
            self.tally.reserve(ROWS)
            assert self.tally.total(ROWS).tolist() == self.model.total()
            since = floor(self.now_s) - 2
            assert self.tally.total(ROWS, since).tolist() == self.model.total(since)


TestTallyIsItsModel = TallyIsItsModel.TestCase
TestTallyIsItsModel.settings = settings(max_examples=60, stateful_step_count=15, deadline=None)


@given(items, st.integers(0, 30))
def test_how_a_batch_is_cut_does_not_matter(given_items: list[Item], at: int) -> None:
    whole, parts = Tally(COLUMNS, WINDOW_S), Tally(COLUMNS, WINDOW_S)
    fold(whole, given_items)
    fold(parts, given_items[:at])
    fold(parts, given_items[at:])
    for tally in (whole, parts):
        tally.reserve(ROWS)
        tally.advance(35.0)
    assert whole.total(ROWS).tolist() == parts.total(ROWS).tolist()


@given(st.integers(0, 1000), st.floats(0, 0.999))
def test_a_second_counts_until_the_whole_window_has_passed_and_not_longer(second: int, part: float) -> None:
    tally = Tally(1, WINDOW_S)
    tally.fold(np.array([0]), 0, np.array([second]), np.array([7]))
    tally.advance(second + WINDOW_S - 1 + part)
    assert tally.total(1).tolist() == [[7]]
    tally.advance(second + WINDOW_S)
    assert tally.total(1).tolist() == [[0]]
    tally.fold(np.array([0]), 0, np.array([second]), np.array([7]))
    assert tally.total(1).tolist() == [[0]]


def test_absurd_amounts_stay_inside_64_bits() -> None:
    tally = Tally(1, WINDOW_S)
    for _ in range(50):
        tally.fold(np.zeros(1000, np.intp), 0, np.full(1000, 3), np.full(1000, 2**53))
    assert tally.total(1).tolist() == [[50_000 * MOST]]
