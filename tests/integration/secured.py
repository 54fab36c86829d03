"""A secured Kafka for tests: certificates, users, rights granted and taken, roles run as processes."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path

import aiohttp
import msgspec
import trustme
from aiokafka import AIOKafkaConsumer, TopicPartition
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)

from streams.contract import topics
from streams.contract.rights import ROLE, Right
from streams.contract.topics import Topic
from streams.runtime.access import Access, client_options
from tradewind.embedded import EmbeddedKafka, Runtime, Secured
from tradewind.ports import free_port
from tradewind.processes import Child

PREFIX = "held"
ROLES = (
    *(
        "admin",
        "streams",
        "forecasting",
        "router",
        "actuators",
        "gateway",
        "producer",
        "publisher",
        "operator",
        "auditor",
    ),
)
_GRANTED = AclPermissionType.ALLOW


def user_of(role: str) -> str:
    """The broker's `admin` may do anything; whoever makes topics is somebody else."""
    return "topics" if role == "admin" else role


def password_of(role: str) -> str:
    return f"pw-{role}-f00d"


def secured() -> Secured:
    ca = trustme.CA()
    issued = ca.issue_cert("127.0.0.1")
    return Secured(
        ca=ca.cert_pem.bytes().decode(),
        certificate="".join(pem.bytes().decode() for pem in issued.cert_chain_pems),
        key=issued.private_key_pem.bytes().decode(),
        users={"admin": password_of("root"), **{user_of(role): password_of(role) for role in ROLES}},
    )


