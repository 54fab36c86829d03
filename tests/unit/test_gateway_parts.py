"""Parts of the gateway without HTTP: events, budget, reports, callers, settings, and a sink without a broker."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
from aiokafka.errors import (
    KafkaConnectionError,
    KafkaError,
    MessageSizeTooLargeError,
    ProducerClosed,
    UnknownTopicOrPartitionError,
)
from multidict import CIMultiDict, CIMultiDictProxy

from router_sync.gateway import GatewayConfig, KafkaSink, ListSink, checked
from router_sync.gateway.access import class_of, load_access, may_use
from router_sync.gateway.budget import RetryBudget
from router_sync.gateway.caller import ANONYMOUS
from router_sync.gateway.events import Events, tokens_of
from router_sync.gateway.kept import kept
from router_sync.gateway.refusal import Refusal
from router_sync.gateway.report import GAMMA, Reporter, Standing, buckets
from streams.contract.errors import BadSetting
from streams.contract.records import Arrivals, EndpointMetrics, Route
from tradewind.ports import free_port


def headers(**said: str) -> CIMultiDictProxy[str]:
    return CIMultiDictProxy(CIMultiDict({name.replace("_", "-"): value for name, value in said.items()}))


# ---------------------------------------------------------------- events


def test_only_whole_events_go_out_however_the_pieces_are_cut() -> None:
    stream = b'data: {"a":1}\n\ndata: {"b":2}\r\n\r\ndata: [DONE]\n\n'
    for size in range(1, len(stream)):
        events, out = Events(), b""
        for start in range(0, len(stream), size):
            whole = events.feed(stream[start : start + size])
            assert whole == b"" or whole.endswith((b"\n\n", b"\r\n\r\n"))
            out += whole
        assert out == stream
        assert events.rest() == b""
        assert events.done


def test_an_event_without_its_end_stays_behind() -> None:
    events = Events()
    assert events.feed(b"data: 1\n\ndata: 2") == b"data: 1\n\n"
    assert events.rest() == b"data: 2"
    assert not events.done


def test_an_event_that_never_ends_is_not_kept_for_ever() -> None:
    events = Events()
    assert len(events.feed(b"x" * (1 << 21))) == 1 << 21


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"usage":{"prompt_tokens":3,"completion_tokens":4}}', (3, 4)),
        (b'{"usage":{"prompt_tokens":3}}', (3, None)),
        (b'{"usage":{"prompt_tokens":-3,"completion_tokens":"x"}}', (None, None)),
        (b"{}", (None, None)),
        (b"nonsense", (None, None)),
    ],
)
def test_tokens_are_what_the_answer_says_or_unknown(body: bytes, expected: tuple[int | None, int | None]) -> None:
    assert tokens_of(body) == expected


# ---------------------------------------------------------------- budget


def test_retries_are_a_share_of_requests_and_a_few_a_second() -> None:
    budget = RetryBudget(0.2, 10.0, 0.0)
    assert sum(budget.grant(0.0) for _ in range(1000)) == 100  # saved up
    assert sum(budget.grant(1.0) for _ in range(1000)) == 10
    for _ in range(100):
        budget.request()
    assert sum(budget.grant(1.0) for _ in range(1000)) in (19, 20)


def test_no_share_and_no_floor_is_no_retry() -> None:
    budget = RetryBudget(0.0, 0.0, 0.0)
    for _ in range(100):
        budget.request()
    assert not budget.grant(1e6)


# ---------------------------------------------------------------- reports


class Clock:
    def __init__(self) -> None:
        self.at_s = 1000.0

    def __call__(self) -> float:
        return self.at_s


def reporter(clock: Clock) -> tuple[Reporter, ListSink]:
    sink = ListSink()
    return Reporter(sink, "g", "eu", 7, clock), sink


def told(sink: ListSink) -> list[EndpointMetrics]:
    return [record for record, _ in sink.records if isinstance(record, EndpointMetrics)]


def test_one_record_per_endpoint_service_and_class_and_interval() -> None:
    clock = Clock()
    one, sink = reporter(clock)
    for latency_ms in (10.0, 20.0):
        one.served("a", "m", "chat", latency_ms=latency_ms, bytes_in=1, bytes_out=2, tokens=(3, None))
    one.served("a", "m", "batch", latency_ms=30.0)
    clock.at_s += 0.25
    one.flush()
    chat, batch = told(sink)
    assert (chat.class_, chat.requests, chat.latency_ms) == ("chat", 2, (10.0, 20.0))
    assert (chat.bytes_in, chat.bytes_out, chat.tokens_in, chat.tokens_out) == (2, 4, 6, None)
    assert (chat.interval_s, chat.boot, chat.observer) == (0.25, 7, "g")
    assert batch.requests == 1
    assert batch.seq > chat.seq
    one.flush()
    assert len(sink.records) == 2


async def test_a_hard_failure_goes_at_once_and_a_flood_of_them_every_20_ms() -> None:
    one, sink = reporter(Clock())
    one.failed("b", "m", "chat", "http_429")
    one.failed("a", "m", "chat", "connect")
    await asyncio.sleep(0)
    await asyncio.sleep(0.001)
    (first,) = told(sink)
    assert (first.endpoint, first.errors, first.hard_streak) == ("a", {"connect": 1}, 1)
    assert sink.records[0][1]
    for _ in range(100):
        one.failed("a", "m", "chat", "reset")
    async with asyncio.timeout(5):
        while len(told(sink)) < 2:  # noqa: ASYNC110 - a list tells nobody
            await asyncio.sleep(0.001)
    assert told(sink)[1].errors == {"reset": 100}
    assert told(sink)[1].hard_streak == 101
    one.flush(last=True)


def test_failures_in_a_row_are_the_endpoints_over_all_its_classes() -> None:
    standing = Standing()
    standing.hard(10.0)
    standing.hard(11.0)
    assert (standing.streak, standing.first_error_at_s) == (2, 10.0)
    standing.ok(12.0)
    assert (standing.streak, standing.first_error_at_s, standing.last_ok_at_s) == (0, None, 12.0)


def test_probes_end_a_row_of_failures_slower_for_who_falls_again_soon() -> None:
    standing, at_s, needed = Standing(), 100.0, []
    for _ in range(6):
        for _ in range(3):
            standing.hard(at_s)
        count = 0
        while standing.streak:
            count, at_s = count + 1, at_s + 1
            standing.probe_ok(at_s)
        needed.append(count)
    assert needed == [2, 4, 8, 16, 32, 32]
    standing.ok(at_s + 100)
    standing.hard(at_s + 200)
    assert standing.needed == 2


def test_answered_probes_do_not_absolve_from_requests_that_fail_meanwhile() -> None:
    standing = Standing()
    for at_s in (100.0, 101.0, 102.0):
        standing.hard(at_s, request=True)
        standing.probe_ok(at_s + 0.1)
        standing.probe_ok(at_s + 0.2)
    assert standing.streak == 3
    standing.probe_ok(104.5)
    standing.probe_ok(105.5)
    assert standing.streak == 0


def test_many_values_are_sent_as_buckets_within_one_percent() -> None:
    assert buckets([1.0] * 200) is None
    values = [0.5 + i for i in range(500)]
    found = buckets(values)
    assert found is not None
    assert sum(found.count) == 500
    said = [2 * GAMMA**i / (GAMMA + 1) for i, n in zip(found.index, found.count, strict=True) for _ in range(n)]
    assert said == pytest.approx(values, rel=0.0101)


def test_arrivals_are_told_per_second_when_it_is_over() -> None:
    clock = Clock()
    one, sink = reporter(clock)
    one.arrived("m", "chat")
    one.arrived("m", "chat", shed=True)
    one.arrived("m", "batch")
    one.lost("m", "batch")
    one.flush()
    assert not sink.records
    clock.at_s += 1.0
    one.flush()
    ((record, urgent),) = sink.records
    assert isinstance(record, Arrivals)
    assert not urgent
    assert (record.at_s, record.slot_s, record.gateway, record.origin) == (1000.0, 1.0, "g", "eu")
    assert record.class_ == ("chat", "batch")
    assert (record.arrived, record.admitted, record.shed, record.failed) == ((2, 1), (1, 1), (1, 0), (0, 1))


async def test_while_the_broker_is_away_the_oldest_reports_go_and_are_counted() -> None:
    clock = Clock()
    sink = KafkaSink(f"127.0.0.1:{free_port()}", "t", "g", queue=10)
    await sink.start()
    one = Reporter(sink, "g", "eu", 7, clock)
    for _ in range(25):
        one.served("a", "m", "chat", latency_ms=1.0)
        one.flush()
    assert sink.dropped == {"endpoint-metrics.v1": 15}
    await sink.stop(0.1)
    assert sink.dropped == {"endpoint-metrics.v1": 25}


class Producer:
    """Stands for aiokafka's: fails as `plan` says, one entry per message, and counts its starts and stops."""

    plan: ClassVar[list[Exception | None]] = []
    made: ClassVar[list[Producer]] = []

    def __init__(self, **_: Any) -> None:
        self.sent: list[bytes] = []
        self.stopped = False
        self.made.append(self)

    async def start(self) -> None: ...

    async def stop(self) -> None:
        self.stopped = True

    async def send(self, topic: str, value: bytes, **_: Any) -> asyncio.Future[None]:
        if self.plan and (error := self.plan.pop(0)) is not None:
            raise error
        self.sent.append(value)
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        done.set_result(None)
        return done


