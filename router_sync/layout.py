"""A fleet as arrays: flows (service, origin, class) x endpoints, in the order of the file. Made once per fleet."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from router_sync.policy import Masks, masks
from streams.contract.records import Endpoint, Fleet, RequestClass, Tier

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.intp]
Key = tuple[str, str, str]
"""(service, origin, class)"""
TIER_WEIGHT: Final[Mapping[Tier, float]] = {"premium": 4.0, "standard": 2.0, "sheddable": 1.0}
"""How much worse it is to leave a request of a tier unserved."""


class Flow(NamedTuple):
    """Requests of one service, origin and class: what is shared out as one."""

    service: str
    origin: str
    class_: RequestClass

    @property
    def key(self) -> Key:
        """What demand is counted by."""
        return self.service, self.origin, self.class_.name


@dataclass(frozen=True, slots=True)
class Layout:
    """What does not change until the fleet does. Shapes: F flows, E endpoints."""

    fleet: Fleet
    law: Masks
    flows: tuple[Flow, ...]
    flow_at: dict[Key, int]
    names: tuple[str, ...]
    endpoint_at: dict[str, int]
    may: Bools
    """[F, E] allowed by law, and the service is offered there."""
    rtt_ms: Floats
    """[F, E]"""
    replica_rps: Floats
    """[E] of one replica."""
    capacity_rps: Floats
    """[E] of all replicas."""
    power_w: Floats
    """[E] of one replica at capacity."""
    egress_usd_per_gb: Floats
    """[E]"""
    response_gb: Floats
    """[F] sent back per request."""
    declared_ms: Floats
    """[E] p95 inside, before anything was measured."""
    target_ms: Floats
    """[F] p95 at the caller that is to be kept: the SLO, or less where a rule says so."""
    class_target_ms: Floats
    """[C] the least target of each class."""
    weight: Floats
    """[F] of the tier."""
    expected_rps: Floats
    """[F] demand before anything was measured."""
    kin: Ints
    """[E] endpoints of one number may stand for each other: same provider, region, country and services."""
    class_at: dict[tuple[str, str], int]
    """(service, class) to its row in what is known of classes."""
    class_of: Ints
    """[F] that row."""
    rows_of: dict[str, Ints]
    """Service to the rows of its flows."""
    served: dict[str, Ints]
    """Service to the columns of the endpoints that offer it."""


def layout(fleet: Fleet) -> Layout:
    """`fleet` as arrays."""
    law = masks(fleet)
    flows = tuple(Flow(s.name, o.name, c) for s in fleet.services for o in fleet.origins for c in s.classes)
    rtt_of = {origin.name: origin.rtt_ms for origin in fleet.origins}
    demand_of = {origin.name: origin.demand_rps for origin in fleet.origins}
    ends = fleet.endpoints
    class_at = {(s.name, c.name): row for row, (s, c) in enumerate((s, c) for s in fleet.services for c in s.classes)}
    law_rows = np.array([law.rows[flow.service, flow.class_.name] for flow in flows], np.intp)
    return Layout(
        fleet=fleet,
        law=law,
        flows=flows,
        flow_at={flow.key: row for row, flow in enumerate(flows)},
        names=tuple(e.name for e in ends),
        endpoint_at={e.name: column for column, e in enumerate(ends)},
        may=law.may[law_rows],
        rtt_ms=np.array([[rtt_of[flow.origin][e.region] for e in ends] for flow in flows], np.float64),
        replica_rps=np.array([e.capacity_rps for e in ends]),
        capacity_rps=np.array([e.capacity_rps * e.replicas for e in ends]),
        power_w=np.array([e.power_w for e in ends]),
        egress_usd_per_gb=np.array([e.egress_usd_per_gb for e in ends]),
        response_gb=np.array([flow.class_.response_kb / 1e6 for flow in flows]),
        declared_ms=np.array([e.latency_ms for e in ends]),
        target_ms=np.array([flow.class_.slo_p95_ms for flow in flows]),
        class_target_ms=np.array([c.slo_p95_ms for s in fleet.services for c in s.classes]),
        weight=np.array([TIER_WEIGHT[flow.class_.tier] for flow in flows]),
        expected_rps=np.array([demand_of[flow.origin] for flow in flows]),
        kin=_kin(ends),
        class_at=class_at,
        class_of=np.array([class_at[flow.service, flow.class_.name] for flow in flows], np.intp),
        rows_of={s.name: _where(flow.service == s.name for flow in flows) for s in fleet.services},
        served={s.name: _where(s.name in e.services for e in ends) for s in fleet.services},
    )


def _where(flags: Iterable[bool]) -> Ints:
    return np.flatnonzero(np.fromiter(flags, np.bool_))


def _kin(endpoints: tuple[Endpoint, ...]) -> Ints:
    numbers: dict[tuple[object, ...], int] = {}
    keys = [(e.provider, e.region, e.jurisdiction, e.market, frozenset(e.services)) for e in endpoints]
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys], np.intp)
