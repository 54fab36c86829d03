"""What `tradewind doctor` looks at on Kafka: reach, topics, rights, clock; then tables and who follows them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any, Final

from aiokafka.errors import KafkaError

from router_sync.sign import Trust
from streams.contract import topics
from streams.contract.errors import Denied, Stop
from streams.contract.rights import ROLE
from streams.runtime import admin
from streams.runtime.access import Access
from streams.runtime.preflight import lacking
from streams.settings import Settings
from tradewind.hands import kafka
from tradewind.hands.checks import Check, fail, ok, skipped, warn
from tradewind.hands.state import BEATS, LATE_S, Status
from tradewind.hands.text import ago

STAMPED_S: Final = 5.0
"""Records of a topic that the broker stamps come each second: the newest is hardly older than this."""
SKEW_S: Final = 2.0
_CHANGED: Final = 4


async def reach(settings: Settings) -> Check:
    """Whether Kafka answers, and lets us in."""
    try:
        async with kafka.reader(settings):
            return ok("kafka", f"{settings.bootstrap_servers} answers {Access.of(settings).principal}")
    except Stop as error:
        return fail("kafka", error.what, error.remedy)


async def declared(settings: Settings) -> Check:
    """Whether the topics are as the contract declares them."""
    try:
        async with asyncio.timeout(kafka.REACH_S):
            found = await admin.check(settings)
    except (Stop, KafkaError, OSError, TimeoutError) as error:
        return fail("topics", str(error) or "no answer in time", "See `tradewind topics check`")
    if not found:
        return ok("topics", f"all {len(topics.TOPICS)} are as declared under {settings.topic_prefix}")
    says = "; ".join(map(str, found[:_CHANGED])) + (
        f"; and {len(found) - _CHANGED} more" if len(found) > _CHANGED else ""
    )
    if any(d.field == "missing" for d in found):
        return fail("topics", says, "Run `tradewind topics create`")
    if any(d.changes_meaning for d in found):
        return fail("topics", says, "Set TRADEWIND_WIDE_PARTITIONS or the topic to match, or use another prefix")
    return warn("topics", says, "Set them as declared, or leave them: no record is lost or misplaced by it")


async def rights(settings: Settings) -> Check:
    """Whether whoever asks may do what an operator does."""
    try:
        lack = await lacking(Access.of(settings), ROLE["operator"].rights(settings.topic_prefix))
    except (Denied, Stop) as error:
        return fail("rights", error.what, error.remedy)
    except (KafkaError, OSError, TimeoutError) as error:
        return fail("rights", f"could not be asked ({str(error) or 'no answer'})", "See `tradewind topics plan`")
    if lack:
        says = f"{Access.of(settings).principal} lacks {', '.join(map(str, lack))}"
        return fail("rights", says, "Grant them: `tradewind topics plan` prints the lines of the operator role")
    return ok("rights", f"{Access.of(settings).principal} has all of an operator")


async def clock(settings: Settings, now_s: Callable[[], float]) -> Check:
    """This machine's clock beside the broker's, by what the broker stamped last; nothing is produced for it."""
    try:
        async with kafka.reader(settings) as consumer:
            stamp_s = await _newest_stamp(consumer, settings)
    except Stop as error:
        return skipped("clock", f"nothing could be compared: {error.what}")
    behind_s = None if stamp_s is None else stamp_s - now_s()
    if behind_s is None or behind_s < -STAMPED_S:
        return skipped("clock", "the broker has stamped nothing in the last seconds to compare with")
    if behind_s > SKEW_S:
        return fail("clock", f"this clock is {behind_s:.1f} s behind the broker's", "Set it: timedatectl set-ntp true")
    return ok("clock", f"within {STAMPED_S:g} s of the broker's")


async def _newest_stamp(consumer: Any, settings: Settings) -> float | None:
    place = await kafka.place_of(consumer, settings, topics.ENDPOINT_HEALTH)
    end = await kafka.begin(consumer, settings, place)
    consumer.seek(place, max(await consumer.position(place), end - 1))
    stamps = [record.timestamp / 1000 async for record in kafka.records(consumer, settings, place, end)]
    return stamps[-1] if stamps else None


def tables(status: Status, trust: Trust | None, beat_s: float) -> Iterator[Check]:
    """The tables in force and the gateways that follow them."""
    if trust is None:
        yield warn("trust", "signatures of tables are not checked", "Name the router's public key: --trust FILE")
    if not status.tables:
        yield (
            fail("tables", "there is none to follow", "Run a router; see `tradewind status`")
            if status.services
            else (skipped("tables", "no fleet was published"))
        )
    for table in status.tables:
        says = f"{table.service} {table.epoch}.{table.version} is {ago(table.age_s)} old"
        if table.age_s > BEATS * beat_s + LATE_S:
            yield fail("tables", says, "Start a router: tradewind worker router")
        else:
            yield ok("tables", says)
    yield from _gateways(status)


def _gateways(status: Status) -> Iterator[Check]:
    behind = sorted({one.gateway for one in status.gateways if one.behind or one.expired})
    if behind:
        remedy = "Look at their logs: are they cut off from Kafka, or do they not trust the router's key?"
        yield fail("gateways", f"on old tables: {', '.join(behind)}", remedy)
    elif status.gateways:
        yield ok("gateways", f"{len({one.gateway for one in status.gateways})} known, none on an old table")
    else:
        yield skipped("gateways", "none has spoken yet")
