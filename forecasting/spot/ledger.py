"""What was said of one pool, in order of time: topics come interleaved, a plan's word may come after its effect.

```
 settled ──────────────┤ pending: a minute in which word may still come late │ now
        evidence so far   report  plan  report  notice
```
"""

from __future__ import annotations

from bisect import insort
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple

from forecasting.spot.evidence import Evidence

LATE_S: Final = 60.0
"""What comes later than this is taken as if it had happened when it came."""
Kind = Literal["0 planned", "1 declared", "2 reported", "3 noticed", "4 advised"]
"""In this order where times are equal."""


class Fact(NamedTuple):
    """Something that was said of a pool. `failed` are launches, `part` is of the pool."""

    at_s: float
    kind: Kind
    replicas: int = 0
    failed: int = 0
    part: float = 0.0

    def told(self, evidence: Evidence) -> Evidence:
        """`evidence` with it."""
        match self.kind:
            case "0 planned":
                return evidence.planned(self.at_s, self.replicas)
            case "1 declared":
                return evidence.declared(self.at_s, self.replicas)
            case "2 reported":
                return evidence.reported(self.at_s, self.replicas, self.failed)
            case "3 noticed":
                return evidence.noticed(self.at_s, self.part)
            case "4 advised":
                return evidence.advised(self.at_s)


@dataclass(slots=True)
class Ledger:
    """One pool's evidence, and the facts that are not settled yet, oldest first."""

    settled: Evidence = field(default_factory=Evidence)
    pending: list[Fact] = field(default_factory=list)

    def add(self, fact: Fact) -> None:
        """Take a fact in, wherever in time it belongs."""
        insort(self.pending, fact)

    def settle(self, now_s: float) -> None:
        """Settle what no word can come before any more."""
        upto = sum(fact.at_s <= now_s - LATE_S for fact in self.pending)
        for fact in self.pending[:upto]:
            self.settled = fact.told(self.settled)
        del self.pending[:upto]

    def evidence(self, now_s: float) -> Evidence:
        """All that is known at `now_s`."""
        evidence = self.settled
        for fact in self.pending:
            evidence = fact.told(evidence)
        return evidence.aged(now_s)
