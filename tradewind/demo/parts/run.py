"""A run that is over, as parts of the report look at it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from forecasting.flow import PLAN_S
from streams.contract.records import Capacity, CapacityPlan, Fleet, RequestClass, RoutingTable
from tradewind.demo.reclaim import Reclaimed
from tradewind.demo.talks import Turn
from tradewind.load import Outcome
from tradewind.load.surge import Surge
from tradewind.pretend.ledger import Received

PHASES: Final = ("before", "during", "after")
Found = dict[str, Any]
"""Fields of the report by name."""


@dataclass(frozen=True, slots=True)
class Run:
    """What is known of it. Times are seconds after the load began."""

    fleet: Fleet
    outcomes: Sequence[Outcome]
    surges: Sequence[Surge] = ()
    tables: Sequence[tuple[float, RoutingTable]] = ()
    """When each was published, in that order."""
    received: Mapping[str, Sequence[Received]] = field(default_factory=dict)
    """What each endpoint wrote down itself; its times are unix seconds."""
    turns: Sequence[Turn] = ()
    """Answers of conversations."""
    reclaimed: Sequence[Reclaimed] = ()
    """Endpoints that were taken back, in that order."""
    moves: Mapping[str, int] = field(default_factory=dict)
    """What gateways counted of streams there."""

    plans: Sequence[tuple[float, CapacityPlan]] = ()
    capacity: Sequence[tuple[float, Capacity]] = ()
    """When each was heard, in that order."""
    cold_start_s: float = 0.0
    """Of launches, where pools can scale."""

    @property
    def surge(self) -> tuple[float, float]:
        """From when to when there was one; both are infinite where there was none."""
        return _begins_s(self.surges), max((s.to_s for s in self.surges), default=float("inf"))

    @property
    def promised_s(self) -> float:
        """From when on what is let in is to be in SLO: the surge, a cold start, one interval of the planner."""
        return promised_s(self.surges, self.cold_start_s)

    @property
    def classes(self) -> dict[str, RequestClass]:
        """By name."""
        return {c.name: c for s in self.fleet.services for c in s.classes}

    def phases(self) -> Iterator[tuple[str, list[Outcome]]]:
        """Outcomes before, in and after the surge; a phase without any is left out."""
        from_s, to_s = self.surge
        bounds = ((float("-inf"), from_s), (from_s, to_s), (to_s, float("inf")))
        for phase, (begins_s, ends_s) in zip(PHASES, bounds, strict=True):
            if there := [o for o in self.outcomes if begins_s <= o.at_s < ends_s]:
                yield phase, there


def _begins_s(surges: Sequence[Surge]) -> float:
    return min((s.from_s for s in surges), default=float("inf"))


def promised_s(surges: Sequence[Surge], cold_start_s: float) -> float:
    """When capacity for the first of `surges` could be there: a cold start and one interval of the planner on.

    >>> promised_s([Surge(10.0, 30.0, 90.0)], 20.0)
    60.0
    """
    return _begins_s(surges) + cold_start_s + PLAN_S


def class_of(outcome: Outcome) -> str:
    """What the request was taken as of; what its caller asked as, where no gateway said so."""
    return outcome.taken_as or outcome.cls
