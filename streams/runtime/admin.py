"""Topics are made up front with their partitions; one that exists and differs is reported, never altered."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Collection, Iterable, Mapping
from typing import Any, Final, NamedTuple

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError, TopicAlreadyExistsError, TopicAuthorizationFailedError, for_code

from streams.contract.errors import Missing, TopicDiffers
from streams.contract.rights import ROLE, Operation, Right
from streams.contract.topics import TOPICS, Topic
from streams.runtime import preflight
from streams.runtime.access import client_options
from streams.settings import Settings

REACH_S = 10.0
_TO_MAKE: Final[tuple[Operation, ...]] = ("CREATE",)
_MEANING = frozenset({"partitions", "cleanup.policy", "message.timestamp.type"})


class Plan(NamedTuple):
    """One topic as it should be: full name, and what to make it with."""

    name: str
    partitions: int
    replication: int
    config: dict[str, str]


class Difference(NamedTuple):
    """What of a topic is not as planned. `field` is "missing", "partitions", "replication", or a setting's name."""

    topic: str
    field: str
    want: str
    have: str

    @property
    def changes_meaning(self) -> bool:
        """Whether records would be lost, misplaced or misdated; other differences are an operator's choice."""
        return self.field in _MEANING

    def __str__(self) -> str:
        if self.field == "missing":
            return f"{self.topic} is missing"
        return f"{self.topic} has {self.field} = {self.have}, declared is {self.want}"


def plan(settings: Settings, topics: Iterable[Topic] = TOPICS) -> list[Plan]:
    """How each topic should be under `settings`."""
    return [
        Plan(
            topic.full(settings.topic_prefix),
            settings.wide_partitions if topic.width == "wide" else 1,
            settings.replication,
            topic.config(replication=settings.replication),
        )
        for topic in topics
    ]


async def create(settings: Settings, topics: Iterable[Topic] = TOPICS) -> list[str]:
    """Make what is missing; the full names of those. Raises TopicDiffers when one that exists has another meaning,
    before anything is made; Missing when Kafka cannot be reached or refuses; Denied when we may not."""
    plans = plan(settings, topics)
    async with _admin(settings) as admin:
        differences = await _compare(admin, plans)
        _refuse([d for d in differences if d.changes_meaning])
        missing = {d.topic for d in differences if d.field == "missing"}
        wanted = [p for p in plans if p.name in missing]
        if wanted:
            await _permitted(settings, "admin")
            await _make(admin, wanted, settings)
        await _until_known(admin, missing)
        return [p.name for p in wanted]


async def check(settings: Settings, topics: Iterable[Topic] = TOPICS, *, role: str | None = None) -> list[Difference]:
    """What is not as planned. Raises Missing when Kafka cannot be reached, Denied when it does not let us in.

    With `role` its rights are looked at first: Denied says what lacks. Topics one may not see are missing otherwise,
    and settings that one may not read are as planned.
    """
    async with _admin(settings) as admin:
        if role in ROLE:
            await _permitted(settings, role)
        return await _compare(admin, plan(settings, topics))


async def require(settings: Settings, topics: Iterable[Topic], *, role: str | None = None) -> list[Difference]:
    """Differences that may be lived with; a worker calls it at start, with its `role` to see that it has its rights.

    Raises Missing when Kafka cannot be reached within ten seconds or a topic is missing, TopicDiffers when one has
    another meaning, Denied when Kafka does not let us in or a right lacks.
    """
    differences = await check(settings, topics, role=role)
    if missing := [d.topic for d in differences if d.field == "missing"]:
        raise Missing(f"Topics are missing: {', '.join(missing)}", "Run `tradewind topics create`")
    _refuse([d for d in differences if d.changes_meaning])
    return differences


def _refuse(differences: Collection[Difference]) -> None:
    if differences:
        raise TopicDiffers(
            "; ".join(map(str, differences)),
            "Set TRADEWIND_WIDE_PARTITIONS or the topic to match, or choose another TRADEWIND_TOPIC_PREFIX",
        )


@contextlib.asynccontextmanager
async def _admin(settings: Settings) -> AsyncIterator[AIOKafkaAdminClient]:
    admin = AIOKafkaAdminClient(**client_options(settings), request_timeout_ms=int(REACH_S * 1000))
    try:
        try:
            async with asyncio.timeout(REACH_S):
                await _connect(admin, settings)
        except (KafkaError, OSError, TimeoutError) as error:
            raise Missing(
                f"Kafka cannot be reached at {settings.bootstrap_servers} within {REACH_S:.0f} s "
                f"({str(error) or 'no answer'})",
                "Start it, or set TRADEWIND_BOOTSTRAP_SERVERS (--bootstrap-servers) to where it is, and "
                f"TRADEWIND_SECURITY_PROTOCOL to what it wants there ({_now(settings)})",
            ) from None
        yield admin
    finally:
        await admin.close()


