"""Notices of clouds: read from bytes as they send them, asked of servers that refuse what theirs refuse, said once."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from email.utils import formatdate
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from streams.collectors.interruptions import PROVIDERS, Agent, Coming, Unreadable, aws, azure, gcp
from streams.collectors.interruptions.agent import MAX_BYTES, session
from streams.contract.errors import Missing
from streams.contract.records import Interruption

NOW_S = 1_767_225_600.0  # 2026-01-01T00:00:00Z
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

# ---------------------------------------------------------------- parse


def test_aws_says_what_and_when() -> None:
    (one,) = aws.parse(b'{"action": "terminate", "time": "2026-01-01T00:02:00Z"}', None)
    assert (one.kind, one.deadline_at_s) == ("terminate", NOW_S + 120)
    (two,) = aws.parse(b'{"action":"hibernate","time":"2026-01-01T00:02:00Z"}', None)
    assert two.kind == "stop"
    (advice,) = aws.parse(None, b'{"noticeTime": "2026-01-01T00:00:00Z"}')
    assert (advice.kind, advice.deadline_at_s) == ("rebalance", None)
    assert aws.parse(None, None) == []


def test_gcp_says_that_it_is_so_and_the_deadline_is_counted_from_then() -> None:
    assert gcp.parse(b"FALSE", b"NONE", 1.0, 2.0) == []
    assert gcp.parse(b"FALSE\n", b"MIGRATE_ON_HOST_MAINTENANCE", 1.0, 2.0) == []
    both = gcp.parse(b"TRUE", b"TERMINATE_ON_HOST_MAINTENANCE", 30.0, 60.0)
    assert [(one.kind, one.deadline_at_s) for one in both] == [("preempt", 30.0), ("maintenance", 60.0)]


def event(kind: str = "Preempt", not_before: str = "Thu, 01 Jan 2026 00:00:30 GMT", *machines: str) -> dict[str, Any]:
    return {
        "EventId": f"602d9444-{kind}",
        "EventStatus": "Scheduled",
        "EventType": kind,
        "ResourceType": "VirtualMachine",
        "Resources": list(machines or ("gpu-1",)),
        "NotBefore": not_before,
        "Description": "Virtual machine is being evicted",
        "EventSource": "Platform",
        "DurationInSeconds": -1,
    }


def events(*some: dict[str, Any]) -> bytes:
    return json.dumps({"DocumentIncarnation": 2, "Events": some}).encode()


def test_azure_says_when_to_whom_and_much_that_is_no_interruption() -> None:
    (one,) = azure.parse(events(event()), "GPU-1")
    assert (one.kind, one.deadline_at_s) == ("preempt", NOW_S + 30)
    (begun,) = azure.parse(events(event("Preempt", "")), "gpu-1")
    assert begun.deadline_at_s is None
    assert azure.parse(events(event("Freeze")), "gpu-1") == []
    assert azure.parse(events(event(), event("Reboot", "Thu, 01 Jan 2026 00:00:30 GMT", "gpu-2")), "gpu-2")[0].kind == (
        "maintenance"
    )
    assert azure.parse(events(), "gpu-1") == []


@pytest.mark.parametrize(
    "parse",
    [
        lambda: aws.parse(b"<html>", None),
        lambda: aws.parse(b'{"action":"explode","time":"2026-01-01T00:02:00Z"}', None),
        lambda: aws.parse(None, b'{"noticeTime":"soon"}'),
        lambda: gcp.parse(b"<html>", b"NONE", 0.0, 0.0),
        lambda: gcp.parse(b"TRUE", b"MAYBE", 0.0, 0.0),
        lambda: azure.parse(b"[]", "x"),
        lambda: azure.parse(events(event("Preempt", "soon")), "gpu-1"),
        lambda: azure.parse(events(event("Preempt", "Thu, 99 Jan 2026 00:00:30 GMT")), "gpu-1"),
    ],
)
def test_nonsense_is_unreadable(parse: Callable[[], object]) -> None:
    with pytest.raises(Unreadable):
        parse()


# ---------------------------------------------------------------- fetch, from servers as theirs are


@asynccontextmanager
async def serving(handle: Handler) -> AsyncIterator[str]:
    runner = web.ServerRunner(web.Server(handle))  # type: ignore[arg-type]
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


class Imds:
    """AWS' metadata service, version 2 only: no token, no answer; a token may be forgotten."""

    def __init__(self) -> None:
        self.tokens = 0
        self.action: str | None = None

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        if request.path == "/latest/api/token":
            if request.method != "PUT" or "X-aws-ec2-metadata-token-ttl-seconds" not in request.headers:
                return web.Response(status=400)
            self.tokens += 1
            return web.Response(text=f"token-{self.tokens}")
        if request.headers.get("X-aws-ec2-metadata-token") != f"token-{self.tokens}" or request.method != "GET":
            return web.Response(status=401)
        if request.path == "/latest/meta-data/spot/instance-action" and self.action is not None:
            return web.Response(text=json.dumps({"action": self.action, "time": "2026-01-01T00:02:00Z"}))
        return web.Response(status=404, text="<html>not found</html>")


async def test_aws_is_asked_with_a_token_that_is_renewed_when_it_is_refused() -> None:
    imds = Imds()
    async with serving(imds) as url, session() as http:
        one = aws.Aws(url)
        assert await one.fetch(http, NOW_S) == []
        imds.tokens += 1  # whatever was given out before is worth nothing
        imds.action = "terminate"
        assert [coming.kind for coming in await one.fetch(http, NOW_S)] == ["terminate"]
        assert imds.tokens == 3


