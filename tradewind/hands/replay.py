"""Dead letters sent again to the topic they came from: the same key, value and content headers.

Each says by a header from which dead letter it comes, so that it is not sent twice by mistake: the topic is looked
through, from the dead letter's time on, for what was sent before. Only raw input is sent again: it is judged anew, by
its own time. An old order, fleet or summary would stand as the last word, over what was said since.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Literal

import msgspec
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from streams.contract import topics
from streams.contract.errors import Missing
from streams.contract.keys import partition_of
from streams.runtime.access import client_options
from streams.settings import Settings
from tradewind.hands import kafka
from tradewind.hands.letters import REPLAYED, Letter

CLOCKS_S: Final = 300.0
"""By which two clocks may differ: records further ahead are refused."""
RAW: Final = frozenset({topics.ENDPOINT_METRICS.name, topics.ARRIVALS.name})
"""What is sent again: topics of raw input, where a record adds to others and replaces none."""
_INSTEAD: Final[Mapping[str, str]] = {
    topics.ORDERS.name: "an old order would go over newer ones; give the order anew: `tradewind drain`, `undrain`",
    topics.FLEET.name: "an old fleet would go over a newer one; publish it anew: `tradewind fleet publish`",
}
Fate = Literal[
    "would be sent", "sent", "truncated", "replayed before", "refused again", "not raw input", "unknown topic"
]


class Replayed(msgspec.Struct, frozen=True, kw_only=True):
    """What became, or would become, of one letter. `to`: full name and partition of where it goes."""

    place: str
    fate: Fate
    to: str = ""
    key: str = ""
    says: str = ""


async def replay(
    consumer: Any, settings: Settings, letters: Sequence[Letter], *, yes: bool, again: bool
) -> list[Replayed]:
    """Send `letters`, each of them once, with `yes`; else say what would be done. `again`: those replayed before too.

    Raises as `kafka.answering` does; what was sent until then stays sent, and is recognised the next time.
    """
    known = {t.name: t for t in topics.TOPICS if t.record is not None}
    widths = await _widths(settings, {one.topic for one in letters} & RAW)
    fates = {one.place: _refused(one, known, again=again) for one in letters}
    good = [one for one in letters if fates[one.place] is None]
    if not again:
        sent = await _sent(consumer, settings, good, widths)
        for one in good:
            if (at := sent.get(one.place.encode())) is not None:
                says = f"as {at}; --again sends it all the same"
                fates[one.place] = Replayed(place=one.place, fate="replayed before", says=says)
        good = [one for one in good if fates[one.place] is None]
    if yes and good:
        async with kafka.sender(settings) as producer:
            for one in good:
                await _send(producer, settings, one, widths)
    done: Fate = "sent" if yes else "would be sent"
    return [fates[one.place] or _fate(one, settings, widths, done) for one in letters]


def _refused(one: Letter, known: Iterable[str], *, again: bool) -> Replayed | None:
    if one.topic not in known:
        return Replayed(place=one.place, fate="unknown topic", says=f"{one.topic or 'no topic'} is not in the contract")
    if one.topic not in RAW:
        says = f"{one.topic} is not sent again; let whoever wrote it write it anew"
        return Replayed(place=one.place, fate="not raw input", says=_INSTEAD.get(one.topic, says))
    if one.truncated:
        says = f"{len(one.value or b'')} of {one.whole} bytes are here" if one.whole else "its key was cut"
        return Replayed(place=one.place, fate="truncated", says=says)
    if one.replayed_from and not again:
        return Replayed(place=one.place, fate="refused again", says=f"it was {one.replayed_from} before; --again")
    return None


async def _widths(settings: Settings, names: Iterable[str]) -> dict[str, int]:
    """Topic to its number of partitions. Raises Missing when one is not there."""
    full = {name: f"{settings.topic_prefix}.{name}" for name in names}
    if not full:
        return {}
    admin = AIOKafkaAdminClient(**client_options(settings), request_timeout_ms=int(kafka.REACH_S * 1000))
    try:
        async with kafka.answering(settings):
            await admin.start()
            described = await admin.describe_topics(list(full.values()))
    finally:
        await admin.close()
    have = {one["topic"]: len(one["partitions"]) for one in described if not one["error_code"]}
    if missing := [name for name in full.values() if name not in have]:
        raise Missing(
            f"The topic {', '.join(missing)} is not there, or may not be seen", "Run `tradewind topics create`"
        )
    return {name: have[whole] for name, whole in full.items()}


def _place(one: Letter, settings: Settings, widths: dict[str, int]) -> TopicPartition:
    """Where its key puts it; where it stood, when it has none."""
    number = partition_of(one.key, widths[one.topic]) if one.key else min(max(0, one.partition), widths[one.topic] - 1)
    return TopicPartition(f"{settings.topic_prefix}.{one.topic}", number)


async def _sent(
    consumer: Any, settings: Settings, letters: Iterable[Letter], widths: dict[str, int]
) -> dict[bytes, str]:
    """What was replayed before: dead letter to where it lies, for those that `letters` may be."""
    since_s: dict[TopicPartition, float] = {}
    for one in letters:
        place = _place(one, settings, widths)
        since_s[place] = min(one.at_s, since_s.get(place, one.at_s))
    found: dict[bytes, str] = {}
    for place, at_s in since_s.items():
        # stamped by other clocks than the dead letter was
        end = await kafka.begin(consumer, settings, place, at_s - CLOCKS_S)
        async for record in kafka.records(consumer, settings, place, end):
            for name, mark in record.headers:
                if name == REPLAYED:
                    found[mark] = f"{record.partition}/{record.offset} of {record.topic}"
    return found


def _fate(one: Letter, settings: Settings, widths: dict[str, int], fate: Fate) -> Replayed:
    place = _place(one, settings, widths)
    return Replayed(place=one.place, fate=fate, to=f"{place.topic}/{place.partition}",
                    key=one.key.decode("utf-8", "replace"))  # fmt: skip


async def _send(producer: Any, settings: Settings, one: Letter, widths: dict[str, int]) -> None:
    place = _place(one, settings, widths)
    async with kafka.answering(settings, operation="WRITE"):
        await producer.send_and_wait(
            place.topic,
            one.value,
            key=one.key or None,
            partition=place.partition,
            headers=[*one.headers, (REPLAYED, one.place.encode())],
        )
