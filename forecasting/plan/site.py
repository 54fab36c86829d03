"""A fleet as the planner needs it: flows x endpoints as arrays. Made once per fleet.

Law is not ours: it comes as a mask from whoever wires the steps (`tradewind.flow`). What classes declare themselves is
asked here too, so that a mask that knows less opens nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from streams.contract.records import Fleet, RequestClass, Tier

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.intp]
Key = tuple[str, str, str]
"""(service, origin, class)"""
Law = Callable[[Fleet], Bools]
"""[flow, endpoint]: who may use what. Flows: services, in each origins, in each classes, in the order of the file."""
WEIGHT: Final[Mapping[Tier, float]] = {"premium": 4.0, "standard": 2.0, "sheddable": 1.0}
"""How much worse it is to leave a request of a tier unserved."""
NEAR: Final = 0.01
"""Of the price of a late second, for each second of the way: breaks ties."""


class Flow(NamedTuple):
    """Requests that are needed as one."""

    service: str
    origin: str
    class_: RequestClass

    @property
    def key(self) -> Key:
        """What demand is counted by."""
        return self.service, self.origin, self.class_.name


@dataclass(frozen=True, slots=True)
class Site:
    """Shapes: F flows, E endpoints."""

    fleet: Fleet
    flows: tuple[Flow, ...]
    names: tuple[str, ...]
    endpoint_at: dict[str, int]
    pool: tuple[str, ...]
    """Of each endpoint."""
    rows_of: dict[str, Ints]
    """Pool to its endpoints."""
    may: Bools
    """[F, E] offered there, declared so, and allowed by law."""
    late_usd: Floats
    """[F, E] what a request pays for being late there, and a little for the way."""
    weight: Floats
    """[F] of the tier."""
    ballast: Bools
    """[F] gives way to others while capacity is short: it may wait, or is shed first."""
    waits: Bools
    """[F] may wait for hours: it needs its day's mean rather than its peak."""
    expected_rps: Floats
    """[F] before anything was measured."""
    capacity_rps: Floats
    """[E] of one replica."""
    replicas: Floats
    """[E] as declared."""
    least: Floats
    most: Floats
    """[E] what a plan may ask for."""
    planned: Bools
    """[E] whether there is a plan at all."""
    spot: Bools
    zone: Ints
    """[E] endpoints of one number stand in one zone."""
    power_kw: Floats
    """[E] of one replica; 0: unknown."""
    grid: tuple[str, ...]


def declared(fleet: Fleet) -> Bools:
    """What classes say themselves of where they may be processed; the mask of a fleet without further law."""
    return np.array(
        [
            [
                service.name in e.services and (not c.jurisdictions or e.jurisdiction in c.jurisdictions)
                for e in fleet.endpoints
            ]
            for service in fleet.services
            for _ in fleet.origins
            for c in service.classes
        ],
        np.bool_,
    ).reshape(-1, len(fleet.endpoints))


def site(fleet: Fleet, law: Law, usd_per_s: float) -> Site:
    """`fleet` as arrays; a late second costs `usd_per_s`. Raises ValueError where `law` speaks of other flows."""
    flows = tuple(Flow(s.name, o.name, c) for s in fleet.services for o in fleet.origins for c in s.classes)
    ends = fleet.endpoints
    own, given = declared(fleet), np.asarray(law(fleet), np.bool_)
    if given.shape != own.shape:
        raise ValueError(f"law is of shape {given.shape}, the fleet of {own.shape}")
    zones: dict[tuple[str, str, str], int] = {}
    return Site(
        fleet=fleet,
        flows=flows,
        names=tuple(e.name for e in ends),
        endpoint_at={e.name: column for column, e in enumerate(ends)},
        pool=tuple(e.pool for e in ends),
        rows_of=_rows_of(tuple(e.pool for e in ends)),
        may=own & given,
        late_usd=_late_usd(fleet, flows, usd_per_s),
        weight=np.array([WEIGHT[flow.class_.tier] for flow in flows]),
        ballast=np.array([flow.class_.defer_s > 0 or flow.class_.tier == "sheddable" for flow in flows], np.bool_),
        waits=np.array([flow.class_.defer_s > 0 for flow in flows], np.bool_),
        expected_rps=np.array([{o.name: o.demand_rps for o in fleet.origins}[flow.origin] for flow in flows]),
        capacity_rps=np.array([e.capacity_rps for e in ends]),
        replicas=np.array([float(e.replicas) for e in ends]),
        least=np.array([float(e.least_replicas) for e in ends]),
        most=np.array([float(e.replicas if e.most_replicas is None else e.most_replicas) for e in ends]),
        planned=np.array([e.most_replicas is not None for e in ends], np.bool_),
        spot=np.array([e.market == "spot" for e in ends], np.bool_),
        zone=np.array([zones.setdefault((e.provider, e.region, e.zone), len(zones)) for e in ends], np.intp),
        power_kw=np.array([e.power_w / 1000.0 for e in ends]),
        grid=tuple(e.grid_zone for e in ends),
    )


def _rows_of(pools: tuple[str, ...]) -> dict[str, Ints]:
    rows: dict[str, list[int]] = {}
    for row, pool in enumerate(pools):
        rows.setdefault(pool, []).append(row)
    return {pool: np.array(each, np.intp) for pool, each in rows.items()}


def _late_usd(fleet: Fleet, flows: tuple[Flow, ...], usd_per_s: float) -> Floats:
    """Seconds over the SLO, and a breach counts as at least one: as the router prices it, before it has measured."""
    rtt_ms = {origin.name: origin.rtt_ms for origin in fleet.origins}
    way_ms = np.array([[rtt_ms[f.origin].get(e.region, 0.0) + e.latency_ms for e in fleet.endpoints] for f in flows])
    over_ms = way_ms.reshape(len(flows), -1) - np.array([[flow.class_.slo_p95_ms] for flow in flows])
    late_s = np.where(over_ms > 0, 1.0 + over_ms / 1000.0, 0.0)
    out: Floats = usd_per_s * (late_s + NEAR * way_ms.reshape(late_s.shape) / 1000.0)
    return out
