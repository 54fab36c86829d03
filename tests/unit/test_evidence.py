"""Who accuses, who defends, and what becomes of an endpoint: scenes with gateways, told to the health stage."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest

from streams import signals
from streams.contract.records import (
    Buckets,
    Endpoint,
    EndpointHealth,
    EndpointMetrics,
    ErrorKind,
    Fleet,
    Origin,
    RequestClass,
    Service,
)
from streams.contract.topics import ENDPOINT_METRICS, FLEET
from streams.demand import DemandStage
from streams.evidence import FRESH_S, Evidence, LastWord
from streams.health import OBSERVERS, Health
from streams.runtime.batch import Batch, Message
from streams.runtime.step import Heard, Refusal

T0 = 1_763_938_800.0


class Scene:
    """A health stage, and gateways that speak to it at times counted from T0."""

    def __init__(self) -> None:
        self.stage: Any = Health()
        self.state: Any = self.stage.empty()
        self.seq = 0

    def says(self, observer: str, at_s: float, *, endpoint: str = "eu-1", **more: Any) -> bool:
        """One report; whether it was urgent."""
        return self.hears(self.report(observer, at_s, endpoint=endpoint, **more), stamp_s=at_s)

    def report(self, observer: str, at_s: float, **more: Any) -> EndpointMetrics:
        self.seq += 1
        told: dict[str, Any] = {"endpoint": "eu-1", "service": "chat", "class_": "a", "requests": 1}
        return EndpointMetrics(observer=observer, boot=1, seq=self.seq, at_s=T0 + at_s, **(told | more))

    def hears(self, *records: Any, stamp_s: float = 0.0) -> bool:
        heard = self.heard(*records, stamp_s=stamp_s)
        self.state = self.stage.fold(self.state, heard)
        return self.stage.urgent(self.state)

    def heard(self, *records: Any, stamp_s: float = 0.0) -> Heard[Any]:
        topic = FLEET if isinstance(records[0], Fleet) else ENDPOINT_METRICS
        messages = [Message(i, round((T0 + stamp_s) * 1000), b"k", b"") for i, _ in enumerate(records)]
        return Heard(Batch(topic.name, 0, messages), np.arange(len(records)), list(records))

    def refused(self, *records: Any) -> list[Refusal]:
        return list(self.stage.screen(self.state, self.heard(*records)))

    def fails(self, observer: str, at_s: float, streak: int = 3, kind: ErrorKind = "connect", **more: Any) -> bool:
        return self.says(observer, at_s, hard_streak=streak, errors={kind: 1}, **more)

    def records(self, at_s: float) -> list[EndpointHealth]:
        self.state = self.stage.advance(self.state, T0 + at_s)
        return list(self.stage.view(self.state, T0 + at_s))

    def verdict(self, at_s: float, endpoint: str = "eu-1") -> tuple[str, str]:
        (record,) = self.records(at_s)
        row = record.endpoint.index(endpoint)
        return record.verdict[row], record.reason[row]


def fleet(*names: str) -> Fleet:
    return Fleet(
        version=1,
        services=(Service(name="chat", classes=(RequestClass(name="a", slo_p95_ms=300),), default_class="a"),),
        origins=(Origin(name="eu", jurisdiction="DE", rtt_ms={}),),
        endpoints=tuple(
            Endpoint(
                name=name, url="http://127.0.0.1:1", services=("chat",), provider="p", region="r", zone="z",
                jurisdiction="DE", capacity_rps=1, price_usd_per_h=1,
            )
            for name in names
        ),
    )  # fmt: skip


# ---------------------------------------------------------------- accusers and defenders


def test_the_only_observer_takes_an_endpoint_down_with_three_hard_failures_in_a_row() -> None:
    scene = Scene()
    assert not scene.says("gw-a", 0.0)
    assert not scene.fails("gw-a", 0.1, streak=1)
    assert not scene.fails("gw-a", 0.2, streak=2)
    assert scene.verdict(0.25) == ("up", "")
    assert scene.fails("gw-a", 0.3, streak=3)
    assert scene.verdict(0.4) == ("down", "1 of 1 observers met only hard failures")


def test_news_is_urgent_once() -> None:
    scene = Scene()
    assert scene.fails("gw-a", 0.0)
    assert not scene.fails("gw-a", 0.1, streak=4)
    assert not scene.fails("gw-b", 0.2)


def test_one_observers_bad_network_is_not_an_endpoints_death() -> None:
    scene = Scene()
    for gateway in ("gw-a", "gw-b", "gw-c"):
        scene.says(gateway, 0.0)
    assert scene.fails("gw-a", 0.1)
    assert scene.verdict(0.2)[0] == "down"
    assert scene.says("gw-b", 0.3)
    assert scene.verdict(0.4) == ("degraded", "1 observers met only hard failures, 1 did not")


def test_an_answer_from_before_the_accusation_defends_nobody() -> None:
    scene = Scene()
    scene.fails("gw-a", 1.0)
    scene.says("gw-b", 1.5, last_ok_at_s=T0 + 0.9, requests=0)
    assert scene.verdict(2.0)[0] == "down"


def test_more_accusers_than_defenders_are_needed() -> None:
    scene = Scene()
    scene.fails("gw-a", 0.0)
    scene.says("gw-c", 0.1)
    assert scene.verdict(0.1)[0] == "degraded"
    scene.fails("gw-b", 0.2)
    assert scene.verdict(0.3) == ("down", "2 of 3 observers met only hard failures")


def test_an_accuser_that_recovers_lifts_the_endpoint_up_at_once() -> None:
    scene = Scene()
    scene.fails("gw-a", 0.0)
    assert scene.says("gw-a", 0.5)
    assert scene.verdict(0.5) == ("up", "")


def test_accusations_fade_after_ten_seconds() -> None:
    scene = Scene()
    scene.fails("gw-a", 0.0)
    scene.says("gw-b", 9.0, last_ok_at_s=T0 - 1, requests=0)
    assert scene.verdict(FRESH_S)[0] == "down"
    assert scene.verdict(FRESH_S + 0.1)[0] == "up"
    assert scene.verdict(19.1) == ("silent", "nothing heard from gateways for 10 s")


def test_an_accusation_taken_up_again_after_silence_is_a_new_one() -> None:
    scene = Scene()
    scene.fails("gw-a", 0.0)
    scene.says("gw-b", 5.0)
    assert scene.fails("gw-a", 14.0, streak=6)
    assert scene.verdict(14.5)[0] == "down"


def test_a_word_that_comes_late_does_not_take_back_a_newer_one() -> None:
    scene = Scene()
    late = scene.report("gw-a", 1.0, hard_streak=3)
    scene.says("gw-a", 2.0)
    assert not scene.hears(late, stamp_s=2.0)
    assert scene.verdict(2.5) == ("up", "")


def test_a_batch_is_followed_word_by_word() -> None:
    """Three failures, an answer of another gateway, three more: the accusation is as old as its first word."""
    scene = Scene()
    scene.hears(
        scene.report("gw-a", 1.0, hard_streak=3), scene.report("gw-b", 2.0), scene.report("gw-a", 3.0, hard_streak=5),
        stamp_s=3.0,
    )  # fmt: skip
    assert scene.verdict(3.5)[0] == "degraded"
    scene.hears(scene.report("gw-a", 4.0), scene.report("gw-a", 5.0, hard_streak=3), stamp_s=5.0)
    assert scene.verdict(5.5)[0] == "down"


def test_what_an_endpoint_says_of_itself_neither_accuses_nor_defends() -> None:
    scene = Scene()
    assert not scene.fails("agent", 0.0, vantage="endpoint")
    assert scene.verdict(0.1) == ("unknown", "no gateway has spoken of it")
    scene.fails("gw-a", 0.2)
    scene.says("agent", 0.3, vantage="endpoint")
    assert scene.verdict(0.4)[0] == "down"


def test_a_probe_counts_as_much_as_a_gateway() -> None:
    scene = Scene()
    assert scene.fails("gw-a", 0.0, vantage="probe")
    assert scene.says("gw-a", 1.0, vantage="probe")


def test_an_accused_endpoint_says_when_its_failure_was_first_seen() -> None:
    scene = Scene()
    scene.fails("gw-a", 1.0, first_error_at_s=T0 + 0.5)
    scene.fails("gw-b", 1.2, first_error_at_s=T0 + 0.7)
    (record,) = scene.records(1.5)
    assert record.first_error_at_s == (T0 + 0.5,)
    (record,) = scene.records(11.1)
    assert record.first_error_at_s == (T0 + 0.7,)
    scene.says("gw-b", 11.2)
    (record,) = scene.records(11.3)
    assert record.first_error_at_s == (None,)
    assert record.last_ok_at_s == (T0 + 11.2,)


def test_no_failure_is_seen_before_it_is_said() -> None:
    scene = Scene()
    scene.fails("gw-a", 1.0, first_error_at_s=T0 + 500)
    (record,) = scene.records(1.5)
    assert record.first_error_at_s == (T0 + 1.0,)


def test_an_endpoint_fails_as_a_whole_and_its_neighbours_do_not() -> None:
    scene = Scene()
    scene.says("gw-a", 0.0, class_="b")
    scene.says("gw-a", 0.0, endpoint="eu-2")
    scene.fails("gw-a", 0.1)
    (record,) = scene.records(0.2)
    said = dict(zip(zip(record.endpoint, record.class_, strict=True), record.verdict, strict=True))
    assert said == {("eu-1", "a"): "down", ("eu-1", "b"): "down", ("eu-2", "a"): "up"}


def test_a_class_without_traffic_is_not_silent_while_its_endpoint_answers() -> None:
    scene = Scene()
    scene.says("gw-a", 0.0, class_="b")
    scene.says("gw-a", 15.0)
    (record,) = scene.records(16.0)
    assert record.verdict == ("up", "up")
    assert record.age_s == (16.0, 1.0)


# ---------------------------------------------------------------- success rates

Kinds = dict[ErrorKind, int]


@pytest.mark.parametrize(
    ("requests", "errors", "verdict"),
    [
        (19, {"http_5xx": 19}, "up"),
        (20, {"http_5xx": 4}, "up"),
        (20, {"http_5xx": 5}, "degraded"),
        (20, {"http_5xx": 10}, "degraded"),
        (20, {"http_5xx": 11}, "down"),
        (20, {"stall": 6, "truncated": 5}, "down"),
        (20, {"http_429": 20}, "degraded"),
        (20, {"http_429": 4}, "up"),
        (20, {"http_429": 12, "http_5xx": 8}, "degraded"),
        (20, {"client_4xx": 20}, "up"),
        (20, {"client_4xx": 12, "http_5xx": 5}, "degraded"),
    ],
)
def test_the_success_rate_breaks_at_a_fifth_and_at_a_half(requests: int, errors: Kinds, verdict: str) -> None:
    scene = Scene()
    scene.says("gw-a", 0.0, requests=requests, errors=errors)
    assert scene.verdict(0.5)[0] == verdict


def test_a_broken_rate_names_the_kind_met_most_and_never_the_clients() -> None:
    scene = Scene()
    scene.says("gw-a", 0.0, requests=40, errors={"client_4xx": 15, "http_429": 6, "stall": 7})
    assert scene.verdict(0.5) == ("degraded", "13 of 40 requests failed in 10 s, most by stall")


def test_the_rate_is_of_all_rows_and_observers_of_an_endpoint_and_of_the_last_ten_seconds() -> None:
    scene = Scene()
    scene.says("gw-a", 0.0, requests=12, errors={"http_5xx": 9})
    scene.says("gw-b", 0.5, requests=12, errors={"http_5xx": 9}, class_="b")
    assert scene.verdict(1.0)[0] == "down"
    scene.says("gw-a", 9.5)
    assert scene.verdict(9.9)[0] == "down"
    assert scene.verdict(10.0)[0] == "up"


# ---------------------------------------------------------------- numbers


def test_requests_in_flight_are_summed_over_gateways_and_fade_with_them() -> None:
    scene = Scene()
    scene.says("gw-a", 0.0, in_flight=3)
    scene.says("gw-b", 5.0, in_flight=4)
    scene.says("gw-b", 6.0)
    assert scene.records(7.0)[0].in_flight == (7,)
    assert scene.records(12.0)[0].in_flight == (4,)
    assert scene.records(17.0)[0].in_flight == (None,)


def test_the_rate_is_of_the_last_ten_seconds_and_not_of_the_window() -> None:
    scene = Scene()
    for second in range(30):
        scene.says("gw-a", second + 0.5, requests=40 if second < 15 else 20)
    assert scene.records(30.0)[0].rps == (20.0,)
    assert scene.records(30.9)[0].rps == (pytest.approx(180 / 9.9, abs=1e-4),)
    assert scene.records(41.0)[0].rps == (0.0,)


def test_a_rate_shows_in_full_though_the_window_has_only_begun_to_fill() -> None:
    scene = Scene()
    for tenth in range(100):
        scene.says("gw-a", tenth / 10, requests=5)
    assert scene.records(10.0)[0].rps == (50.0,)


def test_endpoints_are_counted_by_verdict_until_their_partition_goes() -> None:
    def gauge() -> dict[str, float]:
        samples = next(iter(signals.VERDICTS.collect())).samples
        return {s.labels["verdict"]: s.value for s in samples if s.labels["source"] == scene.state.source}

    scene = Scene()
    scene.state.source = "nobody/7"
    scene.stage.leave(scene.state)
    scene.fails("gw-a", 0.0)
    scene.says("gw-a", 0.0, endpoint="eu-2")
    scene.says("gw-a", 0.0, endpoint="eu-2", class_="b")
    scene.records(0.5)
    assert gauge() == {"up": 1, "down": 1, "degraded": 0, "silent": 0, "unknown": 0}
    scene.stage.leave(scene.state)
    assert gauge() == {}


def test_absurd_numbers_of_one_sender_leave_a_record_that_can_be_read() -> None:
    scene = Scene()
    for n in range(40):
        scene.says("gw-a", n * 0.01, requests=2**53, errors={"stall": 2**53}, in_flight=2**53)
        scene.says("gw-b", n * 0.01, in_flight=2**53)
    (record,) = scene.records(1.0)
    assert msgspec.json.decode(msgspec.json.encode(record), type=EndpointHealth) == record


def test_a_large_fleet_is_said_in_parts_that_fit_a_message() -> None:
    scene = Scene()
    scene.hears(*(scene.report("gw-a", 0.0, endpoint=f"ep-{n}") for n in range(4001)))
    scene.fails("gw-a", 0.5, endpoint="ep-3999")
    parts = scene.records(1.0)
    assert [(p.part, p.parts, len(p.endpoint)) for p in parts] == [(0, 3, 2000), (1, 3, 2000), (2, 3, 1)]
    assert [name for p in parts for name in p.endpoint] == [f"ep-{n}" for n in range(4001)]
    assert [e for p in parts for e, v in zip(p.endpoint, p.verdict, strict=True) if v != "up"] == ["ep-3999"]


# ---------------------------------------------------------------- reports at odds with themselves


HUGE = Buckets(gamma=1.02, index=(1, 2), count=(2**24, 2**24))


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("latency_ms", "2", {"latency_ms": (1.0, 2.0)}),
        ("ttft_ms", "2", {"ttft_ms": (1.0, 2.0)}),
        ("latency_ms", str(2**25), {"latency": HUGE}),
        ("ttft_ms", str(2**25), {"requests": 2**24, "ttft": HUGE}),
        (
            "latency_ms",
            "3",
            {"requests": 2, "latency_ms": (1.0,), "latency": Buckets(gamma=1.02, index=(1,), count=(2,))},
        ),
        ("errors", "2", {"errors": {"http_5xx": 1, "stall": 1}}),
        ("errors", "1", {"requests": 0, "errors": {"http_5xx": 1}}),
        ("last_ok_at_s", "100000000000.0", {"last_ok_at_s": 1e11}),
        ("first_error_at_s", "100000000000.0", {"first_error_at_s": 1e11}),
    ],
)
@pytest.mark.parametrize("met", [False, True])
def test_a_report_at_odds_with_itself_is_refused_and_its_neighbours_are_not(
    field: str, value: str, told: dict[str, Any], met: bool
) -> None:
    scene = Scene()
    if met:
        scene.says("gw-a", 0.0)
    good = scene.report("gw-a", 0.5), scene.report("gw-a", 0.5, requests=3, errors={"stall": 3})
    (refused,) = scene.refused(good[0], scene.report("gw-a", 0.5, **told), good[1])
    assert (refused.position, refused.field, refused.value) == (1, field, value)


def test_what_gateways_probes_and_benches_send_is_not_at_odds() -> None:
    scene = Scene()
    assert scene.refused(
        scene.report("gw-a", 0.0, vantage="probe", last_ok_at_s=T0),
        scene.report("gw-a", 0.0, vantage="probe", errors={"connect": 1}, hard_streak=40, first_error_at_s=T0 - 60),
        scene.report("gw-a", 0.0, requests=3, errors={"connect": 3}, hard_streak=3, first_error_at_s=T0),
        scene.report("gw-a", 0.0, requests=100, latency_ms=(5.0,) * 100, ttft_ms=(1.0,) * 100),
        scene.report("gw-a", 0.0, requests=300, latency=Buckets(gamma=1.02, index=(1, 9), count=(200, 100))),
        scene.report("gw-a", 0.0, requests=0, in_flight=3, last_ok_at_s=T0 + 200),
    ) == []  # fmt: skip


# ---------------------------------------------------------------- who may speak


def test_what_the_fleet_does_not_know_is_refused_by_name() -> None:
    scene = Scene()
    scene.hears(fleet("eu-1"))
    refused = scene.refused(
        scene.report("gw-a", 0.0), scene.report("gw-a", 0.0, endpoint="xx"), scene.report("gw-a", 0.0, service="talk"),
        scene.report("gw-a", 0.0, class_="b"), scene.report("gw a", 0.0),
    )  # fmt: skip
    assert [(r.position, r.field, r.value) for r in refused] == [
        (1, "endpoint", "'xx'"), (2, "service", "'talk'"), (3, "class", "'b'"), (4, "observer", "'gw a'"),
    ]  # fmt: skip


def test_before_a_fleet_is_heard_names_have_to_be_fit_all_the_same() -> None:
    scene = Scene()
    refused = scene.refused(scene.report("gw-a", 0.0, endpoint="eu 1"), scene.report("gw-a", 0.0, class_="a\n"))
    assert [(r.position, r.field) for r in refused] == [(0, "endpoint"), (1, "class")]


def test_what_a_new_fleet_does_not_know_is_forgotten_at_once() -> None:
    scene = Scene()
    scene.says("gw-a", 0.0, endpoint="eu-2")
    scene.fails("gw-a", 0.0)
    scene.hears(fleet("eu-2"))
    assert scene.records(1.0)[0].endpoint == ("eu-2",)
    scene.says("gw-b", 1.0, endpoint="eu-3")
    assert scene.verdict(1.5, "eu-3") == ("up", "")


def versions(*said: tuple[str, int]) -> list[Fleet]:
    return [msgspec.structs.replace(fleet("eu-1"), fleet=name, version=version) for name, version in said]


@pytest.mark.parametrize("stage", [Health(), DemandStage()], ids=lambda s: type(s).__name__)
def test_an_older_fleet_and_one_of_another_name_are_refused_and_change_nothing(stage: Any) -> None:
    scene = Scene()
    scene.stage, scene.state = stage, stage.empty()
    scene.hears(*versions(("default", 4)))
    refused = scene.refused(*versions(("default", 4), ("default", 3), ("rogue", 9), ("default", 6), ("default", 5)))
    assert [(r.position, r.field, r.value) for r in refused] == [
        (1, "version", "3"), (2, "fleet", "'rogue'"), (4, "version", "5"),
    ]  # fmt: skip
    assert scene.state.fleet.version == 4


def test_of_a_batch_of_fleets_each_is_judged_by_those_before_it() -> None:
    refused = Scene().refused(*versions(("default", 2), ("default", 1), ("other", 3)))
    assert [r.position for r in refused] == [1, 2]


def test_a_record_on_another_partition_than_its_keys_is_refused() -> None:
    scene = Scene()
    records = [scene.report("gw-a", 0.0, endpoint=f"ep-{n}") for n in range(20)]
    messages = [Message(i, 0, b"k", b"") for i, _ in enumerate(records)]
    heard = Heard(Batch(ENDPOINT_METRICS.name, 1, messages, partitions=2), np.arange(len(records)), records)
    refused = list(scene.stage.screen(scene.state, heard))
    assert 0 < len(refused) < 20
    assert all("murmur2" in r.reason for r in refused)


def test_observers_are_bounded_and_those_that_left_make_room_though_no_endpoint_did() -> None:
    scene = Scene()
    for n in range(OBSERVERS):
        scene.says(f"pod-{n}", 0.0)
    assert [r.field for r in scene.refused(scene.report("pod-new", 1.0))] == ["observer"]
    for second in range(0, 101, 5):
        scene.says("pod-0", float(second))
        scene.records(float(second))
    assert scene.refused(scene.report("pod-new", 100.0)) == []
    assert len(scene.state.observers.known) == 1
    scene.fails("pod-new", 100.0)
    assert scene.verdict(100.1)[0] == "down"


# ---------------------------------------------------------------- memory


def test_memory_grows_with_who_spoke_of_what_and_not_with_the_product() -> None:
    evidence = Evidence()
    evidence.pairs.reserve(20_000, 500)
    ends = np.arange(20_000)
    said = {"at_s": np.ones(20_000), "streak": np.zeros(20_000, int), "first_error_s": np.zeros(20_000)}
    evidence.fold(ends, ends % 500, said | {"ok_s": np.ones(20_000)})
    assert evidence.pairs.size == 20_000
    columns = [evidence.streak, evidence.heard_s, evidence.ok_s, evidence.first_error_s, evidence.accused_s]
    assert sum(column.nbytes for column in columns) < 2_000_000


def test_places_of_the_forgotten_are_given_away_empty() -> None:
    word = LastWord()
    word.pairs.reserve(4, 4)
    word.fold(np.array([0, 1, 1]), np.array([0, 0, 1]), np.array([5.0, 5.0, 6.0]), np.array([1.0, 2.0, 3.0]))
    word.forget(5.5)
    assert word.total(2, 0.0).tolist() == pytest.approx([np.nan, 3.0], nan_ok=True)
    word.fold(np.array([2]), np.array([3]), np.array([1.0]), np.array([9.0]))
    assert word.pairs.size == 3
    word.clear([1], [])
    assert word.total(3, 0.0).tolist() == pytest.approx([np.nan, np.nan, 9.0], nan_ok=True)
