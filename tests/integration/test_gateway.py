"""The gateway before real HTTP servers: what callers get when endpoints are well, slow, broken or gone."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import io
import json
import random
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from aiohttp import web
from yarl import URL

from router_sync.client import Found
from router_sync.gateway import Deadlines, Gateway, GatewayConfig, Limits, ListSink, Probing, Retries
from router_sync.keys import load_or_make, public_path
from streams.contract.records import (
    Arrivals,
    EndpointMetrics,
    GatewayStatus,
    RoutingTable,
)
from tests.integration.gateway_house import (
    ANSWER,
    ASK,
    CHAT,
    DONE,
    EVENT,
    USAGE,
    Handler,
    Tables,
    answering,
    error,
    half,
    hanging,
    house,
    refusing,
    resetting,
    streaming,
    table,
    until,
    upstream,
)


async def test_a_plain_answer_comes_through_and_says_who_served(tmp_path: Path) -> None:
    async with upstream(answering(**{"x-model-load": "3"})) as a, house(tmp_path, table({"a": a}, {"a": 1.0})) as one:
        status, headers, body = await one.ask()
        assert (status, body) == (200, ANSWER)
        assert headers["x-tradewind-endpoint"] == "a"
        assert headers["x-tradewind-region"] == "region-a"
        assert headers["x-tradewind-table"] == "1.1"
        assert headers["x-tradewind-attempts"] == "1"
        assert headers["x-model-load"] == "3"
        assert "aiohttp" not in headers["server"]


async def test_the_endpoint_gets_the_body_as_it_was_and_no_credentials(tmp_path: Path) -> None:
    seen: dict[str, Any] = {}

    async def handle(request: web.Request) -> web.StreamResponse:
        seen.update(path=request.path_qs, body=await request.read())
        seen["headers"] = {name.lower(): value for name, value in request.headers.items()}
        return web.Response(body=ANSWER, content_type="application/json")

    async with upstream(handle) as a, house(tmp_path, table({"a": f"{a}/v1"}, {"a": 1.0})) as one:
        raw = b'{"model":"m",  "x": 1.50}'
        headers = {
            "Authorization": "Bearer secret", "Cookie": "c=1", "x-request-id": "7", "x-tradewind-class": "chat",
            "x-tradewind-tenant": "somebody", "x-tradewind-anything": "1",
        }  # fmt: skip
        async with one.session.post(f"{one.url}{CHAT}?beta=1", data=raw, headers=headers) as answer:
            assert answer.status == 200
    assert seen["body"] == raw
    assert seen["path"] == f"{CHAT}?beta=1"
    assert seen["headers"]["x-request-id"] == "7"
    assert not {"authorization", "cookie", "x-tradewind-anything"} & set(seen["headers"])
    assert seen["headers"]["x-tradewind-tenant"] == "anonymous", "what law asks is ours to say"


async def test_a_stream_comes_through_event_by_event_with_its_usage_reported(tmp_path: Path) -> None:
    async with (
        upstream(streaming(EVENT, EVENT[:10], EVENT[10:], USAGE + DONE)) as a,
        house(tmp_path, table({"a": a}, {"a": 1.0})) as one,
    ):
        status, headers, body = await one.ask(stream=True)
        assert status == 200
        assert headers["content-type"] == "text/event-stream"
        assert body == EVENT + EVENT + USAGE + DONE
        await until(lambda: bool(one.metrics("a")))
        (told,) = one.metrics("a")
        assert (told.tokens_in, told.tokens_out) == (3, 4)
        assert 0 < told.ttft_ms[0] < told.latency_ms[0]


@pytest.mark.parametrize(
    ("broken", "kind"),
    [
        (resetting, "reset"),
        (answering(b"no", 500), "http_5xx"),
        (answering(b"no", 429), "http_429"),
        (half, "truncated"),
        (hanging, "first_byte_timeout"),
        (streaming(EVENT[:10], then="cut"), "truncated"),
        (streaming(then="silence"), "first_byte_timeout"),
        (streaming(EVENT[:10], then="silence"), "stall"),
    ],
)
async def test_what_breaks_before_anything_was_sent_is_served_by_another_endpoint(
    tmp_path: Path, broken: Handler, kind: str
) -> None:
    deadlines = Deadlines(first_byte_s=0.2, whole_s=0.2, stall_s=0.2)
    async with (
        upstream(broken, answering()) as a,
        upstream(answering()) as b,
        house(tmp_path, table({"a": a, "b": b}, {"a": 1.0}), deadlines=deadlines) as one,
    ):
        status, headers, body = await one.ask()
        assert (status, body) == (200, ANSWER)
        assert headers["x-tradewind-endpoint"] == "b"
        assert headers["x-tradewind-attempts"] == "2"
        await until(lambda: bool(one.metrics("a")) and bool(one.metrics("b")))
        assert one.metrics("a")[0].errors == {kind: 1}
        assert one.metrics("a")[0].latency_ms == ()
        assert not one.metrics("b")[0].errors


async def test_a_refused_connection_is_served_elsewhere_and_evidence_is_complete_within_milliseconds(
    tmp_path: Path,
) -> None:
    async with upstream(answering()) as b:
        of = table({"a": refusing(), "b": b}, {"a": 1.0})
        async with house(tmp_path, of, report_every_s=3600.0) as one:
            began_s = time.time()
            status, _, _ = await one.ask()
            assert status == 200
            # the caller's failure and two probes make three in a row, sent at once and not with the interval
            await until(lambda: any(record.hard_streak >= 3 for record in one.metrics("a", "probe")), 2.0)
            assert time.time() - began_s < 0.5
            (first,) = one.metrics("a")
            assert first.errors == {"connect": 1}
            assert first.first_error_at_s is not None
            assert began_s <= first.first_error_at_s <= time.time()
            assert {urgent for record, urgent in one.sink.records if isinstance(record, EndpointMetrics)} == {True}
            assert all(record.latency_ms == () for record in one.metrics("a", "probe"))
            # and from now on nobody is sent there
            before = len(one.metrics("a"))
            for _ in range(5):
                assert (await one.ask())[1]["x-tradewind-attempts"] == "1"
            assert len(one.metrics("a")) == before


async def test_a_stream_that_breaks_off_ends_with_an_error_and_never_with_done(tmp_path: Path) -> None:
    for then in ("cut", "silence", "end"):
        deadlines = Deadlines(stall_s=0.2)
        async with (
            upstream(streaming(EVENT, EVENT[:10], then=then)) as a,
            upstream(answering()) as b,
            house(tmp_path / then, table({"a": a, "b": b}, {"a": 1.0}), deadlines=deadlines) as one,
        ):
            got = bytearray()
            async with one.session.post(one.url + CHAT, json={**ASK, "stream": True}) as answer:
                with pytest.raises(aiohttp.ClientPayloadError):
                    await _into(got, answer)
            assert got.startswith(EVENT + b"event: error\ndata: ")
            assert b"[DONE]" not in got
            error(bytes(got).removeprefix(EVENT + b"event: error\ndata: ").strip())
            await until(lambda: any(r.errors for r in one.metrics("a")))


async def _into(got: bytearray, answer: aiohttp.ClientResponse) -> None:
    async for piece in answer.content.iter_any():
        got += piece


async def test_a_large_plain_answer_that_breaks_off_is_a_broken_connection(tmp_path: Path) -> None:
    async def large(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "300000"})
        await response.prepare(request)
        await response.write(b"x" * 200_000)
        await asyncio.sleep(0.05)
        assert request.transport is not None
        request.transport.close()
        return response

    limits = Limits(max_answer_bytes=100_000)
    async with (
        upstream(large) as a,
        house(tmp_path, table({"a": a}, {"a": 1.0}), limits=limits) as one,
        one.session.post(one.url + CHAT, json=ASK) as answer,
    ):
        assert answer.status == 200
        with pytest.raises(aiohttp.ClientPayloadError):
            await answer.read()


async def test_a_large_body_goes_out_whole_and_again_to_the_next_endpoint(tmp_path: Path) -> None:
    async def size(request: web.Request) -> web.StreamResponse:
        return web.json_response({"bytes": len(await request.read())})

    raw = json.dumps({**ASK, "image": "x" * (2 << 20)}).encode()
    async with (
        upstream(answering(b"", 500)) as a,
        upstream(size) as b,
        house(tmp_path, table({"a": a, "b": b}, {"a": 1.0})) as one,
        one.session.post(one.url + CHAT, data=io.BytesIO(raw)) as answer,
    ):
        assert await answer.json() == {"bytes": len(raw)}


async def test_a_large_answer_comes_through_whole(tmp_path: Path) -> None:
    body, limits = random.Random(1).randbytes(3 << 20), Limits(max_answer_bytes=100_000)
    async with upstream(answering(body)) as a, house(tmp_path, table({"a": a}, {"a": 1.0}), limits=limits) as one:
        assert (await one.ask())[2] == body


async def test_callers_mistakes_come_through_and_are_nobody_elses_failure(tmp_path: Path) -> None:
    async with (
        upstream(answering(b'{"error":{}}', 400)) as a,
        upstream(answering()) as b,
        house(tmp_path, table({"a": a, "b": b}, {"a": 1.0})) as one,
    ):
        for _ in range(5):
            status, headers, body = await one.ask()
            assert (status, body) == (400, b'{"error":{}}')
            assert headers["x-tradewind-attempts"] == "1"
        assert not one.gateway.following.pickers["m"].endpoints["a"].breaker.shut


async def test_when_all_fail_the_caller_is_told_and_nothing_servable_was_lost(tmp_path: Path) -> None:
    urls = {"a": refusing(), "b": refusing()}
    async with house(tmp_path, table(urls, {"a": 1.0})) as one:
        status, headers, body = await one.ask()
        assert status == 502
        assert error(body)["code"] == "upstream_connect"
        assert headers["x-tradewind-attempts"] == "2"
        assert "x-tradewind-lost-servable" not in headers
        assert one.gateway.relay.lost_servable == 0


async def test_a_failure_that_another_endpoint_could_have_served_is_owned_up_to(tmp_path: Path) -> None:
    async with upstream(answering()) as b:
        of = table({"a": refusing(), "b": b}, {"a": 1.0})
        async with house(tmp_path, of, retries=Retries(attempts=1)) as one:
            status, headers, _ = await one.ask()
            assert status == 502
            assert headers["x-tradewind-lost-servable"] == "1"
            assert one.gateway.relay.lost_servable == 1


async def test_without_a_budget_there_are_no_retries_and_generations_repeat_only_when_allowed(tmp_path: Path) -> None:
    async with upstream(answering(b"", 503), answering()) as a, upstream(answering()) as b:
        of = table({"a": a, "b": b}, {"a": 1.0})
        for number, retries in enumerate([Retries(budget_share=0, budget_per_s=0), Retries(generation=False)]):
            async with house(tmp_path / str(number), of, retries=retries) as one:
                assert (await one.ask())[0] == 502


async def test_throttling_everywhere_is_a_429_with_the_time_to_wait(tmp_path: Path) -> None:
    async with (
        upstream(answering(b"", 429, **{"Retry-After": "9"})) as a,
        house(tmp_path, table({"a": a}, {"a": 1.0})) as one,
    ):
        status, headers, body = await one.ask()
        assert (status, headers["retry-after"]) == (429, "9")
        assert error(body)["type"] == "rate_limit_error"


async def test_a_session_stays_at_its_endpoint(tmp_path: Path) -> None:
    async with (
        upstream(answering()) as a,
        upstream(answering()) as b,
        house(tmp_path, table({"a": a, "b": b}, {"a": 0.5, "b": 0.5})) as one,
    ):
        homes = {(await one.ask(headers={"x-tradewind-session": "s"}))[1]["x-tradewind-endpoint"] for _ in range(9)}
        assert len(homes) == 1


async def test_a_new_table_moves_the_next_request(tmp_path: Path) -> None:
    async with (
        upstream(answering()) as a,
        upstream(answering()) as b,
        house(tmp_path, table({"a": a, "b": b}, {"a": 1.0})) as one,
    ):
        assert (await one.ask())[1]["x-tradewind-endpoint"] == "a"
        await one.follow(table({"a": a, "b": b}, {"b": 1.0}, version=2))
        _, headers, _ = await one.ask()
        assert (headers["x-tradewind-endpoint"], headers["x-tradewind-table"]) == ("b", "1.2")
        statuses = [record for record, _ in one.sink.records if isinstance(record, GatewayStatus)]
        assert sorted({status.version for status in statuses if status.version}) == [1, 2]


async def test_keys_give_classes_and_a_header_may_only_choose_among_them(tmp_path: Path) -> None:
    digest = hashlib.sha256(b"k1").hexdigest()
    keys = tmp_path / "keys.yaml"
    keys.write_text(f"keys:\n  - sha256: {digest}\n    tenant: acme\n    classes: [batch, chat]\n")
    async with (
        upstream(answering()) as a,
        house(tmp_path, table({"a": a}, {"a": 1.0}), keys=keys, anonymous=False) as one,
    ):
        bearer = {"Authorization": "Bearer k1"}
        assert (await one.ask())[0] == 401
        assert (await one.ask(headers={"Authorization": "Bearer k2"}))[0] == 401
        assert (await one.ask(headers=bearer))[0] == 200
        assert (await one.ask(headers={**bearer, "x-tradewind-class": "chat"}))[0] == 200
        status, _, body = await one.ask(headers={**bearer, "x-tradewind-class": "gold"})
        assert (status, error(body)["code"]) == (403, "class_not_allowed")
        await until(lambda: len(one.metrics("a")) >= 2)
        assert {record.class_ for record in one.metrics("a")} == {"batch", "chat"}


async def test_requests_beyond_the_limits_are_told_which_limit(tmp_path: Path) -> None:
    limits = Limits(max_body_bytes=1000, body_s=0.2, max_header_bytes=2000)
    async with upstream(answering()) as a, house(tmp_path, table({"a": a}, {"a": 1.0}), limits=limits) as one:
        cases: list[tuple[int, str, dict[str, Any]]] = [
            (413, "max_body_bytes", {"data": b"x" * 1001}),
            (413, "max_body_bytes", {"data": _pieces(b"x" * 600, b"x" * 600)}),
            (408, "body_s", {"data": _pieces(b"{", None, b"}")}),
            (400, "JSON", {"data": b"{nonsense"}),
            (400, "model", {"data": b"{}"}),
            (400, "model", {"data": b'{"model": 3}'}),
            (404, "nobody", {"data": b'{"model": "nobody"}'}),
            (431, "max_header_bytes", {"data": b"{}", "headers": {"x-long": "y" * 4000}}),
        ]
        for expected, names, sent in cases:
            async with one.session.post(one.url + CHAT, **sent) as answer:
                assert answer.status == expected, names
                assert names in error(await answer.read())["message"]
        for method, path, expected in [
            ("PUT", CHAT, 405),
            ("POST", "/v2/chat", 404),
            ("POST", "/v1/a/%2e%2e/%2e%2e/metrics", 404),
            ("POST", "/v1/a//b", 404),
            ("POST", "/metrics", 404),
            ("GET", "/nothing", 404),
        ]:
            async with one.session.request(method, URL(one.url + path, encoded=True)) as answer:
                assert answer.status == expected, path
                error(await answer.read())


async def _pieces(*pieces: bytes | None) -> AsyncIterator[bytes]:
    for piece in pieces:
        if piece is None:
            await asyncio.sleep(1.0)
        else:
            yield piece


async def test_more_requests_at_once_than_allowed_are_shed_and_counted(tmp_path: Path) -> None:
    release = asyncio.Event()

    async def slow(_: web.Request) -> web.StreamResponse:
        await release.wait()
        return web.Response(body=ANSWER, content_type="application/json")

    async with (
        upstream(slow) as a,
        house(tmp_path, table({"a": a}, {"a": 1.0}), limits=Limits(max_concurrent=1)) as one,
    ):
        first = asyncio.create_task(one.ask())
        await until(lambda: one.gateway.relay.in_flight == 1)
        status, headers, body = await one.ask()
        assert (status, headers["retry-after"]) == (503, "1")
        assert "max_concurrent = 1" in error(body)["message"]
        release.set()
        assert (await first)[0] == 200

        def told() -> list[Arrivals]:
            return [record for record, _ in one.sink.records if isinstance(record, Arrivals)]

        await until(lambda: sum(sum(record.arrived) for record in told()) == 2)  # in two slots, if a second began
        assert sum(sum(record.shed) for record in told()) == 1
        assert {record.origin for record in told()} == {"eu"}


async def test_an_upload_is_streamed_to_the_model_its_header_names(tmp_path: Path) -> None:
    async def count(request: web.Request) -> web.StreamResponse:
        return web.json_response({"bytes": len(await request.read())})

    async with upstream(count) as a, upstream(answering(b"", 500), answering()) as b:
        limits = Limits(max_body_bytes=1000, max_upload_bytes=5 << 20)
        async with house(tmp_path, table({"a": a, "b": b}, {"a": 1.0}), limits=limits) as one:
            headers = {"x-tradewind-model": "m", "Content-Type": "audio/wav"}
            where = one.url + "/v1/audio/transcriptions"
            async with one.session.post(where, data=io.BytesIO(b"x" * (4 << 20)), headers=headers) as answer:
                assert await answer.json() == {"bytes": 4 << 20}
            async with one.session.post(where, data=io.BytesIO(b"x" * (6 << 20)), headers=headers) as answer:
                assert answer.status == 413
            await one.follow(table({"a": a, "b": b}, {"b": 1.0}, version=2))
            async with one.session.post(where, data=io.BytesIO(b"x" * (4 << 20)), headers=headers) as answer:
                assert answer.status == 502  # sent once, and not again


async def test_a_caller_who_hangs_up_frees_the_endpoint_and_blames_nobody(tmp_path: Path) -> None:
    async with upstream(hanging) as a, house(tmp_path, table({"a": a}, {"a": 1.0})) as one:
        local = one.gateway.following.pickers["m"].endpoints["a"]
        asked = asyncio.create_task(one.ask())
        await until(lambda: local.in_flight == 1)
        asked.cancel()
        await until(lambda: local.in_flight == 0 and one.gateway.relay.in_flight == 0)
        assert local.breaker.streak == 0
        assert one.metrics("a") == []


async def test_models_health_readiness_and_metrics(tmp_path: Path) -> None:
    async with upstream(answering()) as a, house(tmp_path) as one:

        async def get(path: str) -> tuple[int, bytes]:
            async with one.session.get(one.url + path) as answer:
                return answer.status, await answer.read()

        assert (await get("/healthz"))[0] == 200
        assert (await get("/readyz"))[0] == 503
        assert (await one.ask())[0] == 404
        await one.follow(table({"a": a}, {"a": 1.0}))
        status, body = await get("/readyz")
        assert status == 200
        assert json.loads(body)["tables"]["m"]["version"] == 1
        assert json.loads((await get("/v1/models"))[1])["data"][0]["id"] == "m"
        assert (await get("/v1/models/m"))[0] == 200
        assert (await get("/v1/models/n"))[0] == 404
        await one.ask()
        assert b'tradewind_table_version{service="m"} 1.0' in (await get("/metrics"))[1]


async def test_a_gateway_without_a_broker_serves_from_disk_after_a_restart_even_when_expired(tmp_path: Path) -> None:
    async with upstream(answering()) as a:
        expires = time.time() + 0.3
        async with house(tmp_path, table({"a": a}, {"a": 1.0}, expires_at_s=expires)) as one:
            assert (await one.ask())[0] == 200
        await until(lambda: time.time() > expires)
        async with house(tmp_path) as again:
            assert (await again.ask())[0] == 200
            async with again.session.get(f"{again.url}/readyz") as answer:
                assert (await answer.json())["expired"] == ["m"]


async def test_an_endpoint_whose_health_lies_is_accused_by_its_requests(tmp_path: Path) -> None:
    of = {"a": 1.0}
    async with (
        upstream(answering(b"", 500)) as a,
        upstream(answering()) as b,
        house(tmp_path, table({"a": a, "b": b}, of)) as one,
    ):
        for _ in range(3):
            assert (await one.ask())[0] == 200
            await until(lambda: len(one.metrics("a", "probe")) >= 2)
        await until(lambda: one.metrics("a")[-1].hard_streak == 3)


async def test_an_endpoint_that_came_back_is_noticed_by_probes_alone(tmp_path: Path) -> None:
    state = {"status": 503}

    async def health(_: web.Request) -> web.StreamResponse:
        return web.Response(status=state["status"])

    async with upstream(answering(), health) as a:
        probing = Probing(quiet_s=0.05, every_s=0.05)
        async with house(tmp_path, table({"a": a}, {"a": 1.0}), probing=probing) as one:
            await until(lambda: any(record.hard_streak >= 3 for record in one.metrics("a", "probe")))
            assert one.metrics("a", "probe")[-1].class_ == "chat"
            state["status"] = 200
            await until(lambda: one.metrics("a", "probe")[-1].hard_streak == 0)
            assert one.metrics("a", "probe")[-1].last_ok_at_s is not None


async def test_what_is_under_way_is_finished_before_the_gateway_ends(tmp_path: Path) -> None:
    release = asyncio.Event()

    async def slow(_: web.Request) -> web.StreamResponse:
        await release.wait()
        return web.Response(body=ANSWER, content_type="application/json")

    async with upstream(slow) as a, house(tmp_path, table({"a": a}, {"a": 1.0}), drain_s=5.0) as one:
        asked = asyncio.create_task(one.ask())
        await until(lambda: one.gateway.relay.in_flight == 1)
        stopping = asyncio.create_task(one.gateway.stop())
        await until(lambda: one.gateway.draining)
        release.set()
        assert (await asked)[0] == 200
        await stopping
        assert one.metrics("a")[-1].requests == 1


async def test_two_gateways_may_share_one_port(tmp_path: Path) -> None:
    async with (
        upstream(answering()) as a,
        house(tmp_path, table({"a": a}, {"a": 1.0}), reuse_port=True) as one,
    ):
        await until(lambda: any((tmp_path / "tables").glob("*.table")))
        async with house(tmp_path, port=one.gateway.port, reuse_port=True, name="gateway-2") as two:
            assert two.gateway.port == one.gateway.port
            for _ in range(8):
                async with aiohttp.ClientSession() as fresh, fresh.post(one.url + CHAT, json=ASK) as answer:
                    assert answer.status == 200


async def test_a_gateway_process_says_it_listens_and_ends_cleanly_on_sigterm(tmp_path: Path) -> None:
    load_or_make(tmp_path / "key")
    code = """
