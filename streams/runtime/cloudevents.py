"""The headers of what we send: CloudEvents 1.0 in binary mode over Kafka, one place for all who send."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

JSON: Final = b"application/json"


def headers(topic: str, *, source: str, event_id: str, now_s: float) -> list[tuple[str, bytes]]:
    """Headers of a JSON value for `topic` (its name in the contract, without prefix), made at `now_s` (unix seconds).

    (`source`, `event_id`) names the event: it is to differ from that of every other. A new list, to be added to.

    >>> headers("fleet.v1", source="cli", event_id="default/7", now_s=0.5)[-1]
    ('ce_time', b'1970-01-01T00:00:00.500+00:00')
    """
    return [
        ("content-type", JSON),
        ("ce_specversion", b"1.0"),
        ("ce_type", f"tradewind.{topic}".encode()),
        ("ce_source", source.encode()),
        ("ce_id", event_id.encode()),
        ("ce_time", datetime.fromtimestamp(now_s, UTC).isoformat(timespec="milliseconds").encode()),
    ]
