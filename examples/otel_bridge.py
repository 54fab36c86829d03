"""OpenTelemetry becomes endpoint metrics: `python examples/otel_bridge.py [HOST:PORT [PREFIX [TOPIC]]]`.

    collector, kafka exporter, otlp_json ─► otlp_metrics ─► this ─► tradewind.endpoint-metrics.v1

Taken are histograms of request durations, as deltas, that say with `tradewind.endpoint` and `tradewind.service` (and
`tradewind.class`), on the resource or the data point, whom they are about. A client's duration is a gateway's view and
makes the p95; a server's is the endpoint's own view, which lacks the way to it and is kept apart. The rest is counted.
"""

import asyncio
import sys
from collections import Counter
from math import ceil, log

import msgspec
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from streams.contract.records import Buckets, EndpointMetrics

VANTAGE = {"http.client.request.duration": "gateway", "http.server.request.duration": "endpoint"}
MS = {"s": 1000.0, "ms": 1.0}
DELTA = (1, "AGGREGATION_TEMPORALITY_DELTA")
GAMMA = 1.05


class Attribute(msgspec.Struct, frozen=True):
    """{"key": "server.port", "value": {"intValue": "443"}}"""

    key: str
    value: dict[str, object] = {}


class Point(msgspec.Struct, rename="camel"):
    """One interval of one set of attributes; 64-bit integers come as text."""

    time_unix_nano: int
    start_time_unix_nano: int = 0
    count: int = 0
    bucket_counts: list[int] = []
    explicit_bounds: list[float] = []
    attributes: list[Attribute] = []


class Points(msgspec.Struct, rename="camel"):
    """The data points of a histogram."""

    aggregation_temporality: int | str = 0
    data_points: list[Point] = []


class Metric(msgspec.Struct):
    """One instrument; other kinds than histograms have no `histogram`."""

    name: str
    unit: str = ""
    histogram: Points | None = None


class Scope(msgspec.Struct):
    """What one library measured."""

    metrics: list[Metric] = []


class Resource(msgspec.Struct, frozen=True):
    """Who measured."""

    attributes: list[Attribute] = []


class ResourceMetrics(msgspec.Struct, rename="camel"):
    """All of one resource."""

    resource: Resource = Resource()
    scope_metrics: list[Scope] = []


class Request(msgspec.Struct, rename="camel"):
    """One message of the exporter: ExportMetricsServiceRequest."""

    resource_metrics: list[ResourceMetrics] = []


def parse(value: bytes, observer: str, boot: int, skipped: Counter[str]) -> list[EndpointMetrics]:
    """Records of one message. What is not taken is counted in `skipped` by reason.

    (observer, boot, seq) tells repeats from news: with the topic and partition as observer and the offset as boot, a
    message that is read again makes the same three.
    """
    try:
        request = msgspec.json.decode(value, type=Request, strict=False)
    except msgspec.MsgspecError:
        skipped["unreadable"] += 1
        return []
    found: list[EndpointMetrics] = []
    for whole in request.resource_metrics:
        for metric in (metric for scope in whole.scope_metrics for metric in scope.metrics):
            if why := unfit(metric):
                skipped[why] += 1
                continue
            for point in metric.histogram.data_points:
                about = known(whole.resource.attributes) | known(point.attributes)
                if "tradewind.endpoint" not in about or "tradewind.service" not in about:
                    skipped["no tradewind.endpoint or tradewind.service"] += 1
                elif point.count:
                    found.append(record(metric, point, about, observer, boot, len(found)))
    return found


def unfit(metric: Metric) -> str | None:
    """Why a metric is not taken."""
    if metric.name not in VANTAGE or metric.histogram is None:
        return f"{metric.name}: not a histogram of request durations"
    if metric.unit not in MS:
        return f"{metric.name}: unit {metric.unit!r}"
    if metric.histogram.aggregation_temporality not in DELTA:
        return f"{metric.name}: cumulative; put the processor cumulativetodelta before the exporter"
    return None


def known(attributes: list[Attribute]) -> dict[str, str]:
    """Attributes as plain text."""
    return {a.key: str(value) for a in attributes for value in a.value.values()}


def record(metric: Metric, point: Point, about: dict[str, str], observer: str, boot: int, seq: int) -> EndpointMetrics:
    """One data point as a record; failures count as such and lend no latency."""
    kind = failure(about)
    scale = MS[metric.unit]
    return EndpointMetrics(
        endpoint=about["tradewind.endpoint"],
        service=about["tradewind.service"],
        class_=about.get("tradewind.class", "default"),
        observer=observer,
        vantage=VANTAGE[metric.name],
        boot=boot,
        seq=seq,
        at_s=point.time_unix_nano / 1e9,
        interval_s=max(0.0, (point.time_unix_nano - point.start_time_unix_nano) / 1e9),
        requests=point.count,
        errors={kind: point.count} if kind else {},
        latency=None if kind else buckets([bound * scale for bound in point.explicit_bounds], point.bucket_counts),
    )


def failure(about: dict[str, str]) -> str | None:
    """The kind of error that the attributes tell of."""
    status = int(about.get("http.response.status_code", 0))
    if status >= 500:
        return "http_5xx"
    if status >= 400:
        return "http_429" if status == 429 else "client_4xx"
    return "connect" if "error.type" in about else None


def buckets(bounds_ms: list[float], counts: list[int]) -> Buckets | None:
    """Counts between foreign bounds, spread evenly over ours, and marked as inexact.

    The first bucket is taken to begin at half its bound, the last to end where it begins.
    """
    if not bounds_ms:
        return None
    edges = [bounds_ms[0] / 2, *bounds_ms, bounds_ms[-1]]
    places = [ceil(log(max(edge, 0.1)) / log(GAMMA)) for edge in edges]
    spread: Counter[int] = Counter()
    for low, high, count in zip(places, places[1:], counts, strict=False):
        first, width = min(low + 1, high), max(1, high - low)
        for i in range(width):
            spread[first + i] += count * (i + 1) // width - count * i // width
    held = sorted((index, count) for index, count in spread.items() if count)
    return Buckets(gamma=GAMMA, index=tuple(i for i, _ in held), count=tuple(n for _, n in held), exact=False)


async def main(bootstrap: str = "127.0.0.1:19092", prefix: str = "tradewind", topic: str = "otlp_metrics") -> None:
    """Bridge until stopped. What was read is committed when Kafka has taken what was made of it."""
    consumer = AIOKafkaConsumer(
        topic,
        bootstrap_servers=bootstrap,
        group_id=f"{prefix}-otel-bridge",
        enable_auto_commit=False,
        auto_offset_reset="earliest",
    )
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, linger_ms=5, acks="all", enable_idempotence=True)
    skipped: Counter[str] = Counter()
    async with consumer, producer:
        while True:
            for place, messages in (await consumer.getmany(timeout_ms=500)).items():
                before = set(skipped)
                for message in messages:
                    observer = f"otel:{place.topic}/{place.partition}"
                    for made in parse(message.value or b"", observer, message.offset, skipped):
                        await producer.send(
                            f"{prefix}.endpoint-metrics.v1",
                            msgspec.json.encode(made),
                            key=made.endpoint.encode(),
                            headers=[("content-type", b"application/json")],
                        )
                await producer.flush()
                await consumer.commit({place: messages[-1].offset + 1})
                for why in set(skipped) - before:
                    print(f"skipped: {why}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
