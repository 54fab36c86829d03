"""The edge: what is refused, where it stood, why; and nothing else is lost."""

import math
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from streams.contract import topics
from streams.contract.records import EndpointMetrics, SpotPrice
from streams.contract.topics import MAX_VALUE_BYTES
from streams.runtime.batch import Batch, Headers, Message
from streams.runtime.edge import MAX_AHEAD_S, Edge
from streams.runtime.step import Heard, Refusal

NOW_S = 1_000_000.0
PLAIN: dict[str, Any] = {
    "endpoint": "eu-1", "service": "chat", "class": "a", "observer": "gw", "boot": 1, "seq": 1, "at_s": NOW_S,
}  # fmt: skip
GOOD = msgspec.json.encode(PLAIN)
BINARY: Headers = (("ce_id", b"1"), ("content-type", b"application/msgpack"))


def json(**changes: Any) -> bytes:
    return msgspec.json.encode({**PLAIN, **changes})


def msgpack(**changes: Any) -> bytes:
    return msgspec.msgpack.encode({**PLAIN, **changes})


def opened(
    *values: bytes | None, headers: Sequence[Headers] | None = None, stamp_s: float = NOW_S
) -> tuple[Heard[EndpointMetrics], list[Refusal]]:
    given = headers or [()] * len(values)
    messages = [
        Message(100 + i, int(stamp_s * 1000), b"eu-1", value, said)
        for i, (value, said) in enumerate(zip(values, given, strict=True))
    ]
    edge: Edge[EndpointMetrics] = Edge(topics.ENDPOINT_METRICS)
    return edge.open(Batch("endpoint-metrics.v1", 0, messages))


def only_refusal(bad: bytes, headers: Headers = ()) -> Refusal:
    """The refusal of one bad value among good ones, none of which is lost."""
    heard, refused = opened(json(seq=1), bad, json(seq=3), headers=[(), headers, ()])
    assert heard.positions.tolist() == [0, 2]
    assert [m.seq for m in heard.records] == [1, 3]
    (refusal,) = refused
    assert refusal.position == 1
    return refusal


def test_a_good_batch_passes_whole() -> None:
    heard, refused = opened(json(seq=1), json(seq=2))
    assert [m.seq for m in heard.records] == [1, 2]
    assert heard.positions.tolist() == [0, 1]
    assert heard.stamps_s.tolist() == [NOW_S, NOW_S]
    assert refused == []


def test_an_empty_batch_is_nothing() -> None:
    heard, refused = opened()
    assert (len(heard.records), len(heard.positions), refused) == (0, 0, [])


