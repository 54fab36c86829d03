"""Real worker processes on a real Kafka: they join, die, leave, and the broker dies; no observation is lost."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import sys
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from streams import settings
from streams.contract import topics
from streams.runtime import admin
from streams.settings import Settings
from tests.contract.counting import metric
from tests.contract.on_kafka import encode, fresh, latest_by_key, producer, read_all, send, until
from tradewind.embedded import EmbeddedKafka, Runtime
from tradewind.ports import free_port
from tradewind.processes import Child

pytestmark = [pytest.mark.kafka, pytest.mark.chaos]
ROOT = Path(__file__).parents[2]


class Counter:
    """A worker process that counts (tests/contract/counting.py)."""

    def __init__(self, name: str, mine: Settings, folder: Path) -> None:
        self.port = free_port()
        environ = dict(os.environ)
        environ.update(
            {f"TRADEWIND_{field.upper()}": str(getattr(mine, field)) for field in mine.model_fields_set},
        )
        command = [sys.executable, "-m", "tests.contract.counting", "streams", str(self.port)]
        self.child = Child(name, command, folder / f"{name}.log", cwd=ROOT, environ=environ)
        self.child.start()

    async def get(self, path: str) -> tuple[int, str]:
        try:
            async with aiohttp.ClientSession() as http, http.get(f"http://127.0.0.1:{self.port}{path}") as answer:
                return answer.status, await answer.text()
        except aiohttp.ClientError:
            return 0, ""

    async def owns(self) -> list[str]:
        """Partitions by its lag metric; empty while it is not ready."""
        if (await self.get("/readyz"))[0] != 200:
            return []
        text = (await self.get("/metrics"))[1]
        return [line.split('"')[1] for line in text.splitlines() if line.startswith("tradewind_lag_records{")]

    async def heard(self) -> int:
        text = (await self.get("/metrics"))[1]
        return sum(
            int(float(line.rsplit(" ", 1)[1]))
            for line in text.splitlines()
            if line.startswith("tradewind_records_heard_total{") and "endpoint-metrics" in line
        )


@contextlib.asynccontextmanager
async def stream_of_metrics(mine: Settings, per_s: int) -> AsyncIterator[list[int]]:
    """Sends numbered observations all the time; yields a list whose one entry is how many were acknowledged."""
    sent = [0]

    async def run() -> None:
        async with producer(mine) as made:
            try:
                while True:
                    numbers = range(sent[0], sent[0] + per_s // 20)
                    name = topics.ENDPOINT_METRICS.full(mine.topic_prefix)
                    pending = [
                        await made.send(name, encode(metric(f"e{i % 40}", i, time.time())), key=f"e{i % 40}".encode())
                        for i in numbers
                    ]
                    await asyncio.gather(*pending)
                    sent[0] += len(numbers)
                    await asyncio.sleep(0.05)
            except asyncio.CancelledError:
                await asyncio.gather(*pending)
                sent[0] += len(numbers) if sent[0] in numbers else 0
                raise

    task = asyncio.create_task(run())
    try:
        yield sent
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def counted(mine: Settings) -> int:
    return sum(said["arrived"][0] for said in latest_by_key(await read_all(mine, topics.DEMAND)).values())


async def stall_s(mine: Settings, since_s: float, until_s: float) -> float:
    """The longest time any source said nothing new between `since_s` and `until_s`, one that lasted to the end too."""
    told: dict[bytes, list[tuple[float, list[int]]]] = {}
    for record in await read_all(mine, topics.DEMAND):
        said = (record.timestamp / 1000, msgspec.json.decode(record.value)["arrived"])
        told.setdefault(record.key, []).append(said)
    return max(longest_silence_s(said, since_s, until_s) for said in told.values())


def longest_silence_s(told: Sequence[tuple[float, list[int]]], since_s: float, until_s: float) -> float:
    """Of one source that said these counts at these times."""
    news = [at_s for (at_s, count), (_, before) in zip(told[1:], told, strict=False) if count != before]
    inside = [since_s, *(at_s for at_s in news if since_s < at_s < until_s), until_s]
    return max(later - earlier for earlier, later in itertools.pairwise(inside))


def test_a_silence_that_lasts_to_the_end_is_a_stall_too() -> None:
    told = [(1.0, [1]), (2.0, [2]), (3.0, [3]), (4.0, [3]), (5.0, [3])]
    assert longest_silence_s(told, 0.0, 10.0) == 7.0
    assert longest_silence_s(told, 2.5, 3.5) == 0.5


async def test_no_observation_is_lost_while_workers_join_are_killed_and_leave(kafka: str, tmp_path: Path) -> None:
    mine = await fresh(kafka)
    first = Counter("first", mine, tmp_path)
    workers, heard, said = [first], 0, []
    try:
        await until(lambda: _owns(first, 4))
        async with stream_of_metrics(mine, 2000) as sent:
            workers.append(second := Counter("second", mine, tmp_path))
            began_s = time.time()
            await until(lambda: _owns(second, 2))
            await until(lambda: _owns(first, 2))
            said.append(f"join: longest stall {await stall_s(mine, began_s, time.time()):.1f} s")
            heard += await first.heard()
            began_s = time.time()
            first.child.kill()
            await until(lambda: _owns(second, 4))
            said.append(f"kill -9: longest stall {await stall_s(mine, began_s, time.time()):.1f} s")
            workers.append(third := Counter("third", mine, tmp_path))
            await until(lambda: _owns(third, 2))
            heard += await second.heard()
            began_s = time.time()
            await second.child.stop(10.0)
            assert second.child.exit_code == 0
            said.append(f"SIGTERM: gone after {time.time() - began_s:.1f} s")
            await until(lambda: _owns(third, 4))
            said.append(f"SIGTERM: longest stall {await stall_s(mine, began_s, time.time()):.1f} s")
        await until(lambda: _all_counted(mine, sent[0]))
        heard += await third.heard()
        print(
            f"\n{sent[0]} observations, {await counted(mine)} counted, {heard - sent[0]} read again; {'; '.join(said)}"
        )
        assert await counted(mine) == sent[0]
    except BaseException:
        for worker in workers:
            print(worker.child.last_lines(30))
        raise
    finally:
        for worker in workers:
            worker.child.kill()


async def _owns(worker: Counter, count: int) -> bool:
    assert worker.child.running, worker.child.last_lines(20)
    return len(await worker.owns()) == count


async def _all_counted(mine: Settings, count: int) -> bool:
    return await counted(mine) == count


async def test_a_worker_lives_through_kill_and_restart_of_the_broker(kafka_runtime: Runtime, tmp_path: Path) -> None:
    async with EmbeddedKafka(kafka_runtime, tmp_path / "kafka", port=None) as broker:
        mine = await fresh(broker.bootstrap_servers)
        worker = Counter("survivor", mine, tmp_path)
        pid = worker.child.pid
        try:
            await until(lambda: _owns(worker, 4))
            async with stream_of_metrics(mine, 1000) as sent:
                await until(lambda: sent[0] > 1000)
                began_s = time.time()
                broker.kill()
                await broker.start()
                back_s = time.time()
                before = sent[0]
                await until(lambda: sent[0] > before + 1000, 40.0)
                ended_s = time.time()
            await until(lambda: _all_counted(mine, sent[0]), 30.0)
            stalled_s = await stall_s(mine, began_s, ended_s)
            print(
                f"\nbroker back after {back_s - began_s:.1f} s, longest stall {stalled_s:.1f} s; "
                f"{sent[0]} acknowledged, {await counted(mine)} counted"
            )
            assert worker.child.running
            assert worker.child.pid == pid
            assert (await worker.get("/healthz"))[0] == 200
            broker.kill()
            began_s = time.time()
            await worker.child.stop(10.0)
            print(f"SIGTERM without a broker: gone after {time.time() - began_s:.1f} s")
            assert worker.child.exit_code == 0  # one that has to be killed ends otherwise
        except BaseException:
            print(worker.child.last_lines(60))
            raise
        finally:
            worker.child.kill()


async def test_a_worker_that_cannot_reach_kafka_says_so_and_ends(tmp_path: Path) -> None:
    mine = settings.load(bootstrap_servers=f"127.0.0.1:{free_port()}")
    worker = Counter("alone", mine, tmp_path)
    try:
        async with asyncio.timeout(15):
            assert await worker.child.ended() == 1
        last = worker.child.last_lines(1)
        assert mine.bootstrap_servers in last
        assert "TRADEWIND_BOOTSTRAP_SERVERS" in last
    finally:
        worker.child.kill()


async def test_a_worker_whose_topics_are_missing_or_differ_says_so_and_ends(kafka: str, tmp_path: Path) -> None:
    mine = await fresh(kafka)
    for prefix, wide, remedy in ((f"{mine.topic_prefix}x", 4, "tradewind topics create"), (mine.topic_prefix, 3, "4")):
        worker = Counter(
            f"w{wide}", mine.model_copy(update={"topic_prefix": prefix, "wide_partitions": wide}), tmp_path
        )
        try:
            async with asyncio.timeout(15):
                assert await worker.child.ended() == 1
            assert remedy in worker.child.last_lines(1)
            assert "endpoint-metrics" in worker.child.last_lines(1)
        finally:
            worker.child.kill()


async def test_a_worker_whose_stage_keeps_failing_ends_loudly(kafka: str, tmp_path: Path) -> None:
    mine = await fresh(kafka)
    worker = Counter("broken", mine, tmp_path)
    try:
        await until(lambda: _owns(worker, 4))
        await send(mine, [(topics.ENDPOINT_METRICS, b"e1", encode(metric("poison", 1, time.time())))])
        async with asyncio.timeout(30):
            assert await worker.child.ended() == 1
        assert "failed 3 times in a minute (ValueError('poison'))" in worker.child.last_lines(1)
    finally:
        worker.child.kill()


async def test_topics_are_made_once_and_differences_are_told_but_never_altered(kafka: str) -> None:
    mine = await fresh(kafka)
    assert await admin.create(mine) == []
    assert await admin.check(mine) == []
    narrower = mine.model_copy(update={"wide_partitions": 2})
    differences = await admin.check(narrower)
    assert {(d.field, d.want, d.have) for d in differences} == {("partitions", "2", "4")}
    with pytest.raises(admin.TopicDiffers, match=r"endpoint-metrics\.v1 has partitions = 4, declared is 2"):
        await admin.create(narrower)
    with pytest.raises(admin.Missing, match="tradewind topics create"):
        await admin.require(mine.model_copy(update={"topic_prefix": "none"}), [topics.FLEET])
    longer: Any = topics.DEMAND.__class__(**{**_fields(topics.DEMAND), "retention_s": 60})
    assert [str(d) for d in await admin.require(mine, [longer])] == [
        f"{topics.DEMAND.full(mine.topic_prefix)} has retention.ms = 604800000, declared is 60000"
    ]


def _fields(topic: topics.Topic) -> dict[str, Any]:
    return {name: getattr(topic, name) for name in topic.__struct_fields__}
