"""Who was heard already, and how late: duplicates by (observer, boot, seq), a watermark per observer.

Both work on a whole batch, and answer as if its records had come one by one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from streams.names import Names, grown

REMEMBERED = 4096
"""Sequence numbers remembered per observer and partition; an older repeat is caught by its lateness."""
_NEVER = -1

Ints = NDArray[np.intp]
Mask = NDArray[np.bool_]


class Seen:
    """Sequence numbers heard from each source, in a ring: slot `seq % REMEMBERED` holds the last `seq` put there."""

    def __init__(self) -> None:
        self.sources: Names[tuple[str, int]] = Names()
        self._ring: NDArray[np.int64] = np.full((0, REMEMBERED), _NEVER, np.int64)
        self._heard_s: NDArray[np.float64] = np.zeros(0)

    def fold(self, sources: Sequence[tuple[str, int]], seqs: NDArray[np.int64], at_s: NDArray[np.float64]) -> Mask:
        """True where (observer, boot) and seq were heard before, in earlier batches or earlier in this one."""
        rows = self.sources.rows(sources)
        self._reserve(len(self.sources))
        np.maximum.at(self._heard_s, rows, at_s)
        slots = rows * REMEMBERED + seqs % REMEMBERED
        ring = self._ring.reshape(-1)
        before = ring[slots]
        order = np.argsort(slots, kind="stable")
        ordered = slots[order]
        again = np.flatnonzero(ordered[1:] == ordered[:-1])
        if again.size:
            before[order[again + 1]] = seqs[order[again]]
        ring[slots] = seqs
        return np.asarray(before == seqs)

    def forget(self, before_s: float) -> None:
        """Forget sources unheard since `before_s`: observers come and go, memory must not."""
        gone = [row for row, _ in self.sources.taken() if self._heard_s[row] < before_s]
        self.sources.release(gone)
        self._ring[gone] = _NEVER
        self._heard_s[gone] = 0

    def _reserve(self, rows: int) -> None:
        self._ring = grown(self._ring, rows, _NEVER)
        self._heard_s = grown(self._heard_s, rows)


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

    def forget(self, observers: Sequence[int]) -> None:
        """Reset these rows, so that they may be given to others."""
        self._newest_s[[o for o in observers if o < len(self._newest_s)]] = 0


def _running_max(groups: Ints, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The maximum so far within each group, in the order given.

    >>> _running_max(np.array([0, 1, 0, 1]), np.array([3.0, 5.0, 2.0, 6.0])).tolist()
    [3.0, 5.0, 3.0, 6.0]
    """
    if not len(groups):
        return values
    if (groups == groups[0]).all():
        return np.maximum.accumulate(values)
    order = np.argsort(groups.astype(np.uint16) if groups.max() < 2**16 else groups, kind="stable")
    found = np.empty_like(values)
    for part in np.split(order, np.flatnonzero(np.diff(groups[order])) + 1):
        found[part] = np.maximum.accumulate(values[part])
    return found
