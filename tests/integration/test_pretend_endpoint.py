"""A pretend endpoint as a real client sees it: answers, streams, metrics, and each fault."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from tradewind.pretend import Endpoint, EndpointSettings

ASK = {"model": "pretend-8b", "messages": [{"role": "user", "content": "hello there"}], "max_tokens": 12}
STREAM = ASK | {"stream": True, "stream_options": {"include_usage": True}}
FAST: dict[str, Any] = {"base_ttft_ms": 2.0, "base_between_ms": 1.0, "chunk_ms": 3.0, "noise_sigma": 0.0}


class Caller:
    """One client of one endpoint."""

    def __init__(self, endpoint: Endpoint, session: aiohttp.ClientSession, exits: list[int]) -> None:
        self.endpoint, self.session, self.exits = endpoint, session, exits
        self.api = f"http://127.0.0.1:{endpoint.port}"
        self.admin = f"http://127.0.0.1:{endpoint.admin_port}"

    async def chat(self, body: dict[str, Any]) -> tuple[int, bytes]:
        async with self.session.post(f"{self.api}/v1/chat/completions", json=body) as response:
            return response.status, await response.read()

    async def get(self, path: str) -> tuple[int, str]:
        async with self.session.get(f"{self.api}{path}") as response:
            return response.status, await response.text()

    async def fault(self, **order: Any) -> tuple[int, dict[str, Any]]:
        async with self.session.post(f"{self.admin}/fault", json=order) as response:
            return response.status, await response.json()


@asynccontextmanager
async def calling(exit_now: Callable[[int], None] | None = None, **fields: Any) -> AsyncIterator[Caller]:
    exits: list[int] = []
    endpoint = Endpoint(
        EndpointSettings(name="eu-west-a", **{**FAST, "grace_s": 1.0, **fields}),
        monotonic_s=time.monotonic,
        now_s=lambda: 1_700_000_000.0,
        exit_now=exit_now or exits.append,
    )
    await endpoint.start()
    try:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20)) as session:
            yield Caller(endpoint, session, exits)
    finally:
        await endpoint.stop()


async def read_into(got: bytearray, response: aiohttp.ClientResponse) -> None:
    async for piece in response.content.iter_any():
        got += piece


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not holds():  # noqa: ASYNC110 - what is waited for is a plain number
            await asyncio.sleep(0.002)


def events(raw: bytes) -> list[Any]:
    blocks = raw.decode().removesuffix("\n\n").split("\n\n")
    assert all(block.startswith("data: ") and "\n" not in block for block in blocks)
    assert blocks[-1] == "data: [DONE]"
    return [json.loads(block.removeprefix("data: ")) for block in blocks[:-1]]


async def test_a_plain_answer_has_openais_shape_and_usage() -> None:
    async with calling() as caller:
        status, body = await caller.chat(ASK)
    answer = json.loads(body)
    assert status == 200
    assert (answer["object"], answer["model"], answer["created"]) == ("chat.completion", "pretend-8b", 1_700_000_000)
    choice = answer["choices"][0]
    assert (choice["finish_reason"], choice["message"]["role"]) == ("length", "assistant")
    assert len(choice["message"]["content"].split()) == 12
    assert answer["usage"] == {"prompt_tokens": 6, "completion_tokens": 12, "total_tokens": 18}


async def test_a_stream_is_role_then_tokens_then_reason_then_usage_then_done() -> None:
    async with calling() as caller:
        _, plain = await caller.chat(ASK)
        status, raw = await caller.chat(STREAM)
    assert status == 200
    chunks = events(raw)
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert len({chunk["id"] for chunk in chunks}) == 1
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    text = "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks[:-1])
    assert text == json.loads(plain)["choices"][0]["message"]["content"]
    assert chunks[-2]["choices"][0]["finish_reason"] == "length"
    assert (chunks[-1]["choices"], chunks[-1]["usage"]["completion_tokens"]) == ([], 12)
    assert all(chunk["usage"] is None for chunk in chunks[:-1])


async def test_a_stream_without_the_option_has_no_usage() -> None:
    async with calling() as caller:
        _, raw = await caller.chat(ASK | {"stream": True})
    assert all("usage" not in chunk and chunk["choices"] for chunk in events(raw))


async def test_tokens_of_a_stream_come_over_time_and_not_all_at_the_end() -> None:
    async with (
        calling(base_between_ms=5.0, chunk_ms=10.0) as caller,
        caller.session.post(f"{caller.api}/v1/chat/completions", json=STREAM) as response,
    ):
        arrived = [time.monotonic() async for _ in response.content.iter_any()]
    assert len(arrived) >= 3
    assert arrived[-1] - arrived[0] > 0.04


async def test_models_and_health_answer() -> None:
    async with calling(models=("a", "b")) as caller:
        _, listing = await caller.get("/v1/models")
        status, _ = await caller.get("/health")
    assert [model["id"] for model in json.loads(listing)["data"]] == ["a", "b"]
    assert status == 200


async def test_metrics_count_what_was_served() -> None:
    async with calling() as caller:
        await caller.chat(ASK)
        await caller.chat(STREAM)
        status, text = await caller.get("/metrics")
    labels = 'model_name="pretend-8b",engine="0"'
    assert status == 200
    for line in (
        f"vllm:num_requests_running{{{labels}}} 0",
        f"vllm:prompt_tokens_total{{{labels}}} 12",
        f"vllm:generation_tokens_total{{{labels}}} 24",
        f'vllm:request_success_total{{{labels},finished_reason="length"}} 2',
        f"vllm:e2e_request_latency_seconds_count{{{labels}}} 2",
        f"vllm:time_to_first_token_seconds_count{{{labels}}} 2",
    ):
        assert line in text.splitlines()


async def test_wrong_requests_get_openai_shaped_errors() -> None:
    async with calling() as caller:
        answers: list[tuple[int, str | bytes]] = [
            await caller.chat({"model": "pretend-8b"}),
            await caller.chat(ASK | {"model": "other"}),
            await caller.chat(ASK | {"pad": "x" * 600_000}),
            await caller.get("/v2/nothing"),
            await caller.get("/v1/chat/completions"),
        ]
    assert [status for status, _ in answers] == [400, 404, 413, 404, 405]
    assert "size 524288 exceeded" in str(answers[2][1])
    assert all(set(json.loads(body)["error"]) == {"message", "type", "param", "code"} for _, body in answers)


async def test_a_full_queue_is_a_429_with_a_time_to_come_back() -> None:
    async with calling(slots=1, queue_limit=1, base_ttft_ms=500.0) as caller:
        served = [asyncio.ensure_future(caller.chat(ASK)) for _ in range(2)]
        await until(lambda: caller.endpoint._engine.waiting == 1)
        async with caller.session.post(f"{caller.api}/v1/chat/completions", json=ASK) as response:
            refused = await response.json()
        assert (response.status, response.headers["Retry-After"]) == (429, "1")
        assert refused["error"]["code"] == "rate_limit_exceeded"
        assert [status for status, _ in await asyncio.gather(*served)] == [200, 200]


async def test_a_caller_who_goes_away_frees_the_slot() -> None:
    async with calling(slots=1, base_ttft_ms=60_000.0) as caller:
        gone = asyncio.ensure_future(caller.chat(ASK))
        await until(lambda: caller.endpoint._engine.running == 1)
        gone.cancel()
        await asyncio.wait([gone])
        await until(lambda: caller.endpoint._engine.running == 0)
        assert caller.endpoint._engine.counts.finished["abort"] == 1


# -- faults -----------------------------------------------------------------------------------------------------------


async def test_refusing_cuts_open_connections_refuses_new_ones_and_ends_on_command() -> None:
    async with calling(base_ttft_ms=60_000.0) as caller:
        opened = asyncio.ensure_future(caller.chat(ASK))
        await until(lambda: caller.endpoint._engine.running == 1)
        assert (await caller.fault(kind="refusing"))[1]["kind"] == "refusing"
        with pytest.raises(aiohttp.ClientConnectionError):
            await opened
        with pytest.raises(aiohttp.ClientConnectorError):
            await caller.get("/health")
        port = caller.endpoint.port
        assert (await caller.fault(kind="none"))[1]["kind"] == "none"
        assert caller.endpoint.port == port
        assert (await caller.get("/health"))[0] == 200


async def test_refusing_for_a_while_ends_by_itself() -> None:
    async with calling() as caller:
        _, state = await caller.fault(kind="refusing", for_s=1.0)
        assert 0 < state["left_s"] <= 1.0
        with pytest.raises(aiohttp.ClientConnectorError):
            await caller.get("/health")
        await until(lambda: caller.endpoint._faults.order.kind == "none")
        assert (await caller.get("/health"))[0] == 200


async def test_slow_multiplies_times() -> None:
    async with calling(base_ttft_ms=10.0) as caller:
        await caller.fault(kind="slow", factor=15.0)
        before = time.monotonic()
        status, _ = await caller.chat(ASK | {"max_tokens": 1})
        assert status == 200
        assert time.monotonic() - before >= 0.15
        await caller.fault(kind="none")
        async with asyncio.timeout(10):
            while (await timed(caller)) >= 0.15:
                pass


async def timed(caller: Caller) -> float:
    before = time.monotonic()
    await caller.chat(ASK | {"max_tokens": 1})
    return time.monotonic() - before


async def test_hanging_accepts_and_never_answers_not_even_what_is_under_way() -> None:
    async with calling(base_between_ms=20.0, chunk_ms=20.0) as caller:
        url = f"{caller.api}/v1/chat/completions"
        async with caller.session.post(url, json=STREAM) as streaming:
            assert b"assistant" in await streaming.content.readany()
            await caller.fault(kind="hanging")
            for path in ("/health", "/metrics"):
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(caller.get(path), 0.15)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(caller.chat(ASK), 0.15)
            await caller.fault(kind="none")
            with pytest.raises(aiohttp.ClientPayloadError):
                await streaming.read()
        assert (await caller.chat(ASK))[0] == 200


async def test_breaking_cuts_a_stream_after_so_many_chunks_and_a_plain_answer_in_its_middle() -> None:
    async with calling() as caller:
        await caller.fault(kind="breaking", after_chunks=2)
        got = bytearray()
        async with caller.session.post(f"{caller.api}/v1/chat/completions", json=STREAM) as response:
            assert response.status == 200
            with pytest.raises(aiohttp.ClientPayloadError):
                await read_into(got, response)
        assert got.count(b"data: ") == 3  # the role and two groups of tokens
        assert b"[DONE]" not in got
        with pytest.raises(aiohttp.ClientPayloadError):
            await caller.chat(ASK)
        assert (await caller.get("/health"))[0] == 200
        assert caller.endpoint._engine.counts.finished["length"] == 0


async def test_breaking_after_no_chunk_leaves_headers_only() -> None:
    async with calling() as caller:
        await caller.fault(kind="breaking", after_chunks=0)
        async with caller.session.post(f"{caller.api}/v1/chat/completions", json=STREAM) as response:
            with pytest.raises(aiohttp.ClientPayloadError):
                await response.read()


async def test_dead_acknowledges_and_exits() -> None:
    async with calling() as caller:
        status, state = await caller.fault(kind="dead")
        assert (status, state["kind"]) == (200, "dead")
        await until(lambda: caller.exits == [86])


async def test_the_state_is_told_and_a_wrong_order_changes_nothing() -> None:
    async with calling() as caller:
        await caller.fault(kind="slow", factor=2.0)
        status, refused = await caller.fault(kind="asleep")
        async with caller.session.get(f"{caller.admin}/fault") as response:
            state = await response.json()
    assert (status, refused["error"]["type"]) == (400, "invalid_request_error")
    assert state == {"name": "eu-west-a", "kind": "slow", "left_s": None, "factor": 2.0, "after_chunks": 2}


async def test_a_stop_lets_open_requests_finish() -> None:
    async with calling(base_ttft_ms=150.0) as caller:
        opened = asyncio.ensure_future(caller.chat(ASK))
        await until(lambda: caller.endpoint._engine.running == 1)
        await caller.endpoint.stop()
        assert (await opened)[0] == 200


async def test_a_taken_port_is_an_os_error_and_leaves_nothing_open() -> None:
    async with calling() as caller:
        other = Endpoint(
            EndpointSettings(name="b", port=caller.endpoint.port), monotonic_s=time.monotonic, now_s=time.time
        )
        with pytest.raises(OSError, match="address already in use"):
            await other.start()
