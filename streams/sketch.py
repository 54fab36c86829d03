"""Mergeable latency histograms, and a sliding event-time window of them over many rows at once.

A value falls into bucket `i` when GAMMA**(i-1) < value <= GAMMA**i; the bucket answers with 2*GAMMA**i/(GAMMA+1),
within ACCURACY of every value in it. Buckets are cut by value and not by rank, so the bound also holds where a quantile
falls into a gap of the density, and adding two histograms is adding their counts.

    row 0   block 0 [ 32 buckets ]  block 1 [ 32 buckets ] ... block 27      counts of the whole window, int32
    row 1   ...
    blocks  one sum for each block: a quantile looks for its block here first, then reads those 32 counts only
    second  the bins that each second has touched: taken off the counts again when the second expires

So a fold costs a few additions for each observation, a tick reads a few hundred bytes for each row, and the memory
beside the counts grows with the bins touched in the window, not with the observations heard.

The quantile `q` of `n` samples is the ceil(q*n)-th smallest (the first for q = 0), `q` read as a decimal.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import ceil, floor, log
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = [
    "ACCURACY", "CEIL_MS", "FIRST", "FLOOR_MS", "GAMMA", "LAST",
    "Histogram", "Window", "accuracy_of", "bucket_of", "merge", "rank_of", "rebucket", "value_of",
]  # fmt: skip

Ints = NDArray[np.integer[Any]]
Bins = NDArray[np.int32]
_Int = TypeVar("_Int", np.int32, np.int64)
Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

ACCURACY: Final = 0.01
GAMMA: Final = (1 + ACCURACY) / (1 - ACCURACY)
FLOOR_MS: Final = 0.1
CEIL_MS: Final = 3_600_000.0
MAX_COUNT: Final = 2**24  # of one bucket in one record; keeps sums of many records inside their integers

_LN_GAMMA: Final = log(GAMMA)
FIRST: Final = ceil(log(FLOOR_MS) / _LN_GAMMA)
LAST: Final = ceil(log(CEIL_MS) / _LN_GAMMA)

_WIDTH: Final = 32  # buckets in a block: 128 bytes of counts, two cache lines
_SHIFT: Final = 5  # a flat bin's block is `bin >> _SHIFT`
_BLOCKS: Final = -(-(LAST - FIRST + 1) // _WIDTH)
_STRIDE: Final = _WIDTH * _BLOCKS
_MAX_ROWS: Final = 2**31 // _STRIDE  # flat bins are int32
_TIDY: Final = 65_536  # raw bins a second may hold before they are tallied
_TIDY_PARTS: Final = 512


def bucket_of(values: ArrayLike) -> Bins:
    """The bucket of each value, in [FIRST, LAST].

    Values from 0 to FLOOR_MS share the first bucket (their error is at most FLOOR_MS, not ACCURACY), values above
    CEIL_MS the last. Raises ValueError for a negative value or NaN.

    >>> bucket_of([0.0, 1.0, 250.0]).tolist()
    [-115, 0, 277]
    """
    given = np.asarray(values, np.float64)
    if given.size and not given.min() >= 0:
        raise ValueError(f"value {given.min()} is not a latency: refuse negative values and NaN before they are folded")
    exponent = np.asarray(np.clip(given, FLOOR_MS, CEIL_MS))
    np.log(exponent, out=exponent)
    exponent /= _LN_GAMMA
    return np.ceil(exponent, out=exponent).astype(np.int32)


def value_of(index: ArrayLike, gamma: float = GAMMA) -> Floats:
    """The value a bucket answers with, in the unit of the values: within `accuracy_of(gamma)` of all that fell into it.

    >>> value_of([0, 277]).round(2).tolist()
    [0.99, 252.18]
    """
    with np.errstate(over="ignore", under="ignore"):  # a foreign index may lie anywhere: inf and 0 are clamped later
        return np.asarray(2 / (gamma + 1) * np.power(gamma, np.asarray(index, np.float64)))


def accuracy_of(gamma: float) -> float:
    """The largest relative error of a histogram with this `gamma`."""
    return (gamma - 1) / (gamma + 1)


def rebucket(index: ArrayLike, gamma: float) -> Bins:
    """The bucket of ours for each bucket of a histogram with another `gamma`.

    Order is kept, so a quantile of the result is within `a + ACCURACY + a*ACCURACY` of the exact one, `a` being
    `accuracy_of(gamma)`. An OpenTelemetry exponential histogram of a given scale has gamma 2**(2**-scale) and counts
    its buckets from their lower bound: add one to its index.
    """
    if gamma == GAMMA:
        return np.clip(np.asarray(index, np.int64), FIRST, LAST).astype(np.int32)
    return bucket_of(value_of(index, gamma))


def rank_of(q: float, n: ArrayLike) -> NDArray[np.int64]:
    """Which of `n` samples in ascending order, counted from 1, is their quantile `q`. Raises ValueError outside [0, 1].

    >>> rank_of(0.07, [100, 101]).tolist()
    [7, 8]
    """
    if not 0 <= q <= 1:
        raise ValueError(f"q {q} is not a share: give a number from 0 to 1")
    exact = np.asarray(n) * (q * (1 - 1e-12))  # 0.07 * 100 is 7.000000000000001 in binary, and would be the 8th
    return np.maximum(1, np.ceil(exact)).astype(np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class Histogram:
    """A sparse histogram as it travels: `count[k]` samples in bucket `index[k]`, ascending, no bucket twice or empty.

    `accuracy` is the largest relative error of its quantiles. Build one with `of` or `from_values`.
    """

    gamma: float
    index: Bins
    count: NDArray[np.int64]
    accuracy: float = ACCURACY

    @classmethod
    def from_values(cls, values: ArrayLike) -> Histogram:
        """The histogram of some values, in our buckets. Raises ValueError for a negative value or NaN."""
        index, count = np.unique(bucket_of(values), return_counts=True)
        return cls(GAMMA, index, count)

    @classmethod
    def of(cls, gamma: float, index: ArrayLike, count: ArrayLike, accuracy: float | None = None) -> Histogram:
        """A histogram as it came off the wire, its buckets in any order. Raises ValueError naming what is wrong.

        Give `accuracy` when an earlier conversion has made it worse than `gamma` tells.
        """
        _check_wire(gamma, index, count)
        known = accuracy_of(gamma) if gamma != GAMMA else ACCURACY
        bins = rebucket(index, gamma) if gamma == GAMMA else np.asarray(index, np.int32)
        return cls(gamma, *_added(bins, np.asarray(count, np.int64)), max(known, accuracy or 0.0))

    @property
    def inexact(self) -> bool:
        """Whether a quantile may be further than ACCURACY from the exact one."""
        return self.accuracy > ACCURACY

    @property
    def total(self) -> int:
        """How many samples there are."""
        return int(self.count.sum())

    def wire(self) -> tuple[float, list[int], list[int]]:
        """`gamma`, `index`, `count` as plain values: `Histogram.of(*h.wire())` is `h`, its accuracy apart."""
        return self.gamma, self.index.tolist(), self.count.tolist()

    def ours(self) -> Histogram:
        """The same samples in our buckets; inexact when it came in others (the bound is that of `rebucket`)."""
        if self.gamma == GAMMA:
            return self
        worse = self.accuracy + ACCURACY + self.accuracy * ACCURACY
        return Histogram(GAMMA, *_added(rebucket(self.index, self.gamma), self.count), worse)

    def quantiles(self, qs: Sequence[float]) -> Floats:
        """One value for each of `qs`; NaN when there are no samples."""
        if not self.count.size:
            return np.full(len(qs), np.nan)
        below = np.cumsum(self.count)
        ranks = np.array([rank_of(q, below[-1]) for q in qs], np.int64)
        return value_of(self.index[np.searchsorted(below, ranks)], self.gamma)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Histogram):
            return NotImplemented
        same = self.gamma == other.gamma and self.accuracy == other.accuracy
        return same and np.array_equal(self.index, other.index) and np.array_equal(self.count, other.count)

    __hash__ = None  # type: ignore[assignment]  # arrays are compared by content


def merge(a: Histogram, b: Histogram) -> Histogram:
    """The histogram of the samples of both, in our buckets unless both share another gamma."""
    if a.gamma != b.gamma:
        a, b = a.ours(), b.ours()
    index = np.concatenate([a.index, b.index])
    count = np.concatenate([a.count, b.count])
    return Histogram(a.gamma, *_added(index, count), max(a.accuracy, b.accuracy))


def _check_wire(gamma: float, index: ArrayLike, count: ArrayLike) -> None:
    if not 1 < gamma < np.inf:
        raise ValueError(f"gamma {gamma} must be above 1 and finite: it is the ratio of neighbouring bucket bounds")
    if np.abs(np.asarray(index, np.int64)).max(initial=0) >= 2**31:
        raise ValueError("index is outside 32 bits: no bucket of a latency lies there")
    if len(np.atleast_1d(index)) != len(np.atleast_1d(count)):
        raise ValueError("index and count differ in length: send one count for each index")
    _check_counts(np.asarray(count, np.int64))


def _check_counts(count: Ints) -> None:
    if count.size and not (count.min() >= 0 and count.max() <= MAX_COUNT):
        worst = count.min() if count.min() < 0 else count.max()
        raise ValueError(f"count {worst} must be from 0 to {MAX_COUNT}: split what is larger")


def _added(bins: Bins, count: Ints) -> tuple[Bins, NDArray[np.int64]]:
    """Ascending bins, each once, with their counts added up; empty ones left out."""
    order = np.argsort(bins)
    bins, count = bins[order], count[order]
    starts = np.flatnonzero(np.diff(bins, prepend=bins[:1] - 1))
    if not starts.size:
        return bins, count.astype(np.int64)
    total = np.add.reduceat(count.astype(np.int64), starts)
    return bins[starts][total > 0], total[total > 0]


class _Second:
    """The flat bins one second has touched: as they came (no counts: one each), and what has been tallied of them."""

    __slots__ = ("bins", "count", "raw", "raw_count", "size")

    def __init__(self) -> None:
        self.bins: Bins = np.empty(0, np.int32)
        self.count: Ints = np.empty(0, np.int64)
        self._restart()

    def _restart(self) -> None:
        self.raw: list[Bins] = []
        self.raw_count: list[Ints | None] = []
        self.size = 0

    def add(self, bins: Bins, count: Ints | None) -> None:
        self.raw.append(bins)
        self.raw_count.append(count)
        self.size += len(bins)
        # Doubling: what is raw never outgrows what is tallied by much, and each bin is tallied about twice.
        if self.size > max(_TIDY, len(self.bins)) or len(self.raw) > _TIDY_PARTS:
            self._keep(*self.tally())

    def tally(self) -> tuple[Bins, NDArray[np.int64]]:
        """Each bin once, with its count."""
        counts = [np.ones(len(b), np.int64) if c is None else c for b, c in zip(self.raw, self.raw_count, strict=True)]
        bins, count = np.concatenate([self.bins, *self.raw]), np.concatenate([self.count, *counts])
        top = int(bins.max(initial=-1)) + 1
        if top > 4 * len(bins):
            return _added(bins, count)
        dense = np.bincount(bins, weights=count, minlength=top)  # few rows, much traffic: no need to sort
        hit = np.flatnonzero(dense)
        return hit.astype(np.int32), dense[hit].astype(np.int64)

    def parts(self) -> Iterator[tuple[Bins, Ints | None]]:
        """All there is, cheapest first: bins may repeat, a missing count means one each."""
        yield self.bins, self.count
        ones = [b for b, c in zip(self.raw, self.raw_count, strict=True) if c is None]
        if ones:
            yield np.concatenate(ones), None
        for bins, count in zip(self.raw, self.raw_count, strict=True):
            if count is not None:
                yield bins, count

    def without(self, gone: Mask) -> None:
        """Forget the bins of rows marked in `gone`."""
        kept = [(~gone[bins // _STRIDE], bins, count) for bins, count in self.parts()]
        (keep, bins, count), *raw = kept
        self._keep(bins[keep], np.asarray(count, np.int64)[keep])
        for keep, bins, count in raw:
            self.add(bins[keep], None if count is None else count[keep])

    def _keep(self, bins: Bins, count: NDArray[np.int64]) -> None:
        # Most counts are small: a byte instead of eight is what lets 20,000 busy rows fit.
        self.bins, self.count = bins, count.astype(np.min_scalar_type(int(count.max(initial=0))))
        self._restart()


class Window:
    """The samples of the last `window_s` seconds of event time, for rows 0, 1, 2 ...; a row is what the caller says.

    A second `s` is in the window from its first sample until `advance(now_s)` with floor(now_s) - window_s >= s. Every
    folded, unexpired second counts, so what a view says does not depend on the order or the cut of the batches. Event
    times ahead of the clock are for the caller to clamp, lateness is for the caller to judge.
    """

    __slots__ = ("_blocks", "_counts", "_expired", "_rows", "_seconds", "window_s")

    def __init__(self, window_s: int = 60) -> None:
        if window_s < 1:
            raise ValueError(f"window_s {window_s} is too short: give whole seconds, at least 1")
        self.window_s = window_s
        self._expired = -(2**62)  # this second and all before it
        self._rows = 0
        self._counts: Bins = np.zeros(0, np.int32)
        self._blocks: NDArray[np.int64] = np.zeros(0, np.int64)
        self._seconds: dict[int, _Second] = {}

    @property
    def rows(self) -> int:
        """How many rows there are: one more than the highest ever folded or reserved."""
        return self._rows

    @property
    def expired_s(self) -> int:
        """The newest second that has expired: it and older ones are refused."""
        return self._expired

    def reserve(self, rows: int) -> None:
        """Have at least `rows` rows, so that a view also answers for those nobody has spoken of."""
        if rows > _MAX_ROWS:
            raise ValueError(f"rows {rows} is above {_MAX_ROWS}: spread the topic over more partitions")
        self._rows = max(self._rows, rows)
        room = len(self._blocks) // _BLOCKS
        if rows > room:
            room = max(rows, room + room // 2, 64)
            self._counts = _longer(self._counts, room * _STRIDE)
            self._blocks = _longer(self._blocks, room * _BLOCKS)

    def fold(self, rows: ArrayLike, seconds: ArrayLike, values: ArrayLike) -> Mask:
        """Which samples were folded: False where the second had expired already. Raises ValueError as `bucket_of` does.

        `seconds` are whole unix seconds of event time (rounded down), `values` milliseconds.
        """
        return self._fold(np.asarray(rows), np.asarray(seconds), bucket_of(values), None)

    def fold_counts(self, rows: ArrayLike, seconds: ArrayLike, buckets: ArrayLike, counts: ArrayLike) -> Mask:
        """Like `fold`, for buckets of histograms: `counts` samples in each of `buckets` (ours; see `rebucket`).

        Raises ValueError for a count outside 0 to MAX_COUNT.
        """
        count = np.asarray(counts, np.int64)
        _check_counts(count)
        return self._fold(np.asarray(rows), np.asarray(seconds), rebucket(buckets, GAMMA), count)

    def advance(self, now_s: float) -> None:
        """Expire the seconds up to floor(now_s) - window_s. An earlier `now_s` than before changes nothing."""
        self._expired = max(self._expired, floor(now_s) - self.window_s)
        for second in [s for s in self._seconds if s <= self._expired]:
            for bins, count in self._seconds.pop(second).parts():
                self._add(bins, -(_ONE if count is None else count.astype(np.int64)))

    def quantiles(self, qs: Sequence[float], rows: ArrayLike | None = None) -> Floats:
        """An array (rows, qs) of milliseconds, NaN where a row is empty; of all rows, or of those given."""
        picked = np.arange(self._rows) if rows is None else np.asarray(rows, np.intp)
        found = np.full((len(picked), len(qs)), np.nan)
        upto = self._by_row()[picked].cumsum(axis=1)
        live = np.flatnonzero(upto[:, -1])
        picked, upto = picked[live], upto[live]
        for column, q in enumerate(qs):
            found[live, column] = self._at_rank(picked, upto, rank_of(q, upto[:, -1]))
        return found

    def counts(self, since_s: int | None = None) -> NDArray[np.int64]:
        """How many samples each row has; with `since_s`, only of that second and later ones."""
        if since_s is None:
            return np.asarray(self._by_row().sum(axis=1))
        total = np.zeros(self._rows, np.int64)
        for second in (s for s in self._seconds if s >= since_s):
            for bins, count in self._seconds[second].parts():
                np.add.at(total, bins // _STRIDE, 1 if count is None else count.astype(np.int64))
        return total

    def histogram(self, row: int) -> Histogram:
        """One row as it would travel; empty for a row never folded."""
        count = self._counts[row * _STRIDE : (row + 1) * _STRIDE]
        hit = np.flatnonzero(count)
        return Histogram(GAMMA, (hit + FIRST).astype(np.int32), count[hit].astype(np.int64))

    def drop(self, rows: ArrayLike) -> None:
        """Empty these rows, so that they may be given to others. A pass over the whole window: drop many at once."""
        asked = np.asarray(rows, np.intp)
        asked = asked[asked < self._rows]
        if not asked.size:
            return
        gone = np.zeros(self._rows, np.bool_)
        gone[asked] = True
        for second in self._seconds.values():
            second.without(gone)
        self._counts.reshape(-1, _STRIDE)[asked] = 0
        self._blocks.reshape(-1, _BLOCKS)[asked] = 0

    def merge(self, other: Window) -> Window:
        """A new window with the samples of both, advanced to the later of their clocks.

        Row `i` has to mean the same in both. Raises ValueError when their lengths differ.
        """
        if self.window_s != other.window_s:
            raise ValueError(f"window_s {self.window_s} and {other.window_s} differ: merge windows of one length")
        both = Window(self.window_s)
        both._expired = max(self._expired, other._expired)
        both.reserve(max(self._rows, other._rows))
        for second, held in [*self._seconds.items(), *other._seconds.items()]:
            if second > both._expired:
                both._put(second, *held.tally())
        return both

    def _fold(self, rows: Ints, seconds: Ints, buckets: Bins, count: NDArray[np.int64] | None) -> Mask:
        kept = seconds > self._expired
        if not kept.all():
            rows, seconds, buckets = rows[kept], seconds[kept], buckets[kept]
            count = None if count is None else count[kept]
        if rows.size:
            if rows.min() < 0:
                raise ValueError(f"row {rows.min()} is negative: rows are counted from 0")
            self.reserve(int(rows.max()) + 1)
            bins = rows.astype(np.int32) * np.int32(_STRIDE) + (buckets - np.int32(FIRST))
            for second, part in _by_second(seconds):
                self._put(second, bins[part], None if count is None else count[part])
        return kept

    def _put(self, second: int, bins: Bins, count: NDArray[np.int64] | None) -> None:
        self._add(bins, _ONE if count is None else count)
        self._seconds.setdefault(second, _Second()).add(bins, count)

    def _add(self, bins: Bins, count: np.int64 | NDArray[np.int64]) -> None:
        where = bins.astype(np.intp)
        np.add.at(self._counts, where, count.astype(np.int32))
        np.add.at(self._blocks, where >> _SHIFT, count)

    def _by_row(self) -> NDArray[np.int64]:
        return self._blocks.reshape(-1, _BLOCKS)[: self._rows]

    def _at_rank(self, rows: NDArray[np.intp], upto: Ints, rank: Ints) -> Floats:
        """The value of the `rank`-th smallest sample of each row; `upto` counts the samples up to each block's end."""
        block = (upto < rank[:, None]).sum(axis=1, dtype=np.intp)
        before = np.where(block > 0, upto[np.arange(len(rows)), block - 1], 0)
        inside = self._counts.reshape(-1, _WIDTH).take(rows * _BLOCKS + block, axis=0).cumsum(axis=1)
        step = (inside < (rank - before)[:, None]).sum(axis=1, dtype=np.intp)
        # A bin past 2**31 wraps while it lasts and unwraps on expiry: it may spoil its own row's answer, not the tick.
        return np.asarray(_VALUES[block * _WIDTH + np.minimum(step, _WIDTH - 1)])


_ONE: Final = np.int64(1)
_VALUES: Final = value_of(np.arange(FIRST, FIRST + _STRIDE))


def _longer(array: NDArray[_Int], size: int) -> NDArray[_Int]:
    longer = np.zeros(size, array.dtype)  # fresh pages cost nothing until a row writes to them
    longer[: len(array)] = array
    return longer


def _by_second(seconds: Ints) -> Iterable[tuple[int, slice | NDArray[np.intp]]]:
    """Each second with where its samples are."""
    first = int(seconds[0])
    if (seconds == first).all():
        return [(first, slice(None))]
    order = np.argsort(seconds, kind="stable")
    starts = np.flatnonzero(np.diff(seconds[order])) + 1
    return [(int(seconds[part[0]]), part) for part in np.split(order, starts)]