async def test_gcp_is_asked_as_it_wants_and_an_impostor_is_not_believed() -> None:
    said = {"preempted": "TRUE", "maintenance-event": "NONE"}
    flavor = "Google"

    async def metadata(request: web.Request) -> web.StreamResponse:
        if request.headers.get("Metadata-Flavor") != "Google":
            return web.Response(status=403)
        what = request.path.removeprefix("/computeMetadata/v1/instance/")
        return web.Response(text=said[what], headers={"Metadata-Flavor": flavor})

    async with serving(metadata) as url, session() as http:
        (one,) = await gcp.Gcp(url).fetch(http, NOW_S)
        assert (one.kind, one.deadline_at_s) == ("preempt", NOW_S + 30)
        flavor = "Other"
        with pytest.raises(Unreadable, match="not Google"):
            await gcp.Gcp(url).fetch(http, NOW_S)


async def test_azure_is_asked_for_its_name_and_what_comes_to_that() -> None:
    async def metadata(request: web.Request) -> web.StreamResponse:
        if request.headers.get("Metadata") != "true" or "api-version" not in request.query:
            return web.Response(status=400)
        if request.path == "/metadata/instance/compute/name":
            return web.Response(text="gpu-2")
        return web.Response(body=events(event(), event("Terminate", "Thu, 01 Jan 2026 00:05:00 GMT", "gpu-2")))

    async with serving(metadata) as url, session() as http:
        (one,) = await azure.Azure(url).fetch(http, NOW_S)
        assert (one.kind, one.deadline_at_s) == ("terminate", NOW_S + 300)


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_no_answer_is_read_without_end_and_none_is_followed_elsewhere(provider: str) -> None:
    async def endless(_: web.Request) -> web.StreamResponse:
        return web.Response(body=b"x" * (MAX_BYTES + 1), headers={"Metadata-Flavor": "Google"})

    async with serving(endless) as url, session() as http:
        with pytest.raises(Unreadable, match="longer"):
            await PROVIDERS[provider](url=url).fetch(http, NOW_S)


# ---------------------------------------------------------------- the agent


class Script:
    """A provider that says one thing after the other; an error is raised."""

    url, every_s = "http://script", 0.0

    def __init__(self, *says: Sequence[Coming] | Exception) -> None:
        self._says = list(says)

    async def fetch(self, http: aiohttp.ClientSession, now_s: float) -> Sequence[Coming]:
        says = self._says.pop(0)
        if isinstance(says, Exception):
            raise says
        return says


def coming(deadline_at_s: float | None = NOW_S + 30, id_: str = "e1") -> Coming:
    return Coming(id=id_, kind="preempt", deadline_at_s=deadline_at_s, reason="why")


async def polled(*says: Sequence[Coming] | Exception, refuse: int = 0, **more: Any) -> list[Interruption]:
    said: list[Interruption] = []
    refusals = iter([Missing("Kafka is away", "Start it")] * refuse)

    async def say(one: Interruption) -> None:
        if (refusal := next(refusals, None)) is not None:
            raise refusal
        said.append(one)

    agent = Agent(Script(*says), "eu-spot", more.get("replicas"), say, lambda: NOW_S)
    async with session() as http:
        for _ in says:
            await agent.poll(http)
    return said


async def test_what_is_coming_is_said_once_and_again_when_it_comes_sooner() -> None:
    said = await polled(
        [], [coming()], [coming()], [coming(NOW_S + 30.5)], [coming(NOW_S + 10)], [coming(None)], [coming(None)],
        [coming(None), coming(NOW_S + 99, "e2")],
    )  # fmt: skip
    assert [one.deadline_at_s for one in said] == [NOW_S + 30, NOW_S + 10, None, NOW_S + 99]
    assert {(one.endpoint, one.kind, one.replicas, one.reason) for one in said} == {("eu-spot", "preempt", None, "why")}


async def test_a_deadline_that_has_passed_is_now() -> None:
    assert [one.deadline_at_s for one in await polled([coming(NOW_S - 5)], replicas=1)] == [None]


async def test_what_kafka_did_not_take_is_said_at_the_next_poll() -> None:
    assert len(await polled([coming()], [coming()], [coming()], [coming()], refuse=2)) == 1


async def test_a_service_that_is_away_is_told_of_once_and_asked_again(caplog: pytest.LogCaptureFixture) -> None:
    away = aiohttp.ClientConnectionError("nobody")
    with caplog.at_level("INFO"):
        said = await polled(away, TimeoutError(), Unreadable("?"), [coming()], away, [])
    assert len(said) == 1
    told = [record.getMessage() for record in caplog.records if record.getMessage().startswith("metadata")]
    assert told == ["metadata_away", "metadata_back", "metadata_away", "metadata_back"]


async def test_a_flood_of_events_is_not_remembered_without_end() -> None:
    said = await polled([coming(id_=f"e{n}") for n in range(1000)])
    assert len(said) == 1000


async def test_asked_once_it_says_all_that_is_coming_and_whether_anybody_answered() -> None:
    said: list[Interruption] = []

    async def say(one: Interruption) -> None:
        said.append(one)

    agent = Agent(Script([coming()], TimeoutError()), "eu-spot", 2, say, lambda: NOW_S)
    assert await agent.once() == said
    assert said[0].replicas == 2
    assert await agent.once() is None


def test_rfc_dates_of_this_machine_are_read() -> None:
    assert azure._deadline(formatdate(NOW_S, usegmt=True)) == NOW_S
