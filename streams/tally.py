"""Sums of the last seconds by row and column: requests and errors by kind."""

from __future__ import annotations

from math import floor

import numpy as np
from numpy.typing import NDArray

from streams.names import grown

Ints = NDArray[np.intp]


class Tally:
    """A ring of per-second sums, rows x columns. Seconds expire exactly as in `streams.sketch.Window`."""

    def __init__(self, columns: int, window_s: int = 60) -> None:
        self.window_s = window_s
        self._slots = window_s + 1
        self._sums: NDArray[np.int64] = np.zeros((0, columns, self._slots), np.int64)
        self._second = np.full(self._slots, -1, np.int64)
        self._expired = -1

    def reserve(self, rows: int) -> None:
        """Have at least `rows` rows."""
        self._sums = grown(self._sums, rows)

    def fold(self, rows: Ints, column: int, seconds: NDArray[np.int64], amounts: NDArray[np.int64]) -> None:
        """Add `amounts` to `column`; what has expired is left out. At most `window_s` seconds may be live at once."""
        live = seconds > self._expired
        if not live.all():
            rows, seconds, amounts = rows[live], seconds[live], amounts[live]
        if not rows.size:
            return
        newest = int(seconds.max())
        if newest - self._slots >= self._expired:
            # nobody advanced for a while: a view at this time would not show what has left the window
            self.advance(newest)
            self.fold(rows, column, seconds, amounts)
            return
        self._second[seconds % self._slots] = seconds
        columns = np.full(len(rows), column)
        np.add.at(self._sums, (rows, columns, seconds % self._slots), amounts)

    def advance(self, now_s: float) -> None:
        """Expire the seconds up to floor(now_s) - window_s."""
        expired = floor(now_s) - self.window_s
        if expired <= self._expired:
            return
        gone = (self._second >= 0) & (self._second <= expired)
        self._sums[:, :, gone] = 0
        self._second[gone] = -1
        self._expired = expired

    def total(self, rows: int, since_s: int | None = None) -> NDArray[np.int64]:
        """Sums (rows, columns) of the live seconds, or of those from `since_s` on."""
        if since_s is None:
            return np.asarray(self._sums[:rows].sum(axis=2))
        recent = np.flatnonzero(self._second >= since_s)
        return np.asarray(self._sums[:rows][:, :, recent].sum(axis=2))

    def clear(self, rows: list[int]) -> None:
        """Empty these rows, so that they may be given to others."""
        self._sums[[r for r in rows if r < len(self._sums)]] = 0
