"""Parts of a demo's report that a scenario may ask for: what they measure, and how people are told.

breaches        requests that endpoints themselves noted down, against the law of the fleet file
share_by_tier   what became of each tier's requests, before, in and after the surge
spill           how many were served farther away than the nearest region that the law allows
converged_s     from the surge until tables stay as they are
sessions_kept   answers under way at endpoints that were taken back: which lost a word
drained_s       how long after its notice such an endpoint still got something new

A new one is a file with two functions and a line here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final, NamedTuple

from tradewind.demo.parts import breaches, drained, sessions, settling, spill, tiers
from tradewind.demo.parts.run import Found, Run

__all__ = ["PARTS", "Part", "Run", "measured", "told"]


class Part(NamedTuple):
    """Fields for the report, and lines for people."""

    measure: Callable[[Run], Found]
    told: Callable[[Found], Iterable[str]]


PARTS: Final[Mapping[str, Part]] = {
    "breaches": Part(breaches.measure, breaches.told),
    "share_by_tier": Part(tiers.measure, tiers.told),
    "spill": Part(spill.measure, spill.told),
    "converged_s": Part(settling.measure, settling.told),
    "sessions_kept": Part(sessions.measure, sessions.told),
    "drained_s": Part(drained.measure, drained.told),
}


def measured(run: Run, shows: Iterable[str]) -> Found:
    """All that the parts of these names measure."""
    found: Found = {}
    for name in shows:
        found |= PARTS[name].measure(run)
    return found


def told(found: Found, shows: Iterable[str]) -> list[str]:
    """The same in lines for people."""
    return [line for name in shows for line in PARTS[name].told(found)]
