"""A fleet as arrays: flows (service, origin, class) x endpoints, in the order of the file. Made once per fleet."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from router_sync.policy.facts import Flow, Key, flows_of
from router_sync.policy.law import Law, law_of
from router_sync.policy.preference import Preferences, preferences
from streams.contract.records import Endpoint, Fleet, Tier

__all__ = ["TIER_WEIGHT", "Bools", "Floats", "Flow", "Ints", "Key", "Layout", "layout"]

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.intp]
TIER_WEIGHT: Final[Mapping[Tier, float]] = {"premium": 4.0, "standard": 2.0, "sheddable": 1.0}
"""How much worse it is to leave a request of a tier unserved."""


@dataclass(frozen=True, slots=True)
class Layout:
    """What does not change until the fleet does. Shapes: F flows, E endpoints."""

    fleet: Fleet
    law: Law
    wishes: Preferences
    flows: tuple[Flow, ...]
    flow_at: dict[Key, int]
    names: tuple[str, ...]
    endpoint_at: dict[str, int]
    countries: dict[str, str]
    """Of the origins."""
    may: Bools
    """[F, E] allowed by law, and the service is offered there."""
    rtt_ms: Floats
    """[F, E]"""
    far_first: Ints
    """[F, E] the flows of each column of `rtt_ms`, those that come the longest way first."""
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
    classes: dict[tuple[str, str], int]
    """(service, class) to its number: what is measured over all origins together."""
    class_of: Ints
    """[F] the number of each flow's class."""
    rows_of: dict[str, Ints]
    """Service to the rows of its flows."""
    served: dict[str, Ints]
    """Service to the columns of the endpoints that offer it."""


def layout(fleet: Fleet) -> Layout:
    """`fleet` as arrays."""
    law, flows = law_of(fleet), flows_of(fleet)
    rtt_of = {origin.name: origin.rtt_ms for origin in fleet.origins}
    demand_of = {origin.name: origin.demand_rps for origin in fleet.origins}
    ends = fleet.endpoints
    classes: dict[tuple[str, str], int] = {}
    class_of = [classes.setdefault((flow.service, flow.class_.name), len(classes)) for flow in flows]
    wishes = preferences(fleet)
    target_ms = np.minimum([flow.class_.slo_p95_ms for flow in flows], wishes.limit_ms)
    rtt_ms = np.array([[rtt_of[flow.origin][e.region] for e in ends] for flow in flows], np.float64)
    return Layout(
        fleet=fleet,
        law=law,
        wishes=wishes,
        flows=flows,
        flow_at=law.rows,
        names=tuple(e.name for e in ends),
        endpoint_at={e.name: column for column, e in enumerate(ends)},
        countries={origin.name: origin.jurisdiction for origin in fleet.origins},
        may=law.may,
        rtt_ms=rtt_ms,
        far_first=np.argsort(-rtt_ms, axis=0, kind="stable"),
        replica_rps=np.array([e.capacity_rps for e in ends]),
        capacity_rps=np.array([e.capacity_rps * e.replicas for e in ends]),
        power_w=np.array([e.power_w for e in ends]),
        egress_usd_per_gb=np.array([e.egress_usd_per_gb for e in ends]),
        response_gb=np.array([flow.class_.response_kb / 1e6 for flow in flows]),
        declared_ms=np.array([e.latency_ms for e in ends]),
        target_ms=target_ms,
        class_target_ms=_least(target_ms, class_of, len(classes)),
        weight=np.array([TIER_WEIGHT[flow.class_.tier] for flow in flows]),
        expected_rps=np.array([demand_of[flow.origin] for flow in flows]),
        kin=_kin(ends),
        classes=classes,
        class_of=np.array(class_of, np.intp),
        rows_of={s.name: _where(flow.service == s.name for flow in flows) for s in fleet.services},
        served={s.name: _where(s.name in e.services for e in ends) for s in fleet.services},
    )


def _least(values: Floats, group: Sequence[int], groups: int) -> Floats:
    out = np.full(groups, np.inf)
    np.minimum.at(out, np.array(group, np.intp), values)
    return out


def _where(flags: Iterable[bool]) -> Ints:
    return np.flatnonzero(np.fromiter(flags, np.bool_))


def _kin(endpoints: tuple[Endpoint, ...]) -> Ints:
    numbers: dict[tuple[object, ...], int] = {}
    keys = [(e.provider, e.region, e.jurisdiction, e.market, frozenset(e.services)) for e in endpoints]
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys], np.intp)
