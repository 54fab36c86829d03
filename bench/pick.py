"""What a pick costs at 6, 200 and 2,000 endpoints: `python -m bench.pick [--json]`.

Each timed sample is one pick among endpoints with known latencies and requests in flight, the picker's own look at the
clock included; what timing itself costs is measured with an empty body and taken off.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Callable

from router_sync.client import Picker
from streams.contract.records import Route, RoutingTable, TableEndpoint

SIZES = (6, 200, 2000)


def table(size: int, seed: int = 1) -> RoutingTable:
    """A table of `size` endpoints with uneven shares."""
    rng = random.Random(seed)
    weights = [rng.random() + 0.1 for _ in range(size)]
    names = tuple(f"endpoint-{i}" for i in range(size))
    route = Route(
        origin="eu",
        class_="chat",
        slo_p95_ms=300,
        endpoints=names,
        shares=tuple(weight / sum(weights) for weight in weights),
    )
    return RoutingTable(
        service="m",
        epoch=1,
        version=1,
        issued_at_s=0,
        expires_at_s=1e9,
        fleet_version=1,
        default_class="chat",
        endpoints=tuple(_endpoint(name) for name in names),
        routes=(route,),
    )


def _endpoint(name: str) -> TableEndpoint:
    return TableEndpoint(
        name=name,
        url="http://127.0.0.1:1",
        provider="p",
        region="r",
        zone="z",
        jurisdiction="DE",
        capacity_rps=10,
        concurrency=8,
        cost_usd_per_request=0.001,
        latency_p95_ms=100,
    )


def measure(size: int, samples: int = 100_000, seed: int = 1) -> dict[str, float]:
    """{p50, p99} of a pick in microseconds, with latencies known and requests in flight."""
    rng = random.Random(seed)
    picker = Picker(table(size), rng=rng, clock=time.monotonic)
    for endpoint in picker.endpoints.values():
        endpoint.in_flight += rng.randrange(4) + 1
        endpoint.ok(time.monotonic(), rng.uniform(50, 150))
    empty = _quantiles(lambda: None, samples // 4)[0]
    p50, p99 = _quantiles(lambda: picker.pick("eu", "chat"), samples)
    return {"p50": round((p50 - empty) / 1e3, 3), "p99": round((p99 - empty) / 1e3, 3)}


def pick_us(samples: int = 100_000) -> dict[str, dict[str, float]]:
    """Microseconds of a pick by number of endpoints."""
    return {str(size): measure(size, samples) for size in SIZES}


def _quantiles(body: Callable[[], object], samples: int) -> tuple[int, int]:
    clock = time.perf_counter_ns
    for _ in range(2000):
        body()
    took = []
    for _ in range(samples):
        start = clock()
        body()
        took.append(clock() - start)
    took.sort()
    return took[samples // 2], took[samples * 99 // 100]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.add_argument("--samples", type=int, default=100_000)
    asked = parser.parse_args()
    found = pick_us(asked.samples)
    if asked.json:
        print(json.dumps({"pick_us": found}))
        return
    for size, row in found.items():
        print(f"{size:>6} endpoints  p50 {row['p50']:.2f} us  p99 {row['p99']:.2f} us")


if __name__ == "__main__":
    main()
