"""`python -m tradewind.load` plays recorded arrivals at a gateway, and says what became of them."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import pytest

from streams.runtime import clock
from tradewind.load.__main__ import main
from tradewind.ports import free_port
from tradewind.pretend.endpoint import Endpoint
from tradewind.pretend.settings import EndpointSettings


async def started(port: int, *words: str) -> asyncio.subprocess.Process:
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "tradewind.load", "--gateway", url, "--model", "chat", *words]
    return await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)


async def said(child: asyncio.subprocess.Process) -> dict[str, Any]:
    """The counts in its last line, when it has ended well."""
    out, _ = await asyncio.wait_for(child.communicate(), 30)
    assert child.returncode == 0
    counts: dict[str, Any] = json.loads(out.splitlines()[-1])
    return counts


async def test_requests_are_sent_and_counted() -> None:
    settings = EndpointSettings("one", models=("chat",), capacity_rps=1000, base_ttft_ms=1, base_between_ms=0.1)
    endpoint = Endpoint(settings, monotonic_s=clock.monotonic_s, now_s=clock.now_s)
    await endpoint.start()
    try:
        counts = await said(await started(endpoint.port, "--rps", "40", "--seconds", "1"))
    finally:
        await endpoint.stop()
    assert counts["sent"] == counts["ok"] > 0
    assert counts["failed"] == 0


async def test_a_gateway_that_is_not_there_is_counted_and_ends_nothing() -> None:
    counts = await said(await started(free_port(), "--rps", "40", "--seconds", "1"))
    assert counts["failed"] == counts["sent"] == counts["connect"] > 0


async def test_sigterm_ends_it_well_with_what_it_counted() -> None:
    asked = asyncio.Event()

    def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.set()
        writer.close()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    async with server:
        child = await started(server.sockets[0].getsockname()[1], "--rps", "50")
        await asyncio.wait_for(asked.wait(), 30)
        child.terminate()
        counts = await said(child)
    assert counts["failed"] == counts["sent"] > 0


def test_a_rate_that_is_none_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--gateway", "http://127.0.0.1:9", "--model", "m", "--rps", "0", "--seconds", "1"]) == 2
    assert "mean_rps is 0.0" in capsys.readouterr().err