import sys
from router_sync.gateway import checked, run
from streams import signals
signals.log_to(None, "gateway")
folder = sys.argv[1]
said = {"origin": "eu", "port": 0, "trust": [folder + "/key.pub"], "anonymous": True, "state_dir": folder}
run(checked("test", {**said, "bootstrap_servers": sys.argv[2]}))
"""
    nobody = refusing().removeprefix("http://")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-W", "error", "-c", code, str(tmp_path), nobody, stderr=asyncio.subprocess.PIPE
    )
    assert process.stderr is not None
    try:
        async with asyncio.timeout(20):
            while b"gateway_listens" not in (line := await process.stderr.readline()):
                assert line, "it ended before it listened"
            process.terminate()
            rest = await process.stderr.read()
            assert await process.wait() == 0
            assert b"Traceback" not in rest
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def continuing(of: RoutingTable) -> RoutingTable:
    """The same table with endpoints that can go on with an answer begun elsewhere."""
    able = tuple(msgspec.structs.replace(e, continues=True) for e in of.endpoints)
    return msgspec.structs.replace(of, endpoints=able)


def chunk(answer: str, content: str, role: bool = False) -> bytes:
    delta = {"role": "assistant", "content": content} if role else {"content": content}
    return b"data: " + json.dumps({"id": answer, "choices": [{"index": 0, "delta": delta}]}).encode() + b"\n\n"


async def test_a_stream_that_breaks_off_goes_on_at_another_endpoint_under_its_first_id(tmp_path: Path) -> None:
    asked: list[dict[str, Any]] = []

    async def goes_on(request: web.Request) -> web.StreamResponse:
        asked.append(await request.json())
        return await streaming(chunk("B", "", role=True), chunk("B", " turns"), DONE)(request)

    broken = streaming(chunk("A", "", role=True) + chunk("A", "The"), chunk("A", " wind"), then="cut")
    async with (
        upstream(broken) as a,
        upstream(goes_on) as b,
        house(tmp_path, continuing(table({"a": a, "b": b}, {"a": 1.0}))) as one,
    ):
        status, headers, body = await one.ask(stream=True, messages=[{"role": "user", "content": "Go"}], max_tokens=10)
        assert (status, headers["x-tradewind-endpoint"]) == (200, "a")
        assert body == chunk("A", "", role=True) + chunk("A", "The") + chunk("A", " wind") + chunk("A", " turns") + DONE
        (rest,) = asked
        assert rest["messages"][-1] == {"role": "assistant", "content": "The wind"}
        assert rest["continue_final_message"] is True
        assert rest["add_generation_prompt"] is False
        assert rest["max_tokens"] == 8
        await until(lambda: bool(one.metrics("a")))
        assert one.metrics("a")[0].errors == {"truncated": 1}


@pytest.mark.parametrize("field", [{"tools": [{"type": "function"}]}, {"n": 2}, {"logprobs": True}])
async def test_a_stream_with_state_beyond_its_text_is_not_continued(tmp_path: Path, field: dict[str, Any]) -> None:
    async with (
        upstream(streaming(chunk("A", "The"), then="cut")) as a,
        upstream(streaming(chunk("B", "?"), DONE)) as b,
        house(tmp_path, continuing(table({"a": a, "b": b}, {"a": 1.0}))) as one,
    ):
        with pytest.raises(aiohttp.ClientPayloadError):
            await one.ask(stream=True, **field)


async def test_who_waits_at_an_endpoint_that_falls_is_served_by_another(tmp_path: Path) -> None:
    async def sick(_: web.Request) -> web.StreamResponse:
        return web.Response(status=500)

    async with (
        upstream(hanging, sick) as a,
        upstream(answering()) as b,
        house(tmp_path, table({"a": a, "b": b}, {"a": 1.0}), probing=Probing(quiet_s=0.1, every_s=0.1)) as one,
    ):
        status, headers, body = await asyncio.wait_for(one.ask(), 10.0)
        assert (status, body, headers["x-tradewind-endpoint"]) == (200, ANSWER, "b")


@pytest.mark.parametrize(("path", "times"), [("/v1/batches", 1), ("/v1/fine_tuning/jobs", 1), ("/v1/embeddings", 2)])
async def test_only_posts_that_generate_are_sent_a_second_time(tmp_path: Path, path: str, times: int) -> None:
    seen: list[str] = []

    async def lost(request: web.Request) -> web.StreamResponse:
        seen.append(request.path)
        return await resetting(request)

    async with (
        upstream(lost) as a,
        upstream(lost) as b,
        house(tmp_path, table({"a": a, "b": b}, {"a": 1.0})) as one,
    ):
        assert (await one.ask(path=path))[0] == 502
        assert seen == [path] * times


async def test_any_post_goes_elsewhere_when_no_connection_was_made(tmp_path: Path) -> None:
    async with upstream(answering()) as b, house(tmp_path, table({"a": refusing(), "b": b}, {"a": 1.0})) as one:
        status, headers, _ = await one.ask(path="/v1/batches")
        assert (status, headers["x-tradewind-attempts"]) == (200, "2")


async def test_endpoints_are_asked_for_plain_bytes_whatever_the_caller_accepts(tmp_path: Path) -> None:
    accepted: list[str] = []

    async def handle(request: web.Request) -> web.StreamResponse:
        accepted.append(request.headers.get("Accept-Encoding", "none"))
        return await streaming(EVENT, DONE)(request)

    async with upstream(handle) as a, house(tmp_path, table({"a": a}, {"a": 1.0})) as one:
        status, _, body = await one.ask(stream=True, headers={"Accept-Encoding": "gzip, br"})
        assert (status, body, accepted) == (200, EVENT + DONE, ["identity"])


async def test_a_stream_that_is_compressed_all_the_same_comes_through_as_it_is_and_blames_nobody(
    tmp_path: Path,
) -> None:
    packed, more = gzip.compress(EVENT + DONE), asyncio.Event()

    async def handle(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Content-Encoding": "gzip"})
        await response.prepare(request)
        await response.write(packed[:10])
        await more.wait()  # the first part is to arrive before the second is made
        await response.write(packed[10:])
        return response

    async with upstream(handle) as a, house(tmp_path, table({"a": a}, {"a": 1.0})) as one:
        async with (
            aiohttp.ClientSession(auto_decompress=False) as raw,
            raw.post(one.url + CHAT, json={**ASK, "stream": True}) as answer,
        ):
            assert (answer.status, answer.headers["Content-Encoding"]) == (200, "gzip")
            got = await answer.content.readany()
            more.set()
            assert gzip.decompress(got + await answer.read()) == EVENT + DONE
        await until(lambda: bool(one.metrics("a")))
        assert not one.metrics("a")[0].errors


async def test_a_stream_never_goes_on_with_an_answer_that_is_no_stream(tmp_path: Path) -> None:
    broken = streaming(chunk("A", "The"), then="cut")
    for other in (answering(), answering(b"{}", 400)):
        async with (
            upstream(broken) as a,
            upstream(other) as b,
            house(tmp_path / hex(id(other)), continuing(table({"a": a, "b": b}, {"a": 1.0}))) as one,
        ):
            got = bytearray()
            async with asyncio.timeout(10), one.session.post(one.url + CHAT, json={**ASK, "stream": True}) as answer:
                with pytest.raises(aiohttp.ClientPayloadError):
                    await _into(got, answer)
            assert got.startswith(chunk("A", "The") + b"event: error")
            assert b"HTTP/1.1" not in got


async def test_headers_that_are_for_one_hop_only_end_here_both_ways(tmp_path: Path) -> None:
    seen: dict[str, str] = {}

    async def handle(request: web.Request) -> web.StreamResponse:
        seen.update({name.lower(): value for name, value in request.headers.items()})
        return web.Response(body=ANSWER, headers={"Connection": "keep-alive, X-Theirs", "X-Theirs": "1", "X-Far": "2"})

    async with upstream(handle) as a, house(tmp_path, table({"a": a}, {"a": 1.0})) as one:
        sent = {"Connection": "keep-alive, X-Mine", "X-Mine": "1", "X-Far": "2"}
        _, headers, _ = await one.ask(headers=sent)
        assert (seen.get("x-mine"), seen["x-far"]) == (None, "2")
        assert (headers.get("x-theirs"), headers["x-far"]) == (None, "2")


async def test_a_query_goes_on_as_it_came(tmp_path: Path) -> None:
    seen: list[str] = []

    async def handle(request: web.Request) -> web.StreamResponse:
        seen.append(request.raw_path)
        return web.Response(body=ANSWER)

    async with upstream(handle) as a, house(tmp_path, table({"a": a}, {"a": 1.0})) as one:
        where = f"{CHAT}?q=a%26b%20c%0d%0aX-Evil:%201"
        async with one.session.post(URL(one.url + where, encoded=True), json=ASK) as answer:
            assert answer.status == 200
        assert seen == [where]


async def test_a_get_needs_no_body_only_a_model(tmp_path: Path) -> None:
    async with upstream(answering(b'{"data":[]}')) as a, house(tmp_path, table({"a": a}, {"a": 1.0})) as one:
        async with one.session.get(f"{one.url}/v1/files", headers={"x-tradewind-model": "m"}) as answer:
            assert (answer.status, await answer.read()) == (200, b'{"data":[]}')
        async with one.session.get(f"{one.url}/v1/files") as answer:
            assert (answer.status, error(await answer.read())["code"]) == (400, "missing_model")


@pytest.mark.parametrize("header", [b"x-tradewind-session", b"x-tradewind-class", b"x-request-id"])
async def test_a_header_that_is_no_text_is_a_400_that_names_it(tmp_path: Path, header: bytes) -> None:
    async with upstream(answering()) as a, house(tmp_path, table({"a": a}, {"a": 1.0})) as one:
        status, body = await raw_ask(one.gateway.port, header + b": \xff\xfe")
        assert (status, error(body)["param"]) == (400, header.decode())


async def raw_ask(port: int, header: bytes) -> tuple[int, bytes]:
    """Status and body of a request with one header of any bytes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    body = json.dumps(ASK).encode()
    head = b"POST %s HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: %d\r\n%s\r\n\r\n"
    writer.write(head % (CHAT.encode(), len(body), header) + body)
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    said, _, rest = answer.partition(b"\r\n\r\n")
    return int(said.split()[1]), rest


