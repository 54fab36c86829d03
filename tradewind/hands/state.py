"""What runs and how it is: the answer of `tradewind status`, and the judgement over it.

`wrong` is what a human should see to, and the exit status; `noted` is what may explain it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Literal

import msgspec

from streams.contract.records import Order, Verdict
from tradewind.hands.text import ago

BEATS: Final = 3
"""Heartbeats that may be missing before a table's router counts as silent."""
LATE_S: Final = 5.0
GATEWAY_S: Final = 30.0
"""A gateway speaks every five seconds."""
GONE_S: Final = 3600.0
"""Unheard for longer, a gateway counts as taken away: its last word stays on the topic for ever."""
LAG: Final = 10_000
_WORKS: Final = frozenset({"Stable", "PreparingRebalance", "CompletingRebalance"})
_NEEDED: Final = frozenset({"streams", "router"})


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """A piece of the answer."""


class ProcessState(Part, frozen=True, kw_only=True):
    """A process of a running `tradewind up`, by its own door."""

    name: str
    role: str
    pid: int
    state: Literal["ready", "not ready", "no answer", "runs"]


class TableState(Part, frozen=True, kw_only=True):
    """The table of one service. `signature` is "good" or "not checked"."""

    service: str
    epoch: int
    version: int
    fleet_version: int
    issued_at_s: float
    expires_at_s: float
    age_s: float
    signature: str
    reason: str
    held: str = ""
    """By whose order shares are held, and why."""
    stranded: tuple[str, ...] = ()
    """CLASS@ORIGIN of the routes without any endpoint: gateways answer 503 there."""


class GatewayState(Part, frozen=True, kw_only=True):
    """What a gateway follows for one service. `behind` is set where it follows an older table than is in force."""

    gateway: str
    service: str
    epoch: int | None
    version: int | None
    heard_s: float
    """Since it spoke."""
    table_age_s: float | None
    expired: bool
    refused: dict[str, int]
    dropped: dict[str, int]
    behind: bool


class EndpointHealthState(Part, frozen=True, kw_only=True):
    """What was said last of an endpoint; "unknown" where nobody speaks of it."""

    endpoint: str
    verdict: Verdict
    rps: float
    p95_ms: float | None
    reason: str
    order: Order | None = None


class Lag(Part, frozen=True, kw_only=True):
    """How far a room's workers are behind on one topic. `behind` is None where it may not be asked."""

    topic: str
    behind: int | None


class GroupState(Part, frozen=True, kw_only=True):
    """The workers of one room. `state` is Kafka's word; None where it may not be asked."""

    room: str
    group: str
    state: str | None
    members: int
    lag: tuple[Lag, ...] = ()


class Status(Part, frozen=True, kw_only=True):
    """Everything at one moment. What could not be found out is None, or empty, and `wrong` says why."""

    ok: bool = True
    at_s: float
    tradewind: str
    kafka: str
    topic_prefix: str
    fleet: str | None = None
    fleet_version: int | None = None
    processes: tuple[ProcessState, ...] = ()
    tables: tuple[TableState, ...] = ()
    services: tuple[str, ...] = ()
    gateways: tuple[GatewayState, ...] = ()
    endpoints: tuple[EndpointHealthState, ...] = ()
    groups: tuple[GroupState, ...] = ()
    dead_letters_1h: int | None = None
    orders: tuple[Order, ...] = ()
    wrong: tuple[str, ...] = ()
    noted: tuple[str, ...] = ()


def judged(status: Status, beat_s: float) -> Status:
    """`status` with what is wrong and what is to be noted; tables come every `beat_s` seconds."""
    wrong = (
        *status.wrong, *_processes(status), *_tables(status, beat_s), *_groups(status), *_gateways(status),
        *_endpoints(status),
    )  # fmt: skip
    noted = (*status.noted, *_noted(status))
    return msgspec.structs.replace(status, wrong=wrong, noted=noted, ok=not wrong)


