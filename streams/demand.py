"""Arrivals of all gateways summed per slot, service, origin and class.

A slot is spoken of again for as long as it may still grow (the allowed lateness); the router takes the last word. What
comes after that is counted as late.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from math import floor
from typing import Any, Final

import numpy as np

from streams import signals
from streams.contract.errors import shown
from streams.contract.records import Arrivals, Demand
from streams.contract.topics import ARRIVALS, FLEET
from streams.known import Known, latest, misfits
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
MOST_RPS: Final = 1e6
"""More requests a second than any one gateway is asked; who says more is broken, or lies."""
LENGTHS_S: Final = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
"""Slots may be this long: few lengths, so that gateways share slots, and short ones, so that a slot is said whole."""
_LENGTHS: Final = ", ".join(f"{length_s:g}" for length_s in LENGTHS_S)
_FIT_MOST: Final = 10 * KEYS
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
    """Slots that end by then are gone, and do not come back half empty."""
    newest_s: float = float("-inf")
    """The end of the newest slot heard."""
    fleet: Known | None = None
    """None until a fleet was heard: then nobody is unknown yet."""
    fit: set[Key] = field(default_factory=set)
    """What was judged and may be summed."""
    overflowed: bool = False
    """Whether it was said that a slot was full."""


class DemandStage:
    """The stage: arrivals and the fleet in, demand out."""

    def __init__(self, *, keep_s: float = 60.0, lateness_s: float = 5.0) -> None:
        self.keep_s, self.lateness_s = keep_s, lateness_s

    def empty(self) -> DemandState:
        """Nobody was heard."""
        return DemandState()

    def screen(self, state: DemandState, heard: Heard[Any]) -> Iterable[Refusal]:
        """Refuse what the fleet does not know, names that are not fit for labels, slots of odd lengths, more arrivals
        than one gateway can have, gateways beyond what a partition keeps apart, and fleets that may not follow the one
        in force.
        """
        if heard.topic == FLEET.name:
            yield from misfits(state.fleet, heard)
            return
        gateways = set(state.gateways.known)
        for position, arrivals in zip(heard.positions.tolist(), heard.records, strict=True):
            if (wrong := _wrong(state, arrivals, gateways)) is not None:
                field_, value, reason = wrong
                yield Refusal(position, field_, shown(value), reason)
            else:
                gateways.add(arrivals.gateway)

    def fold(self, state: DemandState, heard: Heard[Any]) -> DemandState:
        """Add slots of gateways; duplicates and what is too late are counted and left out."""
        if heard.topic == FLEET.name:
            return _with_fleet(state, latest(heard.records))
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
                _add(state, arrivals, min(arrivals.at_s, stamp_s), self.lateness_s)
        return state

    def advance(self, state: DemandState, now_s: float) -> DemandState:
        """Forget slots older than `keep_s`, and gateways unheard for a quarter of an hour."""
        state.expired_s = max(state.expired_s, now_s - self.keep_s)
        for slot in [s for s in state.slots if sum(s) <= state.expired_s]:
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
        newest_s = max(map(sum, state.slots), default=0.0)
        for (at_s, slot_s), sums in sorted(state.slots.items()):
            if at_s + slot_s >= newest_s - self.lateness_s:
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


def _add(state: DemandState, arrivals: Arrivals, at_s: float, lateness_s: float) -> None:
    # by the slot's number: a remainder would leave starts of one slot that differ in their last digit
    at_s = floor(at_s / arrivals.slot_s) * arrivals.slot_s
    end_s = at_s + arrivals.slot_s
    if end_s <= state.expired_s or end_s < state.newest_s - lateness_s:
        signals.LATE.inc(sum(arrivals.arrived))
    state.newest_s = max(state.newest_s, end_s)
    if end_s <= state.expired_s or not arrivals.service:
        return
    slot = state.slots.setdefault((at_s, arrivals.slot_s), {})
    columns = (arrivals.service, arrivals.class_, arrivals.arrived, arrivals.admitted, arrivals.shed, arrivals.failed)
    for service, class_, *counts in zip(*columns, strict=True):
        key = (service, arrivals.origin, class_)
        if key in slot or len(slot) < KEYS:
            arrived, admitted, shed, failed = slot.get(key, (0, 0, 0, 0))
            sums = (arrived + counts[0], admitted + counts[1], shed + counts[2], failed + counts[3])
            slot[key] = tuple(min(n, _COUNT) for n in sums)
        else:
            _overflow(state, key, at_s)


def _overflow(state: DemandState, key: Key, at_s: float) -> None:
    """Count what a full slot has no room for; say so once."""
    signals.REFUSED.labels("demand", ARRIVALS.name).inc()
    if not state.overflowed:
        state.overflowed = True
        signals.event("demand_slot_full", "warning", source=state.source, at_s=at_s, keys=KEYS, left_out="/".join(key))


def _with_fleet(state: DemandState, fleet: Known) -> DemandState:
    """Know `fleet`; what it does not know would be refused now, and must not stay because it came before."""
    state.fleet = fleet
    state.fit.clear()
    for at, sums in list(state.slots.items()):
        left = {key: counts for key, counts in sums.items() if _unknown(fleet, key) is None}
        if left:
            state.slots[at] = left
        else:
            del state.slots[at]
    return state


def _wrong(state: DemandState, arrivals: Arrivals, gateways: set[str]) -> tuple[str, object, str] | None:
    """(field, value, reason) of what is wrong, None when nothing is."""
    if arrivals.gateway not in gateways:
        if (wrong := _unfit(gateway=arrivals.gateway)) is not None:
            return wrong
        if len(gateways) >= GATEWAYS:
            return "gateway", arrivals.gateway, f"is one more than the {GATEWAYS} gateways a partition keeps apart"
    if arrivals.slot_s not in LENGTHS_S:
        return "slot_s", arrivals.slot_s, f"is no length that slots may have: name one of {_LENGTHS}"
    if sum(arrivals.arrived) > (most := round(MOST_RPS * max(1.0, arrivals.slot_s))):
        return "arrived", sum(arrivals.arrived), f"is more than the {most} requests one gateway can be asked in a slot"
    if len(arrivals.service) > KEYS:
        return "service", len(arrivals.service), f"has more rows than the {KEYS} a slot keeps apart"
    for service, class_ in zip(arrivals.service, arrivals.class_, strict=True):
        key = (service, arrivals.origin, class_)
        if key not in state.fit:
            if (wrong := _unfit_key(state.fleet, key)) is not None:
                return wrong
            if len(state.fit) < _FIT_MOST:
                state.fit.add(key)
    return _unfit(origin=arrivals.origin) if not arrivals.service else None


def _unfit_key(fleet: Known | None, key: Key) -> tuple[str, str, str] | None:
    service, origin, class_ = key
    return _unknown(fleet, key) if fleet else _unfit(origin=origin, service=service, class_=class_)


def _unknown(fleet: Known, key: Key) -> tuple[str, str, str] | None:
    service, origin, class_ = key
    if origin not in fleet.origins:
        return "origin", origin, "is no origin of the fleet: add it to tradewind.yaml, or mend the gateway's setting"
    if service not in fleet.classes:
        return "service", service, "is no service of the fleet: add it to tradewind.yaml, or mend the gateway"
    if class_ not in fleet.classes[service]:
        return "class", class_, f"is no class of {service}: name one of {', '.join(fleet.classes[service])}"
    return None


def _unfit(**names: str) -> tuple[str, str, str] | None:
    for field_, name in names.items():
        if not _FIT.fullmatch(name):
            return field_.rstrip("_"), name, "has to begin with a letter or digit, and may hold those and _ . : / @ + -"
    return None
