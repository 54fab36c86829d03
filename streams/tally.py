"""Sums of the last seconds by row and column: requests and errors by kind."""

from __future__ import annotations

from math import floor
from typing import Final

import numpy as np
from numpy.typing import NDArray

from streams.names import grown

MOST: Final = 2**40
"""More than this in one amount is taken as this: sums stay inside 64 bits whatever is sent."""
Ints = NDArray[np.intp]
Sums = NDArray[np.int64]


class Tally:
    """Per-second sums, each made when something falls into it, and the sum of those alive.

    Seconds expire exactly as in `streams.sketch.Window`.
    """

    def __init__(self, columns: int, window_s: int = 60) -> None:
        self.window_s = window_s
        self._seconds: dict[int, dict[int, Sums]] = {}
        """Second to column to sums by row; most columns of most seconds are empty, and not there."""
        self._total: Sums = np.zeros((columns, 0), np.int64)
        self._expired = -1

    def reserve(self, rows: int) -> None:
        """Have at least `rows` rows."""
        if rows > self._total.shape[1]:
            self._total = np.ascontiguousarray(grown(self._total.T, rows).T)

    def fold(self, rows: Ints, column: int, seconds: NDArray[np.int64], amounts: Sums) -> None:
        """Add `amounts` to `column`; what has expired is left out."""
        live = seconds > self._expired
        if not live.all():
            rows, seconds, amounts = rows[live], seconds[live], amounts[live]
        if not rows.size:
            return
        self.reserve(int(rows.max()) + 1)
        amounts = np.minimum(amounts, MOST)
        np.add.at(self._total[column], rows, amounts)
        first = int(seconds[0])
        if (seconds == first).all():
            np.add.at(self._plane(first, column), rows, amounts)
            return
        for second in np.unique(seconds).tolist():
            part = seconds == second
            np.add.at(self._plane(second, column), rows[part], amounts[part])

    def advance(self, now_s: float) -> None:
        """Expire the seconds up to floor(now_s) - window_s."""
        self._expired = max(self._expired, floor(now_s) - self.window_s)
        for second in [s for s in self._seconds if s <= self._expired]:
            for column, sums in self._seconds.pop(second).items():
                self._total[column, : len(sums)] -= sums

    def total(self, rows: int, since_s: int | None = None) -> Sums:
        """Sums (rows, columns) of the live seconds, or of those from `since_s` on."""
        if since_s is None:
            return self._total[:, :rows].T.copy()
        found = np.zeros((len(self._total), rows), np.int64)
        for second in (s for s in self._seconds if s >= since_s):
            for column, sums in self._seconds[second].items():
                found[column, : len(sums)] += sums[:rows]
        return found.T

    def clear(self, rows: list[int]) -> None:
        """Empty these rows, so that they may be given to others."""
        self._total[:, [r for r in rows if r < self._total.shape[1]]] = 0
        for planes in self._seconds.values():
            for sums in planes.values():
                sums[[r for r in rows if r < len(sums)]] = 0

    def _plane(self, second: int, column: int) -> Sums:
        planes, room = self._seconds.setdefault(second, {}), self._total.shape[1]
        held = planes.get(column)
        if held is None or len(held) < room:
            wider = planes[column] = np.zeros(room, np.int64)
            if held is not None:
                wider[: len(held)] = held
            return wider
        return held
