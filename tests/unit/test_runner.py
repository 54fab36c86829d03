"""One step on one worker: what is folded, what is said, and when."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
import pytest

from streams.contract import topics
from streams.contract.records import Capacity, EndpointMetrics, Fleet, Interruption, RoutingTable
from streams.contract.topics import Topic
from streams.runtime.batch import Batch, Message
from streams.runtime.runner import COALESCE_S, Quota, Runner
from streams.runtime.step import Earliest, Heard, Out, Question, Reads, Refusal, Since, Step

NOW_S = 1_000_000.0
METRICS, FLEET = topics.ENDPOINT_METRICS, topics.FLEET


class Counts:
    """Says how many records it has folded; a hard streak is urgent, an endpoint named 'unknown' is refused."""

    def empty(self) -> dict[str, Any]:
        return {"seqs": [], "fleets": [], "advanced_s": [], "urgent": False, "answers": []}

    def screen(self, state: dict[str, Any], heard: Heard[Any]) -> Iterable[Refusal]:
        for position, record in zip(heard.positions, heard.records, strict=True):
            if getattr(record, "endpoint", "") == "unknown":
                yield Refusal(int(position), "endpoint", "'unknown'", "is not in the fleet")

    def fold(self, state: dict[str, Any], heard: Heard[Any]) -> dict[str, Any]:
        if heard.topic == FLEET.name:
            return {**state, "fleets": state["fleets"] + [f.version for f in heard.records], "urgent": True}
        seqs = [m.seq for m in heard.records]
        return {**state, "seqs": state["seqs"] + seqs, "urgent": any(m.hard_streak for m in heard.records)}

    def advance(self, state: dict[str, Any], now_s: float) -> dict[str, Any]:
        return {**state, "advanced_s": [*state["advanced_s"], now_s]}

    def view(self, state: dict[str, Any], now_s: float) -> Iterable[Capacity]:
        yield Capacity(pool="p", at_s=now_s, ready=len(state["seqs"]), starting=len(state["answers"]))

    def urgent(self, state: dict[str, Any]) -> bool:
        return bool(state["urgent"])


class Thinking(Counts):
    """Asks for the sum of what it has folded, when that differs from its last answer."""

    def question(self, state: dict[str, Any]) -> Question | None:
        return Question(sum, (state["seqs"],)) if sum(state["seqs"]) not in (0, *state["answers"][-1:]) else None

    def answer(self, state: dict[str, Any], answer: int) -> dict[str, Any]:
        return {**state, "answers": [*state["answers"], answer]}


def runner(stage: Any = None, *reads: Reads, **more: Any) -> Runner:
    inputs = reads or (Reads(METRICS, Since(65)), Reads(FLEET, Earliest(), everyone=True))
    return Runner(Step("count", inputs, (topics.CAPACITY,), stage or Counts(), **more))


def metrics(*seqs: int, urgent: bool = False, endpoint: str = "eu-1") -> list[bytes]:
    return [
        msgspec.json.encode(
            EndpointMetrics(
                endpoint=endpoint, service="chat", observer="gw", boot=1, seq=seq, at_s=NOW_S, hard_streak=3 * urgent
            )
        )
        for seq in seqs
    ]


def batch(
    values: Iterable[bytes | None], first: int = 0, *, topic: Topic = METRICS, partition: int = 0, key: bytes = b"k"
) -> Batch:
    messages = [Message(first + i, int(NOW_S * 1000), key, v) for i, v in enumerate(values)]
    return Batch(topic.name, partition, messages)


def fleet(version: int) -> bytes:
    return msgspec.json.encode(Fleet(version=version, services=(), origins=(), endpoints=()))


def said(outs: Iterable[Out], topic: Topic = topics.CAPACITY) -> list[Out]:
    return [o for o in outs if o.topic == topic.name]


def ready(outs: Iterable[Out]) -> list[int]:
    return [msgspec.json.decode(o.value or b"", type=Capacity).ready for o in said(outs)]


def test_a_tick_says_what_was_folded_and_lets_time_pass_first() -> None:
    one = runner()
    one.assign(0)
    assert one.hear(batch(metrics(1, 2)), NOW_S) == []
    (out,) = one.tick(NOW_S + 1)
    assert ready([out]) == [2]
    assert one.partitions[0].state["advanced_s"] == [NOW_S + 1]
    assert out.key == b"p"


def test_what_is_said_carries_cloudevents_headers_and_can_be_repeated_byte_for_byte() -> None:
    outs = []
    for _ in range(2):
        one = runner()
        one.assign(0)
        one.hear(batch(metrics(1)), NOW_S)
        outs.append(one.tick(NOW_S + 1))
    assert outs[0] == outs[1]
    headers = dict(outs[0][0].headers)
    assert headers["content-type"] == b"application/json"
    assert headers["ce_type"] == b"tradewind.capacity.v1"
    assert headers["ce_time"] == b"1970-01-12T13:46:41.000+00:00"
    assert {"ce_id", "ce_source", "ce_specversion"} <= headers.keys()


def test_a_partition_not_owned_is_not_heard() -> None:
    one = runner()
    assert one.hear(batch(metrics(1)), NOW_S) == []
    assert one.tick(NOW_S) == []
    assert one.folded(METRICS.name, 0) is None


# ---------------------------------------------------------------- restoring


def test_until_its_ends_are_reached_a_partition_says_nothing() -> None:
    one = runner()
    one.assign(0, {METRICS.name: 4})
    assert one.hear(batch(metrics(1, 2, urgent=True)), NOW_S) == []
    assert one.tick(NOW_S + 1) == []
    assert one.next_due_s() == float("inf")
    assert ready(one.hear(batch(metrics(3, 4), first=2), NOW_S + 2)) == [4]
    assert ready(one.tick(NOW_S + 3)) == [4]


def test_a_partition_that_was_empty_is_live_at_once() -> None:
    one = runner()
    one.assign(0, {METRICS.name: 0})
    assert ready(one.tick(NOW_S)) == [0]


def test_a_partition_whose_rest_was_compacted_away_becomes_live_by_the_carriers_position() -> None:
    one = runner()
    one.assign(0, {METRICS.name: 10})
    one.hear(batch(metrics(1)), NOW_S)
    one.restored_to(METRICS.name, 0, 9)
    assert one.tick(NOW_S) == []
    one.restored_to(METRICS.name, 0, 10)
    assert ready(one.tick(NOW_S)) == [1]


def test_all_inputs_have_to_be_restored() -> None:
    one = runner(None, Reads(METRICS, Since(65)), Reads(FLEET, Earliest()))
    one.assign(0, {METRICS.name: 1, FLEET.name: 1})
    one.hear(batch(metrics(1)), NOW_S)
    assert one.tick(NOW_S) == []
    assert ready(one.hear(batch([fleet(1)], topic=FLEET), NOW_S)) == [1]


def test_a_partition_being_restored_does_not_silence_another() -> None:
    one = runner()
    one.assign(0, {METRICS.name: 9})
    one.assign(1)
    one.hear(batch(metrics(1), partition=1), NOW_S)
    assert ready(one.tick(NOW_S)) == [1]


# ---------------------------------------------------------------- redelivery and owning


def test_what_is_delivered_again_is_folded_once() -> None:
    one = runner()
    one.assign(0)
    one.hear(batch(metrics(1, 2, 3)), NOW_S)
    one.hear(batch(metrics(2, 3, 4), first=1), NOW_S)
    one.hear(batch(metrics(1), first=0), NOW_S)
    assert one.partitions[0].state["seqs"] == [1, 2, 3, 4]
    assert one.folded(METRICS.name, 0) == 4


def test_offsets_with_gaps_are_sliced_by_offset_and_not_by_place() -> None:
    one = runner()
    one.assign(0)
    values = metrics(1, 2, 3)
    gappy = [Message(offset, int(NOW_S * 1000), b"k", v) for offset, v in zip((3, 7, 20), values, strict=True)]
    one.hear(Batch(METRICS.name, 0, gappy[:2]), NOW_S)
    assert one.folded(METRICS.name, 0) == 8
    one.hear(Batch(METRICS.name, 0, gappy), NOW_S)
    assert one.partitions[0].state["seqs"] == [1, 2, 3]


def test_dead_letters_are_not_said_again_on_redelivery() -> None:
    one = runner()
    one.assign(0)
    assert len(one.hear(batch([b"{}"]), NOW_S)) == 1
    assert one.hear(batch([b"{}"]), NOW_S) == []


def test_a_partition_kept_through_a_rebalance_keeps_its_state() -> None:
    one = runner()
    one.assign(0)
    one.hear(batch(metrics(1, 2)), NOW_S)
    one.assign(0, {METRICS.name: 100})
    assert ready(one.tick(NOW_S)) == [2]
    assert one.folded(METRICS.name, 0) == 2


def test_a_released_partition_is_forgotten_and_read_anew_when_it_comes_back() -> None:
    one = runner()
    one.assign(0)
    one.hear(batch(metrics(1, 2)), NOW_S)
    one.release(0)
    assert one.tick(NOW_S) == []
    assert one.answer(0, 7, NOW_S) == []
    one.assign(0, {METRICS.name: 2})
    assert ready(one.hear(batch(metrics(1, 2)), NOW_S)) == []
    assert ready(one.tick(NOW_S)) == [2]


# ---------------------------------------------------------------- urgency


def test_evidence_is_said_at_once_and_only_by_its_partition() -> None:
    one = runner()
    one.assign(0)
    one.assign(1)
    one.tick(NOW_S)
    one.hear(batch(metrics(1), partition=1), NOW_S + 0.5)
    assert ready(one.hear(batch(metrics(1, 2, urgent=True)), NOW_S + 0.5)) == [2]


def test_evidence_within_20_ms_of_a_view_is_said_once_when_they_are_over() -> None:
    one = runner()
    one.assign(0)
    one.hear(batch(metrics(1, urgent=True)), NOW_S)
    assert one.hear(batch(metrics(2, urgent=True), first=1), NOW_S + 0.005) == []
    assert one.hear(batch(metrics(3, urgent=True), first=2), NOW_S + 0.010) == []
    assert one.next_due_s() == pytest.approx(NOW_S + COALESCE_S)
    assert one.speak(NOW_S + COALESCE_S - 0.001) == []
    assert ready(one.speak(one.next_due_s())) == [3]
    assert one.next_due_s() == float("inf")
    assert COALESCE_S == 0.02


def test_a_record_that_is_not_urgent_does_not_put_off_one_that_is() -> None:
    one = runner()
    one.assign(0)
    one.hear(batch(metrics(1, urgent=True)), NOW_S)
    one.hear(batch(metrics(2, urgent=True), first=1), NOW_S + 0.001)
    one.hear(batch(metrics(3), first=2), NOW_S + 0.002)
    assert ready(one.speak(NOW_S + 0.02)) == [3]


# ---------------------------------------------------------------- dead letters


def test_a_refused_record_lies_on_the_dead_letters_with_its_place_and_the_rest_is_folded() -> None:
    one = runner()
    one.assign(3)
    good = metrics(1, 2)
    outs = one.hear(batch([good[0], b'{"x":1}', good[1]], first=10, partition=3, key=b"eu-1"), NOW_S)
    (letter,) = outs
    assert letter.topic == topics.DEAD_LETTERS.name
    assert (letter.key, letter.value) == (b"eu-1", b'{"x":1}')
    headers = dict(letter.headers)
    assert headers[topics.DEAD_TOPIC] == b"endpoint-metrics.v1"
    assert headers[topics.DEAD_PARTITION] == b"3"
    assert headers[topics.DEAD_OFFSET] == b"11"
    assert headers[topics.DEAD_FIELD] == b"endpoint"
    assert b"missing required field" in headers[topics.DEAD_REASON]
    assert headers[topics.DEAD_STEP] == b"count"
    assert headers[topics.DEAD_AT_S] == b"1000000.000"
    assert one.partitions[3].state["seqs"] == [1, 2]


def test_what_the_stage_refuses_is_set_aside_too() -> None:
    one = runner()
    one.assign(0)
    (letter,) = one.hear(batch(metrics(1) + metrics(2, endpoint="unknown") + metrics(3)), NOW_S)
    assert dict(letter.headers)[topics.DEAD_OFFSET] == b"1"
    assert dict(letter.headers)[topics.DEAD_REASON] == b"is not in the fleet (got 'unknown')"
    assert one.partitions[0].state["seqs"] == [1, 3]


def test_refusals_of_edge_and_stage_in_one_batch_keep_their_own_places() -> None:
    one = runner()
    one.assign(0)
    values = [b"{", *metrics(1, endpoint="unknown"), b"[]", *metrics(2)]
    letters = one.hear(batch(values, first=50), NOW_S)
    assert {dict(o.headers)[topics.DEAD_OFFSET]: o.value for o in letters} == {
        b"50": values[0],
        b"51": values[1],
        b"52": values[2],
    }
    assert one.partitions[0].state["seqs"] == [2]


def test_in_a_flood_each_source_has_its_quota_and_stops_nothing() -> None:
    one = runner()
    one.assign(0)
    outs = one.hear(batch([b"{}"] * 500 + metrics(1), key=b"loud"), NOW_S)
    assert len(said(outs, topics.DEAD_LETTERS)) == 100
    outs = one.hear(batch([b"{}"], first=501, key=b"calm"), NOW_S + 1)
    assert len(outs) == 1
    outs = one.hear(batch([b"{}"], first=502, key=b"loud"), NOW_S + 1)
    assert outs == []
    outs = one.hear(batch([b"{}"], first=503, key=b"loud"), NOW_S + 61)
    assert len(outs) == 1
    assert one.partitions[0].state["seqs"] == [1]


def test_sources_without_end_share_one_quota_in_the_end() -> None:
    quota = Quota(burst=2, sources=3)
    taken = [quota.take(f"source {i}", 0.0) for i in range(100)]
    assert sum(taken) == 3 + 2
    assert quota.take("source 0", 1.0)
    assert not quota.take("source 0", 2.0)
    assert quota.take("source 99", 60.0)


def test_all_sources_together_have_a_quota_of_letters_and_of_bytes() -> None:
    quota = Quota(burst=2, total=3, total_bytes=100)
    assert [quota.take(f"source {i}", 0.0, 10) for i in range(5)] == [True] * 3 + [False] * 2
    assert [quota.take("large", 60.0, size) for size in (60, 60)] == [True, False]
    assert quota.take("small", 61.0, 40)
    assert not quota.take("tiny", 62.0, 1)
    assert quota.take("tiny", 120.0, 1)


def test_a_dead_letter_fits_its_topic_whatever_came() -> None:
    one = runner()
    one.assign(0)
    huge = b'{"endpoint":"' + b"x" * 3_000_000 + b'"}'
    kind = (
        b'{"endpoint":"e","service":"s","observer":"g","boot":1,"seq":1,"at_s":1,"vantage":"' + b"v" * 900_000 + b'"}'
    )
    outs = one.hear(batch([huge, kind], key=b"k" * 100_000), NOW_S)
    limit = int(topics.DEAD_LETTERS.config()["max.message.bytes"])
    for out, came in zip(outs, (huge, kind), strict=True):
        size = len(out.key) + len(out.value or b"") + sum(len(n) + len(v) for n, v in out.headers)
        assert size < limit - 1000
        assert came.startswith(out.value or b"none")
    assert dict(outs[0].headers)[topics.DEAD_LENGTH] == str(len(huge)).encode()
    assert topics.DEAD_LENGTH not in dict(outs[1].headers)


def test_dead_letters_are_bounded_in_bytes_and_take_what_just_fitted_elsewhere() -> None:
    config = topics.DEAD_LETTERS.config()
    assert int(config["retention.bytes"]) == 2**30
    assert "retention.bytes" not in METRICS.config()
    assert int(config["max.message.bytes"]) >= int(METRICS.config()["max.message.bytes"]) + 65536


# ---------------------------------------------------------------- shared facts


def test_shared_facts_are_folded_into_every_partition_those_of_later_included() -> None:
    one = runner()
    one.assign(0)
    one.hear_shared(batch([fleet(1), fleet(2)], topic=FLEET), NOW_S)
    one.assign(1)
    assert one.partitions[0].state["fleets"] == [1, 2]
    assert one.partitions[1].state["fleets"] == [2]


def test_a_fact_delivered_again_is_folded_once() -> None:
    one = runner()
    one.assign(0)
    one.hear_shared(batch([fleet(1)], topic=FLEET), NOW_S)
    one.hear_shared(batch([fleet(1), fleet(2)], topic=FLEET), NOW_S)
    assert one.partitions[0].state["fleets"] == [1, 2]


def test_a_bad_fact_does_not_displace_a_good_one() -> None:
    one = runner()
    one.assign(0)
    one.hear_shared(batch([fleet(1)], topic=FLEET), NOW_S)
    outs = one.hear_shared(batch([b'{"version":-1}'], first=1, topic=FLEET), NOW_S)
    assert len(said(outs, topics.DEAD_LETTERS)) == 1
    one.assign(1)
    assert one.partitions[0].state["fleets"] == [1]
    assert one.partitions[1].state["fleets"] == [1]


def test_facts_come_to_later_partitions_in_the_order_of_their_offsets() -> None:
    one = runner()
    one.hear_shared(batch([fleet(1)], topic=FLEET, key=b"a"), NOW_S)
    one.hear_shared(batch([fleet(2)], first=1, topic=FLEET, key=b"b"), NOW_S)
    one.hear_shared(batch([fleet(3)], first=2, topic=FLEET, key=b"a"), NOW_S)
    one.assign(0)
    assert one.partitions[0].state["fleets"] == [2, 3]


def test_a_bad_fact_costs_one_dead_letter_whatever_the_number_of_partitions() -> None:
    one = runner()
    for partition in range(4):
        one.assign(partition)
    outs = one.hear_shared(batch([b"{}"] * 50, topic=FLEET), NOW_S)
    outs += one.hear_shared(batch([b"{}"] * 40, first=50, topic=FLEET), NOW_S)
    assert len(said(outs, topics.DEAD_LETTERS)) == 90


def test_a_bad_fact_is_set_aside_though_no_partition_is_owned_yet() -> None:
    one = runner()
    assert len(said(one.hear_shared(batch([b"{}"], topic=FLEET), NOW_S), topics.DEAD_LETTERS)) == 1


class OnlyUpwards(Counts):
    """Refuses a fleet below the last one."""

    def screen(self, state: dict[str, Any], heard: Heard[Any]) -> Iterable[Refusal]:
        if heard.topic == FLEET.name:
            for position, record in zip(heard.positions, heard.records, strict=True):
                if record.version < max(state["fleets"], default=0):
                    yield Refusal(int(position), "version", str(record.version), "is below the one in force")


def test_a_fact_the_stage_refuses_displaces_none_though_no_partition_is_owned_yet() -> None:
    one = runner(OnlyUpwards())
    one.hear_shared(batch([fleet(5)], topic=FLEET), NOW_S)
    outs = one.hear_shared(batch([fleet(3)], first=1, topic=FLEET), NOW_S)
    assert [dict(o.headers)[topics.DEAD_FIELD] for o in outs] == [b"version"]
    one.assign(0)
    one.assign(1)
    assert len(said(one.hear_shared(batch([fleet(4)], first=2, topic=FLEET), NOW_S), topics.DEAD_LETTERS)) == 1
    assert [one.partitions[n].state["fleets"] for n in (0, 1)] == [[5], [5]]


def test_facts_of_a_topic_made_anew_are_judged_by_themselves() -> None:
    one = runner(OnlyUpwards())
    one.hear_shared(batch([fleet(5)], first=7, topic=FLEET, key=b"old"), NOW_S)
    assert one.hear_shared(batch([fleet(3)], topic=FLEET), NOW_S) == []
    one.forget_facts(FLEET.name)
    one.hear_shared(batch([fleet(3)], topic=FLEET), NOW_S)
    one.assign(0)
    assert one.partitions[0].state["fleets"] == [3]


def test_a_stage_that_spoke_elsewhere_is_told_when_a_partition_goes() -> None:
    class Telling(Counts):
        left: list[Any] = []  # noqa: RUF012 - of this test alone

        def leave(self, state: dict[str, Any]) -> None:
            self.left.append(state["seqs"])

    one = runner(Telling())
    one.assign(0)
    one.hear(batch(metrics(1, 2)), NOW_S)
    one.release(0)
    one.release(0)
    assert Telling.left == [[1, 2]]


def test_a_silent_runner_views_nothing_and_keeps_what_is_due() -> None:
    one = runner()
    one.assign(0)
    one.silent = True
    assert one.hear(batch(metrics(1, urgent=True)), NOW_S) == []
    assert len(one.hear(batch([b"{}"], first=1), NOW_S)) == 1
    assert one.tick(NOW_S) == []
    one.silent = False
    assert ready(one.speak(NOW_S)) == [1]


# ---------------------------------------------------------------- thinking


def test_one_question_at_a_time_and_its_answer_is_viewed_at_once() -> None:
    one = runner(Thinking())
    one.assign(0)
    one.hear(batch(metrics(1, 2)), NOW_S)
    ((partition, question),) = one.questions()
    assert (partition, question.ask(*question.given)) == (0, 3)
    one.hear(batch(metrics(3), first=2), NOW_S)
    assert one.questions() == []
    (out,) = one.answer(0, 3, NOW_S + 1)
    assert msgspec.json.decode(out.value or b"", type=Capacity).starting == 1
    ((_, question),) = one.questions()
    assert question.ask(*question.given) == 6


def test_an_answer_that_failed_is_asked_for_again() -> None:
    one = runner(Thinking())
    one.assign(0)
    one.hear(batch(metrics(1)), NOW_S)
    assert len(one.questions()) == 1
    assert one.answer(0, None, NOW_S) == []
    assert len(one.questions()) == 1


def test_a_partition_being_restored_asks_nothing() -> None:
    one = runner(Thinking())
    one.assign(0, {METRICS.name: 5})
    one.hear(batch(metrics(1)), NOW_S)
    assert one.questions() == []


def test_a_stage_without_questions_is_not_asked() -> None:
    one = runner()
    one.assign(0)
    assert one.questions() == []
    assert one.answer(0, 1, NOW_S) == []


# ---------------------------------------------------------------- sealing


class Tables(Counts):
    """Says a table, and something else."""

    def view(self, state: dict[str, Any], now_s: float) -> Iterable[Any]:
        yield RoutingTable(
            service="chat", epoch=1, version=1, issued_at_s=now_s, expires_at_s=now_s + 1, fleet_version=1,
            default_class="a", endpoints=(), routes=(),
        )  # fmt: skip
        yield Interruption(endpoint="eu-1", kind="drain", notice_at_s=now_s)


def test_a_table_is_sealed_over_its_exact_bytes_and_nothing_else_is() -> None:
    one = runner(Tables(), seal=lambda key, value: [(topics.SIGNATURE, key + b"|" + value)])
    one.assign(0)
    table, notice = one.tick(NOW_S)
    assert dict(table.headers)[topics.SIGNATURE] == table.key + b"|" + (table.value or b"")
    assert topics.SIGNATURE not in dict(notice.headers)
