"""How many requests may be under way: all, those whose answers are streamed, and of these each tenant's."""

from __future__ import annotations

from collections import Counter

from router_sync.gateway.config import Limits
from router_sync.gateway.refusal import Refusal

_AGAIN = {"Retry-After": "1"}


class Slots:
    """Each `enter` is ended by one `leave` with the same words."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.in_flight = 0
        self._streams = 0
        self._of: Counter[str] = Counter()

    def filled(self, stream: bool) -> float:
        """How much of all that may be under way is; 1 is full."""
        all_ = self.in_flight / self._limits.max_concurrent
        return max(all_, self._streams / self._limits.max_streams) if stream else all_

    def full(self, tenant: str, stream: bool) -> Refusal | None:
        """What to answer instead; None when there is room."""
        limits = self._limits
        if self.in_flight >= limits.max_concurrent:
            return _full(503, "too_many_requests", f"max_concurrent = {limits.max_concurrent} requests are under way")
        if not stream:
            return None
        if self._streams >= limits.max_streams:
            return _full(503, "too_many_streams", f"max_streams = {limits.max_streams} streams are open")
        if self._of[tenant] >= limits.max_streams_per_tenant:
            says = f"max_streams_per_tenant = {limits.max_streams_per_tenant} streams of yours are open"
            return _full(429, "too_many_streams", says)
        return None

    def enter(self, tenant: str, stream: bool) -> None:
        self.in_flight += 1
        if stream:
            self._streams += 1
            self._of[tenant] += 1

    def leave(self, tenant: str, stream: bool) -> None:
        self.in_flight -= 1
        if stream:
            self._streams -= 1
            self._of[tenant] -= 1
            if not self._of[tenant]:
                del self._of[tenant]


def _full(status: int, code: str, says: str) -> Refusal:
    message = f"{says}. Try again in a moment, or let the operator raise the limit."
    return Refusal(status, code, message, headers=_AGAIN)