@pytest.mark.parametrize(
    ("error", "producers", "dropped"),
    [
        (KafkaConnectionError(), 1, 0),  # the broker is away: the report waits
        (MessageSizeTooLargeError(), 1, 1),  # this report alone is at fault
        (UnknownTopicOrPartitionError(), 1, 1),
        (ProducerClosed(), 2, 0),  # this producer alone is
        (KafkaError("Unexpected error during batch delivery"), 2, 0),
        (RuntimeError("never seen before"), 2, 1),  # who knows: neither is tried again
    ],
    ids=repr,
)
async def test_a_report_or_a_producer_that_is_beyond_help_holds_up_nobody(
    error: Exception, producers: int, dropped: int
) -> None:
    class Fake(Producer):
        plan: ClassVar[list[Exception | None]] = [error]
        made: ClassVar[list[Producer]] = []

    sink = KafkaSink("b:1", "t", "g", producer=Fake)
    await sink.start()
    one = Reporter(sink, "g", "eu", 7, Clock())
    for _ in range(3):
        one.served("a", "m", "chat", latency_ms=1.0)
        one.flush()
    async with asyncio.timeout(10):
        while sum(len(made.sent) for made in Fake.made) < 3 - dropped:  # noqa: ASYNC110 - a list tells nobody
            await asyncio.sleep(0.01)
    await sink.stop(5.0)
    assert len(Fake.made) - 1 == producers  # the other one is the idle lane's
    assert sum(sink.dropped.values()) == dropped
    assert all(made.stopped for made in Fake.made)