def _now(settings: Settings) -> str:
    protocol = settings.security_protocol
    lone = protocol == "SSL" and settings.tls_cert_file is None
    return f"{protocol} now, without tls_cert_file: a broker that asks for one hangs up" if lone else f"{protocol} now"


async def _connect(admin: AIOKafkaAdminClient, settings: Settings) -> None:
    """A broker that is just starting is waited for, not one that does not let us in."""
    while True:
        try:
            await admin.start()
            return
        except KafkaError:
            with contextlib.suppress(KafkaError, OSError, TimeoutError):
                await preflight.lacking(settings, ())
            await asyncio.sleep(0.2)


async def _permitted(settings: Settings, role: str) -> None:
    """Raises Denied when the role lacks a right; whether topics are there is not asked.

    The right to make them may be the cluster's: it is seen when one is made.
    """
    try:
        await preflight.require(settings, settings.topic_prefix, role, without=_TO_MAKE)
    except (KafkaError, OSError, TimeoutError) as error:
        raise Missing(
            f"Kafka at {settings.bootstrap_servers} did not say which rights we have ({error!r})", "Try again"
        ) from None


async def _compare(admin: AIOKafkaAdminClient, plans: Collection[Plan]) -> list[Difference]:
    known = await _described(admin)
    present = [p.name for p in plans if p.name in known]
    configs = await _configs(admin, present) if present else {}
    found: list[Difference] = []
    for p in plans:
        if p.name not in known:
            found.append(Difference(p.name, "missing", "", ""))
            continue
        have = {**configs.get(p.name, p.config), **_shape(known[p.name])}
        want = {**p.config, "partitions": str(p.partitions), "replication": str(p.replication)}
        found += [
            Difference(p.name, field, want[field], have.get(field, "unknown"))
            for field in want
            if _sorted(have.get(field, "unknown")) != _sorted(want[field])
        ]
    return found


def _shape(described: Mapping[str, Any]) -> dict[str, str]:
    partitions = described["partitions"]
    return {"partitions": str(len(partitions)), "replication": str(len(partitions[0]["replicas"]))}


def _sorted(value: str) -> list[str]:
    """Kafka lists cleanup policies in any order."""
    return sorted(value.split(","))


async def _described(admin: AIOKafkaAdminClient) -> dict[str, Any]:
    return {described["topic"]: described for described in await admin.describe_topics() if not described["error_code"]}


async def _configs(admin: AIOKafkaAdminClient, names: Iterable[str]) -> dict[str, dict[str, str]]:
    """Settings of each topic that we may read them of: workers need not have the right to."""
    resources = [ConfigResource(ConfigResourceType.TOPIC, name) for name in names]
    configs: dict[str, dict[str, str]] = {}
    for response in await admin.describe_configs(resources):
        for resource in response.to_object()["resources"]:
            if resource["error_code"] == TopicAuthorizationFailedError.errno:
                continue
            entries = resource["config_entries"]
            configs[resource["resource_name"]] = {e["config_names"]: str(e["config_value"]) for e in entries}
    return configs


async def _make(admin: AIOKafkaAdminClient, plans: Iterable[Plan], settings: Settings) -> None:
    answer = await admin.create_topics(
        [NewTopic(p.name, p.partitions, p.replication, topic_configs=dict(p.config)) for p in plans]
    )
    for name, code, *reason in answer.topic_errors:
        if code == TopicAuthorizationFailedError.errno:
            raise preflight.denied(settings, [Right("topic", f"{settings.topic_prefix}.", "CREATE", "prefixed")])
        if code not in (0, TopicAlreadyExistsError.errno):  # somebody else was quicker
            raise Missing(
                f"Topic {name} could not be made: {for_code(code).__name__} {reason[0] if reason else ''}".rstrip(),
                "Check the number of brokers (TRADEWIND_REPLICATION) and this client's rights",
            )


async def _until_known(admin: AIOKafkaAdminClient, names: Collection[str]) -> None:
    """New topics take a moment to have a leader; whoever comes next should not meet that moment."""
    while True:
        known = await _described(admin)
        if all(name in known and not any(p["error_code"] for p in known[name]["partitions"]) for name in names):
            return
        await asyncio.sleep(0.05)