async def test_models_are_those_the_caller_may_use(tmp_path: Path) -> None:
    keys = tmp_path / "keys.yaml"
    digests = [hashlib.sha256(key).hexdigest() for key in (b"k1", b"k2")]
    keys.write_text(
        f"keys:\n  - {{sha256: {digests[0]}, tenant: acme}}\n"
        f"  - {{sha256: {digests[1]}, tenant: other, classes: [gold]}}\n"
    )
    async with house(tmp_path, table({"a": "http://a:1"}, {"a": 1.0}), keys=keys, anonymous=False) as one:
        for key, expected in [("k1", ["m"]), ("k2", [])]:
            headers = {"Authorization": f"Bearer {key}"}
            async with one.session.get(f"{one.url}/v1/models", headers=headers) as answer:
                said = await answer.json()
                assert (said["object"], [model["id"] for model in said["data"]]) == ("list", expected)
            async with one.session.get(f"{one.url}/v1/models/m", headers=headers) as answer:
                assert answer.status == (200 if expected else 404)
        async with one.session.get(f"{one.url}/v1/models") as answer:
            assert answer.status == 401
        async with one.session.post(f"{one.url}/v1/models", headers={"Authorization": "Bearer k1"}) as answer:
            assert answer.status == 405


async def test_with_a_port_of_its_own_callers_do_not_get_the_gateways_inner_pages(tmp_path: Path) -> None:
    async with house(tmp_path, table({"a": "http://a:1"}, {"a": 1.0}), admin_port=0) as one:
        inner = f"http://127.0.0.1:{one.gateway.admin_port}"
        expected = {"/healthz": (200, 200), "/readyz": (404, 200), "/metrics": (404, 200), "/v1/models": (200, 404)}
        for path, statuses in expected.items():
            for where, status in zip((one.url, inner), statuses, strict=True):
                async with one.session.get(where + path) as answer:
                    assert answer.status == status, (where, path)


