"""What an actuator is: two verbs, and answers in replicas. Whatever lies behind it, its errors are of three kinds.

Later     try again, not before `after_s`           the other side is away, busy, or throttles
Refused   this plan cannot be carried out           a number the target does not take
Stop      a human has to act                        a right that lacks, a target that is not there
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from streams.contract.errors import Retry
from streams.contract.records import CapacityPlan


class Replicas(NamedTuple):
    """A pool as its target sees it. `starting`: launched and not ready yet."""

    ready: int
    starting: int = 0
    want: int | None = None
    """What the target is set to; None: it does not say."""
    failed: int = 0
    """Launches that failed since this actuator began."""
    note: str = ""


class Receipt(NamedTuple):
    """What became of a plan: the target is set to `want`, or would be."""

    want: int
    taken: bool = True
    """False: nothing was done, and `note` says why."""
    note: str = ""
    again_s: float | None = None
    """Not taken: worth another try after so long; None: the same would come of it."""


class Later(Retry):
    """Not now; `after_s` where the other side says how long to wait."""

    def __init__(self, why: str, after_s: float | None = None) -> None:
        super().__init__(why)
        self.after_s = after_s


class Actuator(Protocol):
    """Sees and sets the replicas of the pools of one entry. Either verb may raise Later, Refused or Stop."""

    async def observe(self, pool: str) -> Replicas | None:
        """The pool now; None: nothing of it can be seen."""
        ...

    async def apply(self, plan: CapacityPlan) -> Receipt:
        """Set the pool to `plan.want`. The same plan a second time changes nothing more."""
        ...