async def test_reports_go_on_when_a_producer_cannot_even_be_made_at_first() -> None:
    class Fake(Producer):
        made: ClassVar[list[Producer]] = []

        def __init__(self, **_: Any) -> None:
            super().__init__()
            if len(self.made) <= 2:  # the first of each lane
                raise ValueError("nonsense")

    sink = KafkaSink("b:1", "t", "g", producer=Fake)
    await sink.start()
    one = Reporter(sink, "g", "eu", 7, Clock())
    one.served("a", "m", "chat", latency_ms=1.0)
    one.flush()
    async with asyncio.timeout(10):
        while not any(fake.sent for fake in Fake.made):  # noqa: ASYNC110 - a list tells nobody
            await asyncio.sleep(0.01)
    await sink.stop(5.0)


# ---------------------------------------------------------------- work beside


async def test_work_that_fails_or_is_cancelled_from_within_begins_again_until_it_ends_by_itself() -> None:
    mistakes: list[BaseException] = [RuntimeError("one"), asyncio.CancelledError(), KeyError("three")]

    async def work() -> None:
        if mistakes:
            raise mistakes.pop(0)

    await asyncio.wait_for(kept("test", work, wait_s=0.001), 10)
    assert mistakes == []


async def test_who_cancels_kept_work_ends_it() -> None:
    started = asyncio.Event()

    async def work() -> None:
        started.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(kept("test", work))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


