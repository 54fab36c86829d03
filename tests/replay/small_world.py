"""A world of two origins and six endpoints in three regions, for laws that only show in time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec
import numpy as np

from streams.contract import topics
from streams.contract.records import Endpoint, Fleet, Origin, Record, RequestClass, RoutingTable, Service
from streams.settings import Settings
from tradewind.world import House, Setup, World
from tradewind.world.brain import Said, View, settings_of
from tradewind.world.demand import Curve, Curves, Surge
from tradewind.world.engine import Fault
from tradewind.world.ground import ground
from tradewind.world.market import Told

START_S = 1_781_568_000.0
REGIONS = {"eu-west": ("aws", "IE"), "us-east": ("aws", "US"), "ap-south": ("gcp", "IN")}
RTT_MS = {
    "europe": {"eu-west": 14.0, "us-east": 85.0, "ap-south": 130.0},
    "america": {"eu-west": 85.0, "us-east": 12.0, "ap-south": 190.0},
}
CLASSES = (
    RequestClass(name="interactive", slo_p95_ms=300.0, tier="premium"),
    RequestClass(name="private", slo_p95_ms=400.0, jurisdictions=("IE",)),
)
VALUE = {"slow": 8.0, "partial": 0.5, "dead": 1.0, "refusing": 1.0, "hanging": 1.0}
RPS = {("europe", "interactive"): 60.0, ("america", "interactive"): 40.0, ("europe", "private"): 15.0}


def endpoint(region: str, zone: str, **more: Any) -> Endpoint:
    """An endpoint of two replicas of 30 requests/s; the one in zone b is spot, and cheaper."""
    provider, country = REGIONS[region]
    market = {"a": ("on_demand", 0.9), "b": ("spot", 0.4)}[zone]
    told: dict[str, Any] = {
        "name": f"{region}-{zone}", "url": "http://127.0.0.1:18101", "services": ("chat",), "provider": provider,
        "region": region, "zone": f"{region}-{zone}", "instance": "g6.xlarge", "market": market[0],
        "price_usd_per_h": market[1], "jurisdiction": country, "replicas": 2, "capacity_rps": 30.0, "concurrency": 48,
        "latency_ms": 80.0, "power_w": 300.0, "cold_start_s": 60.0, "most_replicas": 6,
    }  # fmt: skip
    return Endpoint(**(told | more))


def fleet(endpoints: Sequence[Endpoint] = (), demand_rps: float = 30.0) -> Fleet:
    """Two endpoints in each region, or those that are given; `demand_rps` is what each origin is said to ask for."""
    return Fleet(
        fleet="small",
        version=1,
        services=(Service(name="chat", classes=CLASSES, default_class="interactive"),),
        origins=tuple(
            Origin(name=name, jurisdiction={"europe": "DE", "america": "US"}[name], rtt_ms=rtt, demand_rps=demand_rps)
            for name, rtt in RTT_MS.items()
        ),
        endpoints=tuple(endpoints) or tuple(endpoint(region, zone) for region in REGIONS for zone in "ab"),
    )


def setup(
    seconds: float = 120.0,
    *,
    of: Fleet | None = None,
    rps: dict[tuple[str, str], float] | None = None,
    noise: float = 0.0,
    surges: Callable[[Fleet], Sequence[Surge]] = lambda _fleet: (),
    faults: Sequence[tuple[str, float, float, Any]] = (),
    seed: int = 1,
    **more: Any,
) -> Setup:
    """A world of steady demand, in steps of a second, where slots are seconds too.

    `faults`: place, from and until (seconds after the start), kind.
    """
    there = of or fleet()
    at = ground(there)
    curves = [
        Curve(at.flow_at["chat", origin, class_], mean, noise=noise) for (origin, class_), mean in (rps or RPS).items()
    ]
    rng = np.random.default_rng([seed, 1])
    told: dict[str, Any] = {
        "fleet": there,
        "start_s": START_S,
        "demand": Curves(len(at.flows), curves, surges(there), START_S, seconds, rng),
        "faults": [Fault(tuple(at.place(p)), START_S + a, START_S + b, kind, VALUE[kind]) for p, a, b, kind in faults],
        "calm_s": 1,
        "slot_s": 1.0,
        "seed": seed,
    }
    return Setup(**(told | more))


def world(seconds: float = 120.0, brain: Callable[[House], Any] = lambda house: house, **more: Any) -> World:
    """A world that has not begun; `brain` may put somebody between it and the house."""
    of = setup(seconds, **more)
    house = House(of.fleet, settings_of(Settings()), of.start_s, of.seed)
    return World(of, brain(house), of.start_s + seconds)


def lived(seconds: float = 120.0, **more: Any) -> World:
    """A world at its end."""
    of = world(seconds, **more)
    for _ in of.live():
        pass
    return of


class Between:
    """A brain between the world and the house, that lets through what `passes` says of (record, seconds)."""

    name = "tradewind"

    def __init__(self, house: House, passes: Callable[[Record, float], bool]) -> None:
        self.house, self._passes = house, passes

    def live(self, told: Sequence[Told], until_s: float, every_s: float, view: View) -> Said:
        heard = [(at_s, record) for at_s, record in told if self._passes(record, at_s - START_S)]
        return self.house.live(heard, until_s, every_s, view)


def tables(of: World) -> list[RoutingTable]:
    """All tables that the house has said."""
    house = of.brain if isinstance(of.brain, House) else of.brain.house  # type: ignore[attr-defined]
    said = house.carrier.said(topics.ROUTING_TABLE)
    return [msgspec.json.decode(message.value, type=RoutingTable) for message in said]


def shares(table: RoutingTable, origin: str, class_: str = "interactive") -> dict[str, float]:
    """Endpoint to its share of a route."""
    route = next(r for r in table.routes if (r.origin, r.class_) == (origin, class_))
    return dict(zip(route.endpoints, route.shares, strict=True))


def share_of(table: RoutingTable, where: str, origin: str = "europe", class_: str = "interactive") -> float:
    """What the endpoints of a region, or one endpoint, have of a route."""
    return sum(share for name, share in shares(table, origin, class_).items() if name.startswith(where))


def after(of: World, seconds: float) -> Iterator[RoutingTable]:
    """Tables of the time from `seconds` after the start on."""
    return (table for table in tables(of) if table.issued_at_s >= START_S + seconds)
