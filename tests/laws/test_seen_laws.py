"""Duplicates and watermarks: a batch is answered as if its records had come one by one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from streams.seen import REMEMBERED, Seen, Watermarks, _running_max


class Said(NamedTuple):
    observer: int
    boot: int
    seq: int
    at_s: float


BOOTS = (0, 1, 1_700_000_000_123, 2**53)
said = st.builds(
    Said,
    st.integers(0, 3),
    st.sampled_from(BOOTS),
    # near ones, and ones that fall into the same slot
    st.one_of(st.integers(0, 6), st.sampled_from([REMEMBERED, REMEMBERED + 3, 5 * REMEMBERED, 2**53])),
    st.one_of(st.integers(0, 40).map(float), st.floats(0, 1e11)),
)
many = st.lists(said, max_size=40)


@st.composite
def cut(draw: st.DrawFn) -> tuple[list[Said], list[list[Said]]]:
    """Records, and the same in batches."""
    records = draw(many)
    at = sorted(draw(st.lists(st.integers(0, len(records)), max_size=6)))
    return records, [records[a:b] for a, b in zip([0, *at], [*at, len(records)], strict=True)]


def observers(batch: Sequence[Said]) -> np.ndarray:
    return np.array([s.observer for s in batch], np.intp)


def answers(seen: Seen, batches: Sequence[Sequence[Said]]) -> Iterator[bool]:
    for batch in batches:
        boots, seqs = (np.array([s[i] for s in batch], np.int64) for i in (1, 2))
        yield from seen.fold(observers(batch), boots, seqs).tolist()


class Ring:
    """The naive model of one observer's memory: the last (boot, seq) put into each slot."""

    def __init__(self) -> None:
        self.slots: dict[int, tuple[int, int]] = {}

    def hear(self, boot: int, seq: int) -> bool:
        start = (boot * 0x9E3779B97F4A7C15 % 2**64) >> 40
        slot = (start + seq) % REMEMBERED
        before = self.slots.get(slot)
        self.slots[slot] = (boot, seq)
        return before == (boot, seq)


@given(cut())
def test_duplicates_are_told_as_by_a_model_that_hears_one_at_a_time(
    given_cut: tuple[list[Said], list[list[Said]]],
) -> None:
    records, batches = given_cut
    rings = [Ring() for _ in range(4)]
    assert list(answers(Seen(), batches)) == [rings[s.observer].hear(s.boot, s.seq) for s in records]


@given(st.sampled_from(BOOTS), st.integers(0, 2**53 - REMEMBERED), st.integers(1, 300), st.integers(0, 299))
def test_whatever_was_heard_among_the_last_ones_is_known_again(boot: int, first: int, n: int, back: int) -> None:
    records = [Said(0, boot, first + i, 0.0) for i in range(n)]
    again = records[max(0, n - 1 - back)]
    assert list(answers(Seen(), [[*records, again]])) == [False] * n + [True]
    seen = Seen()
    assert not any(answers(seen, [records]))
    assert list(answers(seen, [[again]])) == [True]


@given(st.integers(0, 2**53 - 10_000))
def test_a_full_memory_is_remembered_and_one_more_is_not(first: int) -> None:
    seen = Seen()
    records = [Said(0, 7, first + i, 0.0) for i in range(REMEMBERED)]
    assert not any(answers(seen, [records]))
    assert all(answers(seen, [records]))
    assert list(answers(seen, [[Said(0, 7, first + REMEMBERED, 0.0)], [records[0]]])) == [False, False]


def test_what_an_observer_repeats_within_lateness_is_known_up_to_the_rate_that_is_stated() -> None:
    """3,276 records a second for 5 s, then all of it again; a ring of 4,096 would have known the last second only."""
    said_in_5_s = [Said(0, 1_700_000_000, n, 0.0) for n in range(5 * 3276)]
    seen = Seen()
    assert not any(answers(seen, [said_in_5_s]))
    assert all(answers(seen, [said_in_5_s]))


@given(many)
def test_other_observers_and_boots_are_no_duplicates(records: list[Said]) -> None:
    distinct = list(dict.fromkeys((s.observer, s.boot, s.seq) for s in records))
    assert not any(answers(Seen(), [[Said(o, b, q, 0.0) for o, b, q in distinct]]))


def test_a_forgotten_observer_leaves_nothing_to_the_next_on_its_row() -> None:
    seen = Seen()
    list(answers(seen, [[Said(0, 1, 1, 0.0), Said(1, 1, 1, 0.0)]]))
    seen.forget([0, 99])
    assert list(answers(seen, [[Said(0, 1, 1, 0.0), Said(1, 1, 1, 0.0)]])) == [False, True]


def test_an_observer_that_restarts_in_a_loop_does_not_fill_the_memory() -> None:
    seen = Seen()
    list(answers(seen, [[Said(0, boot, 0, 0.0) for boot in range(10_000)]]))
    assert seen._ring.nbytes <= 16 * REMEMBERED * 8


@given(cut(), st.sampled_from([0.0, 5.0, 1e12]))
def test_lateness_is_told_as_by_a_model_that_hears_one_at_a_time(
    given_cut: tuple[list[Said], list[list[Said]]], lateness_s: float
) -> None:
    records, batches = given_cut
    newest: dict[int, float] = {}
    expected = []
    for s in records:
        newest[s.observer] = max(newest.get(s.observer, 0.0), s.at_s)
        expected.append(s.at_s < newest[s.observer] - lateness_s)
    marks = Watermarks()
    found: list[bool] = []
    for batch in batches:
        found += marks.fold(observers(batch), np.array([s.at_s for s in batch], np.float64), lateness_s).tolist()
    assert found == expected
    every = np.arange(4)
    assert marks.silent(every, 20.0).tolist() == [o for o in range(4) if newest.get(o, 0.0) < 20.0]


@given(cut())
def test_one_observers_clock_ages_nobody_else(given_cut: tuple[list[Said], list[list[Said]]]) -> None:
    records, _ = given_cut
    alone = [s for s in records if s.observer == 0]
    at = np.array([s.at_s for s in records], np.float64)
    together = Watermarks().fold(observers(records), at, 5.0)[observers(records) == 0]
    assert together.tolist() == Watermarks().fold(observers(alone), at[observers(records) == 0], 5.0).tolist()


def test_a_forgotten_watermark_ages_nobody() -> None:
    marks = Watermarks()
    one = np.zeros(1, np.intp)
    assert marks.fold(one, np.array([1000.0]), 5.0).tolist() == [False]
    assert marks.fold(one, np.array([10.0]), 5.0).tolist() == [True]
    marks.forget([0, 99])
    assert marks.fold(one, np.array([10.0]), 5.0).tolist() == [False]


@given(st.lists(st.tuples(st.integers(0, 4), st.floats(0, 1e11)), max_size=60))
def test_the_running_maximum_is_that_of_each_group_so_far(pairs: list[tuple[int, float]]) -> None:
    groups, values = np.array([g for g, _ in pairs], np.intp), np.array([v for _, v in pairs], np.float64)
    best: dict[int, float] = {}
    expected = []
    for group, value in pairs:
        best[group] = max(best.get(group, 0.0), value)
        expected.append(best[group])
    assert _running_max(groups, values).tolist() == expected
