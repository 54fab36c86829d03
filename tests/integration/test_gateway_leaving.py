"""Streams at an endpoint that is about to go: moved in time, whole and said once; or left to run and ended cleanly."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from aiohttp import web

from router_sync.gateway import Deadlines, relay
from router_sync.gateway.config import Tiers
from streams import signals
from streams.contract.records import RoutingTable
from tests.integration.gateway_house import (
    ASK,
    CHAT,
    DONE,
    Handler,
    House,
    answering,
    hanging,
    house,
    streaming,
    table,
    until,
    upstream,
)
from tradewind.pretend.endpoint import Endpoint
from tradewind.pretend.settings import EndpointSettings
from tradewind.pretend.shape import text_of

USER = [{"role": "user", "content": "Go"}]
NOTICE_S = 1.2
"""Its window is from 0.3 s to 0.6 s."""
Counts = dict[tuple[str, str], float]


def left() -> Counts:
    """What gateways of this process have counted: (outcome, reason) to how often."""
    samples = [one for metric in signals.LEFT.collect() for one in metric.samples if one.name.endswith("_total")]
    return {(one.labels["outcome"], one.labels["reason"]): one.value for one in samples}


def since(before: Counts) -> Counts:
    return {what: count - before.get(what, 0.0) for what, count in left().items() if count != before.get(what, 0.0)}


@asynccontextmanager
async def speaking(name: str, between_ms: float = 10.0, **settings: Any) -> AsyncIterator[tuple[str, Endpoint]]:
    """A pretend endpoint that sends one token after the other, and can go on with what another one began."""
    usual: dict[str, Any] = {"models": ("m",), "base_ttft_ms": 5.0, "noise_sigma": 0.0, "chunk_ms": 0.0, "grace_s": 0.1}
    settings = {**usual, "base_between_ms": between_ms, **settings}
    endpoint = Endpoint(EndpointSettings(name, **settings), monotonic_s=time.monotonic, now_s=time.time)
    await endpoint.start()
    try:
        yield f"http://127.0.0.1:{endpoint.port}", endpoint
    finally:
        await endpoint.stop()


def open_house(folder: Path, of: RoutingTable, **fields: Any) -> AbstractAsyncContextManager[House]:
    """A house that turns nobody away: how full the endpoints are is not what is asked here."""
    return house(folder, of, tiers=Tiers(ceilings=False), **fields)


def leaving(of: RoutingTable, in_s: float | None, *names: str, shares: dict[str, float] | None = None) -> RoutingTable:
    """The next table: `names` are to be left in so many seconds, and have no share any more."""
    by_s = None if in_s is None else time.time() + in_s
    endpoints = tuple(
        msgspec.structs.replace(e, state="drain", leave_by_s=by_s)
        if e.name in names and by_s is not None
        else msgspec.structs.replace(e, state="ready", leave_by_s=None)
        for e in of.endpoints
    )
    stay = {e.name: 1.0 for e in of.endpoints if e.name not in names}
    shares = shares or {name: 1.0 / len(stay) for name in stay}
    rest = tuple(name for name in stay if name not in shares)
    routes = tuple(
        msgspec.structs.replace(r, endpoints=tuple(shares), shares=tuple(shares.values()), fallbacks=rest)
        for r in of.routes
    )
    now_s = time.time()
    return msgspec.structs.replace(
        of, version=of.version + 1, issued_at_s=now_s, endpoints=endpoints, routes=routes, expires_at_s=now_s + 300
    )


def able(urls: dict[str, str], shares: dict[str, float]) -> RoutingTable:
    return table(urls, shares, {"continues": True})


class Answer:
    """One streamed answer as its caller got it."""

    def __init__(self, body: bytes, broken: bool) -> None:
        self.body, self.broken = body, broken
        said = [line[6:] for line in body.splitlines() if line.startswith(b"data: ") and line != DONE.strip()]
        self.events = [json.loads(line) for line in said]
        choices = [event["choices"][0] for event in self.events if event.get("choices")]
        self.text = "".join(choice["delta"].get("content") or "" for choice in choices)
        self.ids = {event["id"] for event in self.events if "id" in event}
        self.roles = sum("role" in choice["delta"] for choice in choices)
        self.finished = sum(choice.get("finish_reason") is not None for choice in choices)

    def whole(self, tokens: int) -> bool:
        """It is what was asked for, once, with one beginning and one end."""
        one_end = self.body.count(DONE) == 1 and self.body.endswith(DONE) and self.finished == 1
        return not self.broken and self.text == text_of(0, tokens) and len(self.ids) == self.roles == 1 and one_end


async def ask(one: House, tokens: int, began: Callable[[], None] = lambda: None, **fields: Any) -> Answer:
    """One stream, read to its end. `began` is told of its first bytes."""
    headers = fields.pop("headers", {})
    got, broken = bytearray(), False
    said = {**ASK, "messages": USER, "stream": True, "max_tokens": tokens, **fields}
    async with one.session.post(one.url + CHAT, json=said, headers=headers) as answer:
        assert answer.status == 200, await answer.read()
        try:
            async for piece in answer.content.iter_any():
                if not got:
                    began()
                got += piece
        except aiohttp.ClientPayloadError:
            broken = True
    return Answer(bytes(got), broken)


async def under_way(one: House, tokens: int, **fields: Any) -> asyncio.Task[Answer]:
    """A stream whose first bytes have come."""
    began = asyncio.Event()
    asked = asyncio.create_task(ask(one, tokens, began.set, **fields))
    await asyncio.wait({asked, asyncio.ensure_future(began.wait())}, return_when=asyncio.FIRST_COMPLETED)
    return asked


async def test_a_stream_is_moved_before_its_endpoint_goes_and_its_caller_notices_nothing(tmp_path: Path) -> None:
    before = left()
    async with speaking("a") as (a, old), speaking("b") as (b, new):
        of = able({"a": a, "b": b}, {"a": 1.0})
        async with open_house(tmp_path, of) as one:
            asked = await under_way(one, 150)
            began_s = time.monotonic()
            await one.follow(leaving(of, NOTICE_S, "a"))
            await until(lambda: old._engine.counts.finished["abort"] == 1)
            assert time.monotonic() - began_s < NOTICE_S
            assert (await asked).whole(150)
            assert since(before) == {("moved", "notice"): 1.0}
            await until(lambda: bool(one.metrics("b")))
            assert not one.metrics("a")  # it has neither failed nor answered
            assert new._engine.counts.generation_tokens < 150  # the rest, not all of it
            assert one.gateway.reporter.standing("a").in_flight == one.gateway.reporter.standing("b").in_flight == 0


async def test_many_streams_move_one_after_the_other_and_all_are_whole(tmp_path: Path) -> None:
    before, many = left(), 24
    async with (
        speaking("a", slots=100) as (a, _),
        speaking("b", slots=100) as (b, new_b),
        speaking("c", slots=100) as (c, new_c),
    ):
        of = able({"a": a, "b": b, "c": c}, {"a": 1.0})
        async with open_house(tmp_path, of) as one:
            asked = [await under_way(one, 200) for _ in range(many)]
            await one.follow(leaving(of, 2.4, "a"))  # the window is from 0.7 s to 1.4 s
            first_s = await _moves_begin(before)
            await until(lambda: since(before).get(("moved", "notice")) == many)
            assert 0.3 < time.monotonic() - first_s < 1.2
            assert all(answer.whole(200) for answer in await asyncio.gather(*asked))
            assert min(new_b._engine.counts.finished["length"], new_c._engine.counts.finished["length"]) > many / 8


async def _moves_begin(before: Counts) -> float:
    await until(lambda: since(before).get(("moved", "notice"), 0.0) >= 1)
    return time.monotonic()


async def test_a_stream_that_ends_in_time_stays_where_it_is(tmp_path: Path) -> None:
    before = left()
    async with speaking("a") as (a, _), speaking("b") as (b, new):
        of = able({"a": a, "b": b}, {"a": 1.0})
        async with open_house(tmp_path, of) as one:
            asked = await under_way(one, 60)
            await one.follow(leaving(of, 10.0, "a"))
            assert (await asked).whole(60)
            assert since(before) == {("kept", "finished"): 1.0}
            assert not any(new._engine.counts.finished.values())


async def test_nobody_new_is_sent_to_who_is_about_to_go_neither_fresh_nor_of_a_session(tmp_path: Path) -> None:
    async with speaking("a") as (a, old), speaking("b") as (b, _):
        of = able({"a": a, "b": b}, {"a": 0.5, "b": 0.5})
        async with open_house(tmp_path, of) as one:
            keys = [{"x-tradewind-session": f"s{n}"} for n in range(40)]
            served = {(await one.ask(messages=USER, max_tokens=1, headers=h))[1]["x-tradewind-endpoint"] for h in keys}
            assert served == {"a", "b"}
            await one.follow(leaving(of, 30.0, "a"))
            before = dict(old._engine.counts.finished)
            for headers in [*keys, *[{}] * 40]:
                status, said, _ = await one.ask(messages=USER, max_tokens=1, headers=headers)
                assert (status, said["x-tradewind-endpoint"]) == (200, "b")
            assert dict(old._engine.counts.finished) == before


@pytest.mark.parametrize("refusal", [answering(b"{}", 429), answering(b"{}", 400), streaming(b": nothing\n\n")])
async def test_where_nobody_takes_a_stream_it_stays_and_is_whole(tmp_path: Path, refusal: Handler) -> None:
    before = left()
    async with speaking("a") as (a, _), upstream(refusal) as b:
        of = able({"a": a, "b": b}, {"a": 1.0})
        async with open_house(tmp_path, of) as one:
            asked = await under_way(one, 150)
            await one.follow(leaving(of, NOTICE_S, "a"))
            await until(lambda: bool(one.metrics("b")))
            assert (await asked).whole(150)
            assert since(before) == {("kept", "finished"): 1.0}


async def test_who_does_not_answer_holds_a_stream_up_only_until_the_deadline_for_first_words(tmp_path: Path) -> None:
    deadlines = Deadlines(first_byte_s=0.3, first_byte_floor_s=0.3)
    async with speaking("a") as (a, _), upstream(hanging) as b, speaking("c") as (c, _):
        of = able({"a": a, "b": b, "c": c}, {"a": 1.0})
        async with open_house(tmp_path, of, deadlines=deadlines) as one:
            asked = await under_way(one, 200)
            before = left()
            await one.follow(leaving(of, NOTICE_S, "a", shares={"b": 0.999, "c": 0.001}))
            assert (await asked).whole(200)
            assert since(before) in ({("kept", "finished"): 1.0}, {("moved", "notice"): 1.0})
            assert one.metrics("b")[0].errors == {"first_byte_timeout": 1}


async def test_what_the_old_endpoint_still_says_is_dropped(tmp_path: Path) -> None:
    """It floods the gateway while the other one is asked, and says other words than that."""
    shouting = asyncio.Event()

    async def floods(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(_chunk("A", " the") + _chunk("A", " wind"))
        await shouting.wait()
        while True:
            await response.write(_chunk("A", " LATE"))
            await asyncio.sleep(0.002)

    asked_for: list[dict[str, Any]] = []

    async def goes_on(request: web.Request) -> web.StreamResponse:
        asked_for.append(await request.json())
        shouting.set()
        await asyncio.sleep(0.1)
        return await streaming(
            _chunk("B", "", role="assistant"), _chunk("B", " turns"), _chunk("B", "", end=True), DONE
        )(request)

    async with upstream(floods) as a, upstream(goes_on) as b:
        of = able({"a": a, "b": b}, {"a": 1.0})
        async with open_house(tmp_path, of) as one:
            asked = await under_way(one, 10)
            await one.follow(leaving(of, NOTICE_S, "a"))
            answer = await asked
            assert (answer.text, answer.ids) == (" the wind turns", {"A"})
            (rest,) = asked_for
            assert rest["messages"] == [*USER, {"role": "assistant", "content": " the wind"}]
            assert rest["max_tokens"] == 8


def _chunk(answer: str, content: str, end: bool = False, **more: Any) -> bytes:
    delta = {"content": content, **more}
    choice = {"index": 0, "delta": delta, "finish_reason": "stop" if end else None}
    return b"data: " + json.dumps({"id": answer, "choices": [choice]}).encode() + b"\n\n"


@pytest.mark.parametrize("more", [{"tools": [{"type": "function"}]}, {"guided_json": {"type": "object"}}])
async def test_what_cannot_be_continued_runs_on_until_it_ends_or_breaks(tmp_path: Path, more: dict[str, Any]) -> None:
    before = left()
    async with speaking("a") as (a, old), speaking("b") as (b, new):
        of = able({"a": a, "b": b}, {"a": 1.0})
        async with open_house(tmp_path, of) as one:
            ends, breaks = await under_way(one, 80, **more), await under_way(one, 1000, **more)
            await one.follow(leaving(of, NOTICE_S, "a"))
            assert (await ends).whole(80)
            await asyncio.sleep(NOTICE_S - 0.8)
            await old._close()  # the deadline: every connection is cut
            answer = await breaks
            assert answer.broken
            assert b"event: error" in answer.body
            assert DONE not in answer.body
            assert text_of(0, 1000).startswith(answer.text)
            assert since(before) == {("kept", "finished"): 1.0, ("lost", "stateful"): 1.0}
            assert not any(new._engine.counts.finished.values())


async def test_where_there_is_no_refuge_a_stream_runs_on_and_ends_with_an_error(tmp_path: Path) -> None:
    before = left()
    async with speaking("a") as (a, old), speaking("b") as (b, _):
        of = table({"a": a, "b": b}, {"a": 1.0})
        only_a = tuple(msgspec.structs.replace(e, continues=e.name == "a") for e in of.endpoints)
        of = msgspec.structs.replace(of, endpoints=only_a)
        async with open_house(tmp_path, of) as one:
            asked = await under_way(one, 1000)
            await one.follow(leaving(of, 0.4, "a"))
            await asyncio.sleep(0.4)
            await old._close()
            answer = await asked
            assert answer.broken
            assert DONE not in answer.body
            assert since(before) == {("lost", "nowhere"): 1.0}


async def test_without_notice_the_break_itself_moves_the_stream(tmp_path: Path) -> None:
    before = left()
    async with speaking("a") as (a, old), speaking("b") as (b, _):
        of = able({"a": a, "b": b}, {"a": 1.0})
        async with open_house(tmp_path, of) as one:
            asked = [await under_way(one, 150) for _ in range(6)]
            await old._close()
            await one.follow(leaving(of, 0.0, "a"))
            assert all(answer.whole(150) for answer in await asyncio.gather(*asked))
            told = since(before)
            assert sum(told.values()) <= 6
            assert {outcome for outcome, _ in told} <= {"moved"}


async def test_a_notice_without_time_moves_at_once_what_is_not_broken_yet(tmp_path: Path) -> None:
    before = left()
    async with speaking("a") as (a, _), speaking("b") as (b, _):
        of = able({"a": a, "b": b}, {"a": 1.0})
        async with open_house(tmp_path, of) as one:
            asked = [await under_way(one, 150) for _ in range(6)]
            began_s = time.monotonic()
            await one.follow(leaving(of, 0.0, "a"))
            await until(lambda: since(before) == {("moved", "notice"): 6.0})
            assert time.monotonic() - began_s < 0.5
            assert all(answer.whole(150) for answer in await asyncio.gather(*asked))


async def test_a_stream_is_moved_as_often_as_need_be_and_may_break_off_after_that(tmp_path: Path) -> None:
    names = ("a", "b", "c", "d", "e")
    async with AsyncExitStack() as stack:
        ends = {name: await stack.enter_async_context(speaking(name)) for name in names}
        of = able({name: url for name, (url, _) in ends.items()}, {"a": 1.0})
        one = await stack.enter_async_context(open_house(tmp_path, of))
        asked = await under_way(one, 400)
        for n, name in enumerate(names[:3]):
            before = left()
            of = leaving(of, 0.2, *names[: n + 1], shares={names[n + 1]: 1.0})
            await one.follow(of)
            await until(lambda before=before: since(before) == {("moved", "notice"): 1.0})  # type: ignore[misc]
            await until(lambda name=name: ends[name][1]._engine.running == 0)  # type: ignore[misc]
        before = left()
        await ends["d"][1]._close()
        assert (await asked).whole(400)
        assert since(before) == {}  # nobody said that d would go: that is a break as any other


@pytest.mark.parametrize(("well_s", "whole"), [(0.1, True), (60.0, False)])
async def test_a_long_stream_outlives_any_number_of_endpoints_and_one_that_breaks_them_at_once_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, well_s: float, whole: bool
) -> None:
    monkeypatch.setattr(relay, "WELL_S", well_s)
    async with AsyncExitStack() as stack:
        ends = {name: await stack.enter_async_context(speaking(name)) for name in "abcdef"}
        of = able({name: url for name, (url, _) in ends.items()}, {"a": 1.0})
        one = await stack.enter_async_context(open_house(tmp_path, of))
        asked = await under_way(one, 250)
        for _ in range(4):
            speaks = next((end for _, end in ends.values() if end._engine.running), None)
            if speaks is not None:
                await asyncio.sleep(0.3)
                await speaks._close()
                await until(lambda speaks=speaks: speaks._engine.running == 0)  # type: ignore[misc]
                await until(lambda: asked.done() or any(end._engine.running for _, end in ends.values()))
        assert (await asked).whole(250) == whole


async def test_a_notice_that_is_taken_back_moves_nobody(tmp_path: Path) -> None:
    before = left()
    async with speaking("a") as (a, _), speaking("b") as (b, new):
        of = able({"a": a, "b": b}, {"a": 1.0})
        async with open_house(tmp_path, of) as one:
            asked = await under_way(one, 100)
            off = leaving(of, NOTICE_S, "a")
            await one.follow(off)
            await one.follow(leaving(off, None, shares={"a": 1.0}))
            assert (await asked).whole(100)
            assert since(before) == {}
            assert not any(new._engine.counts.finished.values())


async def test_a_caller_who_leaves_in_the_middle_of_a_move_leaves_nothing_behind(tmp_path: Path) -> None:
    async with speaking("a") as (a, old), upstream(hanging) as b:
        of = able({"a": a, "b": b}, {"a": 1.0})
        async with open_house(tmp_path, of) as one:
            asked = await under_way(one, 1000)
            await one.follow(leaving(of, 0.2, "a"))
            await until(lambda: one.gateway.reporter.standing("b").in_flight == 1)
            asked.cancel()
            await asyncio.gather(asked, return_exceptions=True)
            for name in ("a", "b"):
                await until(lambda name=name: one.gateway.reporter.standing(name).in_flight == 0)  # type: ignore[misc]
            await until(lambda: old._engine.running == 0)
            assert one.gateway.relay.in_flight == 0


async def test_two_gateways_each_move_their_own(tmp_path: Path) -> None:
    before = left()
    async with speaking("a", slots=50) as (a, old), speaking("b", slots=50) as (b, _):
        of = able({"a": a, "b": b}, {"a": 1.0})
        async with (
            open_house(tmp_path / "one", of, name="gateway-1") as one,
            open_house(tmp_path / "two", of, name="gateway-2") as two,
        ):
            asked = [await under_way(each, 150) for each in (one, two) for _ in range(5)]
            off = leaving(of, NOTICE_S, "a")
            await asyncio.gather(one.follow(off), two.follow(off))
            assert all(answer.whole(150) for answer in await asyncio.gather(*asked))
            assert since(before) == {("moved", "notice"): 10.0}
            assert old._engine.counts.finished["abort"] == 10


async def test_random_moves_and_breaks_never_lose_or_repeat_a_word(tmp_path: Path) -> None:
    rng = random.Random(7)
    names = ("a", "b", "c", "d")
    async with AsyncExitStack() as stack:
        made = {name: await stack.enter_async_context(speaking(name, 4.0, slots=100)) for name in names}
        of = able({name: url for name, (url, _) in made.items()}, dict.fromkeys(names, 0.25))
        one = await stack.enter_async_context(open_house(tmp_path, of))
        lengths = [rng.randrange(20, 500) for _ in range(30)]
        asked = [await under_way(one, tokens) for tokens in lengths]
        for _ in range(8):
            gone = rng.choice(names)
            of = leaving(of, rng.choice((0.0, 0.1, 0.4)), gone)
            await one.follow(of)
            await asyncio.sleep(0.25)
            if rng.random() < 0.5:
                await made[gone][1]._close()
                await made[gone][1]._open()
        answers = await asyncio.gather(*asked)
        assert [answer.whole(tokens) for answer, tokens in zip(answers, lengths, strict=True)] == [True] * 30


async def test_a_session_whose_stream_was_moved_goes_on_where_that_went(tmp_path: Path) -> None:
    headers = {"x-tradewind-session": "s"}
    async with speaking("a") as (a, _), speaking("b") as (b, new_b), speaking("c") as (c, new_c):
        of = able({"a": a, "b": b, "c": c}, {"a": 1.0})
        async with open_house(tmp_path, of) as one:
            asked = await under_way(one, 150, headers=headers)
            await one.follow(leaving(of, NOTICE_S, "a"))
            assert (await asked).whole(150)
            went = "b" if new_b._engine.counts.finished["length"] else "c"
            assert (new_b if went == "b" else new_c)._engine.counts.finished["length"] == 1
            served = [(await one.ask(messages=USER, max_tokens=1, headers=headers))[1] for _ in range(5)]
            assert {said["x-tradewind-endpoint"] for said in served} == {went}
