"""`tradewind up` as its user runs it: her own servers, a file she edits, Ctrl-C, and nothing left behind."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import stat
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import aiohttp
import psutil
import pytest
from aiohttp import web

from router_sync.client import Follower, KafkaSource
from router_sync.keys import load_trust
from streams.contract.records import RoutingTable
from streams.runtime import clock
from tradewind import running
from tradewind.embedded import Runtime
from tradewind.ports import free_port

pytestmark = [pytest.mark.kafka, pytest.mark.chaos]
UP = [sys.executable, "-m", "tradewind", "up"]


@contextlib.asynccontextmanager
async def servers(*names: str) -> AsyncIterator[dict[str, int]]:
    """Name to port of as many HTTP servers that speak as much OpenAI as is needed here."""
    runners: list[web.AppRunner] = []
    ports: dict[str, int] = {}
    for name in names:
        app = web.Application()
        app.router.add_post("/v1/chat/completions", _answering(name))
        app.router.add_get("/health", _healthy)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        runners.append(runner)
        ports[name] = int(runner.addresses[0][1])
    try:
        yield ports
    finally:
        for runner in runners:
            await runner.cleanup()


def _answering(name: str) -> Callable[[web.Request], Any]:
    async def answer(request: web.Request) -> web.Response:
        await request.json()
        return web.json_response({"object": "chat.completion", "from": name, "choices": []})

    return answer


async def _healthy(_: web.Request) -> web.Response:
    return web.Response(text="ok")


def text_of(ports: dict[str, int], gateway_port: int) -> str:
    endpoints = "".join(
        f"""
  - name: {name}
    url: http://127.0.0.1:{port}
    services: [chat]
    provider: own
    region: eu
    zone: eu-{number}
    jurisdiction: DE
    capacity_rps: 50
    price_usd_per_h: 1.0"""
        for number, (name, port) in enumerate(ports.items())
    )
    return f"""\
fleet: hers
services:
  - name: chat
    default_class: interactive
    classes: [{{name: interactive, slo_p95_ms: 2000}}]
origins:
  - {{name: eu, jurisdiction: DE, rtt_ms: {{eu: 5}}}}
gateway:
  ports: {{eu: {gateway_port}}}
  drain_s: 1
