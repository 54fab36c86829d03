"""Reports that contradict themselves: more values or errors than requests, times after their own report.

One such record could hold a quantile or a verdict for a whole window. A batch is looked at by columns, and a column
nobody has filled costs one count: of plain records only the numbers of their values are compared.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from streams.contract.errors import shown
from streams.contract.records import Buckets, ErrorKind

AFTER_S: Final = 300.0
"""A sender whose clock was set back may still remember times this far after its report's own."""

Wrong = tuple[str, str, str]
"""Field, value, reason."""


def contradictions(
    *,
    at_s: Sequence[float],
    requests: Sequence[int],
    errors: Sequence[Mapping[ErrorKind, int]],
    values: Mapping[str, tuple[Sequence[Sequence[float]], Sequence[Buckets | None]]],
    times_s: Mapping[str, Sequence[float | None]],
) -> dict[int, Wrong]:
    """What is wrong with a batch of reports, by their place in it; empty when nothing is.

    `values`: by field, a list and a histogram of each report, which together hold no more than its `requests`;
    `times_s`: by field, what may not be later than `at_s` by more than AFTER_S.
    """
    found: dict[int, Wrong] = {}
    for field, (lists, buckets) in values.items():
        found.update(_too_many(field, requests, _held(lists, buckets), "values"))
    if any(errors):
        found.update(_too_many("errors", requests, np.array([sum(e.values()) for e in errors], np.int64), "errors"))
    for field, column in times_s.items():
        found.update(_too_late(field, at_s, column))
    return found


def _held(lists: Sequence[Sequence[float]], buckets: Sequence[Buckets | None]) -> NDArray[np.int64] | None:
    """How many values each report holds; None when none holds any."""
    held = None
    if any(lists):
        held = np.fromiter(map(len, lists), np.int64, len(lists))
    if buckets.count(None) < len(buckets):
        counted = np.array([sum(b.count) if b is not None else 0 for b in buckets], np.int64)
        held = counted if held is None else held + counted
    return held


def _too_many(
    field: str, requests: Sequence[int], held: NDArray[np.int64] | None, what: str
) -> Iterator[tuple[int, Wrong]]:
    if held is None:
        return
    # most batches are of one length: then there is nothing to convert
    most = requests[0] if requests.count(requests[0]) == len(requests) else np.array(requests, np.int64)
    for i in np.flatnonzero(held > most).tolist():
        reason = f"holds more {what} than the {requests[i]} requests of its record: send `requests` that count them all"
        yield i, (field, str(held[i]), reason)


def _too_late(field: str, at_s: Sequence[float], column: Sequence[float | None]) -> Iterator[tuple[int, Wrong]]:
    if column.count(None) == len(column):
        return
    after_s: Any = np.array(column, np.float64) - np.array(at_s)  # NaN where it was left out
    for i in np.flatnonzero(after_s > AFTER_S).tolist():
        reason = (
            f"is {after_s[i]:.0f} s after its record's at_s, at most {AFTER_S:.0f} s allowed: set the sender's clock"
        )
        yield i, (field, shown(column[i]), reason)
