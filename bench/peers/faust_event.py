"""Stock Faust, one event a record: an agent that iterates its stream, as the documentation shows it."""

from __future__ import annotations

import os
import sys
import uuid
from pathlib import Path

import faust
from meter import Meter, Rolling, asked


class Seen(faust.Record, serializer="json"):
    """What a p95 needs of a record."""

    endpoint: str
    at_s: float
    latency_ms: list[float]


def main() -> None:
    """Run a worker until the agent has seen all records."""
    bootstrap, topic, expected = asked()
    app = faust.App(
        f"bench-{uuid.uuid4()}", broker=f"kafka://{bootstrap}", store="memory://", web_enabled=False,
        topic_disable_leader=True, consumer_auto_offset_reset="earliest", topic_allow_declare=False,
        datadir=Path(sys.prefix) / "faust",
    )  # fmt: skip
    meter, rolling = Meter(expected), Rolling()

    @app.agent(app.topic(topic, value_type=Seen))
    async def p95(seen: faust.Stream[Seen]) -> None:
        async for record in seen:
            meter.start()
            rolling.one(record.endpoint, record.at_s, record.latency_ms[0])
            if meter.add(1):
                rolling.flush()
                meter.say(rolling.said())
                os._exit(0)  # leaving the group in order would only make the bench longer

    faust.Worker(app, loglevel="warning", quiet=True, redirect_stdouts=False).execute_from_commandline()


if __name__ == "__main__":
    main()
