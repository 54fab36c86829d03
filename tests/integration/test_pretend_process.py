"""A pretend endpoint as a process of its own."""

import asyncio
import json
import signal
import socket
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest


@asynccontextmanager
async def running(*arguments: str) -> AsyncIterator[Process]:
    command = [sys.executable, "-m", "tradewind.pretend", "--name", "eu-west-a", *arguments]
    process = await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE, stderr=PIPE)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def ready(process: Process) -> dict[str, Any]:
    assert process.stdout is not None
    line: dict[str, Any] = json.loads(await asyncio.wait_for(process.stdout.readline(), 30))
    return line


async def test_it_says_where_it_listens_serves_and_stops_on_sigterm() -> None:
    async with running("--base-ttft-ms", "1", "--model", "m") as process:
        said = await ready(process)
        assert (said["ready"], said["name"]) == (True, "eu-west-a")
        async with aiohttp.ClientSession() as session:
            body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 2}
            async with session.post(f"http://127.0.0.1:{said['port']}/v1/chat/completions", json=body) as response:
                assert (await response.json())["usage"]["completion_tokens"] == 2
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 15) == 0


async def test_dead_ends_the_process_at_once() -> None:
    async with running() as process:
        said = await ready(process)
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"http://127.0.0.1:{said['admin_port']}/fault", json={"kind": "dead"}) as response,
        ):
            assert (await response.json())["kind"] == "dead"
        assert await asyncio.wait_for(process.wait(), 5) == 86


async def test_it_stops_when_its_parents_pipe_closes() -> None:
    async with running("--stop-on-stdin-eof") as process:
        await ready(process)
        assert process.stdin is not None
        process.stdin.close()
        assert await asyncio.wait_for(process.wait(), 15) == 0


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [(("--capacity-rps", "0"), 2, "capacity_rps: 0.0 is out of range"), (("--port", "TAKEN"), 1, "or give 0 for any")],
)
async def test_what_is_wrong_at_the_start_is_said_with_the_remedy(
    arguments: tuple[str, ...], code: int, said: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        async with running(*(port if one == "TAKEN" else one for one in arguments)) as process:
            out, err = await asyncio.wait_for(process.communicate(), 30)
    assert (process.returncode, out) == (code, b"")
    assert said in err.decode()
    assert "Traceback" not in err.decode()
