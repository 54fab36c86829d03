"""Who says that an endpoint fails, and who contradicts: matrices of endpoint x observer.

    accuser     three hard failures in a row, said within FRESH_S, not contradicted by himself
    defender    an answer seen after the first accusation
    down        more accusers than defenders: one observer's bad network is not an endpoint's death

Success rates judge what fails only sometimes (peers: Linkerd's and Finagle's two-signal breakers).
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from streams.names import grown

STREAK: Final = 3
FRESH_S: Final = 10.0
"""What is older than this accuses nobody, and an endpoint unheard for this long is silent."""

Ints = NDArray[np.intp]
Floats = NDArray[np.float64]


class Evidence:
    """What each observer last said of each endpoint. Rows are endpoints, columns observers."""

    __slots__ = ("accused_s", "first_error_s", "heard_s", "ok_s", "streak")

    def __init__(self) -> None:
        self.streak: NDArray[np.int64] = np.zeros((0, 0), np.int64)
        self.heard_s: Floats = np.zeros((0, 0))
        self.ok_s: Floats = np.zeros((0, 0))
        self.first_error_s: Floats = np.zeros((0, 0))
        self.accused_s: Floats = np.zeros((0, 0))
        """Since when the streak has been long enough; 0: it is not."""

    def reserve(self, endpoints: int, observers: int) -> None:
        """Have at least this many rows and columns."""
        for name in self.__slots__:
            matrix = grown(getattr(self, name), endpoints)
            setattr(self, name, np.ascontiguousarray(grown(matrix.T, observers).T))

    def fold(self, ends: Ints, observers: Ints, said: dict[str, NDArray[Any]]) -> None:
        """What was said, in the order it was said; the last word of each observer holds.

        `said`: at_s, streak, first_error_s (0: none), ok_s (0: none).
        """
        at = (ends, observers)
        np.maximum.at(self.heard_s, at, said["at_s"])
        np.maximum.at(self.ok_s, at, said["ok_s"])
        self.streak[at] = said["streak"]
        self.first_error_s[at] = said["first_error_s"]
        accuses = self.streak[at] >= STREAK
        self.accused_s[at] = np.where(accuses, np.where(self.accused_s[at] > 0, self.accused_s[at], said["at_s"]), 0.0)

    def judge(self, ends: Ints, now_s: float) -> tuple[Ints, Ints]:
        """(accusers, defenders) of each of `ends`."""
        fresh = self.heard_s[ends] >= now_s - FRESH_S
        accusing = fresh & (self.accused_s[ends] > 0)
        since = np.where(accusing, self.accused_s[ends], np.inf).min(axis=1, initial=np.inf)
        defending = fresh & ~accusing & (self.ok_s[ends] > since[:, None])
        return accusing.sum(axis=1, dtype=np.intp), defending.sum(axis=1, dtype=np.intp)

    def first_error(self, ends: Ints) -> Floats:
        """When the failure in progress was first seen by anyone; NaN where none is in progress."""
        said = np.where((self.streak[ends] > 0) & (self.first_error_s[ends] > 0), self.first_error_s[ends], np.inf)
        first = said.min(axis=1, initial=np.inf)
        return np.where(np.isfinite(first), first, np.nan)

    def clear(self, ends: list[int] | slice, observers: list[int] | slice) -> None:
        """Forget rows or columns, so that they may be given to others."""
        for name in self.__slots__:
            getattr(self, name)[ends, observers] = 0
