"""How many retries an outage may cause: a share of the requests, and a few a second in any case."""

from __future__ import annotations

from typing import Final

_SAVED_S: Final = 10.0


class RetryBudget:
    """A purse: each request puts in `share`, each second `per_s`, a retry takes one. It holds ten seconds' worth."""

    def __init__(self, share: float, per_s: float, now_s: float) -> None:
        self._share, self._per_s = share, per_s
        self._limit = max(1.0, per_s * _SAVED_S) if per_s or share else 0.0
        self._purse = self._limit if per_s else 0.0
        self._at_s = now_s

    def request(self) -> None:
        """A first attempt was made."""
        if self._purse < self._limit:
            self._purse += self._share

    def grant(self, now_s: float) -> bool:
        """Whether one more attempt may be made now; if so it is paid."""
        self._purse = min(self._limit, self._purse + (now_s - self._at_s) * self._per_s)
        self._at_s = now_s
        if self._purse < 1.0:
            return False
        self._purse -= 1.0
        return True
