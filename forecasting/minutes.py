"""Slots become minutes, and keys become places: what the forecast's models are taught from.

```
 slots ─► minute open ─── end + grace ──► closed: one number per place, gaps said ─► taught, block by block
```

A minute in which nobody at all was heard is a gap. In any other minute a series that was not heard had no demand.
Gateways say nothing of seconds without a request, so a dead gateway among living ones cannot be told from a quiet one
here: endpoint health is where to look for that.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from math import floor
from typing import Final

import numpy as np
from numpy.typing import NDArray

from forecasting.protocol import Floats
from streams import signals
from streams.contract.records import Demand

Key = tuple[str, str, str]
"""Service, origin, class."""
MINUTE_S: Final = 60.0
SERIES: Final = 20_000
"""Series kept apart; new ones beyond them are left out, and said to be."""
IDLE: Final = 26 * 60
"""Minutes without demand after which a series gives its place away: it may sleep through a night, and a bit."""
_COUNT: Final = 2**53


@dataclass(slots=True)
class Minute:
    """A closed minute."""

    counts: Floats | None
    """Arrivals [place]; None: nobody was heard."""
    born: list[int]
    """Places that other series live in from this minute on."""

    def values(self, places: NDArray[np.intp]) -> Floats:
        """Arrivals of `places`; NaN: nobody measured."""
        if self.counts is None:
            return np.full(len(places), np.nan, np.float32)
        return np.append(self.counts, np.float32(0))[np.minimum(places, len(self.counts))]


@dataclass(slots=True)
class Minutes:
    """Minutes by number (begin over 60 s): those still open, and those closed that not everybody was taught."""

    open: dict[int, dict[tuple[str, float, float], Demand]] = field(default_factory=dict)
    """Minute to the last word of each source on each slot (start, length)."""
    closed: dict[int, Minute] = field(default_factory=dict)
    next: int | None = None
    """The first minute that is not closed; None before anything was heard."""
    places: dict[Key, int] = field(default_factory=dict)
    keys: list[Key | None] = field(default_factory=list)
    """Who lives in each place."""
    since: list[int] = field(default_factory=list)
    """From which minute on."""
    asked: list[int] = field(default_factory=list)
    """The last minute in which it had demand."""
    free: list[int] = field(default_factory=list)

    def hear(self, record: Demand, stamp_s: float, grace_s: float) -> None:
        """Take a slot in by its start; the last word on a slot holds, and a closed minute is closed.

        Minutes are closed by the messages' own times too, so that a restore holds no more of them open than a day does.
        """
        if self.next is None:
            self.next = floor(stamp_s / MINUTE_S) + 1  # the minute under way was heard in part only
        self.close(stamp_s - grace_s)
        minute = floor(record.at_s / MINUTE_S)
        if minute >= self.next:
            self.open.setdefault(minute, {})[record.source, record.at_s, record.slot_s] = record

    def close(self, until_s: float) -> None:
        """Close the minutes that were over by `until_s`."""
        due = floor(until_s / MINUTE_S)
        while self.next is not None and self.next < due:
            if not self.places and not self.open:
                self._rest(due)
                return
            self._close(self.next, self.open.pop(self.next, None))
            self.next += 1

    def taught(self, before: int) -> None:
        """Everybody was taught all minutes before that one."""
        for minute in [minute for minute in self.closed if minute < before]:
            del self.closed[minute]

    def settle(self, key: Key, minute: int, asked: int) -> int | None:
        """A place for `key` from `minute` on; None when there is none left."""
        if len(self.places) >= SERIES:
            return None
        if not self.free:
            self.free.append(len(self.keys))
            self.keys.append(None)
            self.since.append(0)
            self.asked.append(0)
        place = self.free.pop()
        self.places[key] = place
        self.keys[place], self.since[place], self.asked[place] = key, minute, asked
        return place

    def _rest(self, due: int) -> None:
        """Nobody lives here, and nobody spoke: from minute `due` on it is as in the beginning."""
        self.next = due
        for each in (self.closed, self.keys, self.since, self.asked, self.free):
            each.clear()

    def _close(self, minute: int, slots: dict[tuple[str, float, float], Demand] | None) -> None:
        sums = _sums(slots.values()) if slots else {}
        born = self._meet(minute, sums)
        counts = np.zeros(len(self.keys), np.float32)
        for key, count in sums.items():
            if count and (place := self.places.get(key)) is not None:
                counts[place] = count
                self.asked[place] = minute
        self.closed[minute] = Minute(counts if slots else None, born)
        self._part(minute)

    def _meet(self, minute: int, sums: dict[Key, int]) -> list[int]:
        """Give each new key a place while there is room."""
        new = sorted(key for key, count in sums.items() if count and key not in self.places)
        born = [self.settle(key, minute, minute) for key in new]
        if left := born.count(None):
            first = "/".join(new[born.index(None)])
            signals.event("series_left_out", "warning", left_out=left, first=first, most=SERIES)
        return [place for place in born if place is not None]

    def _part(self, minute: int) -> None:
        for place, key in enumerate(self.keys):
            if key is not None and minute - self.asked[place] >= IDLE:
                del self.places[key]
                self.keys[place] = None
                self.free.append(place)


def _sums(slots: Iterable[Demand]) -> dict[Key, int]:
    """Arrivals by key."""
    sums: dict[Key, int] = {}
    for slot in slots:
        for *key, arrived in zip(slot.service, slot.origin, slot.class_, slot.arrived, strict=True):
            at = (key[0], key[1], key[2])
            sums[at] = min(_COUNT, sums.get(at, 0) + arrived)
    return sums
