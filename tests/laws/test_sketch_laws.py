"""What holds for every histogram and every window, whatever came in, in whatever order."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from fractions import Fraction
from itertools import pairwise
from math import ceil, floor
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams import sketch
from streams.sketch import (
    ACCURACY,
    CEIL_MS,
    FIRST,
    FLOOR_MS,
    GAMMA,
    LAST,
    Histogram,
    Window,
    accuracy_of,
    bucket_of,
    merge,
    rank_of,
    rebucket,
    value_of,
)

QS = (0.0, 0.07, 0.5, 0.95, 0.99, 1.0)
SLACK = 1e-9  # of floating point, at the very edge of a bucket
WINDOW_S = 6

Sample = tuple[int, int, float]  # row, second, value

in_range = st.floats(FLOOR_MS, CEIL_MS)
anywhere = st.one_of(
    in_range,
    st.floats(0, 10),
    st.sampled_from([0.0, FLOOR_MS, 1.0, 250.0, 251.0, CEIL_MS]),  # ties and edges
    st.floats(-2, 15).map(np.exp).map(float),  # even on a log scale: tiny, huge and gaps between
)
distributions = st.lists(anywhere, min_size=1, max_size=200)
gammas = st.sampled_from([GAMMA, 1.02, 1.04, 2 ** (2**-3), 2.0])
samples = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 12), anywhere), max_size=40)


def exact(values: Iterable[float], q: float) -> float:
    """The ceil(q*n)-th smallest, reckoned without rounding."""
    ordered = sorted(min(v, CEIL_MS) for v in values)
    return ordered[max(1, ceil(Fraction(str(q)) * len(ordered))) - 1]


def assert_within(said: float, truth: float, accuracy: float) -> None:
    if truth > FLOOR_MS:
        assert abs(said - truth) <= (accuracy + SLACK) * truth
    else:
        assert 0 < said <= FLOOR_MS * (1 + accuracy + SLACK)


def foreign(values: Sequence[float], gamma: float) -> Histogram:
    """The histogram that a sender with another gamma would send."""
    if gamma == GAMMA:
        return Histogram.from_values(values)
    clamped = np.clip(values, FLOOR_MS, CEIL_MS)
    index = np.ceil(np.log(clamped) / np.log(gamma)).astype(int)
    return Histogram.of(gamma, index, np.ones(len(index), int))


def columns(given_samples: Sequence[Sample]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rows, seconds, values = zip(*given_samples, strict=True) if given_samples else ((), (), ())
    return np.array(rows, int), np.array(seconds, int), np.array(values, float)


def filled(given_samples: Sequence[Sample], now_s: float | None = None) -> Window:
    window = Window(WINDOW_S)
    window.reserve(4)
    window.fold(*columns(given_samples))
    if now_s is not None:
        window.advance(now_s)
    return window


def said(window: Window) -> list[Any]:
    """All that a window says, in a form that compares."""
    rows = [window.histogram(row).wire() for row in range(window.rows)]
    return [rows, window.counts().tolist(), np.nan_to_num(window.quantiles(QS), nan=-1).tolist()]


def assert_same_life(a: Window, b: Window) -> None:
    """Equal now and at every later second until both are empty."""
    assert said(a) == said(b)
    for now_s in range(20):
        a.advance(now_s)
        b.advance(now_s)
        assert said(a) == said(b)
    assert a.counts().sum() == 0


class Naive:
    """The window as one would write it without a thought for speed."""

    def __init__(self) -> None:
        self.heard: dict[int, list[tuple[int, float]]] = defaultdict(list)
        self.expired = -(10**9)

    def fold(self, given_samples: Sequence[Sample]) -> list[bool]:
        kept = [second > self.expired for _, second, _ in given_samples]
        for (row, second, value), keep in zip(given_samples, kept, strict=True):
            if keep:
                self.heard[row].append((second, value))
        return kept

    def advance(self, now_s: float) -> None:
        self.expired = max(self.expired, floor(now_s) - WINDOW_S)
        for row, heard in self.heard.items():
            self.heard[row] = [(second, value) for second, value in heard if second > self.expired]

    def drop(self, rows: Iterable[int]) -> None:
        for row in rows:
            self.heard.pop(row, None)

    def values(self, row: int) -> list[float]:
        return [value for _, value in self.heard[row]]


def test_there_are_some_870_buckets_and_zero_and_infinity_have_one() -> None:
    assert 760 <= LAST - FIRST + 1 <= 880
    assert bucket_of([0.0, FLOOR_MS, CEIL_MS, 1e12, np.inf]).tolist() == [FIRST, FIRST, LAST, LAST, LAST]


@given(in_range)
def test_a_bucket_answers_within_one_percent_of_each_of_its_values(value: float) -> None:
    assert_within(float(value_of(bucket_of(value))), value, ACCURACY)


@given(st.integers(0, 10_000), st.sampled_from([0.0, 0.001, 0.07, 0.29, 0.5, 0.95, 0.99, 0.999, 1.0]))
def test_a_rank_is_that_of_exact_arithmetic(n: int, q: float) -> None:
    assert int(rank_of(q, n)) == max(1, ceil(Fraction(str(q)) * n))


@given(distributions)
def test_quantiles_are_within_one_percent_of_the_exact_order_statistic(values: list[float]) -> None:
    for q, answer in zip(QS, Histogram.from_values(values).quantiles(QS), strict=True):
        assert_within(answer, exact(values, q), ACCURACY)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", ["lognormal", "pareto", "bimodal", "edge at p95", "one value", "zeros"])
def test_the_bound_holds_in_a_window_for_heavy_tails_gaps_and_ties(kind: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = 6_000
    values = {
        "lognormal": rng.lognormal(5, 1, n),
        "pareto": 20 * (1 + rng.pareto(1.5, n)),
        "bimodal": np.where(rng.random(n) < 0.93, rng.normal(40, 2, n), rng.normal(30_000, 500, n)),
        "edge at p95": np.r_[np.full(n * 95 // 100, 10.0), np.full(n * 5 // 100, 9_000.0)],
        "one value": np.full(n, 123.4),
        "zeros": np.zeros(n),
    }[kind]
    window = Window()
    window.fold(np.full(n, 7), rng.integers(0, 60, n), values)
    for q, answer in zip(QS, window.quantiles(QS)[7], strict=True):
        assert_within(answer, exact(values.tolist(), q), ACCURACY)


@given(distributions, distributions, distributions, gammas, gammas, gammas)
def test_merge_is_associative_and_commutative(
    x: list[float], y: list[float], z: list[float], gx: float, gy: float, gz: float
) -> None:
    a, b, c = foreign(x, gx), foreign(y, gy), foreign(z, gz)
    assert merge(a, b) == merge(b, a)
    assert merge(merge(a, b), c) == merge(a, merge(b, c))
    assert merge(merge(a, b), c).total == len(x) + len(y) + len(z)


@given(distributions, distributions)
def test_merging_two_histograms_is_hearing_the_samples_of_both(x: list[float], y: list[float]) -> None:
    assert merge(Histogram.from_values(x), Histogram.from_values(y)) == Histogram.from_values(x + y)


@given(distributions, gammas)
def test_a_histogram_survives_the_wire(values: list[float], gamma: float) -> None:
    sent = foreign(values, gamma)
    assert Histogram.of(*json.loads(json.dumps(sent.wire()))) == sent


@given(distributions, gammas)
def test_foreign_buckets_become_ours_within_the_bound_they_state(values: list[float], gamma: float) -> None:
    ours = foreign(values, gamma).ours()
    a = accuracy_of(gamma)
    assert ours.gamma == GAMMA
    assert ours.inexact == (gamma != GAMMA)
    assert ours.total == len(values)
    assert ours.accuracy == pytest.approx(ACCURACY if gamma == GAMMA else a + ACCURACY + a * ACCURACY)
    for q, answer in zip(QS, ours.quantiles(QS), strict=True):
        assert_within(answer, exact(values, q), ours.accuracy)


operations = st.one_of(
    samples.map(lambda s: ("fold", s)),
    st.floats(0, 20).map(lambda now_s: ("advance", now_s)),
    st.sets(st.integers(0, 3)).map(lambda rows: ("drop", sorted(rows))),
)


@settings(max_examples=200)
@given(st.lists(operations, max_size=15), st.sampled_from([1, 5, 65_536]))
def test_a_window_says_what_a_naive_one_says_after_any_folds_advances_and_drops(
    todo: list[tuple[str, Any]], tidy: int
) -> None:
    naive, window = Naive(), filled([])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sketch, "_TIDY", tidy)  # so that a few samples already live through tallying
        for verb, what in todo:
            if verb == "fold":
                assert window.fold(*columns(what)).tolist() == naive.fold(what)
            else:
                getattr(window, verb)(what)
                getattr(naive, verb)(what)
            for row in range(4):
                assert window.histogram(row) == Histogram.from_values(naive.values(row))
                assert window.counts()[row] == len(naive.values(row))
    for row, answers in enumerate(window.quantiles(QS)):
        values = naive.values(row)
        assert bool(np.isnan(answers).all()) == (not values)
        for q, answer in zip(QS, answers, strict=True):
            if values:
                assert_within(answer, exact(values, q), ACCURACY)


@given(samples, st.randoms(use_true_random=False), st.lists(st.integers(0, 40), max_size=4), st.floats(0, 12))
def test_neither_order_nor_cut_nor_the_moment_of_the_clock_changes_the_answer(
    heard: list[Sample], chance: Any, cuts: list[int], now_s: float
) -> None:
    other, shuffled = filled([]), list(heard)
    chance.shuffle(shuffled)
    bounds = [0, *sorted(cuts), len(shuffled)]
    for at, (start, end) in enumerate(pairwise(bounds)):
        other.fold(*columns(shuffled[start:end]))
        other.advance(now_s * at / len(bounds))  # may refuse what the first window folds and then expires
    other.advance(now_s)
    assert_same_life(filled(heard, now_s), other)


@given(samples)
def test_counts_of_buckets_fold_as_the_samples_they_stand_for(heard: list[Sample]) -> None:
    tally: dict[tuple[int, int, int], int] = defaultdict(int)
    for row, second, value in heard:
        tally[row, second, int(bucket_of(value))] += 1
    keys = np.array(list(tally), int).reshape(-1, 3)
    other = filled([])
    assert other.fold_counts(keys[:, 0], keys[:, 1], keys[:, 2], list(tally.values())).all()
    assert_same_life(filled(heard), other)


@given(samples, samples, samples, st.tuples(*[st.floats(0, 12)] * 3))
def test_windows_merge_in_any_order_into_the_window_of_all_their_samples(
    x: list[Sample], y: list[Sample], z: list[Sample], now: tuple[float, float, float]
) -> None:
    def three() -> tuple[Window, Window, Window]:
        return filled(x, now[0]), filled(y, now[1]), filled(z, now[2])

    a, b, c = three()
    assert said(a.merge(b)) == said(b.merge(a))
    assert_same_life(a.merge(b).merge(c), a.merge(b.merge(c)))
    assert_same_life(a.merge(b).merge(c), filled(x + y + z, max(now)))
    assert [said(w) for w in (a, b, c)] == [said(w) for w in three()]


@given(samples, samples, st.sets(st.integers(0, 3), min_size=1))
def test_released_rows_come_back_empty_and_owe_nothing_to_their_first_owner(
    before: list[Sample], after: list[Sample], gone: set[int]
) -> None:
    window = filled(before)
    window.drop(sorted(gone))
    assert window.counts()[sorted(gone)].sum() == 0
    assert np.isnan(window.quantiles(QS, sorted(gone))).all()
    window.fold(*columns(after))
    assert_same_life(window, filled([s for s in before if s[0] not in gone] + after))


@given(samples, st.integers(0, 13))
def test_counts_since_a_second_leave_out_what_is_older(heard: list[Sample], since_s: int) -> None:
    newer = [s for s in heard if s[1] >= since_s]
    assert filled(heard).counts(since_s).tolist() == filled(newer).counts().tolist()


def test_a_second_leaves_exactly_when_it_is_window_s_old() -> None:
    window = Window(60)
    window.fold([0, 0], [100, 101], [5.0, 5.0])
    seen = []
    for now_s in (159.999, 160.0, 150.0, 160.999, 161.0):
        window.advance(now_s)
        seen.append(int(window.counts()[0]))
    assert seen == [2, 1, 1, 1, 0]
    assert window.fold([0, 0], [101, 102], [5.0, 5.0]).tolist() == [False, True]


def test_a_second_with_more_samples_than_are_kept_raw_still_expires_to_nothing() -> None:
    rng = np.random.default_rng(5)
    values = rng.lognormal(5, 1, (1_500, 100))
    window = Window(60)
    for part in values:
        window.fold(rng.integers(0, 3, 100), np.full(100, 7), part)
    assert window.counts().sum() == values.size
    merged = merge(merge(window.histogram(0), window.histogram(1)), window.histogram(2))
    assert merged == Histogram.from_values(values.ravel())
    window.advance(67)
    assert [window.histogram(row).total for row in range(3)] == [0, 0, 0]


def test_a_flood_of_counts_spoils_no_other_row_and_leaves_nothing_behind() -> None:
    window = Window(60)
    window.fold([1], [7], [250.0])
    for _ in range(600):  # more than a bin of 32 bits holds, and more parts than a second keeps untallied
        window.fold_counts([0], [8], [LAST], [sketch.MAX_COUNT])
    assert window.counts().tolist() == [600 * sketch.MAX_COUNT, 1]
    assert window.quantiles([0.5])[1, 0] == pytest.approx(250, rel=ACCURACY)
    window.advance(59 + 60)
    window.fold([0], [100], [40.0])
    assert window.histogram(0) == Histogram.from_values([40.0])
    assert window.counts().tolist() == [1, 0]


def test_rows_nobody_has_spoken_of_are_nan() -> None:
    window = Window()
    window.reserve(3)
    window.fold([1], [0], [10.0])
    assert np.isnan(window.quantiles([0.5])).ravel().tolist() == [True, False, True]
    assert Window().quantiles([0.5]).shape == (0, 1)
    assert np.isnan(Histogram.from_values([]).quantiles([0.5])).all()


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        (lambda: bucket_of([1.0, -0.5]), "value -0.5"),
        (lambda: bucket_of([1.0, float("nan")]), "value nan"),
        (lambda: rank_of(1.5, 10), "q 1.5"),
        (lambda: Window(0), "window_s 0"),
        (lambda: Window(60).merge(Window(30)), "window_s 60 and 30"),
        (lambda: Window().fold([-1], [0], [1.0]), "row -1"),
        (lambda: Window().reserve(10**7), "rows 10000000"),
        (lambda: Window().fold_counts([0], [0], [5], [-1]), "count -1"),
        (lambda: Histogram.of(1.0, [1], [1]), "gamma 1.0"),
        (lambda: Histogram.of(GAMMA, [1, 2], [1]), "index and count"),
        (lambda: Histogram.of(GAMMA, [1], [2**40]), "count"),
        (lambda: Histogram.of(2.0, [2**40], [1]), "index"),
    ],
)
def test_what_is_wrong_is_refused_by_its_name(wrong: Any, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        wrong()


def test_open_telemetry_exponential_buckets_are_read_with_their_index_plus_one() -> None:
    scale, value = 3, 250.0
    base = 2 ** (2**-scale)
    otel_index = ceil(np.log(value) / np.log(base)) - 1  # (base**i, base**(i+1)]
    answer = float(value_of(rebucket([otel_index + 1], base))[0])
    assert answer == pytest.approx(value, rel=accuracy_of(base) + ACCURACY + accuracy_of(base) * ACCURACY)
