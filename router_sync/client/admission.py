"""Which requests are let in where not all can be: as many as the share says, evenly in time, and in no fixed pattern.

    credit ── + share, each request ──► credit >= a chance in [0, 1)? ── yes ──► let in: credit - 1
                                                                      └─ no ───► shed: the credit stays

The credit stays within [-1, 1): after any number of requests those let in are the sum of their shares, give or take
one (error diffusion). A fixed threshold would be as even, but would beat with callers that take turns: of two that
alternate at a share of one half, one would never be let in. Each gateway does the same with the same share, so that
together they let in what the router asks for, and no gateway needs to know of another.

What belongs to a session in progress may overdraw its credit by some requests; what is new makes up for it. A session
that is broken off wastes what was spent on it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

OVERDRAFT: Final = 10.0
"""Requests by which sessions in progress may be ahead of the share; where they alone are more, they are shed too."""


class Admission:
    """Credits by flow, such as (origin, class). `chance` draws from [0, 1)."""

    def __init__(self, chance: Callable[[], float]) -> None:
        self._chance = chance
        self._credits: dict[tuple[str, str], float] = {}

    def admits(self, flow: tuple[str, str], share: float, *, in_progress: bool = False) -> bool:
        """Whether a request that arrives now is let in, where `share` (0..1) of the flow's can be.

        >>> one = Admission(lambda: 0.5)
        >>> [one.admits(("eu", "batch"), 0.25) for _ in range(8)]
        [False, True, False, False, False, True, False, False]
        """
        if share >= 1.0:
            self._credits.pop(flow, None)  # there is room: nobody makes up for anything
            return True
        credit = self._credits.get(flow, 0.0) + share
        floor = -OVERDRAFT if in_progress and share > 0.0 else 0.0
        admitted = share > 0.0 and credit >= floor + self._chance()
        self._credits[flow] = credit - admitted
        return admitted