async def test_a_gateway_without_a_table_tells_what_it_refused(tmp_path: Path) -> None:
    async with house(tmp_path) as one:
        await one.tables.queue.put(Found(b"m", b"{}", []))
        await until(lambda: len(one.sink.records) >= 2)  # at once, and again with each interval
        status, _ = one.sink.records[-1]
        assert isinstance(status, GatewayStatus)
        assert (status.service, status.version, status.refused) == ("m", None, {"signature": 1})


class Stumbling(Tables):
    """A source that fails in a way nobody thought of, each time after one record."""

    async def records(self) -> AsyncIterator[Found]:
        yield await self.queue.get()
        self.failures += 1
        raise RuntimeError("never seen before")


async def test_following_goes_on_after_a_mistake_nobody_thought_of(tmp_path: Path) -> None:
    signer, tables = load_or_make(tmp_path / "key"), Stumbling()
    config = GatewayConfig(origin="eu", port=0, trust=(public_path(tmp_path / "key"),), state_dir=tmp_path)
    gateway = Gateway(config, source=tables, sink=ListSink(), rng=random.Random(1))
    await gateway.start()
    try:
        for version in (1, 2, 3):
            value = msgspec.json.encode(table({"a": "http://a:1"}, {"a": 1.0}, version=version))
            await tables.queue.put(Found(b"m", value, signer.seal(b"m", value)))
        await until(lambda: gateway.following.follower.held["m"].number == (1, 3) if tables.failures else False)
    finally:
        await gateway.stop()