BAD = [
    ("seq", "-1", ">= 0", json(seq=-1)),
    ("seq", "True", "got `bool`", json(seq=True)),
    ("seq", "1.5", "got `float`", json(seq=1.5)),
    ("requests", "10000001", "<= 10000000", json(requests=10_000_001)),
    ("latency_ms[1]", "-3", ">= 0.0", json(latency_ms=[1, -3])),
    ("latency.index[1]", "99999", "<= 10000", json(latency={"gamma": 1.02, "index": [1, 99999], "count": [1, 1]})),
    ("latency", "{'gamma'", "count has 1 rows", json(latency={"gamma": 1.02, "index": [1, 2], "count": [1]})),
    ("latency", "{'gamma'", "each bucket once", json(latency={"gamma": 1.02, "index": [5, 5], "count": [1, 1]})),
    ("vantage", "'moon'", "Invalid enum value 'moon'", json(vantage="moon")),
    ("errors", "{'tired': 1}", "Invalid enum value 'tired'", json(errors={"tired": 1})),
    ("errors[...]", "{'stall': -1}", ">= 0", json(errors={"stall": -1})),
    ("endpoint", "''", "length >= 1", json(endpoint="")),
    ("endpoint", "None", "got `null`", json(endpoint=None)),
    ("kv_cache_share", "1.5", "<= 1.0", json(kv_cache_share=1.5)),
    ("at_s", "'noon'", "got `str`", json(at_s="noon")),
    ("at_s", "1000000", "out of range", GOOD.replace(b"1000000.0", b"1e999")),
    ("seq", "b'{", "out of range", json().replace(b'"seq":1', b'"seq":' + b"9" * 5000)),
    ("endpoint", "b'{\"x\":1}'", "missing required field", b'{"x":1}'),
    ("value", "b''", "truncated", b""),
    ("value", "b'{'", "truncated", b"{"),
    ("value", "None", "got `null`", b"null"),
    ("value", "[]", "got `array`", b"[]"),
    ("value", "b'{", "trailing characters", GOOD + b"\x00"),
    ("value", "b'{", "trailing characters", GOOD + GOOD),
    ("value", "b'\\xef", "malformed", b"\xef\xbb\xbf" + GOOD),
    ("value", "b'{", "utf-8", GOOD.replace(b"eu-1", b"eu\xff1")),
    ("value", "b'{", "surrogate", GOOD.replace(b"eu-1", b"\\ud800")),
    ("value", "b'{", "nested too deeply", GOOD[:-1] + b',"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    ("value", "b'{", "NaN", GOOD.replace(b"1000000.0", b"NaN")),
    ("value", "b'\\x87", "malformed", msgpack()),
]


@pytest.mark.parametrize(("field", "value", "reason", "bad"), BAD, ids=[f"{f}: {w}"[:60] for f, _, w, _ in BAD])
def test_a_refusal_names_field_value_and_reason(field: str, value: str, reason: str, bad: bytes) -> None:
    refusal = only_refusal(bad)
    assert refusal.field == field
    if reason != "NaN" and reason != "out of range":
        assert reason in refusal.reason
        assert refusal.value.startswith(value)
    assert len(refusal.value) < 200


BAD_BINARY = [
    ("at_s", "nan", msgpack(at_s=math.nan)),
    ("at_s", "inf", msgpack(at_s=math.inf)),
    ("latency_ms[0]", "nan", msgpack(latency_ms=[math.nan])),
    ("latency_ms[0]", "-inf", msgpack(latency_ms=[-math.inf])),
    ("latency.gamma", "nan", msgpack(latency={"gamma": math.nan, "index": [], "count": []})),
    ("seq", "'1'", msgpack(seq="1")),
    ("seq", "18446744073709551615", msgpack(seq=2**64 - 1)),
    ("value", "b'\\x81", b"\x81\xa1x" + b"\x91" * 100_000 + b"\x01"),
    ("value", "b'\\x87", msgpack()[:-1]),
    ("value", "b'\\xc1", b"\xc1"),
    ("value", "b'\\x87", msgpack() + b"\x00"),
]


@pytest.mark.parametrize(("field", "value", "bad"), BAD_BINARY, ids=[f"{f} {v}" for f, v, _ in BAD_BINARY])
def test_what_is_bad_in_msgpack_is_refused_too(field: str, value: str, bad: bytes) -> None:
    refusal = only_refusal(bad, BINARY)
    assert refusal.field == field
    assert refusal.value.startswith(value)
    assert refusal.reason


def test_msgpack_is_read_where_the_header_says_so() -> None:
    heard, refused = opened(json(seq=1), msgpack(seq=2), headers=[(), BINARY])
    assert [m.seq for m in heard.records] == [1, 2]
    assert refused == []
    heard, refused = opened(msgpack(seq=1), msgpack(seq=2), headers=[BINARY, BINARY])
    assert [m.seq for m in heard.records] == [1, 2]
    assert refused == []


@pytest.mark.parametrize("beside", [json(seq=9), msgpack(seq=9)])
def test_whether_a_record_passes_does_not_depend_on_its_neighbours(beside: bytes) -> None:
    said = BINARY if beside[:1] != b"{" else ()
    for value, headers, passes in (
        (msgpack(), (), False),
        (msgpack(), BINARY, True),
        (json(), BINARY, True),
        (b" \n" + json(), BINARY, True),
        (json(seq=-1), BINARY, False),
    ):
        for order in ((value, beside), (beside, value), (value,)):
            heard, refused = opened(*order, headers=[headers if v is value else said for v in order])
            assert len(heard.records) == len(order) - (not passes)
            assert len(refused) == (not passes)


def test_a_value_that_is_too_long_is_refused_and_its_neighbours_are_not() -> None:
    fits = GOOD[:-1] + b',"x":"' + b"y" * (MAX_VALUE_BYTES - len(GOOD) - 7) + b'"}'
    assert len(fits) == MAX_VALUE_BYTES
    assert opened(fits)[1] == []
    refusal = only_refusal(fits[:-1] + b" }")
    assert refusal.field == "value"
    assert refusal.reason == f"{MAX_VALUE_BYTES + 1} bytes are more than the {MAX_VALUE_BYTES} allowed"


def test_tombstones_are_neither_records_nor_refusals() -> None:
    heard, refused = opened(json(seq=1), None, json(seq=3))
    assert heard.positions.tolist() == [0, 2]
    assert refused == []
    heard, refused = opened(None)
    assert (heard.records, refused) == ([], [])


def test_a_fast_clock_is_refused_and_a_slow_one_is_not() -> None:
    heard, refused = opened(
        json(at_s=NOW_S + MAX_AHEAD_S), json(at_s=NOW_S + MAX_AHEAD_S + 1), json(at_s=0), b"{}", json(at_s=NOW_S * 2)
    )
    assert heard.positions.tolist() == [0, 2]
    assert [(r.position, r.field) for r in refused] == [(3, "endpoint"), (1, "at_s"), (4, "at_s")]
    assert refused[1].reason.startswith("is 301 s ahead of the broker's clock")
    assert refused[1].value == str(NOW_S + MAX_AHEAD_S + 1)


SPLICES = [
    # two records in one value, and two values that make one: as many in sum as there are messages
    (GOOD + b"," + GOOD, b'{"x":[1', b"{}]," + GOOD[1:]),
    # the honest record between two thieves lies inside an unknown field of theirs
    (GOOD + b"," + GOOD, b'{"x":[1', json(seq=7), b'{}],"y":1,' + GOOD[1:]),
    (GOOD + b"," + GOOD + b"," + GOOD, b'{"x":[{}', json(seq=7), json(seq=7), b"{}]," + GOOD[1:]),
    (b'{"x":"', json(seq=7), b'{"}'),
    (GOOD[:-1], json(seq=7), b"{}"),
    (b"{" + GOOD, b"}"),
    (GOOD + b"]", b"[" + GOOD),
    (GOOD + b"\n", b"," + GOOD),
]


@pytest.mark.parametrize("values", SPLICES)
def test_no_value_can_lend_its_neighbour_half_a_record(values: tuple[bytes, ...]) -> None:
    def passes(value: bytes) -> bool:
        try:
            msgspec.json.decode(value, type=EndpointMetrics)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return False
        return True

    heard, refused = opened(*values)
    assert heard.positions.tolist() == [i for i, v in enumerate(values) if passes(v)]
    assert [r.position for r in refused] == [i for i, v in enumerate(values) if not passes(v)]
    assert all(m.seq == 7 for m, i in zip(heard.records, heard.positions, strict=True) if values[i] == json(seq=7))


def test_of_a_key_given_twice_the_last_holds_whatever_its_neighbours() -> None:
    twice = GOOD[:-1] + b',"seq":8}'
    assert opened(twice)[0].records[0].seq == 8
    heard, _ = opened(twice, b"bad")
    assert heard.records[0].seq == 8


def test_bytes_that_are_no_utf8_in_an_unknown_field_do_no_harm() -> None:
    heard, refused = opened(GOOD[:-1] + b',"x":"\xff"}', json(seq=2))
    assert [m.seq for m in heard.records] == [1, 2]
    assert refused == []


def test_a_topic_without_a_time_field_is_not_asked_for_the_time() -> None:
    edge: Edge[Any] = Edge(topics.CARBON_INTENSITY)
    value = (
        b'{"grid_zone":"DE","kind":"average","basis":"forecast","carbon_g_per_kwh":1,'
        b'"valid_from_s":9e9,"valid_until_s":9.1e9}'
    )
    heard, refused = edge.open(Batch("carbon-intensity.v1", 0, [Message(0, 0, b"DE", value)]))
    assert len(heard.records) == 1
    assert refused == []


def test_another_topics_time_field_is_named() -> None:
    edge: Edge[SpotPrice] = Edge(topics.SPOT_PRICES)
    value = b'{"pool":"p","price_usd_per_h":1,"effective_at_s":0,"observed_at_s":1000}'
    _, (refusal,) = edge.open(Batch("spot-prices.v1", 0, [Message(0, 0, b"p", value)]))
    assert (refusal.field, refusal.value) == ("observed_at_s", "1000.0")


def test_dead_letters_cannot_be_opened() -> None:
    with pytest.raises(ValueError, match="carries bytes as they came"):
        Edge(topics.DEAD_LETTERS)
