"""What was said of one pool, in order of time: topics come interleaved, a plan's word may come after its effect.

```
 settled ──────────────┤ pending: a minute in which word may still come late │ now
        evidence so far   report  plan  report  notice
```
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple

from forecasting.spot.evidence import Evidence

LATE_S: Final = 60.0
"""What comes later than this is taken as if it had happened when it came."""
Kind = Literal["0 declared", "1 reported", "2 noticed", "3 advised", "4 planned"]
"""In this order where times are equal: what was seen is no effect of a plan made at that moment, unless it says so."""


class Fact(NamedTuple):
    """Something that was said of a pool. `failed` are launches, `part` is of the pool."""

    at_s: float
    kind: Kind
    replicas: int = 0
    failed: int = 0
    part: float = 0.0
    plan_id: str = ""
    """Of a plan; of a report: of the plan that was carried out last."""

    def told(self, evidence: Evidence) -> Evidence:
        """`evidence` with it."""
        match self.kind:
            case "4 planned":
                return evidence.planned(self.at_s, self.replicas)
            case "0 declared":
                return evidence.declared(self.at_s, self.replicas)
            case "1 reported":
                return evidence.reported(self.at_s, self.replicas, self.failed)
            case "2 noticed":
                return evidence.noticed(self.at_s, self.part)
            case "3 advised":
                return evidence.advised(self.at_s)


@dataclass(slots=True)
class Ledger:
    """One pool's evidence, and the facts that are not settled yet."""

    settled: Evidence = field(default_factory=Evidence)
    pending: list[Fact] = field(default_factory=list)

    def add(self, fact: Fact) -> None:
        """Take a fact in, wherever in time it belongs."""
        self.pending.append(fact)

    def settle(self, now_s: float) -> None:
        """Settle what no word can come before any more."""
        facts = self._in_order()
        upto = sum(fact.at_s <= now_s - LATE_S for fact in facts)
        self.settled = _told(self.settled, facts[:upto])
        self.pending = facts[upto:]

    def evidence(self, now_s: float) -> Evidence:
        """All that is known at `now_s`."""
        return _told(self.settled, self._in_order()).aged(now_s)

    def _in_order(self) -> list[Fact]:
        """By time; a report that bears a plan's receipt comes after that plan."""
        made = {(fact.at_s, fact.plan_id) for fact in self.pending if fact.kind == "4 planned"}
        return sorted(self.pending, key=lambda f: (f.at_s, f.kind == "1 reported" and (f.at_s, f.plan_id) in made, f))


def _told(evidence: Evidence, facts: Iterable[Fact]) -> Evidence:
    for fact in facts:
        evidence = fact.told(evidence)
    return evidence
