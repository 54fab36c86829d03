"""A small fleet and what is heard of it, for tests of the router."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from router_sync.heard import HeardDemand, HeardHealth
from router_sync.layout import Layout
from router_sync.situation import Knowledge
from streams.contract.records import Demand, Endpoint, EndpointHealth, Fleet, Origin, RequestClass, Service, Verdict

REGIONS = {"eu-west": ("aws", "IE"), "us-east": ("aws", "US"), "ap-south": ("gcp", "IN")}
RTT_MS = {
    "eu": {"eu-west": 12.0, "us-east": 85.0, "ap-south": 140.0},
    "us": {"eu-west": 85.0, "us-east": 10.0, "ap-south": 210.0},
}


def endpoint(name: str, at: str = "eu-west", **more: Any) -> Endpoint:
    """An endpoint of 100 requests/s at 0.9 $/h and 120 ms."""
    provider, country = REGIONS[at]
    told: dict[str, Any] = {
        "url": "http://127.0.0.1:18101", "services": ("chat",), "provider": provider, "region": at, "zone": name,
        "jurisdiction": country, "capacity_rps": 100.0, "price_usd_per_h": 0.9, "latency_ms": 120.0,
    }  # fmt: skip
    return Endpoint(name=name, **(told | more))


def request_class(name: str = "interactive", **more: Any) -> RequestClass:
    """A class with 400 ms to answer in."""
    return RequestClass(name=name, **({"slo_p95_ms": 400.0} | more))


def fleet(
    classes: Iterable[RequestClass] = (), endpoints: Iterable[Endpoint] = (), version: int = 1, demand_rps: float = 20.0
) -> Fleet:
    """Three regions of two endpoints and two origins; or what is given."""
    ends = tuple(endpoints) or tuple(endpoint(f"{region}-{z}", region) for region in REGIONS for z in "ab")
    kinds = tuple(classes) or (request_class(), request_class("batch", slo_p95_ms=5000.0, tier="sheddable"))
    country = {"eu": "DE", "us": "US"}
    return Fleet(
        version=version,
        services=(Service(name="chat", classes=kinds, default_class=kinds[0].name),),
        origins=tuple(
            Origin(name=name, jurisdiction=country[name], rtt_ms=rtt, demand_rps=demand_rps)
            for name, rtt in RTT_MS.items()
        ),
        endpoints=ends,
    )


def health(
    names: Iterable[str],
    made_at_s: float,
    down: Mapping[str, float] | None = None,
    p95_ms: float | None = None,
    source: str = "endpoint-metrics.v1/0",
    verdict: Verdict = "up",
) -> EndpointHealth:
    """All of `names` up, but for `down` (endpoint to the first error's time)."""
    gone, rows = down or {}, tuple(names)
    n = len(rows)
    return EndpointHealth(
        source=source,
        made_at_s=made_at_s,
        endpoint=rows,
        service=("chat",) * n,
        class_=("interactive",) * n,
        verdict=tuple("down" if name in gone else verdict for name in rows),
        reason=tuple("5 connect errors in a row" if name in gone else "" for name in rows),
        observations=(100 if p95_ms is not None else 0,) * n,
        rps=(10.0,) * n,
        p50_ms=(p95_ms,) * n,
        p95_ms=(p95_ms,) * n,
        p99_ms=(p95_ms,) * n,
        ttft_p95_ms=(None,) * n,
        in_flight=(None,) * n,
        queue=(None,) * n,
        age_s=(0.0,) * n,
        first_error_at_s=tuple(gone.get(name) for name in rows),
        last_ok_at_s=(None,) * n,
    )


def knowing(
    plan: Layout, health: HeardHealth | None = None, demand: HeardDemand | None = None, **more: Any
) -> Knowledge:
    """What a situation is made of, where little else was heard."""
    asked = demand or HeardDemand()
    return Knowledge(health or HeardHealth(), asked.rps(plan), asked.usual_rps(plan), **more)


def told(heard: HeardHealth | HeardDemand, record: EndpointHealth | Demand) -> bool:
    """Fold `record` as if the broker took it when it was made; whether somebody went down or came back."""
    if isinstance(heard, HeardHealth):
        assert isinstance(record, EndpointHealth)
        return heard.fold(record, record.made_at_s)
    assert isinstance(record, Demand)
    heard.fold(record, record.at_s + record.slot_s)
    return False


def demand(at_s: float, arrived: Mapping[tuple[str, str], int], source: str = "arrivals.v1/0") -> Demand:
    """One second's arrivals by (origin, class)."""
    keys, n = list(arrived), len(arrived)
    return Demand(
        source=source,
        at_s=at_s,
        service=("chat",) * n,
        origin=tuple(origin for origin, _ in keys),
        class_=tuple(class_ for _, class_ in keys),
        arrived=tuple(arrived.values()),
        admitted=tuple(arrived.values()),
        shed=(0,) * n,
        failed=(0,) * n,
    )
