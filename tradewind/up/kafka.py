"""The Kafka of an `up`: embedded in the state folder, or hers; its topics, and the fleet under its next version."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from streams.contract import topics
from streams.contract.errors import BadSetting, Denied, Missing
from streams.contract.records import Fleet
from streams.runtime import admin, clock
from streams.runtime.access import client_options
from streams.settings import DEFAULT, Settings, Settled
from tradewind.fleets import publish

if TYPE_CHECKING:
    from tradewind.embedded import Runtime

_REACH_S = 10.0


def wants_embedded(settled: Settled) -> bool:
    """Whether nobody said where Kafka is. Raises BadSetting when it was said how to get into one, but not where."""
    if settled.sources["bootstrap_servers"] != DEFAULT:
        return False
    if settled.settings.security_protocol != "PLAINTEXT":
        where = settled.sources["security_protocol"]
        remedy = "Say where that Kafka is: bootstrap_servers. The embedded one has no security."
        raise BadSetting(where, "security_protocol", settled.settings.security_protocol, remedy)
    return True


def runtime(environ: Mapping[str, str]) -> Runtime:
    """Java and the jars of an embedded Kafka; blocks, the first time while 45 MB come. Raises Missing."""
    try:
        from tradewind.embedded import default_cache, prepare, shown_on
    except ImportError as error:
        raise Missing(
            f"The embedded Kafka needs the package {error.name}",
            "Install it with `pip install 'tradewind[embedded]'`, or use your own: --bootstrap-servers HOST:PORT",
        ) from None
    home = environ.get("JAVA_HOME")
    with shown_on(sys.stderr) as progress:
        return prepare(
            default_cache(environ, Path.home()),
            java_home=Path(home) if home else None,
            search_path=environ.get("PATH"),
            progress=progress,
        )


async def ensure_topics(settings: Settings, say: Callable[[str], None]) -> None:
    """Make the topics that are missing; where that is not allowed, all have to be there."""
    try:
        made = await admin.create(settings)
    except Denied as denied:
        try:
            await admin.require(settings, topics.TOPICS)
        except Missing:
            raise denied from None
        say("topics are there; making them is not allowed here")
        return
    if made:
        say(f"{len(made)} topics made, named {settings.topic_prefix}.*")


async def publish_next(fleet: Fleet, settings: Settings) -> Fleet:
    """`fleet` as it is in force now: published under the next version, unless the topic carries just that.

    Raises BadSetting when the topic carries another fleet, Missing or Denied when Kafka does not take it.
    """
    numbered = next_version(fleet, await _on_topic(settings), settings, clock.now_s())
    await publish(numbered, settings)
    return numbered


def next_version(fleet: Fleet, there: Mapping[str, Fleet], settings: Settings, now_s: float) -> Fleet:
    """`fleet` numbered to follow what is `there`, fleets by name. Raises BadSetting when that is another one."""
    if others := sorted(there.keys() - {fleet.fleet}):
        remedy = (
            f"The topics {settings.topic_prefix}.* carry the fleet {', '.join(others)}: keep that name, "
            "or set another topic_prefix"
        )
        raise BadSetting("fleet file", "fleet", fleet.fleet, remedy)
    last = there.get(fleet.fleet)
    if last is None:
        return msgspec.structs.replace(fleet, version=fleet.version or int(now_s))
    if msgspec.structs.replace(fleet, version=last.version) == last and fleet.version <= last.version:
        return last
    return msgspec.structs.replace(fleet, version=max(last.version + 1, fleet.version))


async def _on_topic(settings: Settings) -> dict[str, Fleet]:
    """Fleets on the topic now, by name. Raises Missing when Kafka does not say within ten seconds."""
    consumer = AIOKafkaConsumer(**client_options(settings), enable_auto_commit=False)
    try:
        async with asyncio.timeout(_REACH_S):
            await consumer.start()
            return await _read(consumer, TopicPartition(topics.FLEET.full(settings.topic_prefix), 0))
    except (KafkaError, OSError, TimeoutError) as error:
        raise Missing(
            f"Kafka at {settings.bootstrap_servers} did not tell which fleet it carries ({str(error) or 'no answer'})",
            "Check that it runs and lets this client read, then start again",
        ) from None
    finally:
        await consumer.stop()


async def _read(consumer: Any, at: TopicPartition) -> dict[str, Fleet]:
    consumer.assign([at])
    begin, end = (await consumer.beginning_offsets([at]))[at], (await consumer.end_offsets([at]))[at]
    consumer.seek(at, begin)  # `seek_to_beginning` may lose against the reset that `assign` has under way
    held: dict[str, Fleet] = {}
    while await consumer.position(at) < end:
        for message in (await consumer.getmany(timeout_ms=200)).get(at, []):
            key = (message.key or b"").decode(errors="replace")
            held.pop(key, None)
            with contextlib.suppress(msgspec.MsgspecError, TypeError):  # what nobody can read, no router follows
                held[key] = msgspec.json.decode(message.value, type=Fleet)
    return held
