"""Between which numbers a pool may be: as the fleet says, as the entry says, the narrower of both."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from router_sync.actuators.entry import Entry
from streams.contract.records import Fleet


class Bounds(NamedTuple):
    """What the fleet declares of a pool: all its endpoints together."""

    least: int = 0
    most: int = 0
    replicas: int = 0
    cold_start_s: float = 0.0
    """The longest of any of them."""


def bounds_of(fleet: Fleet) -> Mapping[str, Bounds]:
    """Bounds by pool."""
    found: dict[str, Bounds] = {}
    for e in fleet.endpoints:
        held = found.get(e.pool, Bounds())
        most = e.replicas if e.most_replicas is None else e.most_replicas
        found[e.pool] = Bounds(
            held.least + e.least_replicas, held.most + most, held.replicas + e.replicas,
            max(held.cold_start_s, e.cold_start_s),
        )  # fmt: skip
    return found


def clamped(want: int, bounds: Bounds, entry: Entry) -> tuple[int, str]:
    """`want` within the bounds, and which of them it met; the upper goes before the lower where they cross.

    >>> clamped(50, Bounds(least=1, most=20), Entry(kind="any", pool="*"))
    (20, "wants 50, the fleet's most_replicas is 20")
    """
    most, whose_most = bounds.most, "the fleet's most_replicas"
    if entry.most is not None and entry.most < most:
        most, whose_most = entry.most, "the actuator's most"
    least, whose_least = max((bounds.least, "the fleet's least_replicas"), (entry.least, "the actuator's least"))
    if want > most:
        return most, f"wants {want}, {whose_most} is {most}"
    if want < least:
        return min(least, most), f"wants {want}, {whose_least} is {least}"
    return want, ""


def one_step(now: int | None, want: int, entry: Entry) -> int:
    """How far to go at once from `now` towards `want`.

    >>> one_step(2, 20, Entry(kind="any", pool="*")), one_step(2, 20, Entry(kind="any", pool="*", most_step=4))
    (20, 6)
    """
    if now is None or entry.most_step is None:
        return want
    return max(now - entry.most_step, min(now + entry.most_step, want))
