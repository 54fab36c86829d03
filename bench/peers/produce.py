"""The bench's topics: the same observations as records of one (JSON), and as records of 100 (JSON and msgpack).

`produce.py BOOTSTRAP OBSERVATIONS FORM TOPIC`, FORM one of one, json, msgpack. Event time is 50 s that end now (20,000
observations a second for a million), so that nothing is late and nothing is ahead of the broker's clock. The last line
of the output says what was sent: {records, bytes, p95_ms: exact, by endpoint}.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from itertools import pairwise

import msgspec
import numpy as np
from confluent_kafka import Producer

ENDPOINTS, OBSERVERS, TOGETHER = 200, 4, 100
SPAN_S = 50.0
BOOT = 1
SETTINGS = {"linger.ms": 5, "queue.buffering.max.messages": 500_000, "acks": "all", "compression.type": "none"}


class Observations:
    """`n` latencies of 200 endpoints in the order of their time; the same ones for the same `n`."""

    def __init__(self, n: int, end_s: float) -> None:
        rng = np.random.default_rng(7)
        typical_ms = rng.lognormal(5, 0.7, ENDPOINTS)
        # each endpoint is met once in every 200: records of 100 hold what an endpoint answered within a second
        self.endpoint = np.concatenate([rng.permutation(ENDPOINTS) for _ in range(-(-n // ENDPOINTS))])[:n]
        self.value = np.round(typical_ms[self.endpoint] * rng.lognormal(0, 0.4, n), 3)
        self.at_s = np.round(end_s - SPAN_S * (1 - np.arange(1, n + 1) / n), 6)

    def p95_ms(self) -> dict[str, float]:
        """The exact p95 of all values by endpoint."""
        by_endpoint = [self.value[self.endpoint == e] for e in range(ENDPOINTS)]
        return {
            name(e): float(np.quantile(v, 0.95, method="inverted_cdf")) for e, v in enumerate(by_endpoint) if len(v)
        }


def name(endpoint: int) -> str:
    """Its name in records."""
    return f"eu-west-1-h100-{endpoint:03d}"


def record(i: int, endpoint: int, at_s: float, values: list[float]) -> dict[str, object]:
    """The `i`-th record: a plain endpoint-metrics value."""
    return {
        "endpoint": name(endpoint), "service": "chat", "class": "interactive", "observer": f"gateway-{i % OBSERVERS}",
        "vantage": "gateway", "boot": BOOT, "seq": i // OBSERVERS, "at_s": at_s, "requests": len(values),
        "latency_ms": values,
    }  # fmt: skip


def one_by_one(said: Observations) -> Iterator[dict[str, object]]:
    """A record for each observation."""
    rows = zip(said.endpoint.tolist(), said.at_s.tolist(), said.value.tolist(), strict=True)
    for i, (endpoint, at_s, value) in enumerate(rows):
        yield record(i, endpoint, at_s, [value])


def together(said: Observations) -> Iterator[dict[str, object]]:
    """A record for every 100 observations of an endpoint (fewer at the end), dated as the last of them."""
    i, block = 0, ENDPOINTS * TOGETHER  # in which each endpoint is met 100 times
    for start in range(0, len(said.value), block):
        part = slice(start, start + block)
        order = np.argsort(said.endpoint[part], kind="stable")
        endpoints, at_s, values = said.endpoint[part][order], said.at_s[part][order], said.value[part][order]
        cuts = [0, *(np.flatnonzero(np.diff(endpoints)) + 1).tolist(), len(order)]
        spans = sorted(pairwise(cuts), key=lambda span: at_s[span[1] - 1])
        for first, after in spans:
            yield record(i, int(endpoints[first]), float(at_s[after - 1]), values[first:after].tolist())
            i += 1


FORMS = {
    "one": (one_by_one, msgspec.json.Encoder().encode, []),
    "json": (together, msgspec.json.Encoder().encode, []),
    "msgpack": (together, msgspec.msgpack.Encoder().encode, [("content-type", b"application/msgpack")]),
}


def main() -> None:
    """Send, wait until the broker has all of it, and say what was sent."""
    bootstrap, n, form, topic = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]
    shape, encode, headers = FORMS[form]
    said, failed = Observations(n, time.time()), []

    def delivered(error: object, _message: object) -> None:
        if error:
            failed.append(error)

    producer = Producer({**SETTINGS, "bootstrap.servers": bootstrap})
    records = size = 0
    for each in shape(said):
        value = encode(each)
        records, size = records + 1, size + len(value)
        while True:
            try:
                producer.produce(topic, value, str(each["endpoint"]), headers=headers, on_delivery=delivered)
                break
            except BufferError:
                producer.poll(0.05)
        if records % 10_000 == 0:
            producer.poll(0)
    if producer.flush(60) or failed:
        sys.exit(f"the broker did not take all records of {topic}: {failed[:1]}")
    print(json.dumps({"records": records, "bytes": size, "p95_ms": said.p95_ms()}))


if __name__ == "__main__":
    main()
