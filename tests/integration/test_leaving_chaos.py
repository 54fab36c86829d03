"""Processes killed at the deadline of their notice take no stream with them, whichever gateway carries it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from tests.integration.gateway_house import House
from tests.integration.test_gateway_leaving import able, ask, leaving, left, open_house, since

pytestmark = pytest.mark.chaos
TOKENS = 250
BETWEEN_MS = 12.0  # so that an answer takes three seconds
STREAMS = 12


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.asynccontextmanager
async def process(name: str) -> AsyncIterator[tuple[str, asyncio.subprocess.Process]]:
    """A pretend endpoint as a process of its own, killed in the end if it is not before."""
    port = free_port()
    words = ("--name", name, "--port", str(port), "--model", "m", "--slots", "100", "--chunk-ms", "0")
    speed = ("--base-ttft-ms", "20", "--base-between-ms", str(BETWEEN_MS), "--noise-sigma", "0")
    one = await asyncio.create_subprocess_exec(sys.executable, "-m", "tradewind.pretend", *words, *speed)
    try:
        url = f"http://127.0.0.1:{port}"
        await _answers(url)
        yield url, one
    finally:
        with contextlib.suppress(ProcessLookupError):
            one.kill()
        await one.wait()


async def _answers(url: str) -> None:
    async with asyncio.timeout(20), aiohttp.ClientSession() as http:
        while True:
            with contextlib.suppress(aiohttp.ClientError):
                async with http.get(f"{url}/health") as answer:
                    if answer.status == 200:
                        return
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("notice_s", [2.0, 1.0, 0.0])
async def test_an_endpoint_killed_at_its_deadline_takes_no_stream_with_it(tmp_path: Path, notice_s: float) -> None:
    before = left()
    async with process("a") as (a, doomed), process("b") as (b, _), process("c") as (c, _):
        of = able({"a": a, "b": b, "c": c}, {"a": 1.0})
        async with (
            open_house(tmp_path / "1", of, name="gateway-1") as one,
            open_house(tmp_path / "2", of, name="gateway-2") as two,
        ):
            asked = [asyncio.create_task(_steady(each)) for each in (one, two) for _ in range(STREAMS // 2)]
            await asyncio.sleep(0.5)
            deadline_s = time.monotonic() + notice_s
            off = leaving(of, notice_s, "a")
            if notice_s:
                await asyncio.gather(one.follow(off), two.follow(off))
            await asyncio.sleep(max(0.0, deadline_s - time.monotonic()))
            os.kill(doomed.pid, signal.SIGKILL)
            assert all(await asyncio.gather(*asked))
            moved = since(before)
            if notice_s:  # all were gone when it was killed
                assert moved == {("moved", "notice"): STREAMS}


async def _steady(one: House) -> bool:
    return (await ask(one, TOKENS)).whole(TOKENS)
