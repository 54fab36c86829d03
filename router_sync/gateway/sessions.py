"""Which sessions are in progress here: those that were let in lately."""

from __future__ import annotations

from typing import Final

IN_PROGRESS_S: Final = 600.0
"""From one request of a session to the next, at most."""
MOST: Final = 100_000
"""Beyond so many those that have been silent for longest are forgotten."""
Session = tuple[str, str, str]
"""(service, tenant, what the caller calls it)"""


class Sessions:
    """When each was let in last. `now_s` never goes back."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._at_s: dict[int, float] = {}
        """By hash, oldest first: callers choose how long their names are."""

    def known(self, session: Session, now_s: float) -> bool:
        """Whether it is in progress."""
        return now_s - self._at_s.get(hash(session), float("-inf")) < IN_PROGRESS_S

    def keep(self, session: Session, now_s: float) -> None:
        """It was let in now."""
        number = hash(session)
        self._at_s.pop(number, None)
        self._at_s[number] = now_s
        if len(self._at_s) > self._most:
            del self._at_s[next(iter(self._at_s))]
