"""What the loop's bench reports of a silence."""

from __future__ import annotations

import msgspec

from bench.loop import Onlooker
from streams.contract import topics
from streams.contract.records import EndpointHealth


def nothing_of(source: str) -> bytes:
    columns = dict.fromkeys(EndpointHealth.__struct_fields__[4:], ())
    optional = {"errors", "late", "duplicates"}
    kept = {name: column for name, column in columns.items() if name not in optional}
    return msgspec.json.encode(EndpointHealth(source=source, made_at_s=1.0, **kept))  # type: ignore[arg-type]


def test_a_source_that_never_spoke_again_is_the_longest_silence() -> None:
    seat = Onlooker()
    for source, at_s in (("m/0", 0.0), ("m/1", 0.0), ("m/0", 3.0), ("m/0", 4.0)):
        seat.see(topics.ENDPOINT_HEALTH.full("tradewind"), nothing_of(source), at_s)
    assert seat.longest_gap_s(5.0) == 5.0, "of m/1, which is silent still"
    seat.see(topics.ENDPOINT_HEALTH.full("tradewind"), nothing_of("m/1"), 5.5)
    assert seat.longest_gap_s(6.0) == 5.5
    seat.forget_gaps()
    assert seat.longest_gap_s(6.0) == 2.0, "of m/0 since 4 s"
