"""A fleet as the world sees it: flows and endpoints by number, the ways between them, and what is forbidden."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from streams.contract.records import Endpoint, Fleet, Origin, RequestClass
from tradewind.world.law import forbidden

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Counts = NDArray[np.int64]
Key = tuple[str, str, str]
"""(service, origin, class)"""


class Flow(NamedTuple):
    """Requests of one service, origin and class."""

    service: str
    origin: str
    class_: RequestClass

    @property
    def key(self) -> Key:
        return self.service, self.origin, self.class_.name

    @property
    def words(self) -> str:
        """As people say it: "interactive@europe"."""
        return f"{self.class_.name}@{self.origin}"


@dataclass(frozen=True, slots=True)
class Ground:
    """What does not change in a run. Shapes: F flows, E endpoints, both in the order of the fleet."""

    fleet: Fleet
    flows: tuple[Flow, ...]
    flow_at: dict[Key, int]
    ends: tuple[Endpoint, ...]
    end_at: dict[str, int]
    pool_at: dict[str, int]
    rtt_ms: Floats
    """[F, E]"""
    slo_ms: Floats
    """[F]"""
    forbidden: dict[tuple[int, int], str]
    """(flow, endpoint) to the rule that forbids it, found without the router's help."""

    def place(self, where: str) -> list[int]:
        """The endpoints that `where` names: an endpoint, a zone, a region, a provider, or a pool; none when it is
        unknown."""
        return [n for n, end in enumerate(self.ends) if where in names_of(end)]


def names_of(end: Endpoint) -> tuple[str, ...]:
    """What an endpoint answers to, from itself to its provider."""
    return end.name, end.pool, end.zone, end.region, end.provider


def ground(fleet: Fleet) -> Ground:
    """`fleet` by numbers."""
    flows = tuple(Flow(s.name, o.name, c) for s in fleet.services for o in fleet.origins for c in s.classes)
    origins = {origin.name: origin for origin in fleet.origins}
    ends = fleet.endpoints
    return Ground(
        fleet=fleet,
        flows=flows,
        flow_at={flow.key: n for n, flow in enumerate(flows)},
        ends=ends,
        end_at={end.name: n for n, end in enumerate(ends)},
        pool_at={end.pool: n for n, end in enumerate(ends)},
        rtt_ms=np.array([[origins[flow.origin].rtt_ms[end.region] for end in ends] for flow in flows]),
        slo_ms=np.array([flow.class_.slo_p95_ms for flow in flows]),
        forbidden=_forbidden(fleet, flows, origins),
    )


def _forbidden(fleet: Fleet, flows: tuple[Flow, ...], origins: dict[str, Origin]) -> dict[tuple[int, int], str]:
    return {
        (f, e): why
        for f, flow in enumerate(flows)
        for e, end in enumerate(fleet.endpoints)
        if (why := forbidden(fleet.policies, flow.service, origins[flow.origin], flow.class_, end)) is not None
    }
