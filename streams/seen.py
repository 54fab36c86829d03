"""Who was heard already, and how late: duplicates by (observer, boot, seq), a watermark per observer.

Both work on a whole batch, and answer as if its records had come one by one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from streams.names import grown

REMEMBERED: Final = 16384
"""Records remembered per observer and partition, counted over all that the observer sends (128 KiB each).

With the usual lateness of 5 s that is all that is not too late of an observer that sends up to 3,276 records a second
(a record may hold 10,000 observations). Of one that sends more, or with a longer lateness, a repeat of something older
counts twice.
"""
_ODD: Final = np.uint64(0x9E3779B97F4A7C15)

Ints = NDArray[np.intp]
Counts = NDArray[np.int64]
Mask = NDArray[np.bool_]


class Seen:
    """What was heard from each observer, in a ring: a slot holds the mark of the last (boot, seq) put there.

    A ring belongs to an observer and not to a boot: one that restarts in a loop must not fill the memory. Each boot
    starts at another slot, so that processes sharing a name seldom meet.
    """

    def __init__(self) -> None:
        self._ring: NDArray[np.uint64] = np.zeros((0, REMEMBERED), np.uint64)

    def fold(self, observers: Ints, boots: Counts, seqs: Counts) -> Mask:
        """True where (observer, boot, seq) was heard before, in earlier batches or earlier in this one."""
        self._ring = grown(self._ring, int(observers.max(initial=-1)) + 1)
        starts = boots.astype(np.uint64) * _ODD
        # 0 is an empty slot
        marks = np.maximum(starts + seqs.astype(np.uint64) + np.uint64(1), np.uint64(1))
        slots = observers * REMEMBERED + (((starts >> np.uint64(40)) + seqs.astype(np.uint64)) % REMEMBERED).astype(
            np.intp
        )
        ring = self._ring.reshape(-1)
        before = ring[slots]
        order = np.argsort(slots, kind="stable")
        ordered = slots[order]
        again = np.flatnonzero(ordered[1:] == ordered[:-1])
        if again.size:
            before[order[again + 1]] = marks[order[again]]
        ring[slots] = marks
        return np.asarray(before == marks)

    def forget(self, observers: Sequence[int]) -> None:
        """Empty these rings, so that they may be given to others."""
        self._ring[[o for o in observers if o < len(self._ring)]] = 0


class Watermarks:
    """The newest event time heard from each observer. One observer's clock ages nobody else's records."""

    def __init__(self) -> None:
        self._newest_s: NDArray[np.float64] = np.zeros(0)

    def fold(self, observers: Ints, at_s: NDArray[np.float64], lateness_s: float) -> Mask:
        """True where a record is more than `lateness_s` behind what its observer had said before it."""
        self._newest_s = grown(self._newest_s, int(observers.max(initial=-1)) + 1)
        newest = np.maximum(self._newest_s[observers], _running_max(observers, at_s))
        np.maximum.at(self._newest_s, observers, at_s)
        return np.asarray(at_s < newest - lateness_s)

    def silent(self, observers: Ints, since_s: float) -> Ints:
        """Those of `observers` that said nothing newer than `since_s`."""
        known = observers < len(self._newest_s)
        heard_s = np.zeros(len(observers))
        heard_s[known] = self._newest_s[observers[known]]
        return observers[heard_s < since_s]

    def forget(self, observers: Sequence[int]) -> None:
        """Reset these rows, so that they may be given to others."""
        self._newest_s[[o for o in observers if o < len(self._newest_s)]] = 0


def _running_max(groups: Ints, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The maximum so far within each group, in the order given.

    >>> _running_max(np.array([0, 1, 0, 1]), np.array([3.0, 5.0, 2.0, 6.0])).tolist()
    [3.0, 5.0, 3.0, 6.0]
    """
    if not len(groups) or (values[1:] >= values[:-1]).all():
        return values
    if (groups == groups[0]).all():
        return np.maximum.accumulate(values)
    order = np.argsort(groups, kind="stable")
    distinct, ranks = np.unique(values[order], return_inverse=True)
    # each group is lifted above all of the one before it, so that one pass serves them all
    lift = groups[order] * len(distinct)
    found = np.empty_like(values)
    found[order] = distinct[np.maximum.accumulate(ranks + lift) - lift]
    return found
