"""Under steady demand shares settle and stay: requests come by chance and latencies tremble, tables do not.

The loop is closed: gateways follow the tables that the router says, and what they meet is what it hears.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path

import msgspec
import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from router_sync import flow as router_flow
from router_sync.fleet import load
from router_sync.sign import Signer
from router_sync.table import moves
from streams import flow
from streams.contract.records import Arrivals, EndpointMetrics, Record, RoutingTable
from streams.contract.topics import ROUTING_TABLE, TOPIC_OF
from streams.runtime.memory import MemoryCarrier
from streams.settings import Settings

DEMO = Path(__file__).parents[2] / "tradewind" / "demo" / "fleet.yaml"
SIGNER = Signer(Ed25519PrivateKey.from_private_bytes(bytes(32)))
SETTINGS = Settings(table_ttl_s=60.0)
START_S = 1_763_938_800.0
SERVICE = "llama-3-8b"
CLASSES = ("interactive", "batch")
Key = tuple[str, str]
"""(origin, class)"""


class Traffic:
    """Gateways of all origins that ask by chance and meet endpoints that slow down as they fill."""

    def __init__(self, seed: int, scale: float = 1.0) -> None:
        self.rng, self.scale = np.random.default_rng(seed), scale
        self.fleet = msgspec.structs.replace(load(DEMO), version=1)
        self.ends = {e.name: e for e in self.fleet.endpoints}
        steps = (*flow.steps(SETTINGS), *router_flow.steps(SETTINGS, SIGNER))
        self.carrier = MemoryCarrier(steps, now_s=START_S)
        self.seq = 0
        self.tell(self.fleet)
        self.carrier.run_until(START_S)

    def tell(self, record: Record) -> None:
        topic = TOPIC_OF[type(record)]
        self.carrier.send(topic, topic.key_of(record), msgspec.json.encode(record))

    def live(self, seconds: int) -> None:
        for _ in range(seconds):
            at_s = self.carrier.now_s
            self.carrier.run_until(at_s + 0.9)
            for record in self.second(at_s):
                self.tell(record)
            self.carrier.run_until(at_s + 1.0)

    def second(self, at_s: float) -> Iterator[Record]:
        """What gateways report of the second that began at `at_s`."""
        counts = {
            (o.name, c): int(self.rng.poisson(o.demand_rps * self.scale)) for o in self.fleet.origins for c in CLASSES
        }
        taken = self.spread(counts)
        load_rps: defaultdict[str, int] = defaultdict(int)
        for _, end, n in taken:
            load_rps[end] += n
        for (origin, class_), end, n in taken:
            self.seq += 1
            yield EndpointMetrics(
                endpoint=end, service=SERVICE, class_=class_, observer=f"gw-{origin}", boot=1, seq=self.seq,
                at_s=at_s + 0.85, requests=n, latency_ms=self.latencies(origin, end, n, load_rps[end]),
            )  # fmt: skip
        for origin in self.fleet.origins:
            self.seq += 1
            arrived = tuple(counts[origin.name, c] for c in CLASSES)
            yield Arrivals(
                gateway=f"gw-{origin.name}", origin=origin.name, boot=1, seq=self.seq, at_s=at_s,
                service=(SERVICE,) * 2, class_=CLASSES, arrived=arrived, admitted=arrived, shed=(0, 0), failed=(0, 0),
            )  # fmt: skip

    def spread(self, counts: dict[Key, int]) -> list[tuple[Key, str, int]]:
        routes = {(r.origin, r.class_): r for r in self.tables()[-1].routes}
        return [
            (key, end, int(n))
            for key, count in counts.items()
            for end, n in zip(routes[key].endpoints, self.rng.multinomial(count, routes[key].shares), strict=True)
            if n
        ]

    def latencies(self, origin: str, end: str, n: int, load_rps: int) -> tuple[float, ...]:
        """Milliseconds of `n` requests: the way, and what the endpoint takes, longer as it fills, with a tail."""
        at = self.ends[end]
        way_ms = next(o for o in self.fleet.origins if o.name == origin).rtt_ms[at.region]
        inside_ms = 0.6 * at.latency_ms * (1.0 + (load_rps / at.capacity_rps) ** 2)
        return tuple((way_ms + inside_ms * self.rng.lognormal(0.0, 0.3, n)).round(2).tolist())

    def tables(self) -> list[RoutingTable]:
        return [msgspec.json.decode(m.value or b"", type=RoutingTable) for m in self.carrier.said(ROUTING_TABLE)]


def moved(tables: Iterable[RoutingTable], least: float = 0.02) -> list[tuple[float, dict[Key, float]]]:
    """When tables moved shares of any flow by `least` or more, and which."""
    steps = ((new.issued_at_s, moves(old, new)) for old, new in pairwise(tables))
    found = ((at_s, {key: share for key, share in by.items() if share >= least}) for at_s, by in steps)
    return [(at_s, by) for at_s, by in found if by]


def shares(table: RoutingTable, key: Key) -> dict[str, float]:
    route = next(r for r in table.routes if (r.origin, r.class_) == key)
    return dict(zip(route.endpoints, route.shares, strict=True))


def turns(tables: Iterable[RoutingTable], key: Key, least: float = 0.05) -> int:
    """How often the share of any endpoint in a flow turned back, by `least` or more, after it had gone that far."""
    held = list(tables)
    ends = {end for table in held for end in shares(table, key)}
    return max(_turns([shares(table, key).get(end, 0.0) for table in held], least) for end in ends)


def _turns(values: list[float], least: float) -> int:
    """Reversals of a zigzag with legs of `least` or more.

    >>> _turns([0.0, 0.5, 0.6, 0.1, 0.12, 0.1, 0.9], 0.05)
    2
    """
    found, way, far = 0, 0.0, values[0]
    for value in values:
        if (value - far) * way > 0 or (way == 0 and abs(value - far) >= least):
            way, far = value - far if way == 0 else way, value
        elif way and abs(value - far) >= least:
            found, way, far = found + 1, value - far, value
    return found


@pytest.mark.parametrize("scale", [0.3, 1.0, 2.0])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_under_steady_demand_shares_settle_and_no_flow_goes_back_and_forth(seed: int, scale: float) -> None:
    world = Traffic(seed, scale)
    world.live(40)
    warm = len(world.tables())
    world.live(60)
    later = world.tables()[warm - 1 :]
    assert len(moved(later)) <= 4
    for key in {(r.origin, r.class_) for r in later[0].routes}:
        assert turns(later, key) <= 1
