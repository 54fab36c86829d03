"""What became of a run's requests: counted all, kept the last."""

from __future__ import annotations

from collections import Counter, deque

from tradewind.load import Outcome

KEPT = 500_000


class Book:
    """Counts of all requests that are known, and the last `kept` outcomes, from which quantiles and shares come."""

    def __init__(self, kept: int = KEPT) -> None:
        self.last: deque[Outcome] = deque(maxlen=kept)
        self.requests = 0
        self.failed = 0
        self.shed = 0
        self.retried = 0
        self.errors: Counter[str] = Counter()

    def add(self, outcome: Outcome) -> None:
        """Take note of one."""
        self.last.append(outcome)
        self.requests += 1
        self.retried += (outcome.attempts or 1) > 1
        self.shed += outcome.error == "shed"
        if not outcome.ok and outcome.error != "shed":
            self.failed += 1
            self.errors[outcome.error or "unknown"] += 1
