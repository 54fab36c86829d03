"""Who says that an endpoint fails, and who contradicts: a word for each endpoint and observer that spoke of it.

    accuser     three hard failures in a row, said within FRESH_S, not contradicted by himself
    defender    an answer seen after the first accusation
    down        more accusers than defenders: one observer's bad network is not an endpoint's death

Success rates judge what fails only sometimes (peers: Linkerd's and Finagle's two-signal breakers).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from streams.names import Pairs, grown

STREAK: Final = 3
FRESH_S: Final = 10.0
"""What is older than this accuses nobody, and an endpoint unheard for this long is silent."""

Ints = NDArray[np.intp]
Floats = NDArray[np.float64]


class Evidence:
    """What each observer last said of each endpoint: columns over pairs of endpoint and observer."""

    __slots__ = ("accused_s", "first_error_s", "heard_s", "ok_s", "pairs", "streak")
    _columns = ("streak", "heard_s", "ok_s", "first_error_s", "accused_s")

    def __init__(self) -> None:
        self.pairs = Pairs()
        self.streak: NDArray[np.int64] = np.zeros(0, np.int64)
        self.heard_s: Floats = np.zeros(0)
        self.ok_s: Floats = np.zeros(0)
        self.first_error_s: Floats = np.zeros(0)
        self.accused_s: Floats = np.zeros(0)
        """Since when the streak has been long enough; 0: it is not."""

    def fold(self, ends: Ints, observers: Ints, said: dict[str, NDArray[Any]]) -> None:
        """What was said; the newest word of each observer holds, whatever the order in which words came.

        `said`: at_s, streak, first_error_s (0: none), ok_s (0: none).
        """
        at = self.pairs.places(ends, observers)
        for name in self._columns:
            setattr(self, name, grown(getattr(self, name), self.pairs.size))
        bad = (said["streak"] > 0) | (self.streak[at] > 0)
        if bad.any():
            troubled = np.zeros(self.pairs.size, np.bool_)
            troubled[at[bad]] = True
            bad = troubled[at]
        # where all is well only the newest times count; a failing pair is followed word by word, for order matters
        well = ~bad
        np.maximum.at(self.heard_s, at[well], said["at_s"][well])
        np.maximum.at(self.ok_s, at[well], said["ok_s"][well])
        words = (said[name][bad].tolist() for name in ("at_s", "streak", "first_error_s", "ok_s"))
        for place, at_s, streak, first_error_s, ok_s in zip(at[bad].tolist(), *words, strict=True):
            self._hear(place, at_s, streak, first_error_s, ok_s)

    def _hear(self, place: int, at_s: float, streak: int, first_error_s: float, ok_s: float) -> None:
        before_s = self.heard_s[place]
        self.ok_s[place] = max(self.ok_s[place], ok_s)
        if at_s < before_s:
            return
        if streak < STREAK:
            self.accused_s[place] = 0
        elif self.accused_s[place] == 0 or at_s - before_s > FRESH_S:
            self.accused_s[place] = at_s
        self.heard_s[place], self.streak[place], self.first_error_s[place] = at_s, streak, first_error_s

    def judge(self, ends: int, now_s: float, only: Ints | None = None) -> tuple[Ints, Ints]:
        """(accusers, defenders) by endpoint row, 0 to `ends`; those of others than `only` are not worked out."""
        said = self._fresh(now_s, only)
        where, accusing = self.pairs.left[said], self.accused_s[said] > 0
        accusers = np.bincount(where[accusing], minlength=ends)
        if not accusing.any():
            return accusers, accusers
        since = np.full(ends, np.inf)
        np.minimum.at(since, where[accusing], self.accused_s[said[accusing]])
        defending = ~accusing & (self.ok_s[said] > since[where])
        return accusers, np.bincount(where[defending], minlength=ends)

    def first_error(self, ends: int, now_s: float) -> Floats:
        """When the failure in progress was first seen by anyone, by endpoint row; NaN where none is in progress."""
        said = self._fresh(now_s)
        said = said[(self.streak[said] > 0) & (self.first_error_s[said] > 0)]
        first = np.full(ends, np.inf)
        np.minimum.at(first, self.pairs.left[said], self.first_error_s[said])
        return np.where(np.isfinite(first), first, np.nan)

    def clear(self, ends: Sequence[int], observers: Sequence[int]) -> None:
        """Forget all that was said of these endpoints or by these observers, so that their rows may be given away."""
        self._release(self.pairs.with_any(ends, observers))

    def forget(self, before_s: float) -> None:
        """Forget what was said before `before_s`."""
        self._release(self.pairs.given(np.flatnonzero(self.heard_s[: self.pairs.size] < before_s)))

    def _fresh(self, now_s: float, ends: Ints | None = None) -> Ints:
        since_s = now_s - FRESH_S
        if ends is None:
            return np.flatnonzero((self.heard_s[: self.pairs.size] >= since_s) & (self.heard_s[: self.pairs.size] > 0))
        places = self.pairs.of(ends)
        return places[self.heard_s[places] >= since_s]

    def _release(self, places: Ints) -> None:
        self.pairs.release(places)
        for name in self._columns:
            getattr(self, name)[places] = 0


class LastWord:
    """A number that each observer last said of each row, and when: requests in flight."""

    __slots__ = ("_heard_s", "_said", "pairs")

    def __init__(self) -> None:
        self.pairs = Pairs()
        self._said: Floats = np.zeros(0)
        self._heard_s: Floats = np.zeros(0)

    def fold(self, rows: Ints, observers: Ints, at_s: Floats, said: Floats) -> None:
        """The newest word of each observer holds."""
        at = self.pairs.places(rows, observers)
        self._said, self._heard_s = grown(self._said, self.pairs.size), grown(self._heard_s, self.pairs.size)
        newer = newest(at, at_s, self._heard_s)
        self._said[at[newer]], self._heard_s[at[newer]] = said[newer], at_s[newer]

    def total(self, rows: int, since_s: float) -> Floats:
        """The sum by row of what was said since `since_s`; NaN where nobody said anything."""
        said = np.flatnonzero((self._heard_s[: self.pairs.size] >= since_s) & (self._heard_s[: self.pairs.size] > 0))
        where = self.pairs.left[said]
        voices = np.bincount(where, minlength=rows)
        return np.where(voices > 0, np.bincount(where, weights=self._said[said], minlength=rows), np.nan)

    def clear(self, rows: Sequence[int], observers: Sequence[int]) -> None:
        """Forget these rows and observers."""
        self._release(self.pairs.with_any(rows, observers))

    def forget(self, before_s: float) -> None:
        """Forget what was said before `before_s`."""
        self._release(self.pairs.given(np.flatnonzero(self._heard_s[: self.pairs.size] < before_s)))

    def _release(self, places: Ints) -> None:
        self.pairs.release(places)
        self._said[places] = self._heard_s[places] = 0


def newest(places: Ints, at_s: Floats, heard_s: Floats) -> Ints:
    """Which words to write, in which order, so that the newest word of each place is left (of equals: the last).

    Words older than what a place has heard (`heard_s`) are left out.

    >>> newest(np.array([0, 0, 1]), np.array([5.0, 3.0, 2.0]), np.array([0.0, 4.0])).tolist()
    [1, 0]
    """
    order = np.argsort(at_s, kind="stable")
    return np.asarray(order[at_s[order] >= heard_s[places[order]]])
