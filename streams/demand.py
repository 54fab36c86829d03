"""Arrivals of all gateways summed per slot, service, origin and class.

A slot is spoken of again for as long as it may still grow (the allowed lateness); the router takes the last word.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from streams import signals
from streams.contract.records import Arrivals, Demand
from streams.runtime.step import Heard
from streams.seen import Seen

Key = tuple[str, str, str]
Sums = tuple[int, int, int, int]
SLOTS_SAID: Final = 3
"""Each view speaks of this many of the newest slots, so that a slot closes while it is still being said."""


@dataclass(slots=True)
class DemandState:
    """Slot start to sums by (service, origin, class)."""

    slots: dict[float, dict[Key, Sums]] = field(default_factory=dict)
    slot_s: float = 1.0
    source: str = "unheard"
    seen: Seen = field(default_factory=Seen)


class DemandStage:
    """The stage: arrivals in, demand out."""

    def __init__(self, *, keep_s: float = 60.0) -> None:
        self.keep_s = keep_s

    def empty(self) -> DemandState:
        """Nobody was heard."""
        return DemandState()

    def fold(self, state: DemandState, heard: Heard[Arrivals]) -> DemandState:
        """Add slots of gateways; duplicates are counted and left out."""
        state.source = f"{heard.topic}/{heard.batch.partition}"
        said = heard.records
        again = state.seen.fold(
            [(a.gateway, a.boot) for a in said],
            np.array([a.seq for a in said], np.int64),
            np.array([a.at_s for a in said], np.float64),
        )
        signals.DUPLICATES.inc(int(again.sum()))
        for arrivals, repeated in zip(said, again, strict=True):
            if not repeated:
                _add(state, arrivals)
        return state

    def advance(self, state: DemandState, now_s: float) -> DemandState:
        """Forget slots older than `keep_s`, and gateways unheard for a quarter of an hour."""
        for at_s in [s for s in state.slots if s < now_s - self.keep_s]:
            del state.slots[at_s]
        state.seen.forget(now_s - 900.0)
        return state

    def urgent(self, state: DemandState) -> bool:
        """Demand waits for the tick."""
        return False

    def view(self, state: DemandState, now_s: float) -> Iterable[Demand]:
        """The newest slots, oldest first, one record a slot."""
        for at_s in sorted(state.slots)[-SLOTS_SAID:]:
            sums = sorted(state.slots[at_s].items())
            service, origin, class_ = zip(*(key for key, _ in sums), strict=True)
            arrived, admitted, shed, failed = zip(*(counts for _, counts in sums), strict=True)
            yield Demand(
                source=state.source,
                at_s=at_s,
                slot_s=state.slot_s,
                service=service,
                origin=origin,
                class_=class_,
                arrived=arrived,
                admitted=admitted,
                shed=shed,
                failed=failed,
            )


def _add(state: DemandState, arrivals: Arrivals) -> None:
    state.slot_s = arrivals.slot_s
    at_s = arrivals.at_s - arrivals.at_s % arrivals.slot_s
    slot = state.slots.setdefault(at_s, {})
    columns = (arrivals.service, arrivals.class_, arrivals.arrived, arrivals.admitted, arrivals.shed, arrivals.failed)
    for service, class_, *counts in zip(*columns, strict=False):
        key = (service, arrivals.origin, class_)
        before = slot.get(key, (0, 0, 0, 0))
        slot[key] = tuple(b + c for b, c in zip(before, counts, strict=True))
