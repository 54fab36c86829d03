"""The settings of a one-node broker: small, quick, on loopback, and bounded on disk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tradewind.embedded.secured import Secured, secured_properties
from tradewind.ports import LOOPBACK, free_port

MIB = 1024 * 1024
RETENTION_BYTES = 128 * MIB
SEGMENT_BYTES = 16 * MIB
INDEX_BYTES = MIB
METADATA_BYTES = 64 * MIB


@dataclass(frozen=True, slots=True)
class Ports:
    """Where the broker serves clients, and where it speaks with itself as its own controller."""

    broker: int
    controller: int

    @classmethod
    def pick(cls, preferred: int | None) -> Ports:
        """Free ones; the broker gets `preferred` if nobody has it."""
        broker = free_port(preferred)
        return cls(broker=broker, controller=free_port(avoid=(broker,)))


def server_properties(
    ports: Ports, retention_bytes: int = RETENTION_BYTES, secured: Secured | None = None
) -> dict[str, str]:
    """Settings of the broker, to be run with the data folder as its working directory.

    `retention_bytes`: what a partition may hold before its oldest records go, unless its topic says otherwise; -1 is
    without limit. Topics with cleanup by compaction are not bounded by it. `secured`: nobody gets in without a name,
    and nobody does what he may not.
    """
    plain = {**_places(ports), **_one_node(), **_quick(), **_bounded(retention_bytes)}
    return {**plain, **secured_properties(ports.broker, ports.controller, secured)} if secured else plain


def render(properties: Mapping[str, str]) -> str:
    """A Java properties file: one `name=value` a line.

    >>> render({"node.id": "1"})
    'node.id=1\\n'
    """
    return "".join(f"{name}={value}\n" for name, value in properties.items())


def _places(ports: Ports) -> dict[str, str]:
    return {
        "process.roles": "broker,controller",
        "node.id": "1",
        "controller.quorum.voters": f"1@{LOOPBACK}:{ports.controller}",
        "listeners": f"PLAINTEXT://{LOOPBACK}:{ports.broker},CONTROLLER://{LOOPBACK}:{ports.controller}",
        "advertised.listeners": f"PLAINTEXT://{LOOPBACK}:{ports.broker}",
        "inter.broker.listener.name": "PLAINTEXT",
        "controller.listener.names": "CONTROLLER",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        # Relative, because this is a list: a data folder with a comma in its path would become two.
        "log.dirs": "log",
        # A topic made by the first who asks for it would have the wrong partitions; ours are declared.
        "auto.create.topics.enable": "false",
    }


def _one_node() -> dict[str, str]:
    return {
        "offsets.topic.replication.factor": "1",
        "offsets.topic.num.partitions": "1",
        "transaction.state.log.replication.factor": "1",
        "transaction.state.log.min.isr": "1",
        "transaction.state.log.num.partitions": "1",
        "share.coordinator.state.topic.replication.factor": "1",
        "share.coordinator.state.topic.min.isr": "1",
        "share.coordinator.state.topic.num.partitions": "1",
        "num.network.threads": "2",
        "num.io.threads": "4",
    }


def _quick() -> dict[str, str]:
    return {
        "group.initial.rebalance.delay.ms": "0",
        "group.min.session.timeout.ms": "1000",  # tests see a dead worker in a second, not in six
        # After kill -9 the broker is back only when its old registration has expired: 5 s so, 12 s by default.
        "broker.session.timeout.ms": "3000",
        "broker.heartbeat.interval.ms": "500",
    }


def _bounded(retention_bytes: int) -> dict[str, str]:
    return {
        "log.retention.bytes": str(retention_bytes),
        "log.segment.bytes": str(SEGMENT_BYTES),
        "log.index.size.max.bytes": str(INDEX_BYTES),
        "log.initial.task.delay.ms": "5000",  # the first look at what may go; the default is 30 s
        "log.retention.check.interval.ms": "10000",
        "log.segment.delete.delay.ms": "5000",
        "offsets.topic.segment.bytes": str(SEGMENT_BYTES),
        "metadata.log.segment.bytes": str(SEGMENT_BYTES),
        "metadata.max.retention.bytes": str(METADATA_BYTES),
        "log.cleaner.dedupe.buffer.size": str(16 * MIB),  # of the heap, taken at start; the default is 128 MiB
        "log.cleaner.backoff.ms": "5000",
    }
