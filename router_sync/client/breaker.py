"""When to leave an endpoint alone: two signals open a breaker, one trial request at a time closes it.

State:
    closed ── 3 hard failures in a row, or < 80 % of >= 20 answers good in 10 s ──► open for 1 s, 2 s … 30 s (± 20 %)
    open ── its time is over ──► half open: one trial ── good ──► closed
                                                      ── hard failure ──► open, twice as long
                                                      ── 429 ──► open, as long again
"""

from __future__ import annotations

import random
from typing import Final

STREAK: Final = 3
WINDOW_S: Final = 10
ENOUGH: Final = 20
GOOD_SHARE: Final = 0.8
FIRST_OPEN_S: Final = 1.0
LONGEST_OPEN_S: Final = 30.0
JITTER: Final = 0.2


class Breaker:
    """State of one endpoint's breaker at one gateway. Times are seconds of one clock that never goes back."""

    __slots__ = (
        "_bad",
        "_closed_at_s",
        "_good",
        "_open_s",
        "_rng",
        "_second",
        "open_until_s",
        "shut",
        "streak",
        "trial",
    )

    def __init__(self, rng: random.Random) -> None:
        self.shut = False
        """True while open or half open."""
        self.trial = False
        """A trial is under way."""
        self.streak = 0
        """Hard failures in a row."""
        self.open_until_s = 0.0
        self._open_s = 0.0
        self._closed_at_s = -LONGEST_OPEN_S
        self._good = [0] * WINDOW_S
        self._bad = [0] * WINDOW_S
        self._second = 0
        self._rng = rng

    def admits(self, now_s: float) -> bool:
        """Whether a request may go there: closed, or half open with no trial under way."""
        return not self.shut or (now_s >= self.open_until_s and not self.trial)

    def enter(self) -> bool:
        """True when the request that begins now is the trial; hand that back to whichever of the four ends it."""
        if not self.shut or self.trial:
            return False
        self.trial = True
        return True

    def good(self, now_s: float, trial: bool = False) -> None:
        """An answer came; as a trial it closes the breaker."""
        self.streak = 0
        self._count(self._good, now_s)
        if trial:
            self._close(now_s)

    def hard(self, now_s: float, trial: bool = False) -> None:
        """The endpoint failed. Late failures of requests begun before it opened do not prolong the opening."""
        self.streak += 1
        self._count(self._bad, now_s)
        if trial or (not self.shut and (self.streak >= STREAK or self._too_few_good(now_s))):
            self._open(now_s, 2.0)

    def throttled(self, now_s: float, trial: bool = False) -> None:
        """A 429: it counts for the success rate only, and closes nothing."""
        self._count(self._bad, now_s)
        if trial:
            self._open(now_s, 1.0)
        elif not self.shut and self._too_few_good(now_s):
            self._open(now_s, 2.0)

    def neutral(self, trial: bool = False) -> None:
        """Nothing was learnt: the caller was wrong (4xx), or went away."""
        if trial:
            self.trial = False

    def let_try(self, now_s: float) -> None:
        """A probe was answered: the next request may be the trial at once."""
        self.open_until_s = min(self.open_until_s, now_s)

    def success_share(self, now_s: float) -> float:
        """Good answers among those that count, in the last ten seconds; 1 when there were none."""
        self._turn(int(now_s))
        good, bad = sum(self._good), sum(self._bad)
        return good / (good + bad) if good + bad else 1.0

    def _too_few_good(self, now_s: float) -> bool:
        self._turn(int(now_s))
        good, bad = sum(self._good), sum(self._bad)
        return good + bad >= ENOUGH and good < GOOD_SHARE * (good + bad)

    def _open(self, now_s: float, factor: float) -> None:
        # whoever has been well for long begins anew; whoever falls again soon waits longer than the last time
        anew = not self.shut and now_s - self._closed_at_s >= LONGEST_OPEN_S
        self._open_s = FIRST_OPEN_S if anew else min(LONGEST_OPEN_S, max(FIRST_OPEN_S, self._open_s * factor))
        self.shut, self.trial = True, False
        self.open_until_s = now_s + self._open_s * self._rng.uniform(1 - JITTER, 1 + JITTER)

    def _close(self, now_s: float) -> None:
        self.shut = self.trial = False
        self._closed_at_s = now_s
        self._good = [0] * WINDOW_S
        self._bad = [0] * WINDOW_S

    def _count(self, ring: list[int], now_s: float) -> None:
        second = int(now_s)
        if second != self._second:
            self._turn(second)
        ring[second % WINDOW_S] += 1

    def _turn(self, second: int) -> None:
        """Empty the buckets of the seconds that have begun since the last count."""
        for fresh in range(max(self._second + 1, second - WINDOW_S + 1), second + 1):
            self._good[fresh % WINDOW_S] = self._bad[fresh % WINDOW_S] = 0
        self._second = max(self._second, second)
