"""The headers of what we send."""

from __future__ import annotations

from streams.runtime import cloudevents


def test_all_that_cloudevents_asks_for_is_there_and_printable() -> None:
    made = cloudevents.headers("fleet.v1", source="cli", event_id="default/7", now_s=1_763_938_800.25)
    assert dict(made) == {
        "content-type": b"application/json",
        "ce_specversion": b"1.0",
        "ce_type": b"tradewind.fleet.v1",
        "ce_source": b"cli",
        "ce_id": b"default/7",
        "ce_time": b"2025-11-23T23:00:00.250+00:00",
    }


def test_each_call_makes_a_list_of_its_own() -> None:
    said = {"source": "a", "event_id": "b", "now_s": 0.0}
    cloudevents.headers("x", **said).append(("tw-sig", b"x"))  # type: ignore[arg-type]
    assert len(cloudevents.headers("x", **said)) == 6  # type: ignore[arg-type]
