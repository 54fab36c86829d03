"""What is generated for others is in step with the structs, and says the same as the decoder."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest

from streams.contract import records as r
from streams.contract import schema, topics
from streams.contract.topics import TOPIC_OF, TOPICS, Topic

REPO = Path(__file__).parents[2]
CARRYING = [t for t in TOPICS if t.record is not None]

ENDPOINT = r.Endpoint(
    name="eu-1", url="http://127.0.0.1:1", services=("chat",), provider="p", region="eu-west", zone="a",
    jurisdiction="DE", capacity_rps=10, price_usd_per_h=1,
)  # fmt: skip
CLASS = r.RequestClass(name="interactive", slo_p95_ms=300, jurisdictions=("DE", "FR"))
COLUMNS: dict[str, Any] = {
    "service": ("chat",), "class_": ("a",), "arrived": (3,), "admitted": (2,), "shed": (1,), "failed": (0,),
}  # fmt: skip
METRICS = r.EndpointMetrics(
    endpoint="eu-1", service="chat", class_="a", observer="gw", boot=1, seq=2, at_s=1000.5, requests=3,
    errors={"connect": 1}, latency_ms=(1.5, 2.0), ttft=r.Buckets(gamma=1.02, index=(-3, 7), count=(1, 2)),
    hard_streak=1, first_error_at_s=999.0, kv_cache_share=0.5, queue=4,
)  # fmt: skip
HEALTH = r.EndpointHealth(
    source="endpoint-metrics.v1/0", made_at_s=1000, endpoint=("eu-1",), service=("chat",), class_=("a",),
    verdict=("degraded",), reason=("because",), observations=(4,), rps=(0.5,), p50_ms=(1.0,), p95_ms=(2.0,),
    p99_ms=(None,), ttft_p95_ms=(None,), errors={"stall": (2,)}, in_flight=(1,), queue=(None,), age_s=(0.25,),
    first_error_at_s=(None,), last_ok_at_s=(999.5,),
)  # fmt: skip
TABLE = r.RoutingTable(
    service="chat", epoch=1, version=2, issued_at_s=1000, expires_at_s=1300, fleet_version=1, default_class="a",
    endpoints=(
        r.TableEndpoint(
            name="eu-1", url="http://127.0.0.1:1", provider="p", region="eu-west", zone="a", jurisdiction="DE",
            capacity_rps=10, concurrency=64, cost_usd_per_request=0.001, latency_p95_ms=90,
        ),
    ),
    routes=(r.Route(origin="eu", class_="a", slo_p95_ms=300, endpoints=("eu-1",), shares=(1.0,)),),
)  # fmt: skip
DECISION = r.Decision(
    service="chat", epoch=1, version=2, made_at_s=1000, reason="first table", method="lp",
    inputs={"fleet.v1/0": 7},
    considered=(
        r.Considered(
            origin="eu", class_="a", demand_rps=3,
            candidates=(r.Candidate(endpoint="eu-1", price_usd=0.1, latency_usd=0.2, share=1),),
            excluded=(r.Exclusion(endpoint="us-1", reason="law"),),
        ),
    ),
)  # fmt: skip
SAID: dict[type[msgspec.Struct], msgspec.Struct] = {
    type(record): record
    for record in (
        r.Fleet(
            version=1, services=(r.Service(name="chat", classes=(CLASS,), default_class="interactive"),),
            origins=(r.Origin(name="eu", jurisdiction="DE", rtt_ms={"eu-west": 10}),), endpoints=(ENDPOINT,),
        ),
        METRICS,
        r.Arrivals(gateway="gw", origin="eu", boot=1, seq=1, at_s=1000, **COLUMNS),
        r.SpotPrice(pool="p/r/z/i/spot", price_usd_per_h=0.5, effective_at_s=1, observed_at_s=2, interruption_band=3),
        r.CarbonIntensity(
            grid_zone="DE", kind="average", basis="measured", carbon_g_per_kwh=300, valid_from_s=1, valid_until_s=2
        ),
        r.Interruption(endpoint="eu-1", kind="preempt", notice_at_s=1, deadline_at_s=31),
        r.Order(endpoint="eu-1", drain=True, reason="new driver", by="ann", at_s=1, until_s=3601),
        r.TableOrder(service="chat", hold=True, of="7.3", reason="watch it", by="ann", at_s=1, until_s=3601),
        r.Deferred(
            job="j-1", service="chat", class_="batch", origin="eu", requests=500, submitted_at_s=1, deadline_at_s=3601
        ),
        r.Release(
            job="j-1", service="chat", made_at_s=1, release_at_s=1801, usd_per_request=1e-5, now_usd_per_request=2e-5
        ),
        HEALTH,
        r.Demand(source="arrivals.v1/0", at_s=1000, origin=("eu",), **COLUMNS),
        r.DemandForecast(
            service="chat", origin="eu", class_="a", made_at_s=1, model="naive",
            horizons=(r.Horizon(ahead_s=60, rps={"0.5": 3.0, "0.95": 9.0}),), spike=0.1,
        ),
        r.DemandHistory(
            service="chat", origin="eu", class_="a", made_at_s=601, first_at_s=0, rpm=(3.0, None),
        ),
        r.SpotRisk(pool="p/r/z/i/spot", made_at_s=1, hazard_per_h=0.1, low_per_h=0, high_per_h=0.2, reasons=("band",)),
        r.CapacityPlan(pool="p", plan_id="7", made_at_s=1, want=2, have=1, not_before_s=5, reason="noon"),
        r.Capacity(pool="p", at_s=1, ready=2),
        TABLE,
        r.GatewayStatus(gateway="gw", service="chat", at_s=1, epoch=1, version=2, refused={"older": 3}),
        DECISION,
        r.Session(session="s1", service="chat", home="eu-1", attempt=1, at_s=1),
    )
}  # fmt: skip

Damage = Callable[[dict[str, Any]], object]
BAD: list[tuple[type[msgspec.Struct], str, Damage]] = [
    (r.EndpointMetrics, "a missing field", lambda d: d.pop("observer")),
    (r.EndpointMetrics, "a negative count", lambda d: d.update(seq=-1)),
    (r.EndpointMetrics, "a count beyond 2^53", lambda d: d.update(seq=2**53 + 1)),
    (r.EndpointMetrics, "more requests than a record can mean", lambda d: d.update(requests=10_000_001)),
    (r.Arrivals, "more arrivals than a slot can hold", lambda d: d.update(arrived=[10_000_001])),
    (r.EndpointMetrics, "a fraction of a request", lambda d: d.update(requests=1.5)),
    (r.EndpointMetrics, "a negative latency", lambda d: d.update(latency_ms=[-0.1])),
    (r.EndpointMetrics, "a latency of weeks", lambda d: d.update(latency_ms=[1e9])),
    (r.EndpointMetrics, "too many values", lambda d: d.update(latency_ms=[1.0] * 10_001)),
    (r.EndpointMetrics, "an unknown kind of error", lambda d: d.update(errors={"tired": 1})),
    (r.EndpointMetrics, "an unknown vantage", lambda d: d.update(vantage="moon")),
    (r.EndpointMetrics, "an empty name", lambda d: d.update(endpoint="")),
    (r.EndpointMetrics, "a name without end", lambda d: d.update(endpoint="x" * 129)),
    (r.EndpointMetrics, "a number for a name", lambda d: d.update(endpoint=7)),
    (r.EndpointMetrics, "a share above one", lambda d: d.update(kv_cache_share=1.01)),
    (r.EndpointMetrics, "a gamma of one", lambda d: d["ttft"].update(gamma=1.0)),
    (r.EndpointMetrics, "a bucket out of range", lambda d: d["ttft"].update(index=[99_999, 1])),
    (r.EndpointMetrics, "a time in milliseconds", lambda d: d.update(at_s=1.7e12)),
    (r.Fleet, "a name with a blank", lambda d: d["endpoints"][0].update(name="eu 1")),
    (r.Fleet, "a name that ends in a newline", lambda d: d["endpoints"][0].update(name="eu-1\n")),
    (r.Fleet, "a url of another scheme", lambda d: d["endpoints"][0].update(url="ftp://x")),
    (r.Fleet, "a url that ends in a newline", lambda d: d["endpoints"][0].update(url="http://x\n")),
    (r.Fleet, "a country in small letters", lambda d: d["endpoints"][0].update(jurisdiction="de")),
    (r.Fleet, "an endpoint without services", lambda d: d["endpoints"][0].update(services=[])),
    (r.Order, "no word on what is ordered", lambda d: d.pop("drain")),
    (r.Order, "a name with a blank", lambda d: d.update(endpoint="eu 1")),
    (r.Fleet, "no capacity", lambda d: d["endpoints"][0].update(capacity_rps=0)),
    (r.DemandForecast, "a quantile that is none", lambda d: d["horizons"][0].update(rps={"95": 1.0})),
    (r.DemandHistory, "slots shorter than a minute", lambda d: d.update(slot_s=1)),
    (r.DemandHistory, "less than no demand", lambda d: d.update(rpm=[-1.0])),
    (r.SpotPrice, "a band beyond 4", lambda d: d.update(interruption_band=5)),
    (r.RoutingTable, "a share above one", lambda d: d["routes"][0].update(shares=[1.5])),
    (r.EndpointHealth, "an unknown verdict", lambda d: d.update(verdict=["tired"])),
]


def named(topic: Topic) -> str:
    return topic.name


def validator(topic: Topic) -> Any:
    return jsonschema.Draft202012Validator(schema.schema_of(topic))


def plain(record: msgspec.Struct) -> dict[str, Any]:
    made: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(record))
    return made


def test_generated_files_are_in_step() -> None:
    assert schema.drift(REPO / "docs/reference/contract") == []


def test_drift_names_missing_different_and_left_over_files(tmp_path: Path) -> None:
    for name, content in schema.files().items():
        (tmp_path / name).write_bytes(content)
    assert schema.drift(tmp_path) == []
    (tmp_path / "fleet.v1.schema.json").unlink()
    (tmp_path / "demand.v1.schema.json").write_text("{}")
    (tmp_path / "old.v0.schema.json").write_text("{}")
    assert schema.drift(tmp_path) == ["demand.v1.schema.json", "fleet.v1.schema.json", "old.v0.schema.json"]


def test_every_record_has_a_sample_here() -> None:
    assert SAID.keys() == TOPIC_OF.keys()


@pytest.mark.parametrize("topic", CARRYING, ids=named)
def test_each_schema_is_valid_json_schema(topic: Topic) -> None:
    jsonschema.Draft202012Validator.check_schema(schema.schema_of(topic))


@pytest.mark.parametrize("topic", CARRYING, ids=named)
def test_each_schema_accepts_what_is_sent(topic: Topic) -> None:
    assert topic.record is not None
    said = SAID[topic.record]
    validator(topic).validate(plain(said))
    assert msgspec.json.decode(msgspec.json.encode(said), type=topic.record) == said
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(said), type=topic.record) == said


@pytest.mark.parametrize("topic", CARRYING, ids=named)
def test_unknown_fields_are_ignored_by_decoder_and_schema(topic: Topic) -> None:
    assert topic.record is not None
    said = SAID[topic.record]
    grown = {**plain(said), "of_a_later_version": {"x": [1]}}
    validator(topic).validate(grown)
    assert msgspec.json.decode(msgspec.json.encode(grown), type=topic.record) == said


@pytest.mark.parametrize(("record", "says", "damage"), BAD, ids=[f"{t.__name__}: {says}" for t, says, _ in BAD])
def test_decoder_and_schema_refuse_the_same(record: type[msgspec.Struct], says: str, damage: Damage) -> None:
    bad = plain(SAID[record])
    damage(bad)
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(msgspec.json.encode(bad), type=record)
    assert not validator(TOPIC_OF[record]).is_valid(bad)


UNEQUAL: list[tuple[type[msgspec.Struct], Damage, str]] = [
    (r.EndpointMetrics, lambda d: d["ttft"]["count"].pop(), "count has 1 rows, index has 2"),
    (r.Arrivals, lambda d: d["shed"].pop(), "shed has 0 rows, service has 1"),
    (r.Demand, lambda d: d["origin"].append("us"), "origin has 2 rows, service has 1"),
    (r.EndpointHealth, lambda d: d["class"].append("b"), "class has 2 rows, endpoint has 1"),
    (r.EndpointHealth, lambda d: d["errors"]["stall"].pop(), "errors.stall has 0 rows, endpoint has 1"),
    (r.RoutingTable, lambda d: d["routes"][0]["shares"].pop(), "shares has 0 rows, endpoints has 1"),
]


@pytest.mark.parametrize(("record", "damage", "says"), UNEQUAL)
def test_unequal_columns_are_refused_by_name(record: type[msgspec.Struct], damage: Damage, says: str) -> None:
    """JSON Schema cannot say that two lists are of one length; the decoder can."""
    bad = plain(SAID[record])
    damage(bad)
    with pytest.raises(msgspec.ValidationError, match=says):
        msgspec.json.decode(msgspec.json.encode(bad), type=record)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_none_are_refused_in_msgpack(value: float) -> None:
    for damage in ({"at_s": value}, {"latency_ms": [value]}, {"ttft": {"gamma": value, "index": [], "count": []}}):
        with pytest.raises(msgspec.ValidationError):
            msgspec.msgpack.decode(msgspec.msgpack.encode({**plain(METRICS), **damage}), type=r.EndpointMetrics)


def test_the_asyncapi_document_has_every_topic_and_no_loose_end() -> None:
    document = schema.asyncapi()
    assert document["asyncapi"] == "3.1.0"
    assert {c["address"] for c in document["channels"].values()} == {t.full("tradewind") for t in TOPICS}
    assert {o["action"] for o in document["operations"].values()} == {"send", "receive"}

    def follow(node: object) -> None:
        if isinstance(node, dict):
            if "$ref" in node:
                at: Any = document
                for part in node["$ref"].removeprefix("#/").split("/"):
                    at = at[part]
            for value in node.values():
                follow(value)
        elif isinstance(node, list):
            for value in node:
                follow(value)

    follow(document)


def test_the_asyncapi_document_says_key_and_cleanup() -> None:
    document = schema.asyncapi()
    channel = document["channels"]["spot_prices_v1"]["bindings"]["kafka"]["topicConfiguration"]
    assert channel == {"cleanup.policy": ["compact", "delete"], "retention.ms": 90 * 86400 * 1000}
    message = document["components"]["messages"]["demand_forecast_v1"]
    assert message["bindings"]["kafka"]["key"]["description"] == "service/origin/class"
    assert message["contentType"] == "application/json"
    assert "ce_type" in message["headers"]["properties"]


@pytest.mark.parametrize("topic", CARRYING, ids=named)
def test_each_key_is_made_of_fields_of_its_record(topic: Topic) -> None:
    assert topic.record is not None
    said = SAID[topic.record]
    assert topic.key_of(said) == "/".join(str(getattr(said, f)) for f in topic.key)
    assert topic.key_of(said).isprintable()
    assert topic.time_field is None or isinstance(getattr(said, topic.time_field), (int, float))


def test_a_compacted_topic_keeps_facts_for_ever_and_cannot_be_displaced_at_once() -> None:
    config = topics.ROUTING_TABLE.config(replication=3)
    assert config["cleanup.policy"] == "compact"
    assert config["retention.ms"] == "-1"
    assert config["min.insync.replicas"] == "2"
    assert int(config["min.compaction.lag.ms"]) > 0
    assert topics.ENDPOINT_METRICS.config()["message.timestamp.type"] == "LogAppendTime"


def test_the_command_says_what_differs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["schema", str(tmp_path / "new"), "--write"])
    assert schema.main() == 0
    monkeypatch.setattr("sys.argv", ["schema", str(tmp_path / "new")])
    assert schema.main() == 0
    (tmp_path / "new" / "fleet.v1.schema.json").write_text("{}")
    assert schema.main() == 1
    assert "fleet.v1.schema.json" in capsys.readouterr().err