# ---------------------------------------------------------------- callers


def serving(*classes: str, tenant: str = "") -> Callable[[str], Route | None]:
    """Routes of these classes, all of one tenant."""
    routes = {
        name: Route(origin="eu", class_=name, slo_p95_ms=300, endpoints=(), shares=(), tenant=tenant)
        for name in classes
    }
    return routes.get


KEY = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"  # of "test"


def test_a_key_is_known_by_its_digest_in_any_of_the_usual_headers(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    path.write_text(f'{{"keys": [{{"sha256": "{KEY}", "tenant": "acme", "classes": ["chat"]}}]}}')
    access = load_access(path, anonymous=False)
    for said in (headers(Authorization="Bearer test"), headers(api_key="test"), headers(x_api_key="test")):
        assert access.who(said).tenant == "acme"
    not_text = b"Bearer \xff".decode("utf-8", "surrogateescape")
    for wrong in (
        headers(), headers(Authorization="Bearer tesT"), headers(Authorization=""), headers(Authorization=not_text)
    ):  # fmt: skip
        with pytest.raises(Refusal) as refused:
            access.who(wrong)
        assert refused.value.status == 401
        assert "tesT" not in refused.value.message


def test_with_keys_and_anonymous_callers_a_wrong_key_is_still_wrong(tmp_path: Path) -> None:
    path = tmp_path / "keys.yaml"
    path.write_text(f"keys:\n  - {{sha256: {KEY}, tenant: acme}}\n")
    access = load_access(path, anonymous=True)
    assert access.who(headers()).tenant == "anonymous"
    with pytest.raises(Refusal):
        access.who(headers(Authorization="Bearer wrong"))
    assert load_access(None, anonymous=True).who(headers(Authorization="Bearer any")).tenant == "anonymous"


@pytest.mark.parametrize(
    "content", ["", "keys: 3", "keys:\n - {sha256: abc, tenant: a}", "{", f"keys: [{{sha256: {KEY}}}]"]
)
def test_a_keys_file_that_makes_no_sense_stops_with_its_name(tmp_path: Path, content: str) -> None:
    path = tmp_path / "keys.yaml"
    path.write_text(content)
    with pytest.raises(BadSetting, match=r"keys\.yaml"):
        load_access(path, anonymous=False)


def test_the_class_is_the_first_that_is_served_and_the_header_only_restricts(tmp_path: Path) -> None:
    path = tmp_path / "keys.yaml"
    path.write_text(f"keys:\n  - {{sha256: {KEY}, tenant: acme, classes: [gold, chat]}}\n")
    caller = load_access(path, anonymous=False).who(headers(api_key="test"))
    assert class_of(caller, headers(), "chat", serving("chat", "gold")) == "gold"
    assert class_of(caller, headers(), "chat", serving("chat")) == "chat"
    assert class_of(caller, headers(x_tradewind_class="chat"), "gold", serving("chat", "gold")) == "chat"
    for said, served in [(headers(x_tradewind_class="batch"), "batch"), (headers(), "batch")]:
        with pytest.raises(Refusal) as refused:
            class_of(caller, said, "batch", serving(served))
        assert refused.value.status == 403


def test_a_class_of_another_tenant_is_not_his_whatever_his_key_says_of_classes(tmp_path: Path) -> None:
    path = tmp_path / "keys.yaml"
    path.write_text(f"keys:\n  - {{sha256: {KEY}, tenant: acme, classes: [gold, chat]}}\n")
    caller = load_access(path, anonymous=False).who(headers(api_key="test"))
    assert class_of(caller, headers(), "chat", serving("chat", "gold", tenant="acme")) == "gold"
    for said in (headers(), headers(x_tradewind_class="chat"), headers(x_tradewind_tenant="globex")):
        with pytest.raises(Refusal) as refused:
            class_of(caller, said, "chat", serving("chat", "gold", tenant="globex"))
        assert (refused.value.status, refused.value.code) == (403, "class_of_another_tenant")
    with pytest.raises(Refusal):
        class_of(ANONYMOUS, headers(), "chat", serving("chat", tenant="acme"))
    assert not may_use(caller, "chat", serving("chat", "gold", tenant="globex"))
    assert may_use(caller, "chat", serving("chat", tenant="acme"))


def certificate(*names: tuple[str, str], common: str = "app") -> dict[str, Any]:
    return {"subject": ((("commonName", common),),), "subjectAltName": names}


def test_who_shows_no_key_is_known_by_a_name_in_his_certificate(tmp_path: Path) -> None:
    path = tmp_path / "keys.yaml"
    path.write_text(
        f"keys:\n  - {{sha256: {KEY}, tenant: acme}}\n"
        "certificates:\n  - {name: 'spiffe://globex/app', tenant: globex, classes: [chat]}\n"
        "  - {name: old, tenant: o}\n"
    )
    access = load_access(path, anonymous=False, certified=True)
    assert access.who(headers(), certificate(("DNS", "x"), ("URI", "spiffe://globex/app"))).tenant == "globex"
    assert access.who(headers(), certificate(common="old")).tenant == "o"
    assert access.who(headers(api_key="test"), certificate(("URI", "spiffe://globex/app"))).tenant == "acme"
    for said, shown in (
        (headers(), certificate(("URI", "spiffe://globex/other"))),
        (headers(), certificate(("URI", "spiffe://x"), common="old")),
        (headers(api_key="wrong"), certificate(("URI", "spiffe://globex/app"))),
        (headers(), None),
    ):
        with pytest.raises(Refusal) as refused:
            access.who(said, shown)
        assert refused.value.status == 401


def test_names_of_certificates_without_a_listener_that_asks_for_them_are_a_mistake(tmp_path: Path) -> None:
    path = tmp_path / "keys.yaml"
    path.write_text("certificates: [{name: a, tenant: b}]\n")
    with pytest.raises(BadSetting, match="client_ca_file"):
        load_access(path, anonymous=False)
    path.write_text("certificates: [{name: a, tenant: b}, {name: a, tenant: c}]\n")
    with pytest.raises(BadSetting, match="twice"):
        load_access(path, anonymous=False, certified=True)


# ---------------------------------------------------------------- settings


def test_a_config_from_plain_values() -> None:
    config = checked("test", {"origin": "eu", "trust": ["a.pub"], "anonymous": True, "limits": {"max_concurrent": 5}})
    assert isinstance(config, GatewayConfig)
    assert config.trust == (Path("a.pub"),)
    assert config.limits.max_concurrent == 5


@pytest.mark.parametrize(
    ("fields", "names"),
    [
        ({"port": 70000}, "port"),
        ({"deadlines": {"connect_s": -1}}, "deadlines.connect_s"),
        ({"origin": ""}, "origin"),
        ({"trust": 3}, "trust"),
        ({"deadlnes": {}}, "deadlnes"),
        ({"limits": {"max_boby_bytes": 1}}, "limits.max_boby_bytes"),
        ({"origin": None}, "origin"),
        ({"reuse_port": True}, "name"),
        ({}, "keys"),
    ],
)
def test_a_bad_setting_is_named_with_what_is_accepted(fields: dict[str, Any], names: str) -> None:
    with pytest.raises(BadSetting) as refused:
        checked("gateway.yaml", {"origin": "eu", "trust": ["a.pub"], **fields})
    assert (refused.value.where, refused.value.field) == ("gateway.yaml", names)


def test_a_way_into_kafka_that_is_none_is_told_those_there_are() -> None:
    with pytest.raises(BadSetting, match="choose from PLAINTEXT, SSL, SASL_PLAINTEXT, SASL_SSL"):
        checked("gateway.yaml", {"origin": "eu", "trust": ["a.pub"], "kafka": {"security_protocol": "TLS"}})


def test_a_shared_port_with_a_name_is_accepted() -> None:
    fields = {"origin": "eu", "trust": ["a.pub"], "reuse_port": True, "name": "gateway-2", "anonymous": True}
    assert checked("flags", fields).name == "gateway-2"
