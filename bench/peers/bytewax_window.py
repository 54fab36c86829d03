"""Bytewax: `fold_window` over a tumbling second per endpoint, folded into the rolling p95 as it closes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import bytewax.operators as op
import msgspec
from bytewax.connectors.kafka import KafkaSource, KafkaSourceMessage
from bytewax.dataflow import Dataflow
from bytewax.operators.windowing import EventClock, TumblingWindower, fold_window
from bytewax.testing import TestingSink, run_main
from meter import Meter, Rolling, asked

LATENESS = timedelta(seconds=5)
Heard = tuple[datetime, float]


class Seen(msgspec.Struct, gc=False):
    """What a p95 needs of a record."""

    endpoint: str
    at_s: float
    latency_ms: tuple[float, ...]


def main() -> None:
    """Run the dataflow to the end of the topic, where what is still open closes."""
    bootstrap, topic, expected = asked()
    meter, rolling, decode = Meter(expected), Rolling(), msgspec.json.Decoder(list[Seen]).decode

    def opened(messages: list[KafkaSourceMessage]) -> list[tuple[str, Heard]]:
        meter.start()
        heard = decode(b"[" + b",".join([m.value for m in messages]) + b"]")
        return [(r.endpoint, (datetime.fromtimestamp(r.at_s, UTC), r.latency_ms[0])) for r in heard]

    def folded(values: list[Heard], new: Heard) -> list[Heard]:
        values.append(new)
        return values

    def closed(window: tuple[str, tuple[int, list[Heard]]]) -> list[Any]:
        endpoint, (second, values) = window
        rolling.add([endpoint] * len(values), [start_s + second] * len(values), [value for _, value in values])
        meter.add(len(values))
        return []

    start = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=1)
    start_s = start.timestamp()
    hurried = {"fetch.queue.backoff.ms": "5"}
    source = KafkaSource([bootstrap], [topic], tail=False, batch_size=10_000, add_config=hurried)
    flow = Dataflow("p95")
    heard = op.flat_map_batch("open", op.input("topic", flow, source), opened)
    clock: EventClock[Heard] = EventClock(lambda h: h[0], wait_for_system_duration=LATENESS)
    windower = TumblingWindower(length=timedelta(seconds=1), align_to=start)
    windows = fold_window("second", heard, clock, windower, list, folded, list.__add__, ordered=False)
    op.output("nowhere", op.flat_map("close", windows.down, closed), TestingSink([]))
    run_main(flow)
    meter.say(rolling.said())


if __name__ == "__main__":
    main()
