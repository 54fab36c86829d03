"""examples/otel_bridge.py on bytes that a collector's Kafka exporter wrote (0.155.0, otlp_json, Python SDK 1.45.2)."""

from __future__ import annotations

import importlib.util
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from streams.contract.records import EndpointMetrics
from streams.health_odd import contradictions
from streams.sketch import value_of

REPO = Path(__file__).parents[2]
RECORDED = (REPO / "tests/golden/otlp_metrics.json").read_bytes()


@pytest.fixture(scope="module")
def bridge() -> Any:
    spec = importlib.util.spec_from_file_location("otel_bridge", REPO / "examples/otel_bridge.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def changed(damage: Callable[[dict[str, Any]], object]) -> bytes:
    """The recorded message after `damage` to its one metric."""
    message = json.loads(RECORDED)
    damage(message["resourceMetrics"][0]["scopeMetrics"][0]["metrics"][0])
    return json.dumps(message).encode()


def test_a_recorded_message_becomes_good_answers_and_failures(bridge: Any) -> None:
    skipped: Counter[str] = Counter()
    good, bad = bridge.parse(RECORDED, "otel:otlp_metrics/0", 7, skipped)
    assert (good.endpoint, good.service, good.class_, good.vantage) == ("eu-west-a", "chat", "interactive", "gateway")
    assert (good.requests, good.errors, sum(good.latency.count)) == (11, {}, 11)
    assert (bad.requests, bad.errors, bad.latency) == (1, {"http_5xx": 1}, None)
    assert (good.observer, good.boot, good.seq, bad.seq) == ("otel:otlp_metrics/0", 7, 0, 1)
    assert good.at_s == pytest.approx(1795487719.658, abs=0.001)
    assert good.interval_s == pytest.approx(1.0, abs=0.01)
    assert skipped == {"no tradewind.endpoint or tradewind.service": 1}


def test_what_it_makes_keeps_the_contract(bridge: Any) -> None:
    for made in bridge.parse(RECORDED, "otel:otlp_metrics/0", 7, Counter()):
        assert msgspec.json.decode(msgspec.json.encode(made), type=EndpointMetrics) == made
        held = {"latency": ([made.latency_ms], [made.latency])}
        assert not contradictions(
            at_s=[made.at_s], requests=[made.requests], errors=[made.errors], values=held, times_s={}
        )


def test_the_same_message_read_again_makes_the_same_records(bridge: Any) -> None:
    assert bridge.parse(RECORDED, "o", 7, Counter()) == bridge.parse(RECORDED, "o", 7, Counter())


def test_no_count_is_lost_and_each_stays_between_its_bounds(bridge: Any) -> None:
    bounds, counts = [5.0, 10.0, 100.0, 2500.0], [3, 7, 1000, 40, 2]
    made = bridge.buckets(bounds, counts)
    assert sum(made.count) == sum(counts)
    assert not made.exact
    values = value_of(made.index, made.gamma)
    slack = made.gamma
    for low, high, count in ((5, 10, 7), (10, 100, 1000)):
        inside = sum(n for v, n in zip(values, made.count, strict=True) if low / slack < v <= high * slack)
        assert inside >= count
    assert values.max() <= bounds[-1] * slack


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (lambda m: m["histogram"].update(aggregationTemporality=2), "cumulative"),
        (lambda m: m.update(unit="By"), "unit 'By'"),
        (lambda m: m.update(name="http.client.open_connections"), "not a histogram of request durations"),
        (lambda m: m.update(exponentialHistogram=m.pop("histogram")), "not a histogram of request durations"),
    ],
)
def test_what_it_does_not_take_is_counted_with_the_reason(
    bridge: Any, damage: Callable[[dict[str, Any]], object], why: str
) -> None:
    skipped: Counter[str] = Counter()
    assert bridge.parse(changed(damage), "o", 1, skipped) == []
    assert [why in reason for reason in skipped] == [True]


@pytest.mark.parametrize("value", [b"", b"\xff\x00", b"[]", b'{"resourceMetrics": 3}'])
def test_bytes_that_are_no_otlp_are_counted_and_harm_nothing(bridge: Any, value: bytes) -> None:
    skipped: Counter[str] = Counter()
    assert bridge.parse(value, "o", 1, skipped) == []
    assert skipped == {"unreadable": 1}


@pytest.mark.parametrize(
    ("about", "kind"),
    [
        ({"http.response.status_code": "200"}, None),
        ({"http.response.status_code": "404"}, "client_4xx"),
        ({"http.response.status_code": "429"}, "http_429"),
        ({"http.response.status_code": "503"}, "http_5xx"),
        ({"error.type": "ConnectionError"}, "connect"),
    ],
)
def test_status_and_error_type_say_the_kind_of_failure(bridge: Any, about: dict[str, str], kind: str | None) -> None:
    assert bridge.failure(about) == kind


def test_a_servers_duration_is_the_endpoints_own_view(bridge: Any) -> None:
    good, _ = bridge.parse(changed(lambda m: m.update(name="http.server.request.duration")), "o", 1, Counter())
    assert good.vantage == "endpoint"
