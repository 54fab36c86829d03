"""Requests per second by (service, origin, class): by the second for two minutes, by the minute for half an hour.

```
 seconds  ▁▁▂▁▁▁▃▅▇▇      two minutes, so that a surge shows at once; the last word on a slot holds
 minutes  ▂▂▂▂▂▃▃▂▂▂▂▂    half an hour of those that are over; a minute nobody spoke of is left out
 steady   ────────────    the mean over a day, for work that may wait
```
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import floor
from typing import Final, NamedTuple

import numpy as np

from forecasting.plan.reserve import Toll
from forecasting.plan.site import Floats, Ints, Key
from streams import signals
from streams.contract.records import Demand

SECONDS: Final = 128
MINUTES: Final = 30
MINUTE_S: Final = 60
GRACE_S: Final = 10
"""A minute is closed this long after its end."""
DAY: Final = 1440.0
GAP_S: Final = 120
"""Nobody having spoken for so long, what is between is not known."""
MOST: Final = 5000
"""Keys kept apart; those beyond them are left out, and said to be."""
MEMORY_S: Final = float((MINUTES + 1) * MINUTE_S + GRACE_S)
"""A restart reads as much."""
_AHEAD_S: Final = 60.0


class Word(NamedTuple):
    """What a source said of a slot: rows and counts."""

    rows: Ints
    arrived: Floats
    missed: Floats


@dataclass(slots=True)
class Rates:
    """Second n is column n % SECONDS; minute n is column n % MINUTES."""

    row_of: dict[Key, int] = field(default_factory=dict)
    arrived: Floats = field(default_factory=lambda: np.zeros((0, SECONDS)))
    missed: Floats = field(default_factory=lambda: np.zeros((0, SECONDS)))
    """Shed or failed."""
    minutes: Floats = field(default_factory=lambda: np.zeros((0, MINUTES)))
    steady: Floats = field(default_factory=lambda: np.zeros(0))
    known: Floats = field(default_factory=lambda: np.zeros(0))
    """Minutes that `steady` is the mean of; at most a day of them."""
    words: dict[tuple[str, float, float], Word] = field(default_factory=dict)
    newest: int | None = None
    """The last second that was spoken of."""
    since: int = 0
    """The first one, since anybody spoke again."""
    closed: int = 0
    """Minutes before this one are closed."""
    toll: list[Toll] = field(default_factory=list)
    """Of closed minutes nobody has asked for yet."""

    def fold(self, said: Demand, stamp_s: float) -> None:
        """Take a slot in; what lies before the oldest second, or far ahead of its message, is left out."""
        last = floor(said.at_s + said.slot_s - 1e-6)
        if said.at_s > stamp_s + _AHEAD_S or (self.newest is not None and last <= self.newest - SECONDS + MINUTE_S):
            return
        self._move(last)
        at = (said.source, said.at_s, said.slot_s)
        if (before := self.words.get(at)) is not None:
            self._add(said.at_s, said.slot_s, before, -1.0)
        self.words[at] = self._word(said)
        self._add(said.at_s, said.slot_s, self.words[at], 1.0)

    def seconds(self, keys: Sequence[Key], back: int = MINUTE_S) -> Floats:
        """[keys, back] requests in each of the last seconds that are whole, the newest last."""
        out = np.zeros((len(keys), back))
        if self.newest is not None:
            columns = (self.newest - 1 - np.arange(back)[::-1]) % SECONDS
            for n, key in enumerate(keys):
                if (row := self.row_of.get(key)) is not None:
                    out[n] = self.arrived[row, columns]
        return out

    @property
    def settled(self) -> bool:
        """Whether the last minute and more is known: before, everything looks like a surge."""
        return self.newest is not None and self.newest >= self.since + SECONDS

    def peak_rps(self, keys: Sequence[Key], minutes: int = 10) -> Floats:
        """The busiest of the last closed minutes."""
        columns = (self.closed - 1 - np.arange(minutes)) % MINUTES
        return self._of(keys, self.minutes[:, columns].max(axis=1, initial=0.0))

    def steady_rps(self, keys: Sequence[Key]) -> Floats:
        """The mean over the last day, or what is known of it."""
        return self._of(keys, self.steady)

    def take_toll(self) -> list[Toll]:
        """Of the minutes closed since it was asked last."""
        toll, self.toll = self.toll, []
        return toll

    def _of(self, keys: Sequence[Key], values: Floats) -> Floats:
        rows = [self.row_of.get(key, -1) for key in keys]
        return np.array([values[row] if row >= 0 else 0.0 for row in rows])

    def _word(self, said: Demand) -> Word:
        rows, kept = [], []
        for n, key in enumerate(zip(said.service, said.origin, said.class_, strict=True)):
            if (row := self._row(key)) is not None:
                rows.append(row)
                kept.append(n)
        arrived = np.array([said.arrived[n] for n in kept], np.float64)
        missed = np.array([said.shed[n] + said.failed[n] for n in kept], np.float64)
        return Word(np.array(rows, np.intp), arrived, missed)

    def _row(self, key: Key) -> int | None:
        if (row := self.row_of.get(key)) is not None:
            return row
        if (row := len(self.row_of)) >= MOST:
            signals.event("rates_left_out", "debug", first="/".join(key), most=MOST)
            return None
        self.row_of[key] = row
        if row >= len(self.arrived):
            self._grow(max(16, row))
        self.known[row] = 0.0
        return row

    def _grow(self, more: int) -> None:
        self.arrived, self.missed, self.minutes = (
            np.vstack((held, np.zeros((more, held.shape[1])))) for held in (self.arrived, self.missed, self.minutes)
        )
        self.steady, self.known = (np.concatenate((held, np.zeros(more))) for held in (self.steady, self.known))

    def _add(self, at_s: float, slot_s: float, word: Word, sign: float) -> None:
        """A slot longer than a second is spread over the seconds it covers."""
        first, last = floor(at_s), floor(at_s + slot_s - 1e-6)
        oldest = (self.newest or last) - SECONDS + 1
        for second in range(max(first, oldest), last + 1):
            part = sign / (last - first + 1)
            self.arrived[word.rows, second % SECONDS] += part * word.arrived
            self.missed[word.rows, second % SECONDS] += part * word.missed

    def _move(self, last: int) -> None:
        """Let seconds begin up to `last`; close the minutes that are over."""
        if self.newest is None or last - self.newest > GAP_S:
            self.arrived[:], self.missed[:] = 0.0, 0.0
            self.words.clear()
            # the minute under way was heard in part only
            self.newest = self.since = last
            self.closed = last // MINUTE_S + 1
            return
        while self.newest < last:
            self.newest += 1
            if self.newest >= (self.closed + 1) * MINUTE_S + GRACE_S:
                self._close()
            self.arrived[:, self.newest % SECONDS] = 0.0
            self.missed[:, self.newest % SECONDS] = 0.0
            if self.newest % MINUTE_S == 0:
                oldest = self.newest - SECONDS + MINUTE_S
                self.words = {at: word for at, word in self.words.items() if at[1] + at[2] > oldest}

    def _close(self) -> None:
        columns = (self.closed * MINUTE_S + np.arange(MINUTE_S)) % SECONDS
        arrived, missed = self.arrived[:, columns].sum(axis=1), self.missed[:, columns].sum(axis=1)
        self.minutes[:, self.closed % MINUTES] = arrived / MINUTE_S
        self.known = np.minimum(DAY, self.known + 1.0)
        self.steady += (arrived / MINUTE_S - self.steady) / self.known
        met = {key: (float(arrived[row]), float(missed[row])) for key, row in self.row_of.items() if arrived[row]}
        self.toll.append(met)
        del self.toll[:-MINUTES]
        self.closed += 1
