"""Arrivals of all gateways summed per slot, service, origin and class.

A slot is spoken of again for as long as it may still grow (the allowed lateness); the router takes the last word.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from math import floor
from typing import Final

import numpy as np

from streams import signals
from streams.contract.errors import shown
from streams.contract.records import Arrivals, Demand
from streams.names import Names
from streams.runtime.step import Heard, Refusal
from streams.seen import Seen

Key = tuple[str, str, str]
Sums = tuple[int, int, int, int]
GATEWAYS: Final = 512
"""Gateways a partition keeps apart; those unheard for FORGET_S make room."""
KEYS: Final = 2000
"""(service, origin, class) a slot keeps apart: a record stays well under the size of a message."""
FORGET_S: Final = 900.0
_COUNT: Final = 2**53
_FIT: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:/@+-]*")


@dataclass(slots=True)
class DemandState:
    """(slot start, slot length) to sums by (service, origin, class)."""

    slots: dict[tuple[float, float], dict[Key, Sums]] = field(default_factory=dict)
    source: str = "unheard"
    seen: Seen = field(default_factory=Seen)
    gateways: Names[str] = field(default_factory=Names)
    heard_s: dict[str, float] = field(default_factory=dict)
    """Gateway to when it was last heard."""
    expired_s: float = float("-inf")
    """Slots that begin before this are gone, and do not come back half empty."""


class DemandStage:
    """The stage: arrivals in, demand out."""

    def __init__(self, *, keep_s: float = 60.0, lateness_s: float = 5.0) -> None:
        self.keep_s, self.lateness_s = keep_s, lateness_s

    def empty(self) -> DemandState:
        """Nobody was heard."""
        return DemandState()

    def screen(self, state: DemandState, heard: Heard[Arrivals]) -> Iterable[Refusal]:
        """Refuse names that are not fit for labels, and gateways and columns beyond what a partition keeps apart."""
        gateways = set(state.gateways.known)
        for position, arrivals in zip(heard.positions.tolist(), heard.records, strict=True):
            if (wrong := _wrong(arrivals, gateways)) is not None:
                field_, value, reason = wrong
                yield Refusal(position, field_, shown(value), reason)
            else:
                gateways.add(arrivals.gateway)

    def fold(self, state: DemandState, heard: Heard[Arrivals]) -> DemandState:
        """Add slots of gateways; duplicates are counted and left out."""
        state.source = f"{heard.topic}/{heard.batch.partition}"
        said = heard.records
        again = state.seen.fold(
            state.gateways.rows([a.gateway for a in said]),
            np.array([a.boot for a in said], np.int64),
            np.array([a.seq for a in said], np.int64),
        )
        signals.DUPLICATES.inc(int(again.sum()))
        for arrivals, stamp_s, repeated in zip(said, heard.stamps_s.tolist(), again.tolist(), strict=True):
            state.heard_s[arrivals.gateway] = max(state.heard_s.get(arrivals.gateway, 0.0), stamp_s)
            if not repeated:
                # never ahead of the broker's clock: one fast clock must not make all others' slots look old
                _add(state, arrivals, min(arrivals.at_s, stamp_s))
        return state

    def advance(self, state: DemandState, now_s: float) -> DemandState:
        """Forget slots older than `keep_s`, and gateways unheard for a quarter of an hour."""
        state.expired_s = max(state.expired_s, now_s - self.keep_s)
        for slot in [s for s in state.slots if s[0] < state.expired_s]:
            del state.slots[slot]
        gone = [name for name, heard_s in state.heard_s.items() if heard_s < now_s - FORGET_S]
        if gone:
            rows = state.gateways.rows(gone).tolist()
            state.gateways.release(rows)
            state.seen.forget(rows)
            for name in gone:
                del state.heard_s[name]
        return state

    def urgent(self, state: DemandState) -> bool:
        """Demand waits for the tick."""
        return False

    def view(self, state: DemandState, now_s: float) -> Iterable[Demand]:
        """The slots that may still grow, and the newest in any case; oldest first, one record a slot."""
        newest_s = max((at_s for at_s, _ in state.slots), default=0.0)
        for (at_s, slot_s), sums in sorted(state.slots.items()):
            if at_s >= newest_s - self.lateness_s:
                yield _demand(state.source, at_s, slot_s, sums)


def _demand(source: str, at_s: float, slot_s: float, sums: dict[Key, Sums]) -> Demand:
    rows = sorted(sums.items())
    service, origin, class_ = zip(*(key for key, _ in rows), strict=True)
    arrived, admitted, shed, failed = zip(*(counts for _, counts in rows), strict=True)
    return Demand(
        source=source,
        at_s=at_s,
        slot_s=slot_s,
        service=service,
        origin=origin,
        class_=class_,
        arrived=arrived,
        admitted=admitted,
        shed=shed,
        failed=failed,
    )


def _add(state: DemandState, arrivals: Arrivals, at_s: float) -> None:
    # by the slot's number: a remainder would leave starts of one slot that differ in their last digit
    at_s = floor(at_s / arrivals.slot_s) * arrivals.slot_s
    if at_s < state.expired_s or not arrivals.service:
        return
    slot = state.slots.setdefault((at_s, arrivals.slot_s), {})
    columns = (arrivals.service, arrivals.class_, arrivals.arrived, arrivals.admitted, arrivals.shed, arrivals.failed)
    for service, class_, *counts in zip(*columns, strict=True):
        key = (service, arrivals.origin, class_)
        if key in slot or len(slot) < KEYS:
            arrived, admitted, shed, failed = slot.get(key, (0, 0, 0, 0))
            sums = (arrived + counts[0], admitted + counts[1], shed + counts[2], failed + counts[3])
            slot[key] = tuple(min(n, _COUNT) for n in sums)


def _wrong(arrivals: Arrivals, gateways: set[str]) -> tuple[str, object, str] | None:
    """(field, value, reason) of what is wrong, None when nothing is."""
    named = (("gateway", (arrivals.gateway,)), ("origin", (arrivals.origin,)), ("service", arrivals.service))
    for field_, names in (*named, ("class", arrivals.class_)):
        for name in names:
            if not _FIT.fullmatch(name):
                return field_, name, "has to begin with a letter or digit, and may hold those and _ . : / @ + -"
    if len(arrivals.service) > KEYS:
        return "service", len(arrivals.service), f"has more rows than the {KEYS} a slot keeps apart"
    if arrivals.gateway not in gateways and len(gateways) >= GATEWAYS:
        return "gateway", arrivals.gateway, f"is one more than the {GATEWAYS} gateways a partition keeps apart"
    return None