def _processes(status: Status) -> Iterator[str]:
    for process in status.processes:
        if process.state not in ("ready", "runs"):
            yield f"{process.name} (pid {process.pid}): {process.state}"


def _tables(status: Status, beat_s: float) -> Iterator[str]:
    have = {table.service for table in status.tables}
    for service in status.services:
        if service not in have:
            yield f"no table to follow for {service}: does a router run, with the key that is trusted?"
    for table in status.tables:
        if status.at_s >= table.expires_at_s:
            since = ago(status.at_s - table.expires_at_s)
            yield f"the table for {table.service} expired {since} ago: does a router run?"
        elif table.age_s > BEATS * beat_s + LATE_S:
            yield f"the table for {table.service} is {ago(table.age_s)} old: no router has spoken since"
        if table.stranded:
            where = ", ".join(table.stranded)
            yield f"requests for {table.service} have nowhere to go, gateways answer 503: {where}"
        if status.fleet_version is not None and table.fleet_version < status.fleet_version and table.age_s > LATE_S:
            yield f"the table for {table.service} is of fleet version {table.fleet_version}, not {status.fleet_version}"


def _groups(status: Status) -> Iterator[str]:
    for group in status.groups:
        if group.state is not None and group.state not in _WORKS and group.room in _NEEDED:
            yield f"no worker of {group.room} runs (group {group.group}: {group.state})"
        for lag in group.lag:
            if lag.behind is not None and lag.behind > LAG:
                yield f"{group.room} is {lag.behind} records behind on {lag.topic}"


def unused(status: Status, group: GroupState) -> bool:
    """Whether nobody means to run workers of a room that one can do without: none ever did, or `up` has none."""
    if group.room in _NEEDED or group.state in _WORKS or group.state is None:
        return False
    by_up = {process.role for process in status.processes}
    return group.state == "Dead" or (bool(by_up) and group.room not in by_up)


def _gateways(status: Status) -> Iterator[str]:
    for one in status.gateways:
        name = f"gateway {one.gateway}"
        if one.heard_s > GONE_S:
            continue
        if one.heard_s > GATEWAY_S:
            yield f"{name} was heard {ago(one.heard_s)} ago for the last time"
        elif one.version is None:
            why = ", ".join(f"{reason} {count}" for reason, count in one.refused.items())
            yield f"{name} follows no table for {one.service}" + (f" (refused: {why})" if why else "")
        elif one.behind:
            yield f"{name} follows an old table for {one.service}: {one.epoch}.{one.version}"
        elif one.expired:
            yield f"{name} follows an expired table for {one.service}"


def _endpoints(status: Status) -> Iterator[str]:
    for one in status.endpoints:
        if one.verdict == "down" and one.order is None:
            yield f"endpoint {one.endpoint} is down: {one.reason or 'no reason given'}"
    if status.endpoints and all(one.verdict == "unknown" for one in status.endpoints):
        yield "nobody has spoken of any endpoint's health lately: do workers of streams and gateways run?"


def _noted(status: Status) -> Iterator[str]:
    if status.dead_letters_1h:
        yield f"{status.dead_letters_1h} dead letters in the last hour: tradewind dead-letters list --since 1h"
    for group in status.groups:
        if group.state is None:
            yield f"the workers of {group.room} may not be looked at: a right to describe the group {group.group} lacks"
        elif group.state not in _WORKS and group.room not in _NEEDED and not unused(status, group):
            yield f"no worker of {group.room} runs"
    for table in status.tables:
        if table.held:
            yield f"the table for {table.service} is {table.held}"
    for one in status.gateways:
        if one.refused:
            why = ", ".join(f"{reason} {count}" for reason, count in one.refused.items())
            yield f"gateway {one.gateway} has refused tables for {one.service}: {why}"
    gone = sorted({one.gateway for one in status.gateways if one.heard_s > GONE_S})
    if gone:
        yield f"not heard for over an hour: {', '.join(gone)}"
