"""The least rights of each role on Kafka, for its authorizer: who reads what, writes what, is in which group.

What steps read and write stands in `tradewind/flow.py`; a test holds both together. READ and WRITE imply DESCRIBE.
IDEMPOTENT_WRITE is nobody's: since Kafka 3.0 whoever may WRITE somewhere may write idempotently.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from typing import Final, Literal, NamedTuple

import msgspec

from streams.contract import topics as t
from streams.contract.topics import Topic

Operation = Literal["READ", "WRITE", "CREATE", "DESCRIBE", "DESCRIBE_CONFIGS"]
Resource = Literal["topic", "group"]
Pattern = Literal["literal", "prefixed"]


class Right(NamedTuple):
    """One operation on one topic or group, by full name, or on all whose names begin so (`prefixed`)."""

    resource: Resource
    name: str
    operation: Operation
    pattern: Pattern = "literal"

    def __str__(self) -> str:
        which = f"{self.resource}s {self.name}*" if self.pattern == "prefixed" else f"{self.resource} {self.name}"
        return f"{self.operation} on {which}"


class Role(msgspec.Struct, frozen=True, kw_only=True):
    """Who does what on Kafka. `rooms` are those whose consumer group it is a member of, `watches` whose lag it sees."""

    name: str
    says: str
    reads: tuple[Topic, ...] = ()
    writes: tuple[Topic, ...] = ()
    rooms: tuple[str, ...] = ()
    watches: tuple[str, ...] = ()
    every: tuple[Operation, ...] = ()
    """On every topic under the prefix."""

    def rights(self, prefix: str) -> tuple[Right, ...]:
        """Its rights where topics begin with `prefix`, in a stable order."""
        return (
            *(Right("topic", topic.full(prefix), "READ") for topic in self.reads),
            *(Right("topic", topic.full(prefix), "WRITE") for topic in self.writes),
            *(Right("topic", f"{prefix}.", operation, "prefixed") for operation in self.every),
            *(Right("group", group_of(prefix, room), "READ") for room in self.rooms),
            *(Right("group", group_of(prefix, room), "DESCRIBE") for room in self.watches),
        )


def group_of(prefix: str, room: str) -> str:
    """The consumer group of the workers of `room`.

    >>> group_of("tradewind", "streams")
    'tradewind-streams'
    """
    return f"{prefix}-{room}"


_ROOMS: Final = ("streams", "forecasting", "router", "actuators")
ROLES: Final[tuple[Role, ...]] = (
    Role(
        name="streams",
        says="tradewind worker streams",
        reads=(t.ENDPOINT_METRICS, t.ARRIVALS, t.FLEET),
        writes=(t.ENDPOINT_HEALTH, t.DEMAND, t.DEAD_LETTERS),
        rooms=("streams",),
    ),
    Role(
        name="forecasting",
        says="tradewind worker forecasting",
        reads=(
            *(t.FLEET, t.ORDERS, t.DEMAND, t.DEMAND_FORECAST, t.ENDPOINT_HEALTH, t.SPOT_PRICES, t.CARBON_INTENSITY),
            *(t.INTERRUPTIONS, t.SPOT_RISK, t.CAPACITY, t.CAPACITY_PLAN, t.DEMAND_HISTORY),
        ),
        writes=(t.DEMAND_FORECAST, t.DEMAND_HISTORY, t.SPOT_RISK, t.CAPACITY_PLAN, t.DEAD_LETTERS),
        rooms=("forecasting",),
    ),
    Role(
        name="router",
        says="tradewind worker router",
        reads=(
            *(t.FLEET, t.ORDERS, t.TABLE_ORDERS, t.ENDPOINT_HEALTH, t.DEMAND, t.ROUTING_TABLE),
            *(t.SPOT_PRICES, t.CARBON_INTENSITY, t.SPOT_RISK, t.CAPACITY, t.INTERRUPTIONS),
            *(t.DEFERRED, t.RELEASES),
        ),
        writes=(t.ROUTING_TABLE, t.DECISIONS, t.RELEASES, t.DEAD_LETTERS),
        rooms=("router",),
    ),
    Role(
        name="actuators",
        says="tradewind worker actuators",
        reads=(t.FLEET, t.CAPACITY_PLAN, t.CAPACITY),
        writes=(t.CAPACITY, t.DEAD_LETTERS),
        rooms=("actuators",),
    ),
    Role(
        name="gateway",
        says="tradewind gateway",
        reads=(t.ROUTING_TABLE, t.SESSIONS),
        writes=(t.ENDPOINT_METRICS, t.ARRIVALS, t.GATEWAY_STATUS, t.SESSIONS),
    ),
    Role(name="follower", says="a gateway of yours that follows tables", reads=(t.ROUTING_TABLE,)),
    Role(name="producer", says="whoever sends metrics of endpoints", writes=(t.ENDPOINT_METRICS,)),
    Role(
        name="collector",
        says="tradewind collect; whoever sends prices, carbon and notices of interruptions",
        writes=(t.SPOT_PRICES, t.CARBON_INTENSITY, t.INTERRUPTIONS),
    ),
    Role(
        name="submitter",
        says="tradewind defer; whoever hands in work that may wait, and begins it when it is released",
        reads=(t.FLEET, t.DEFERRED, t.RELEASES),
        writes=(t.DEFERRED,),
    ),
    Role(name="publisher", says="tradewind fleet publish", writes=(t.FLEET,)),
    Role(
        name="operator",
        says="tradewind status, table, explain, decisions, drain, undrain, notice, capacity, dead-letters, doctor",
        reads=(
            *(t.FLEET, t.ORDERS, t.TABLE_ORDERS, t.ENDPOINT_HEALTH, t.ROUTING_TABLE, t.GATEWAY_STATUS),
            *(t.DECISIONS, t.CAPACITY_PLAN, t.CAPACITY, t.DEAD_LETTERS),
            *(t.ENDPOINT_METRICS, t.ARRIVALS),  # what was replayed is recognised there
        ),
        writes=(t.ORDERS, t.TABLE_ORDERS, t.INTERRUPTIONS, t.CAPACITY_PLAN, t.ENDPOINT_METRICS, t.ARRIVALS),
        watches=_ROOMS,
        every=("DESCRIBE", "DESCRIBE_CONFIGS"),
    ),
    Role(name="auditor", says="dashboards and auditors: all is read, nothing written", every=("READ",), watches=_ROOMS),
    Role(
        name="admin",
        says="tradewind topics create, check",
        every=("CREATE", "DESCRIBE", "DESCRIBE_CONFIGS"),
    ),
)
ROLE: Final[dict[str, Role]] = {role.name: role for role in ROLES}


def grants(principal: str, rights: Iterable[Right], bootstrap_servers: str) -> list[str]:
    """Lines for a shell that give `principal` these `rights`; as few as can be."""

    def alike(right: Right) -> tuple[str, str, str]:
        return right.resource, right.operation, right.pattern

    return [
        _grant(principal, bootstrap_servers, list(same))
        for _, same in groupby(sorted(set(rights), key=lambda r: (*alike(r), r.name)), key=alike)
    ]


def _grant(principal: str, bootstrap_servers: str, alike: list[Right]) -> str:
    first = alike[0]
    names = " ".join(f"--{first.resource} {right.name}" for right in alike)
    pattern = " --resource-pattern-type prefixed" if first.pattern == "prefixed" else ""
    return (
        f"kafka-acls.sh --bootstrap-server {bootstrap_servers} --command-config admin.properties --add "
        f"--allow-principal {_quoted(principal)} --operation {_shell(first.operation)} {names}{pattern}"
    )


def _quoted(principal: str) -> str:
    """For a shell; names of certificates have spaces."""
    plain = all(c.isalnum() or c in "User:._-@" for c in principal)
    return principal if plain else "'" + principal.replace("'", "'\\''") + "'"


def _shell(operation: Operation) -> str:
    """As kafka-acls.sh spells it.

    >>> _shell("DESCRIBE_CONFIGS")
    'DescribeConfigs'
    """
    return "".join(part.capitalize() for part in operation.split("_"))
