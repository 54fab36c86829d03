"""Quix Streams: a tumbling window of one second per endpoint, folded into the rolling p95 as it closes.

Without changelog topics, which would cost it more; `reduce` and not `collect`, which was slower here.
"""

from __future__ import annotations

import tempfile
import uuid
from typing import Any

from meter import Meter, Rolling, asked
from quixstreams import Application

LATENESS_MS = 5000


def main() -> None:
    """Run the application until every record has gone through its window."""
    bootstrap, topic, expected = asked()
    meter, rolling = Meter(expected), Rolling()
    with tempfile.TemporaryDirectory() as folder:
        app = Application(
            bootstrap, consumer_group=f"quix-{uuid.uuid4()}", auto_offset_reset="earliest", state_dir=folder,
            use_changelog_topics=False, loglevel="ERROR",
            consumer_extra_config={"fetch.queue.backoff.ms": 5}, request_timeout=20,
        )  # fmt: skip
        seen = app.topic(topic, value_deserializer="json", timestamp_extractor=lambda v, *_: int(v["at_s"] * 1000))

        def heard(value: dict[str, Any]) -> float:
            meter.start()
            if meter.add(1):
                app.stop()
            return value["latency_ms"][0]

        def added(values: list[float], value: float) -> list[float]:
            values.append(value)
            return values

        def closed(window: dict[str, Any], key: bytes, *_: Any) -> None:
            values = window["value"]
            rolling.add([key.decode()] * len(values), [window["start"] / 1000] * len(values), values)

        def late(*_: Any) -> bool:
            meter.seen -= 1  # it was left out, and the bench will say so
            return False

        windows = app.dataframe(seen).apply(heard).tumbling_window(1000, grace_ms=LATENESS_MS, on_late=late)
        windows.reduce(added, lambda value: [value]).final().update(closed, metadata=True)
        app.run()
        meter.say(rolling.said())


if __name__ == "__main__":
    main()
