"""Our gateway beside LiteLLM's proxy and HAProxy, before the same six pretend endpoints: how much, and how long.

Each gateway has one core to itself; the endpoints, the callers and (for our reports) a real Kafka share the others.
Rounds alternate between gateways: a closed loop of 32 callers for requests per CPU-second, then a fixed rate that any
of them can take for what is added to the time of a call straight to an endpoint. Figures are medians of the rounds.
CPU time is user and system, of all processes of a gateway. Ours and LiteLLM's check an API key, HAProxy does not.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition

from bench import load
from bench.contenders import Start, haproxy, litellm, six, tradewind
from bench.env import ROOT, gateways_python
from streams.contract import topics
from streams.contract.records import RoutingTable
from streams.runtime import admin
from streams.settings import Settings
from streams.settings import load as settings_of
from tradewind.embedded import FAST, EmbeddedKafka, default_cache, prepare
from tradewind.ports import LOOPBACK, free_port
from tradewind.processes import Child, wait_ready

ENDPOINTS = 6
CONNECTIONS = 32
RATE_PER_S = 50.0
"""A third of what LiteLLM's proxy takes on one core."""
ROUNDS = 3
WARM_S = 1.0
FIRST_WARM_S = 3.0
"""Before the first round: much is imported when it is first needed."""
OPEN_FACTOR = 1.5
"""A fixed rate is kept longer than a closed loop, for its p99."""
START_S = 90.0
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Seen:
    """What the rounds saw of one gateway (or of no gateway: then without a closed loop)."""

    per_cpu_s: list[float] = field(default_factory=list)
    per_s: list[float] = field(default_factory=list)
    busy: list[float] = field(default_factory=list)
    p50_ms: list[float] = field(default_factory=list)
    p99_ms: list[float] = field(default_factory=list)
    failed: list[int] = field(default_factory=list)


def cpu_s(session: int) -> float:
    """Seconds of CPU time, user and system, of all processes of a session so far."""
    ticks = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            if int(fields[3]) == session:
                ticks += sum(map(int, fields[11:15]))
    return ticks / _TICKS_PER_S


def cores() -> tuple[set[int], set[int]]:
    """(the gateway's core, the others); the same one where there is only one."""
    first, *others = sorted(os.sched_getaffinity(0))
    return {first}, set(others) or {first}


# -- started ----------------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def running(start: Start, folder: Path, core: set[int]) -> AsyncIterator[Child]:
    """The gateway, ready, on its core, with whatever it starts in turn."""
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "", **start.environ}
    child = Child(start.name, start.command, folder / f"{start.name}.log", environ=environ)
    child.start()
    assert child.pid is not None
    os.sched_setaffinity(child.pid, core)
    try:
        began_s = time.perf_counter()
        await wait_ready(child, start.ready, START_S)
        _say(f"{start.name} is ready after {time.perf_counter() - began_s:.1f} s")
        yield child
    finally:
        await child.stop()


@contextlib.asynccontextmanager
async def kafka(folder: Path) -> AsyncIterator[Settings]:
    """A broker with our topics."""
    runtime = prepare(default_cache(os.environ, Path.home()), search_path=os.environ.get("PATH"))
    async with EmbeddedKafka(runtime, folder / "kafka", port=None, jvm=FAST) as broker:
        settings = settings_of(bootstrap_servers=broker.bootstrap_servers)
        await admin.create(settings)
        yield settings


@contextlib.asynccontextmanager
async def pretend(folder: Path) -> AsyncIterator[list[int]]:
    """Ports of six endpoints in one process."""
    ports: list[int] = []
    while len(ports) < ENDPOINTS:
        ports.append(free_port(avoid=ports))
    command = [sys.executable, "-m", "bench.pretend", *map(str, ports)]
    child = Child("pretend", command, folder / "pretend.log", cwd=ROOT).start()
    try:
        await wait_ready(child, f"http://{LOOPBACK}:{ports[-1]}/", 20.0)
        yield ports
    finally:
        await child.stop()


# -- measured ---------------------------------------------------------------------------------------------------------


async def as_fast_as_it_goes(start: Start, child: Child, seconds: float, seen: Seen) -> None:
    """A closed loop."""
    assert child.pid is not None
    async with load.Closed(start.port, CONNECTIONS) as closed:
        await asyncio.sleep(WARM_S)
        closed.take()
        began_s, used_s = time.perf_counter(), cpu_s(child.pid)
        await asyncio.sleep(seconds)
        tally, took_s, used_s = closed.take(), time.perf_counter() - began_s, cpu_s(child.pid) - used_s
    seen.per_cpu_s.append(tally.served / max(used_s, 1 / _TICKS_PER_S))
    seen.per_s.append(tally.served / took_s)
    seen.busy.append(used_s / took_s)
    seen.failed.append(tally.failed)
    _say(f"  {start.name}: {seen.per_s[-1]:.0f}/s, {seen.per_cpu_s[-1]:.0f} per CPU-second, failed {tally.failed}")


