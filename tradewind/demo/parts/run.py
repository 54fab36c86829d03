"""A run that is over, as parts of the report look at it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from streams.contract.records import Fleet, RequestClass, RoutingTable
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

    @property
    def surge(self) -> tuple[float, float]:
        """From when to when there was one; both are infinite where there was none."""
        begins_s = min((s.from_s for s in self.surges), default=float("inf"))
        return begins_s, max((s.to_s for s in self.surges), default=float("inf"))

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


def class_of(outcome: Outcome) -> str:
    """What the request was taken as of; what its caller asked as, where no gateway said so."""
    return outcome.taken_as or outcome.cls
