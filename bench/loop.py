"""The loop on a real Kafka: how long from evidence to a table, from a metric to a table that knows it, and how long it
stalls when a worker or the broker is killed.

    python -m bench.loop [--json] [--seconds 25] [--only event,stall]

Two streams workers and a router run as processes; one sender speaks for all gateways in records of 100 observations,
lingering 5 ms. All times are of one clock. `lost` counts acknowledged observations that the windows do
not hold at the end, `counted_twice` those they hold beyond the acknowledged; `repeats` are records read again when a
partition came back.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import random
import re
import sys
import tempfile
from collections import defaultdict
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import numpy as np
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from bench.machine import described
from streams.contract import topics
from streams.contract.records import (
    Endpoint,
    EndpointHealth,
    EndpointMetrics,
    Fleet,
    Origin,
    RequestClass,
    RoutingTable,
    Service,
)
from streams.runtime import admin, clock
from streams.settings import Settings, load
from tradewind.embedded import FAST, EmbeddedKafka, default_cache, prepare
from tradewind.fleets import publish
from tradewind.ports import free_port
from tradewind.processes import Child, Processes

REGIONS, EACH = 10, 20
OBSERVATIONS = 100
LOADS = (1_000, 20_000)
DEADLINE_S = 20.0
SLOW_MS = 1000.0


def fleet() -> Fleet:
    """200 endpoints in ten regions, one service, two origins, and marker endpoints nobody has heard of yet."""
    service = Service(
        name="chat", classes=(RequestClass(name="interactive", slo_p95_ms=2000),), default_class="interactive"
    )
    regions = [f"region-{r}" for r in range(REGIONS)]
    rtt = {name: 10.0 + 10.0 * r for r, name in enumerate(regions)}
    origins = tuple(Origin(name=o, jurisdiction="DE", rtt_ms=rtt, demand_rps=100) for o in ("north", "south"))
    endpoints = [
        Endpoint(
            name=f"{region}-{n}", url=f"http://127.0.0.1:{1 + n}", services=("chat",), provider=f"cloud-{r % 3}",
            region=region, zone=f"{region}-{n % 3}", jurisdiction="DE", capacity_rps=20, price_usd_per_h=1 + n / 10,
        )
        for r, region in enumerate(regions)
        for n in range(EACH)
    ]  # fmt: skip
    return Fleet(version=1, services=(service,), origins=origins, endpoints=tuple(endpoints))


class Onlooker:
    """What is said on the health and table topics, and when it arrived."""

    def __init__(self) -> None:
        self.states: dict[str, str] = {}
        self.latency_ms: dict[str, float] = {}
        self.counts: dict[str, dict[tuple[str, str], int]] = {}
        self.gaps_s: dict[str, float] = defaultdict(float)
        self._last_s: dict[str, float] = {}
        self.news = asyncio.Event()

    def see(self, topic: str, value: bytes, now_s: float) -> None:
        if topic.endswith(topics.ROUTING_TABLE.name):
            table = msgspec.json.decode(value, type=RoutingTable)
            self.states = {e.name: e.state for e in table.endpoints}
            self.latency_ms = {e.name: e.latency_p95_ms for e in table.endpoints}
        else:
            health = msgspec.json.decode(value, type=EndpointHealth)
            if health.source in self._last_s:
                self.gaps_s[health.source] = max(self.gaps_s[health.source], now_s - self._last_s[health.source])
            self._last_s[health.source] = now_s
            rows = zip(health.endpoint, health.class_, health.observations, strict=True)
            self.counts[f"{health.source}/{health.part}"] = {(e, c): n for e, c, n in rows}
        self.news.set()

    def forget_gaps(self) -> None:
        self.gaps_s.clear()

    def longest_gap_s(self, now_s: float) -> float:
        """The longest silence of a source since `forget_gaps`, one that still lasts at `now_s` included."""
        return max((max(self.gaps_s[source], now_s - last_s) for source, last_s in self._last_s.items()), default=0.0)

    @property
    def observations(self) -> int:
        return sum(sum(rows.values()) for rows in self.counts.values())

    async def until(self, true: Any, deadline_s: float = DEADLINE_S) -> float:
        """Seconds until `true()`; raises TimeoutError."""
        began_s = clock.monotonic_s()
        async with asyncio.timeout(deadline_s):
            while not true():
                self.news.clear()
                await self.news.wait()
        return clock.monotonic_s() - began_s


@contextlib.asynccontextmanager
async def onlooking(settings: Settings) -> AsyncIterator[Onlooker]:
    """An onlooker that follows both topics."""
    seat = Onlooker()
    consumer = AIOKafkaConsumer(bootstrap_servers=settings.bootstrap_servers, fetch_max_wait_ms=100)
    await consumer.start()
    watched = (topics.ROUTING_TABLE, topics.ENDPOINT_HEALTH)
    await rewind(consumer, [TopicPartition(t.full(settings.topic_prefix), 0) for t in watched])

    async def follow() -> None:
        async for message in consumer:
            seat.see(message.topic, message.value, clock.monotonic_s())

    task = asyncio.create_task(follow())
    try:
        yield seat
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await consumer.stop()


async def rewind(consumer: Any, partitions: list[TopicPartition]) -> None:
    """`consumer` reads `partitions` from their beginning.

    By offset: `seek_to_beginning` may lose against the reset to the end that `assign` has under way.
    """
    consumer.assign(partitions)
    for at, offset in (await consumer.beginning_offsets(partitions)).items():
        consumer.seek(at, offset)


class Sender:
    """Speaks for one gateway. Batches linger 5 ms; evidence does not linger."""

    def __init__(self, settings: Settings, endpoints: list[str], seed: int) -> None:
        common = {"bootstrap_servers": settings.bootstrap_servers, "acks": "all", "enable_idempotence": True}
        self._bulk = AIOKafkaProducer(**common, linger_ms=5, request_timeout_ms=60_000)
        self._news = AIOKafkaProducer(**common, linger_ms=0)
        self._topic = topics.ENDPOINT_METRICS.full(settings.topic_prefix)
        self.endpoints, self._rng = endpoints, random.Random(seed)
        self._boot, self._seq = int(clock.now_s()), 0
        self.acknowledged = 0
        self.records = 0
        self._ten = [
            tuple(round(self._rng.lognormvariate(4.5, 0.4), 2) for _ in range(OBSERVATIONS)) for _ in range(50)
        ]

    async def start(self) -> None:
        await asyncio.gather(self._bulk.start(), self._news.start())

    async def stop(self) -> None:
        await asyncio.gather(self._bulk.stop(), self._news.stop())

    def _metrics(self, endpoint: str, **fields: Any) -> bytes:
        self._seq += 1
        now_s = clock.now_s()
        return msgspec.json.encode(
            EndpointMetrics(
                endpoint=endpoint, service="chat", class_="interactive", observer="gw-bench", boot=self._boot,
                seq=self._seq, at_s=now_s, **fields,
            )
        )  # fmt: skip

    async def load(self, per_s: float, seconds: float) -> None:
        """`per_s` observations a second in records of 100, for `seconds`; comes back when all are acknowledged."""
        began_s, sent = clock.monotonic_s(), 0
        waiting: set[asyncio.Future[Any]] = set()
        while (at_s := clock.monotonic_s() - began_s) < seconds:
            while sent < at_s * per_s / OBSERVATIONS:
                endpoint = self.endpoints[sent % len(self.endpoints)]
                value = self._metrics(endpoint, requests=OBSERVATIONS, latency_ms=self._ten[sent % 50])
                future = await self._bulk.send(self._topic, value, key=endpoint.encode())
                future.add_done_callback(self._acknowledge)
                waiting.add(future)
                future.add_done_callback(waiting.discard)
                sent += 1
            await asyncio.sleep(0.005)
        await asyncio.gather(*waiting)

    def _acknowledge(self, future: asyncio.Future[Any]) -> None:
        if not future.cancelled() and future.exception() is None:
            self.acknowledged += OBSERVATIONS
            self.records += 1

    async def fail(self, endpoint: str) -> None:
        """Three hard failures in a row, said at once."""
        now_s = clock.now_s()
        value = self._metrics(endpoint, requests=3, errors={"connect": 3}, hard_streak=3, first_error_at_s=now_s)
        await self._news.send(self._topic, value, key=endpoint.encode())

    async def mend(self, endpoint: str) -> None:
        """It answers again."""
        value = self._metrics(endpoint, requests=1, last_ok_at_s=clock.now_s())
        await self._news.send(self._topic, value, key=endpoint.encode())

    async def mark(self, endpoint: str, latency_ms: float) -> None:
        """Thirty observations of one latency."""
        value = self._metrics(endpoint, requests=30, latency_ms=(latency_ms,) * 30)
        await self._bulk.send(self._topic, value, key=endpoint.encode())


def spread(values_s: list[float]) -> dict[str, float]:
    """n, p50, p99 and max in ms."""
    ms = np.array(values_s) * 1000.0
    p50, p99 = np.quantile(ms, (0.5, 0.99), method="inverted_cdf")
    return {"n": len(ms), "p50": round(float(p50), 1), "p99": round(float(p99), 1), "max": round(float(ms.max()), 1)}


async def events(sender: Sender, seat: Onlooker, victims: list[str], seconds: float) -> list[float]:
    """Seconds from evidence sent to a table without the endpoint, one after another."""
    taken: list[float] = []
    until_s = clock.monotonic_s() + seconds
    rng = random.Random(7)
    while clock.monotonic_s() < until_s:
        victim = rng.choice(victims)
        await seat.until(lambda v=victim: seat.states.get(v) == "ready")
        began_s = clock.monotonic_s()
        await sender.fail(victim)
        await seat.until(lambda v=victim: seat.states.get(v) == "down")
        taken.append(clock.monotonic_s() - began_s)
        await sender.mend(victim)
        await asyncio.sleep(rng.uniform(0.05, 0.15))
    return taken


async def ticks(sender: Sender, seat: Onlooker, markers: list[str], seconds: float) -> list[float]:
    """Seconds from a metric sent to a table that knows it: an endpoint declared fast turns out to be slow."""
    taken: list[float] = []
    until_s = clock.monotonic_s() + seconds
    rng = random.Random(8)
    for marker in markers:
        if clock.monotonic_s() > until_s:
            break
        began_s = clock.monotonic_s()
        await sender.mark(marker, SLOW_MS)
        await seat.until(lambda m=marker: seat.latency_ms.get(m, 0.0) > SLOW_MS / 2)
        taken.append(clock.monotonic_s() - began_s)
        await asyncio.sleep(rng.uniform(0.0, 0.5))
    return taken


class House:
    """A broker, two streams workers and a router, as processes."""

    def __init__(self, broker: EmbeddedKafka, processes: Processes, settings: Settings) -> None:
        self.broker, self.processes, self.settings = broker, processes, settings
        self.ports: dict[str, int] = {}
        self.workers: dict[str, Child] = {}

    async def start(self, name: str, room: str) -> Child:
        port = self.ports[name] = free_port(avoid=set(self.ports.values()))
        ready = f"http://127.0.0.1:{port}/readyz"
        self.workers[name] = await self.processes.start(
            name, "tradewind", "worker", room, "--port", str(port), ready=ready, deadline_s=30, may_die=True
        )
        return self.workers[name]

    async def heard(self) -> dict[str, float]:
        """Metrics records folded so far, by worker; of those that answer."""
        found: dict[str, float] = {}
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=1)) as http:
            for name, port in self.ports.items():
                with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                    async with http.get(f"http://127.0.0.1:{port}/metrics") as answer:
                        text = await answer.text()
                    rows = re.findall(r'records_heard_total\{step="health",topic="endpoint-metrics.v1"\} (\S+)', text)
                    found[name] = sum(map(float, rows))
        return found


@contextlib.asynccontextmanager
async def house(folder: Path) -> AsyncIterator[House]:
    """Everything up, the fleet published."""
    runtime = prepare(default_cache(os.environ, Path.home()), search_path=os.environ.get("PATH"))
    async with EmbeddedKafka(runtime, folder / "kafka", port=None, jvm=FAST) as broker:
        told = {
            **os.environ,
            "TRADEWIND_BOOTSTRAP_SERVERS": broker.bootstrap_servers,
            "TRADEWIND_STATE_DIR": str(folder),
            "TRADEWIND_WINDOW_S": "300",
        }
        settings = load(bootstrap_servers=broker.bootstrap_servers)
        await admin.create(settings)
        await publish(fleet(), settings)
        async with Processes(folder / "log", environ=told) as processes:
            home = House(broker, processes, settings)
            await asyncio.gather(
                *(home.start(n, r) for n, r in (("s1", "streams"), ("s2", "streams"), ("r", "router")))
            )
            yield home


async def latencies(home: House, seconds: float) -> dict[str, Any]:
    """event_ms and tick_ms under each load."""
    names = [e.name for e in fleet().endpoints]
    busy, victims, markers = names[:100], names[:40], names[100:]
    found: dict[str, Any] = {"event_ms": {}, "tick_ms": {}}
    async with onlooking(home.settings) as seat:
        for number, per_s in enumerate(LOADS):
            sender = Sender(home.settings, busy, seed=number)
            await sender.start()
            fresh = markers[number * 50 : number * 50 + 50]
            background = asyncio.create_task(sender.load(per_s, seconds + 6.0))
            try:
                await asyncio.sleep(3.0)
                event, tick = await asyncio.gather(
                    events(sender, seat, victims, seconds), ticks(sender, seat, fresh, seconds)
                )
                await background
            finally:
                background.cancel()
                await sender.stop()
            found["event_ms"][str(per_s)], found["tick_ms"][str(per_s)] = spread(event), spread(tick)
            _say(f"{per_s} observations/s: event {found['event_ms'][str(per_s)]}, tick {found['tick_ms'][str(per_s)]}")
    return found


async def stalls(home: House) -> dict[str, Any]:
    """The longest silence of any partition after `kill -9` of a worker, then of the broker; what was lost."""
    stall: dict[str, float] = {}
    names = [e.name for e in fleet().endpoints][:100]
    async with onlooking(home.settings) as seat:
        heard = await home.heard()
        sender = Sender(home.settings, names, seed=99)
        await sender.start()
        background = asyncio.create_task(sender.load(LOADS[-1], 40.0))
        for what in ("worker", "broker"):
            await asyncio.sleep(4.0)
            seat.forget_gaps()
            if what == "worker":
                heard |= {"s1": (await home.heard())["s1"]}
                home.workers["s1"].kill()
            else:
                home.broker.kill()
                await home.broker.restart()
            await asyncio.sleep(14.0)
            stall[what] = round(seat.longest_gap_s(clock.monotonic_s()), 1)
            _say(f"kill -9 of {what}: the longest silence of a partition was {stall[what]} s")
        await background
        with contextlib.suppress(TimeoutError):
            await seat.until(lambda: seat.observations >= sender.acknowledged)
        after = {**heard, **await home.heard()}
        await sender.stop()
        held = seat.observations
    read = sum(after.values()) - sum(heard[name] for name in heard if name != "s1")
    lost, twice = max(0, sender.acknowledged - held), max(0, held - sender.acknowledged)
    if twice:
        _say(f"{twice} observations were counted that nobody was told of: counted twice, or never acknowledged")
    return {
        "stall_s": stall,
        "lost": lost,
        "counted_twice": twice,
        "acknowledged": sender.acknowledged,
        "repeats": round(read - sender.records),
    }


async def run(only: set[str], seconds: float) -> dict[str, Any]:
    """All figures asked for."""
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        if "event" in only:
            async with house(Path(folder) / "latency") as home:
                found |= await latencies(home, seconds)
        if "stall" in only:
            async with house(Path(folder) / "stall") as home:
                found |= await stalls(home)
    return found | described()


def _say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.add_argument("--seconds", type=float, default=25.0, help="of measuring under each load")
    parser.add_argument("--only", default="event,stall", help="event, stall or both")
    args = parser.parse_args()
    found = asyncio.run(run(set(args.only.split(",")), args.seconds))
    print(
        msgspec.json.encode(found).decode() if args.json else msgspec.json.format(msgspec.json.encode(found)).decode()
    )


if __name__ == "__main__":
    main()
