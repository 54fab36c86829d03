"""The limit of this language: confluent-kafka, msgspec and numpy, with nothing between them and nothing checked."""

from __future__ import annotations

import uuid

import msgspec
from confluent_kafka import Consumer
from meter import Meter, Rolling, asked


class Seen(msgspec.Struct, gc=False):
    """What a p95 needs of a record."""

    endpoint: str
    at_s: float
    latency_ms: tuple[float, ...]


def main() -> None:
    """One decode and one update a slice; with slices of 2,000 records, whose memory stays in cache, it is quickest."""
    bootstrap, topic, expected = asked()
    consumer = Consumer({
        "bootstrap.servers": bootstrap, "group.id": f"limit-{uuid.uuid4()}", "auto.offset.reset": "earliest",
        "enable.auto.commit": False, "fetch.queue.backoff.ms": 5,
    })  # fmt: skip
    consumer.subscribe([topic])
    decode = msgspec.json.Decoder(list[Seen]).decode
    meter, rolling, done = Meter(expected), Rolling(), False
    while not done:
        messages = consumer.consume(2_000, 0.05)
        if not messages:
            continue
        meter.start()
        heard = decode(b"[" + b",".join([m.value() for m in messages]) + b"]")
        rolling.add([r.endpoint for r in heard], [r.at_s for r in heard], [r.latency_ms[0] for r in heard])
        done = meter.add(len(heard))
    meter.say(rolling.said())
    consumer.close()


if __name__ == "__main__":
    main()