async def test_a_probe_that_raises_what_nobody_thought_of_is_not_the_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def nonsense(url: str, *_: str) -> URL:
        asked.append(url)
        raise ValueError("no address")

    monkeypatch.setattr("router_sync.gateway.probe.health_url", nonsense)
    probing = Probing(quiet_s=0.01, every_s=0.01)
    async with house(tmp_path, table({"a": "http://a:1"}, {"a": 1.0}), probing=probing):
        await until(lambda: len(asked) >= 3)


@pytest.mark.parametrize("path", [CHAT, "/v1/audio/transcriptions"])
async def test_a_compressed_body_reaches_the_endpoint_unpacked_and_is_not_called_compressed(
    tmp_path: Path, path: str
) -> None:
    seen: list[tuple[str | None, bytes]] = []

    async def handle(request: web.Request) -> web.StreamResponse:
        seen.append((request.headers.get("Content-Encoding"), await request.read()))
        return await answering()(request)

    raw = json.dumps(ASK).encode()
    kind = "application/json" if path == CHAT else "audio/wav"
    headers = {"Content-Encoding": "gzip", "Content-Type": kind, "x-tradewind-model": "m"}
    async with upstream(handle) as a, house(tmp_path, table({"a": a}, {"a": 1.0})) as one:
        async with one.session.post(one.url + path, data=gzip.compress(raw), headers=headers) as answer:
            assert answer.status == 200
        assert seen == [(None, raw)]