async def at_fixed_rate(name: str, port: int, seconds: float, seen: Seen) -> None:
    """An open loop."""
    await load.at_rate(port, RATE_PER_S, WARM_S)
    tally = await load.at_rate(port, RATE_PER_S, seconds * OPEN_FACTOR)
    if not tally.served:
        raise RuntimeError(f"{name} answered none of {tally.failed} requests at {RATE_PER_S:g}/s: nothing to measure.")
    times = sorted(tally.latency_ms)
    seen.p50_ms.append(times[len(times) // 2])
    seen.p99_ms.append(times[len(times) * 99 // 100])
    seen.failed.append(tally.failed)
    _say(f"  {name}: p50 {seen.p50_ms[-1]:.2f} ms, p99 {seen.p99_ms[-1]:.2f} ms, failed {tally.failed}")


async def rounds(starts: list[tuple[Start, Child]], straight: int, seconds: float, count: int) -> dict[str, Seen]:
    """What was seen, by name; "straight" without a gateway."""
    found = {start.name: Seen() for start, _ in starts} | {"straight": Seen()}
    for start, _ in starts:
        async with load.Closed(start.port, CONNECTIONS):
            await asyncio.sleep(FIRST_WARM_S)
    for number in range(count):
        _say(f"round {number + 1} of {count}")
        for start, child in starts:
            await as_fast_as_it_goes(start, child, seconds, found[start.name])
        await at_fixed_rate("straight", straight, seconds, found["straight"])
        for start, _ in starts:
            await at_fixed_rate(start.name, start.port, seconds, found[start.name])
    return found


def rows(found: Mapping[str, Seen]) -> list[dict[str, Any]]:
    """A row per gateway: medians of its rounds."""
    return [_row(name, seen, _median(found["straight"].p99_ms)) for name, seen in found.items() if name != "straight"]


def _row(name: str, seen: Seen, straight_p99_ms: float) -> dict[str, Any]:
    p99_ms = _median(seen.p99_ms)
    return {
        "name": name,
        "requests_per_cpu_s": round(_median(seen.per_cpu_s)),
        "rps_per_core": round(_median(seen.per_s)),
        "core_busy": round(_median(seen.busy), 2),
        "p50_ms": round(_median(seen.p50_ms), 3),
        "p99_ms": round(p99_ms, 3),
        "added_p99_ms": round(p99_ms - straight_p99_ms, 3),
        "failed": sum(seen.failed),
    }


def ratio_litellm(found: list[dict[str, Any]]) -> float:
    """Requests per CPU-second of ours over LiteLLM's."""
    per_cpu_s = {row["name"]: row["requests_per_cpu_s"] for row in found}
    return round(per_cpu_s["tradewind"] / per_cpu_s["litellm"], 2)


async def reported(settings: Settings) -> int:
    """Records of endpoint metrics on Kafka: that reports were on."""
    name = topics.ENDPOINT_METRICS.full(settings.topic_prefix)
    consumer = AIOKafkaConsumer(name, bootstrap_servers=settings.bootstrap_servers, enable_auto_commit=False)
    await consumer.start()
    try:
        places = [TopicPartition(name, number) for number in consumer.partitions_for_topic(name) or ()]
        return int(sum((await consumer.end_offsets(places)).values()))
    finally:
        await consumer.stop()


async def compared(table: RoutingTable, seconds: float, count: int = ROUNDS) -> dict[str, Any]:
    """`gateways`, `ratio_litellm`, `straight` and `reports`; the calling process keeps off the gateways' core."""
    before = os.sched_getaffinity(0)
    core, others = cores()
    gateways_python()
    os.sched_setaffinity(0, others)
    try:
        with tempfile.TemporaryDirectory() as name:
            return await _compared(Path(name), table, seconds, count, core)
    finally:
        os.sched_setaffinity(0, before)


async def _compared(folder: Path, table: RoutingTable, seconds: float, count: int, core: set[int]) -> dict[str, Any]:
    async with contextlib.AsyncExitStack() as stack:
        ports = await stack.enter_async_context(pretend(folder))
        settings = await stack.enter_async_context(kafka(folder))
        starts = (tradewind(folder, six(table, ports), settings), litellm(folder, ports), haproxy(folder, ports))
        ready = [(start, await stack.enter_async_context(running(start, folder, core))) for start in starts]
        seen = await rounds(ready, ports[0], seconds, count)
        reports = await reported(settings)
    found, straight = rows(seen), seen["straight"]
    without = {"p50_ms": round(_median(straight.p50_ms), 3), "p99_ms": round(_median(straight.p99_ms), 3)}
    return {"gateways": found, "ratio_litellm": ratio_litellm(found), "straight": without, "reports": reports}


def _median(values: list[float]) -> float:
    return float(statistics.median(values))


def _say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)
