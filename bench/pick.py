"""What a pick costs, and a gateway that is built on it: `python -m bench.pick [--json] [--only pick,gateways]`.

`pick_us` is at 6, 200 and 2,000 endpoints; `gateways` compares ours with LiteLLM's and HAProxy (`bench/gateways.py`).
Each timed sample is one pick among endpoints with known latencies and requests in flight, the picker's own look at the
clock included; what timing itself costs is measured with an empty body and taken off.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import time
from collections.abc import Callable
from typing import Any

from bench.gateways import compared
from bench.machine import described
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


def run(only: set[str], samples: int, seconds: float) -> dict[str, Any]:
    """All figures asked for."""
    found: dict[str, Any] = {}
    if "pick" in only:
        found["pick_us"] = pick_us(samples)
    if "gateways" in only:
        found |= asyncio.run(compared(table(6), seconds))
    return found | described()


def show(found: dict[str, Any]) -> None:
    """For people."""
    for size, row in found.get("pick_us", {}).items():
        print(f"{size:>6} endpoints  p50 {row['p50']:.2f} us  p99 {row['p99']:.2f} us")
    for row in found.get("gateways", ()):
        print(
            f"{row['name']:>12}  {row['requests_per_cpu_s']:>6} requests per CPU-second, {row['rps_per_core']:>6}/s"
            f" on a core; p50 {row['p50_ms']:.2f} ms, p99 {row['p99_ms']:.2f} ms, added {row['added_p99_ms']:.2f} ms;"
            f" failed {row['failed']}"
        )
    if "ratio_litellm" in found:
        print(f"{found['ratio_litellm']} times LiteLLM's proxy")


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.add_argument("--samples", type=int, default=100_000, help="picks timed per size")
    parser.add_argument("--seconds", type=float, default=4.0, help="per gateway, way and round")
    parser.add_argument("--only", default="pick,gateways", help="pick, gateways or both")
    asked = parser.parse_args()
    found = run(set(asked.only.split(",")), asked.samples, asked.seconds)
    if asked.json:
        print(json.dumps(found))
    else:
        show(found)


if __name__ == "__main__":
    main()
