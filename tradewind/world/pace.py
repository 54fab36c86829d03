"""How long the next step is: a second where something happens, a minute where nothing does.

    after something happened   10 s ──► 1 min ──► 3 min ──► on
    a step is                   1 s      5 s       20 s      60 s

At most 5 s while an endpoint is nearly full. Steps lie on multiples of their own length, and none reaches beyond what
is known to happen next.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from math import ceil, inf
from typing import Final

_LADDER: Final = ((10.0, 1), (60.0, 5), (180.0, 20), (inf, 60))
CALM_S: Final = 60
STRAINED_S: Final = 5
"""The longest step while an endpoint is nearly full: what comes of that is decided within seconds."""


class Pace:
    """`moments`: when something is known to happen, unix seconds. `calm_s`: the longest step."""

    def __init__(self, moments: Iterable[float], start_s: float, calm_s: int = CALM_S) -> None:
        self._moments = sorted(float(ceil(at_s)) for at_s in moments)
        self._last_s, self._calm_s = start_s, calm_s

    def disturb(self, now_s: float) -> None:
        """Something happened at `now_s` that nobody had foreseen."""
        self._last_s = now_s

    def step_s(self, now_s: float, soonest_s: float = inf, *, strained: bool = False) -> int:
        """How long the step from `now_s` (whole seconds) is; it ends no later than `soonest_s`, rounded up."""
        at = bisect_left(self._moments, now_s + 0.5)
        if at and self._moments[at - 1] > self._last_s:
            self._last_s = self._moments[at - 1]
        following_s = min(self._moments[at] if at < len(self._moments) else inf, max(ceil_s(soonest_s), now_s + 1))
        longest = min(self._calm_s, STRAINED_S) if strained else self._calm_s
        most = min(longest, next(step for age_s, step in _LADDER if now_s - self._last_s < age_s))
        fitting = (step for _, step in reversed(_LADDER) if step <= most)
        return next(s for s in fitting if s == 1 or (now_s % s == 0 and now_s + s <= following_s))


def ceil_s(at_s: float) -> float:
    """The next whole second; infinity stays."""
    return at_s if at_s == inf else float(ceil(at_s))