async def test_a_body_that_is_not_as_compressed_as_it_says_is_a_400_and_nobodys_failure(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with upstream(answering()) as a, house(tmp_path, table({"a": a}, {"a": 1.0})) as one:
        for kind in ("application/json", "audio/wav"):
            headers = {"Content-Encoding": "gzip", "Content-Type": kind, "x-tradewind-model": "m"}
            where = one.url + "/v1/audio/transcriptions"
            async with one.session.post(where, data=json.dumps(ASK).encode(), headers=headers) as answer:
                assert answer.status == 400
                error(await answer.read())
        assert one.gateway.following.pickers["m"].endpoints["a"].breaker.streak == 0
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


async def test_a_body_nested_too_deeply_is_a_400(tmp_path: Path) -> None:
    async with house(tmp_path, table({"a": "http://a:1"}, {"a": 1.0})) as one:
        raw = b'{"model":"m","x":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
        async with one.session.post(one.url + CHAT, data=raw) as answer:
            assert answer.status == 400
            assert "nested" in error(await answer.read())["message"]


async def deadly(request: web.Request) -> web.StreamResponse:
    """Well, but for one kind of request."""
    poison = "poison" in await request.json()
    return web.Response(status=500) if poison else await answering()(request)


async def test_a_request_that_every_well_endpoint_refuses_is_to_blame_itself(tmp_path: Path) -> None:
    async with (
        upstream(deadly) as a,
        upstream(deadly) as b,
        upstream(deadly) as c,
        house(tmp_path, table({"a": a, "b": b, "c": c}, {"a": 0.4, "b": 0.3, "c": 0.3})) as one,
    ):
        locals_ = one.gateway.following.pickers["m"].endpoints
        while not all(one.gateway.reporter.well(name) for name in locals_):
            assert (await one.ask())[0] == 200
        for _ in range(20):
            assert (await one.ask(poison=1))[0] == 502
        assert not any(local.breaker.shut or local.breaker.streak for local in locals_.values())
        assert all(one.gateway.reporter.standing(name).streak == 0 for name in locals_)
        await until(lambda: any(record.errors for name in locals_ for record in one.metrics(name)))
        assert {kind for name in locals_ for r in one.metrics(name) for kind in r.errors} == {"client_4xx"}


@pytest.mark.parametrize("others", [0, 1])
async def test_an_outage_of_two_endpoints_that_answer_5xx_is_seen_though_they_were_well(
    tmp_path: Path, others: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("router_sync.gateway.report.WELL_S", 0.3)
    state = {"status": 200}

    async def ill(_: web.Request) -> web.StreamResponse:
        return web.Response(status=state["status"], body=ANSWER)

    async with upstream(ill) as a, upstream(ill) as b, upstream(answering()) as c:
        urls = {"a": a, "b": b, **({"c": c} if others else {})}
        async with house(tmp_path, table(urls, {"a": 0.5, "b": 0.5})) as one:
            locals_ = one.gateway.following.pickers["m"].endpoints
            while not all(one.gateway.reporter.well(name) for name in "ab"):
                assert (await one.ask())[0] == 200
            state["status"] = 500
            async with asyncio.timeout(10):
                while not all(locals_[name].breaker.shut for name in "ab"):
                    assert (await one.ask())[0] == (200 if others else 502)
            await until(lambda: all(any("http_5xx" in r.errors for r in one.metrics(name)) for name in "ab"))


async def test_a_held_accusation_is_made_in_any_case_when_nobody_else_speaks() -> None:
    from router_sync.gateway import blame

    said: list[str] = []
    one = blame.Blame()
    one.refusals = 1
    one.hold(lambda: said.append("accused"), lambda: said.append("forgiven"))
    one.settle()
    one.settle()
    assert said == ["accused"]


async def test_slow_headers_and_connections_beyond_the_limit_are_told_which_limit(tmp_path: Path) -> None:
    limits = Limits(header_s=0.2, max_connections=1)
    async with house(tmp_path, limits=limits) as one, asyncio.timeout(10):
        slow, writer = await asyncio.open_connection("127.0.0.1", one.gateway.port)
        writer.write(b"POST /v1/x HTTP/1.1\r\nX-A: ")
        await until(lambda: any(runner.server.open == 1 for runner in one.gateway._runners))  # type: ignore[union-attr]
        more, other = await asyncio.open_connection("127.0.0.1", one.gateway.port)
        assert b"max_connections = 1" in await more.read()
        assert b"header_s = 0.2" in await slow.read()
        for each in (writer, other):
            each.close()
            await each.wait_closed()
        await until(lambda: all(runner.server.open == 0 for runner in one.gateway._runners))  # type: ignore[union-attr]


async def test_too_many_headers_are_told_the_limit(tmp_path: Path) -> None:
    async with house(tmp_path) as one:
        status, body = await raw_ask(one.gateway.port, b"\r\n".join(b"x-%d: 1" % n for n in range(1000)))
        assert status == 431
        assert "max_headers = 100" in error(body)["message"]


async def test_a_gateway_at_an_origin_that_no_table_knows_is_not_ready_and_says_why(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", logger="tradewind"):
        async with (
            house(tmp_path, table({"a": "http://a:1"}, {"a": 1.0}), origin="atlantis") as one,
            one.session.get(f"{one.url}/readyz") as answer,
        ):
            said = await answer.json()
            assert (answer.status, said["ready"]) == (503, False)
            assert "atlantis" in said["why"]
            assert "eu" in said["why"]
    told = [record.message for record in caplog.records]
    assert told.count("origin_not_served") == 1
    assert {"gateway_drains", "gateway_stopped"} <= set(told)


async def test_a_gateway_without_a_table_for_long_says_why(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with house(tmp_path) as one:
        one.tables.why = "the topic is not there"
        await one.gateway.following.complain(0.01)
    (told,) = [record for record in caplog.records if record.message == "no_table"]
    assert "the topic is not there" in told.fields["reason"]  # type: ignore[attr-defined]