endpoints:{endpoints}
"""


class Started:
    """An `up` in a folder of its own; what it says is in `err`."""

    def __init__(self, folder: Path, process: asyncio.subprocess.Process) -> None:
        self.folder, self.process = folder, process

    @property
    def said(self) -> str:
        return (self.folder / "up.err").read_text()

    async def until_said(self, words: str, within_s: float = 40.0) -> None:
        await until(lambda: words in self.said or self.process.returncode is not None, words, within_s)
        assert words in self.said, self.said

    async def ready(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        async with asyncio.timeout(60):
            line = await self.process.stdout.readline()
        assert line, self.said
        ready: dict[str, Any] = json.loads(line)
        return ready

    async def ended(self) -> int:
        async with asyncio.timeout(30):
            return await self.process.wait()

    def left(self) -> list[str]:
        """Command lines of processes that belong to this folder."""
        found = []
        for process in psutil.process_iter(["cmdline", "environ"]):
            words = " ".join(process.info["cmdline"] or [])
            told = (process.info["environ"] or {}).get("TRADEWIND_STATE_DIR", "")
            if process.pid != os.getpid() and str(self.folder) in f"{words} {told}":
                found.append(words)
        return found


@contextlib.asynccontextmanager
async def up(folder: Path, *words: str) -> AsyncIterator[Started]:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("TRADEWIND_")}
    with (folder / "up.err").open("w") as err:
        process = await asyncio.create_subprocess_exec(
            *UP, *words, cwd=folder, env=environ, stdout=asyncio.subprocess.PIPE, stderr=err, start_new_session=True
        )
    started = Started(folder, process)
    try:
        yield started
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def until(true: Callable[[], bool], what: str, within_s: float) -> None:
    deadline_s = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < deadline_s, f"not within {within_s} s: {what}"
        await asyncio.sleep(0.05)


@contextlib.asynccontextmanager
async def tables(ready: dict[str, Any], folder: Path) -> AsyncIterator[list[RoutingTable]]:
    """The tables that gateways follow, as they come."""
    heard: list[RoutingTable] = []
    follower = Follower(load_trust(folder / ready["trust_file"]))

    async def follow() -> None:
        async for found in KafkaSource(ready["bootstrap_servers"], ready["topic_prefix"]).records():
            table = follower.offer(found, clock.now_s())
            heard.extend([table] if table else [])

    following = asyncio.create_task(follow())
    try:
        yield heard
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)


async def ask(ready: dict[str, Any], key: str) -> tuple[int, dict[str, Any]]:
    body = {"model": "chat", "messages": [{"role": "user", "content": "Hello"}]}
    url = f"{ready['gateways']['eu']}/v1/chat/completions"
    async with (
        aiohttp.ClientSession() as http,
        http.post(url, json=body, headers={"Authorization": f"Bearer {key}"}) as answer,
    ):
        return answer.status, await answer.json()


def replaced(file: Path, text: str) -> None:
    """As editors save: a new file in place of the old one."""
    draft = file.with_suffix(".new")
    draft.write_text(text)
    draft.replace(file)


async def test_her_endpoints_are_served_her_edits_taken_over_and_nothing_is_left_behind(
    tmp_path: Path, kafka_runtime: Runtime
) -> None:
    file, port = tmp_path / "tradewind.yaml", free_port()
    async with servers("a", "b", "c") as ports:
        two = {name: ports[name] for name in ("a", "b")}
        file.write_text(text_of(two, port))
        async with up(tmp_path, "--json") as started:
            ready = await started.ready()
            key_file = tmp_path / ready["api_key_file"]
            key = key_file.read_text().strip()
            await started.until_said("ready in")
            assert key in started.said, "the new key is shown once"
            assert stat.S_IMODE(key_file.stat().st_mode) == 0o600
            assert ready["gateways"] == {"eu": f"http://127.0.0.1:{port}"}
            status, answer = await ask(ready, key)
            assert status == 200
            assert answer["from"] in two
            assert (await ask(ready, "somebody"))[0] == 401

            await _second_is_refused(tmp_path, started.process.pid)
            async with tables(ready, tmp_path) as heard:
                await _edits_are_followed(started, file, text_of(ports, port), heard)
            await _killed_gateway_comes_back(started, ready, tmp_path)
            assert (await ask(ready, key))[0] == 200

            started.process.send_signal(signal.SIGINT)
            assert await started.ended() == 0, started.said
            assert started.left() == []
            assert not (tmp_path / ".tradewind" / running.NOTE).exists()
            assert "stopped" in started.said
            assert started.process.stdout is not None
            assert await started.process.stdout.read() == b"", "one line of JSON and nothing else"


async def _second_is_refused(folder: Path, pid: int) -> None:
    (folder / "second").mkdir()
    file = folder / "second" / "tradewind.yaml"
    file.write_text((folder / "tradewind.yaml").read_text())
    noted = running.read(folder / ".tradewind")
    assert noted is not None
    assert noted.pid == pid
    assert {p.role for p in noted.processes} == {"kafka", "streams", "router", "gateway"}
    environ = {**os.environ, "TRADEWIND_STATE_DIR": str(folder / ".tradewind")}
    second = await asyncio.create_subprocess_exec(
        *UP, str(file), env=environ, stderr=asyncio.subprocess.PIPE, start_new_session=True
    )
    _, err = await asyncio.wait_for(second.communicate(), 30)
    assert second.returncode == 1
    assert f"process {pid}" in err.decode()


async def _edits_are_followed(started: Started, file: Path, good: str, heard: list[RoutingTable]) -> None:
    await until(lambda: bool(heard), "a table", 20)
    replaced(file, good)
    first = heard[0].fleet_version
    await until(lambda: {e.name for e in heard[-1].endpoints} == {"a", "b", "c"}, "a table with the new endpoint", 20)
    assert heard[-1].fleet_version == first + 1
    await started.until_said("is in force, with 3 endpoints")
    replaced(file, good.replace("zone: eu-2", "zones: eu-2").replace("drain_s: 1", "drain_s: soon"))
    await started.until_said("Did you mean zone?")
    assert "gateway.drain_s" in started.said, "all problems at once"
    assert "stays in force" in started.said
    replaced(file, good)
    await started.until_said("the fleet is the same")
    assert {e.name for e in heard[-1].endpoints} == {"a", "b", "c"}
    assert started.said.count("Did you mean zone?") == 1


async def _killed_gateway_comes_back(started: Started, ready: dict[str, Any], folder: Path) -> None:
    [before] = [p for p in ready["processes"] if p["role"] == "gateway"]
    os.kill(before["pid"], signal.SIGKILL)
    await started.until_said("gateway-eu is back")
    noted = running.read(folder / ".tradewind")
    assert noted is not None
    [after] = [p for p in noted.processes if p.role == "gateway"]
    assert after.pid != before["pid"]


async def test_an_up_on_a_kafka_of_hers_takes_its_port_seriously_and_ends_while_it_starts(
    tmp_path: Path, kafka: str
) -> None:
    file = tmp_path / "tradewind.yaml"
    prefix = f"up-{uuid4().hex[:8]}"
    words = ("--bootstrap-servers", kafka, "--topic-prefix", prefix)
    async with servers("a") as ports:
        file.write_text(text_of(ports, ports["a"]).replace(f":{ports['a']}", f":{free_port()}", 1))
        async with up(tmp_path, *words) as started:
            assert await started.ended() == 1
            assert "gateway.ports.eu" in started.said
            assert "end it, or write another port" in started.said
        file.write_text(text_of(ports, free_port()))
        async with up(tmp_path, *words) as started:
            await started.until_said("starting workers")
            started.process.send_signal(signal.SIGTERM)
            assert await started.ended() == 0, started.said
            assert started.left() == []
            assert not (tmp_path / ".tradewind" / "kafka").exists()
