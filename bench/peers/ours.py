"""Ours: a real worker with the real carrier, edge and Health stage, restored from the topic's beginning.

`ours.py BOOTSTRAP TOPIC OBSERVATIONS RECORDS on|off`; runs in our own environment, not in the peers'. Off is for the
comparison only: no ranges in the decoder, no look at the clock, the fleet or the names.

The topic is read as a restore, which folds as it does live but says nothing until it has caught up: a tick would let
expire what an earlier consumer of the same run took its time for.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Iterable
from functools import partial
from typing import Any, get_type_hints

import msgspec
import numpy as np
from meter import Meter, asked

from streams.contract import topics
from streams.contract.records import EndpointMetrics
from streams.health import Health, HealthState
from streams.runtime import runner
from streams.runtime.batch import Batch
from streams.runtime.edge import Edge
from streams.runtime.step import Earliest, Heard, Reads, Refusal, Step
from streams.runtime.worker import carried, spare_collector
from streams.settings import load

DEADLINE_S = 120.0


class MeteredEdge(Edge[Any]):
    """The edge; the clock starts with the first records at hand."""

    def __init__(self, topic: topics.Topic, meter: Meter) -> None:
        super().__init__(topic)
        self.metrics, self.meter = topic is topics.ENDPOINT_METRICS, meter

    def open(self, batch: Batch) -> tuple[Heard[Any], list[Refusal]]:
        if self.metrics:
            self.meter.start()
        return super().open(batch)


class TrustingEdge(MeteredEdge):
    """An edge that takes what comes, as long as it has the right types."""

    def __init__(self, topic: topics.Topic, meter: Meter) -> None:
        super().__init__(topic, meter)
        if self.metrics:
            plain = _without_ranges(EndpointMetrics)
            self._json, self._msgpack = msgspec.json.Decoder(plain), msgspec.msgpack.Decoder(plain)

    def _ahead(self, heard: Heard[Any]) -> list[Refusal]:
        return []


class MeteredHealth(Health):
    """The stage; it tells when the last record is folded."""

    def __init__(self, meter: Meter, records: int) -> None:
        super().__init__()
        self.meter, self.left, self.done = meter, records, asyncio.Event()
        self.p95_ms: dict[str, float] = {}

    def fold(self, state: HealthState, heard: Heard[Any]) -> HealthState:
        state = super().fold(state, heard)
        if heard.topic == topics.ENDPOINT_METRICS.name:
            self.left -= len(heard.records)
            if self.left <= 0 and not self.done.is_set():
                self.meter.add(int(state.latency.counts().sum()))
                self.p95_ms = _p95_ms(state)  # now: the first tick lets all of it expire
                self.done.set()
        return state


class TrustingHealth(MeteredHealth):
    """The stage without its look at names and fleet."""

    def screen(self, state: HealthState, heard: Heard[Any]) -> Iterable[Refusal]:
        return ()


def _without_ranges(record: type[msgspec.Struct]) -> type[msgspec.Struct]:
    plain = get_type_hints(record)
    fields = [(f.name, plain[f.name], f) for f in msgspec.structs.fields(record)]
    made = [(name, kind, msgspec.field(name=f.encode_name, **_default(f))) for name, kind, f in fields]
    return msgspec.defstruct("Plain", made, kw_only=True, frozen=True, gc=False)


def _default(field: msgspec.structs.FieldInfo) -> dict[str, Any]:
    if field.default is not msgspec.NODEFAULT:
        return {"default": field.default}
    return {} if field.default_factory is msgspec.NODEFAULT else {"default_factory": field.default_factory}


async def read_all(bootstrap: str, prefix: str, meter: Meter, records: int, validated: bool) -> dict[str, float]:
    """The p95 by endpoint of a worker that has folded all records."""
    runner.Edge = partial(MeteredEdge if validated else TrustingEdge, meter=meter)  # type: ignore[misc,assignment]
    health = (MeteredHealth if validated else TrustingHealth)(meter, records)
    step = Step(
        name="health",
        reads=(Reads(topics.ENDPOINT_METRICS, Earliest()), Reads(topics.FLEET, Earliest(), everyone=True)),
        writes=(topics.ENDPOINT_HEALTH, topics.DEAD_LETTERS),
        stage=health,
    )
    settings = load(bootstrap_servers=bootstrap, topic_prefix=prefix, wide_partitions=1)
    async with carried((step,), settings, f"streams-{'on' if validated else 'off'}"), asyncio.timeout(DEADLINE_S):
        spare_collector()
        await health.done.wait()
    return health.p95_ms


def _p95_ms(state: HealthState) -> dict[str, float]:
    rows = state.rows.taken()
    values = state.latency.quantiles((0.95,), np.array([row for row, _ in rows], np.intp))[:, 0]
    return {name[0]: round(float(value), 3) for (_, name), value in zip(rows, values, strict=True)}


def main() -> None:
    """Read, and say what it took."""
    bootstrap, topic, expected = asked()
    logging.basicConfig(level=logging.WARNING)
    meter, records, validated = Meter(expected), int(sys.argv[4]), sys.argv[5] == "on"
    prefix = topic.removesuffix(f".{topics.ENDPOINT_METRICS.name}")
    meter.say(asyncio.run(read_all(bootstrap, prefix, meter, records, validated)))


if __name__ == "__main__":
    main()
