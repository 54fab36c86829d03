"""A real Apache Kafka, one node in KRaft mode, as a child of this process."""

from __future__ import annotations

import asyncio
import base64
import uuid
from pathlib import Path
from types import TracebackType
from typing import Self

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from streams.contract.errors import Missing, Stop
from streams.runtime.access import Access, client_options
from tradewind.embedded.folder import claim
from tradewind.embedded.jars import require_room
from tradewind.embedded.properties import MIB, RETENTION_BYTES, Ports, render, server_properties
from tradewind.embedded.runtime import QUICK, Runtime
from tradewind.embedded.secured import Secured
from tradewind.ports import LOOPBACK
from tradewind.processes import Child, ended_early

USUAL_PORT = 19092
ROOM_BYTES = 512 * MIB
_PORT_ATTEMPTS = 3


class EmbeddedKafka:
    """One broker with its data in `data`; an async context manager, or `start` and `stop`.

    Takes `port` if it is free and another one if not: `bootstrap_servers` says which. `retention_bytes` bounds each
    partition (see `server_properties`), `jvm` are further options (`FAST` when throughput is measured). What the broker
    says goes to `data`/broker.log. With `secured` clients sign in, and may do what they are granted (see `access`).
    It ends with this process however that ends; the data folder stays.
    Bound to no event loop: it may be started in one and killed from another, or from none.
    """

    def __init__(
        self,
        runtime: Runtime,
        data: Path,
        *,
        port: int | None = USUAL_PORT,
        retention_bytes: int = RETENTION_BYTES,
        jvm: tuple[str, ...] = QUICK,
        secured: Secured | None = None,
    ) -> None:
        self.runtime, self.data = runtime, data.absolute()
        self.wanted_port = port
        self._retention_bytes, self._jvm, self._secured = retention_bytes, jvm, secured
        self._ports: Ports | None = None
        self.child = self._java("kafka", "broker.log", "kafka.Kafka", "server.properties")

    @property
    def port(self) -> int:
        """Where clients connect, on loopback; 0 before the first start."""
        return self._ports.broker if self._ports else 0

    @property
    def bootstrap_servers(self) -> str:
        """host:port, as Kafka clients want it."""
        return f"{LOOPBACK}:{self.port}"

    @property
    def access(self) -> Access:
        """How one gets in: as anybody, or as the admin of a broker that is secured."""
        where = self.bootstrap_servers
        return self._secured.access(self.data, where) if self._secured else Access(bootstrap_servers=where)

    @property
    def version(self) -> str:
        """Version of Apache Kafka."""
        return self.runtime.version

    @property
    def running(self) -> bool:
        """Whether the process is there now (it may not answer yet)."""
        return self.child.running

    async def start(self, deadline_s: float = 30.0) -> Self:
        """Itself, answering metadata requests. A new data folder is formatted first; a restart keeps data and ports.

        Raises `Stop` with the broker's last words if it ends or is not ready within `deadline_s`, `Missing` when the
        disk has no room.
        """
        if self.running:
            return self
        try:
            async with asyncio.timeout(deadline_s):
                await (self._start() if self._ports else self._start_on_free_ports())
        except BaseException as error:  # cancelled too: a broker that is half started must not stay
            self.child.kill()
            if isinstance(error, TimeoutError):
                raise self._too_slow(deadline_s) from None
            raise
        return self

    async def stop(self, deadline_s: float = 10.0) -> None:
        """Ends it in order (about half a second), or with SIGKILL after `deadline_s` seconds."""
        await self.child.stop(deadline_s)

    def kill(self) -> None:
        """`kill -9`: what a crash of the broker looks like. Acknowledged records are still there after `start`."""
        self.child.kill()

    async def restart(self, deadline_s: float = 30.0) -> Self:
        """Itself, stopped if need be and started again on the same data and ports."""
        await self.stop()
        return await self.start(deadline_s)

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _at: TracebackType | None
    ) -> None:
        await self.stop()

    async def _start_on_free_ports(self) -> None:
        """Starts, and again elsewhere when somebody took the port between our look at it and the broker's use of it."""
        for attempt in range(1, _PORT_ATTEMPTS + 1):
            self._ports = Ports.pick(self.wanted_port)
            try:
                await self._start()
                return
            except Stop:
                if attempt == _PORT_ATTEMPTS or not self._port_was_taken():
                    raise

    async def _start(self) -> None:
        self._prepare_folder()
        if not (self.data / "log" / "meta.properties").exists():
            await self._format()
        self.child.start()
        ours = _cluster_of(self.data)
        while (answered := await _answer(LOOPBACK, self.port, self.access)) != ours:
            if self.child.died_early:
                raise self._died()
            # another broker may have been quicker on this port: ours is about to find that out
            await asyncio.sleep(0.05 if answered is None else 0.2)

    def _prepare_folder(self) -> None:
        assert self._ports is not None
        try:
            (self.data / "tmp").mkdir(parents=True, exist_ok=True)
            claim(self.data, self.runtime.version)
            settings = self.data / "server.properties"
            if self._secured:
                self._secured.write(self.data)
                settings.touch(0o600)
                settings.chmod(0o600)  # it holds a password, and may be there from a run without one
            settings.write_text(render(server_properties(self._ports, self._retention_bytes, self._secured)))
        except OSError as error:
            what = f"The data folder {self.data} cannot be written ({error.strerror})"
            raise Missing(what, "Choose another one.") from error
        require_room(self.data, ROOM_BYTES)

    async def _format(self) -> None:
        cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        # `=`: an id that begins with a dash is an id all the same.
        words = ["kafka.tools.StorageTool", "format", f"--cluster-id={cluster}", "-c", "server.properties"]
        words += self._secured.format_words() if self._secured else []
        tool = self._java("kafka format", "format.log", *words)
        try:
            if await tool.start().ended() != 0:
                raise ended_early(tool)
        finally:
            tool.kill()

    def _java(self, name: str, log: str, main_class: str, *arguments: str) -> Child:
        command = self.runtime.command(main_class, *arguments, jvm=self._jvm, scratch=self.data / "tmp")
        return Child(name, command, self.data / log, cwd=self.data)

    def _port_was_taken(self) -> bool:
        return "already in use" in self.child.last_lines(40)

    def _died(self) -> Stop:
        if self._port_was_taken():
            what = f"Port {self.port} on {LOOPBACK} was taken by another process"
            return Missing(what, "Free it, or choose another port.")
        return ended_early(self.child)

    def _too_slow(self, deadline_s: float) -> Stop:
        return Stop(
            f"The embedded Kafka did not answer on {self.bootstrap_servers} within {deadline_s:g} s",
            f"The machine may be overloaded; the end of {self.child.log} says: {self.child.last_lines()}",
        )


def _cluster_of(data: Path) -> str:
    """The id of the cluster that the folder was formatted for."""
    lines = (data / "log" / "meta.properties").read_text("utf-8").splitlines()
    return next(line.partition("=")[2] for line in lines if line.startswith("cluster.id="))


async def _answer(host: str, port: int, access: Access) -> str | None:
    """The id of the cluster that answers a metadata request there; None: nobody does, or cannot lead partitions yet."""
    if not await _listens(host, port):  # aiokafka logs an error for every refused connection
        return None
    admin = AIOKafkaAdminClient(**client_options(access), request_timeout_ms=2000)
    try:
        await admin.start()
        said = await admin.describe_cluster()
        return str(said["cluster_id"]) if said["brokers"] else None
    except (KafkaError, OSError):
        return None
    finally:
        await admin.close()


async def _listens(host: str, port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection(host, port)
    except OSError:
        return False
    writer.close()
    return True
