"""The embedded broker is a real Kafka: it keeps what it acknowledged, and it is never left behind."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import UnknownTopicOrPartitionError

from streams.contract.errors import Missing, Stop
from tradewind.embedded import EmbeddedKafka, Runtime
from tradewind.embedded.properties import Ports
from tradewind.ports import free_port

pytestmark = pytest.mark.kafka

PARENT = """
import asyncio, json, sys
from pathlib import Path
from tradewind.embedded import EmbeddedKafka, Runtime
from tradewind.ports import free_port
from tradewind.processes import Processes

async def main(folder, java, jars):
    runtime = Runtime(java=Path(java), jars=tuple(map(Path, jars)), version="4.4.0")
    async with EmbeddedKafka(runtime, Path(folder, "kafka"), port=None) as kafka, Processes(Path(folder, "run")) as run:
        port = free_port()
        where = ("--bind", "127.0.0.1", "--directory", folder)
        await run.start("web", "http.server", str(port), *where, ready=f"http://127.0.0.1:{port}/")
        print(json.dumps([kafka.child.pid, *(child.pid for child in run.children)]), flush=True)
        await asyncio.Event().wait()

asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3:]))
"""


def values(count: int) -> list[bytes]:
    return [str(number).encode() for number in range(count)]


async def make_topic(bootstrap: str, name: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(name, num_partitions=1, replication_factor=1)])
    finally:
        await admin.close()


async def produce(bootstrap: str, topic: str, records: list[bytes]) -> None:
    async with AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all", enable_idempotence=True) as producer:
        acknowledged = [await producer.send(topic, record) for record in records]
        await asyncio.gather(*acknowledged)


async def consume(bootstrap: str, topic: str, count: int) -> list[bytes]:
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, auto_offset_reset="earliest")
    await consumer.start()
    try:
        consumer.assign([TopicPartition(topic, 0)])
        async with asyncio.timeout(30):
            return [(await consumer.getone()).value or b"" for _ in range(count)]
    finally:
        await consumer.stop()


@contextlib.asynccontextmanager
async def listening(port: int) -> AsyncIterator[None]:
    server = await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", port)
    async with server:
        yield


def there(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def all_gone(pids: list[int], deadline_s: float) -> None:
    async with asyncio.timeout(deadline_s):
        while any(there(pid) for pid in pids):  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def test_what_is_produced_on_the_shared_kafka_is_consumed(kafka: str) -> None:
    await make_topic(kafka, "embedded-round-trip")
    await produce(kafka, "embedded-round-trip", values(500))
    assert await consume(kafka, "embedded-round-trip", 500) == values(500)


async def test_a_topic_is_not_made_by_asking_for_it(kafka: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await admin.start()
    try:
        (described,) = await admin.describe_topics(["embedded-never-made"])
        assert described["error_code"] == UnknownTopicOrPartitionError.errno
        assert "embedded-never-made" not in await admin.list_topics()
    finally:
        await admin.close()


async def test_after_kill_minus_nine_and_a_restart_all_acknowledged_records_are_there(
    kafka_runtime: Runtime, tmp_path: Path
) -> None:
    async with EmbeddedKafka(kafka_runtime, tmp_path / "a folder, with a comma", port=None) as broker:
        where, first = broker.bootstrap_servers, broker.child.pid
        await make_topic(where, "kept")
        await produce(where, "kept", values(1000))
        broker.kill()
        assert broker.child.exit_code == -signal.SIGKILL
        await broker.start()
        assert broker.bootstrap_servers == where
        assert broker.child.pid != first
        await produce(where, "kept", values(5))
        assert await consume(where, "kept", 1005) == values(1000) + values(5)
        pid = broker.child.pid
    assert pid
    assert not there(pid)
    # Another day, another port: a kept data folder is taken up again.
    async with EmbeddedKafka(kafka_runtime, tmp_path / "a folder, with a comma", port=None) as again:
        assert await consume(again.bootstrap_servers, "kept", 1000) == values(1000)


async def test_a_taken_port_is_passed_over_also_when_it_is_taken_at_the_last_moment(
    kafka_runtime: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken, free = free_port(), free_port()
    picks = iter([Ports(taken, free_port()), Ports(free, free_port())])
    monkeypatch.setattr(Ports, "pick", lambda _preferred: next(picks))
    async with listening(taken), EmbeddedKafka(kafka_runtime, tmp_path, port=taken) as broker:
        assert broker.port == free


async def test_a_restart_onto_a_port_that_was_taken_meanwhile_says_so(kafka_runtime: Runtime, tmp_path: Path) -> None:
    async with EmbeddedKafka(kafka_runtime, tmp_path, port=None) as broker:
        await broker.stop()
        async with listening(broker.port):
            with pytest.raises(Missing, match=f"Port {broker.port} on 127.0.0.1 was taken"):
                await broker.start()
        assert not broker.running


async def test_a_port_where_another_broker_answers_is_not_taken_for_its_own(
    kafka: str, kafka_runtime: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = EmbeddedKafka(kafka_runtime, tmp_path / "kafka")
    theirs = int(kafka.rpartition(":")[2])
    monkeypatch.setattr(Ports, "pick", lambda _: Ports(broker=theirs, controller=free_port()))
    with pytest.raises(Missing, match=f"Port {theirs}"):
        await broker.start()
    assert not broker.running


async def test_it_listens_on_loopback_only(kafka_runtime: Runtime, tmp_path: Path) -> None:
    async with EmbeddedKafka(kafka_runtime, tmp_path, port=None) as broker:
        sockets = psutil.Process(broker.child.pid).net_connections("tcp")
        listening_on = {socket.laddr for socket in sockets if socket.status == psutil.CONN_LISTEN}
    assert {address.ip.removeprefix("::ffff:") for address in listening_on} == {"127.0.0.1"}
    assert broker.port in {address.port for address in listening_on}


async def test_a_broker_that_cannot_start_says_its_last_words_and_is_gone(
    kafka_runtime: Runtime, tmp_path: Path
) -> None:
    broker = EmbeddedKafka(kafka_runtime, tmp_path, port=None, jvm=("-Xmx1",))
    with pytest.raises(Stop, match=r"(?s)ended early \(exit code 1\).*heap"):
        await broker.start()
    assert not broker.running


async def test_a_start_that_is_cancelled_leaves_no_process(kafka_runtime: Runtime, tmp_path: Path) -> None:
    broker = EmbeddedKafka(kafka_runtime, tmp_path, port=None)
    starting = asyncio.create_task(broker.start())
    async with asyncio.timeout(20):
        while not broker.running:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert not broker.running


@pytest.mark.chaos
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_however_the_parent_ends_no_process_is_left(
    kafka_runtime: Runtime, tmp_path: Path, how: signal.Signals
) -> None:
    words = [sys.executable, "-c", PARENT, str(tmp_path), str(kafka_runtime.java), *map(str, kafka_runtime.jars)]
    with (
        (tmp_path / "parent.log").open("w") as log,
        subprocess.Popen(words, stdout=subprocess.PIPE, stderr=log) as parent,
    ):
        try:
            assert parent.stdout is not None
            pids: list[int] = json.loads(parent.stdout.readline())
            assert all(there(pid) for pid in pids)
            parent.send_signal(how)
            parent.wait(20)
        finally:
            parent.kill()
    asyncio.run(all_gone(pids, deadline_s=5))
