"""What has to be on Kafka, in words: topics with their settings, the least rights of each role. Nothing is asked."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from streams.contract.rights import ROLE, ROLES, Role, grants
from streams.runtime import admin
from streams.settings import Settings

_SHOWN: Final = ("cleanup.policy", "retention.ms", "min.insync.replicas", "message.timestamp.type", "max.message.bytes")


def roles_of(name: str | None) -> tuple[Role, ...]:
    """The role called `name`; all of them when it is None."""
    return ROLES if name is None else (ROLE[name],)


def principal_of(role: Role, principal: str | None) -> str:
    """`principal`, or a user called like the role.

    >>> principal_of(ROLE["gateway"], None)
    'User:gateway'
    """
    return principal or f"User:{role.name}"


def as_object(settings: Settings, roles: Iterable[Role], principal: str | None) -> dict[str, Any]:
    """The plan as one JSON object."""
    return {
        "topics": [plan._asdict() for plan in admin.plan(settings)],
        "roles": [
            {
                "role": role.name,
                "says": role.says,
                "principal": principal_of(role, principal),
                "rights": [right._asdict() for right in role.rights(settings.topic_prefix)],
                "kafka_acls": _lines(settings, role, principal),
            }
            for role in roles
        ],
    }


def as_commands(settings: Settings, roles: Iterable[Role], principal: str | None) -> str:
    """Lines for a shell; `admin.properties` says how whoever grants rights gets in."""
    parts = [f"# {role.name}: {role.says}\n" + "\n".join(_lines(settings, role, principal)) for role in roles]
    return "\n\n".join(parts)


def as_topic_commands(settings: Settings) -> str:
    """Lines for a shell that make the topics, where that is somebody else's work."""
    return "\n".join(
        f"kafka-topics.sh --bootstrap-server {settings.bootstrap_servers} --command-config admin.properties --create "
        f"--if-not-exists --topic {plan.name} --partitions {plan.partitions} --replication-factor {plan.replication} "
        + " ".join(f"--config {name}={value}" for name, value in plan.config.items())
        for plan in admin.plan(settings)
    )


def _lines(settings: Settings, role: Role, principal: str | None) -> list[str]:
    rights = role.rights(settings.topic_prefix)
    return grants(principal_of(role, principal), rights, settings.bootstrap_servers)


def as_tables(settings: Settings, roles: Iterable[Role], principal: str | None) -> str:
    """Two tables for people."""
    return f"{_columns(_topic_rows(settings))}\n\n{_columns(_right_rows(settings, roles, principal))}"


def _topic_rows(settings: Settings) -> list[tuple[str, ...]]:
    head = ("TOPIC", "PARTITIONS", "REPLICAS", *_SHOWN)
    plans = admin.plan(settings)
    return [
        head,
        *((p.name, str(p.partitions), str(p.replication), *(p.config[field] for field in _SHOWN)) for p in plans),
    ]


def _right_rows(settings: Settings, roles: Iterable[Role], principal: str | None) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [("ROLE", "PRINCIPAL", "OPERATION", "ON", "NAME")]
    for role in roles:
        for right in role.rights(settings.topic_prefix):
            name = f"{right.name}*" if right.pattern == "prefixed" else right.name
            rows.append((role.name, principal_of(role, principal), right.operation, right.resource, name))
    return rows


def _columns(rows: Sequence[Sequence[str]]) -> str:
    """
    >>> print(_columns([("A", "B"), ("long", "b")]))
    A     B
    long  b
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