class Cluster:
    """A broker whose users may do nothing until `grant`; `folder` holds logs, passwords and state."""

    def __init__(self, runtime: Runtime, folder: Path) -> None:
        self.folder = folder
        self.broker = EmbeddedKafka(runtime, folder / "kafka", port=None, secured=secured())
        self._children: list[Child] = []

    async def start(self) -> None:
        await self.broker.start()
        root = self.broker.access
        self._admin = AdminClient(
            {
                "bootstrap.servers": root.bootstrap_servers,
                "security.protocol": "SASL_SSL",
                "sasl.mechanism": "SCRAM-SHA-512",
                "sasl.username": "admin",
                "sasl.password": password_of("root"),
                "ssl.ca.location": str(root.tls_ca_file),
                "log_level": 0,
            }
        )

    async def stop(self) -> None:
        await asyncio.gather(*(child.stop() for child in self._children))
        await self.broker.stop()

    # ------------------------------------------------------------ rights

    async def grant(self, role: str, rights: Iterable[Right] | None = None) -> None:
        """All of the role's rights, or these."""
        bindings = [_binding(role, right) for right in rights or ROLE[role].rights(PREFIX)]
        await asyncio.gather(*map(asyncio.wrap_future, self._admin.create_acls(bindings).values()))

    async def take(self, role: str, right: Right) -> None:
        filters = [_filter(role, right)]
        taken = await asyncio.gather(*map(asyncio.wrap_future, self._admin.delete_acls(filters).values()))
        assert [len(acls) for acls in taken] == [1]

    # ------------------------------------------------------------ roles

    def access(self, role: str) -> Access:
        path = self.folder / f"{role}.password"
        if not path.exists():
            path.touch(0o600)
            path.write_text(password_of(role) + "\n")
        root = self.broker.access
        return msgspec.structs.replace(root, sasl_username=user_of(role), sasl_password_file=path)

    def environ(self, role: str, **changed: object) -> dict[str, str]:
        """What a process of `role` is told."""
        said: dict[str, object] = {
            **{field: value for field, value in msgspec.structs.asdict(self.access(role)).items() if value},
            "topic_prefix": PREFIX,
            "wide_partitions": 2,
            "state_dir": self.folder / "state",
            "config": "",
            **changed,
        }
        kept = {name: value for name, value in os.environ.items() if not name.startswith("TRADEWIND_")}
        return {**kept, **{f"TRADEWIND_{field.upper()}": str(value) for field, value in said.items()}}

    async def ran(self, role: str, *words: str, **changed: object) -> tuple[int, str, str]:
        """Exit code, stdout and stderr of `tradewind WORDS` as `role`."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tradewind", *words),
            cwd=self.folder,
            env=self.environ(role, **changed),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(30):
                out, err = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        with (self.folder / "ran.log").open("ab") as log:
            log.write(out + err)
        assert process.returncode is not None
        return process.returncode, out.decode(), err.decode()

    def child(self, role: str, *words: str, log: str | None = None) -> Child:
        """`tradewind WORDS` as `role`, running until the cluster stops."""
        command = [sys.executable, "-m", "tradewind", *words]
        child = Child(role, command, self.folder / (log or f"{role}.log"), cwd=self.folder, environ=self.environ(role))
        self._children.append(child)
        return child.start()

    async def worker(self, room: str) -> tuple[Child, int]:
        """A worker that is ready, and its port."""
        port = free_port()
        child = self.child(room, "worker", room, "--port", str(port))
        await until(lambda: ready(port), child)
        return child, port

    async def read(self, topic: Topic, partition: int = 0) -> list[bytes]:
        """All values of one partition, as the auditor reads them."""
        at = TopicPartition(topic.full(PREFIX), partition)
        consumer = AIOKafkaConsumer(**client_options(self.access("auditor")), enable_auto_commit=False)
        await consumer.start()
        try:
            consumer.assign([at])
            end = (await consumer.end_offsets([at]))[at]
            consumer.seek(at, (await consumer.beginning_offsets([at]))[at])
            values: list[bytes] = []
            while await consumer.position(at) < end:
                values += [m.value for m in (await consumer.getmany(timeout_ms=200)).get(at, [])]
            return values
        finally:
            await consumer.stop()

    def logs(self) -> dict[str, bytes]:
        """Everything that anybody wrote down, but for the files that are there to hold passwords."""
        held = (".password", ".pem", "server.properties")
        return {
            str(path): path.read_bytes()
            for path in self.folder.rglob("*")
            if path.is_file() and not path.name.endswith(held) and "kafka/log/" not in str(path)
        }


def _binding(role: str, right: Right) -> AclBinding:
    return AclBinding(*_named(right), f"User:{user_of(role)}", "*", AclOperation[right.operation], _GRANTED)


def _filter(role: str, right: Right) -> AclBindingFilter:
    return AclBindingFilter(*_named(right), f"User:{user_of(role)}", "*", AclOperation[right.operation], _GRANTED)


def _named(right: Right) -> tuple[ResourceType, str, ResourcePatternType]:
    return ResourceType[right.resource.upper()], right.name, ResourcePatternType[right.pattern.upper()]


async def asked(port: int, path: str) -> tuple[int, str]:
    """Status and text of a GET; 0 while nobody listens."""
    try:
        async with aiohttp.ClientSession() as http, http.get(f"http://127.0.0.1:{port}{path}") as answer:
            return answer.status, await answer.text()
    except aiohttp.ClientError:
        return 0, ""


async def ready(port: int) -> bool:
    return (await asked(port, "/readyz"))[0] == 200


async def metrics_heard(port: int) -> float:
    """How many records of endpoints' metrics a worker has folded."""
    lines = (await asked(port, "/metrics"))[1].splitlines()
    counts = [x for x in lines if x.startswith("tradewind_records_heard_total{") and topics.ENDPOINT_METRICS.name in x]
    return sum(float(line.rsplit(" ", 1)[1]) for line in counts)


async def until(true: Callable[[], Awaitable[bool]], child: Child, within_s: float = 20.0) -> None:
    """Comes back when it is `true`; fails with the child's last lines when it ends first, or time does."""
    try:
        async with asyncio.timeout(within_s):
            while not await true():
                assert child.running, child.last_lines(10)
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise AssertionError(f"{child.name}: {child.last_lines(10)}") from None


def lines_of(child: Child, words: Sequence[str]) -> list[str]:
    """Lines of its log with all these words in them."""
    return [line for line in child.log.read_text().splitlines() if all(word in line for word in words)]
