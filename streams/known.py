"""The fleet as a stage keeps it: what may be named, and which fleet may follow which.

The fleet topic is open to all who may write to it, and an older file may come after a newer one. Of the fleet that is
held only the same or a higher version is taken in; a fleet of another name never is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from streams.contract.errors import shown
from streams.contract.records import Fleet
from streams.runtime.step import Heard, Refusal


@dataclass(frozen=True, slots=True)
class Known:
    """Names of one fleet."""

    fleet: str
    version: int
    endpoints: dict[str, dict[str, tuple[str, ...]]]
    """Endpoint to its services and their classes."""
    classes: dict[str, tuple[str, ...]]
    """Service to its classes."""
    origins: frozenset[str]

    @classmethod
    def of(cls, fleet: Fleet) -> Known:
        """The names in `fleet`."""
        classes = {s.name: tuple(c.name for c in s.classes) for s in fleet.services}
        endpoints = {e.name: {s: classes[s] for s in e.services if s in classes} for e in fleet.endpoints}
        return cls(fleet.fleet, fleet.version, endpoints, classes, frozenset(o.name for o in fleet.origins))


def misfits(held: Known | None, heard: Heard[Fleet]) -> Iterator[Refusal]:
    """The fleets that may not follow `held`, or one before them in the batch, and why."""
    last = (held.fleet, held.version) if held else None
    for position, fleet in zip(heard.positions.tolist(), heard.records, strict=True):
        if last and fleet.fleet != last[0]:
            yield Refusal(
                position, "fleet", shown(fleet.fleet), f"is not {last[0]}, which is in force: one prefix, one fleet"
            )
        elif last and fleet.version < last[1]:
            yield Refusal(
                position,
                "version",
                shown(fleet.version),
                f"is below {last[1]}, the one in force: publish a higher one",
            )
        else:
            last = fleet.fleet, fleet.version


def latest(fleets: Iterable[Fleet]) -> Known:
    """The names of the last of `fleets`, of which there is at least one."""
    *_, last = fleets
    return Known.of(last)
