"""Dead letters: refused messages as they came, with where they stood and why they were refused."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Iterable
from typing import Any, Final

import msgspec

from streams.contract import topics
from streams.contract.errors import BadSetting, Missing
from streams.runtime.edge import is_msgpack
from streams.runtime.runner import KEY_BYTES
from streams.settings import Settings
from tradewind.hands import kafka

REPLAYED: Final = topics.REPLAYED_FROM
_OURS: Final = "tw-"


class Letter(msgspec.Struct, frozen=True, kw_only=True):
    """One dead letter. `place` names it: partition/offset on the dead-letters topic."""

    place: str
    at_s: float
    topic: str
    """Where it came from, as the contract names it."""
    partition: int
    offset: int
    field: str
    reason: str
    step: str
    key: bytes
    value: bytes | None
    headers: list[tuple[str, bytes]]
    """What it had beside its value when it came; of it what was kept."""
    whole: int | None = None
    """Bytes of the whole value, where what is here was cut."""
    replayed_from: str | None = None
    """The dead letter it was before it was replayed, and refused again."""

    @property
    def truncated(self) -> bool:
        """Whether what is here is not all that came."""
        return self.whole is not None or len(self.key) >= KEY_BYTES


def letter(record: Any) -> Letter:
    """What a record of the dead-letters topic says; fields that a foreign one lacks are empty, or -1."""
    said: dict[str, bytes] = dict(record.headers)

    def word(name: str) -> str:
        return said.get(name, b"").decode("utf-8", "replace")

    def number(name: str, missing: int | None = -1) -> int | None:
        return int(word(name)) if word(name).isdecimal() else missing

    return Letter(
        place=f"{record.partition}/{record.offset}", at_s=record.timestamp / 1000, topic=word(topics.DEAD_TOPIC),
        partition=number(topics.DEAD_PARTITION) or 0, offset=number(topics.DEAD_OFFSET) or 0,
        field=word(topics.DEAD_FIELD), reason=word(topics.DEAD_REASON), step=word(topics.DEAD_STEP),
        key=record.key or b"", value=record.value, whole=number(topics.DEAD_LENGTH, None),
        headers=[pair for pair in record.headers if pair[0] == topics.SIGNATURE or not pair[0].startswith(_OURS)],
        replayed_from=word(REPLAYED) or None,
    )  # fmt: skip


async def letters(
    consumer: Any, settings: Settings, since_s: float | None = None, topic: str | None = None
) -> AsyncIterator[Letter]:
    """Dead letters in their order, not older than `since_s`, that came from `topic`. Raises as `kafka.answering`."""
    place = await kafka.place_of(consumer, settings, topics.DEAD_LETTERS)
    end = await kafka.begin(consumer, settings, place, since_s)
    async for record in kafka.records(consumer, settings, place, end):
        one = letter(record)
        if topic in (None, one.topic):
            yield one


async def last(found: AsyncIterator[Letter], limit: int) -> tuple[list[Letter], int]:
    """The newest `limit`, oldest first, and how many there were; no more than that is held in memory."""
    kept: deque[Letter] = deque(maxlen=limit)
    count = 0
    async for one in found:
        kept.append(one)
        count += 1
    return list(kept), count


def contract_name(topic: str | None, settings: Settings) -> str | None:
    """`topic` without the prefix. Raises BadSetting when the contract knows no such topic."""
    if topic is None:
        return None
    name = topic.removeprefix(f"{settings.topic_prefix}.")
    known = [t.name for t in topics.TOPICS if t.record is not None]
    if name not in known:
        raise BadSetting("flag", "--topic", topic, f"Choose one of {', '.join(known)}")
    return name


# ---------------------------------------------------------------- which of them


class Range(msgspec.Struct, frozen=True):
    """Offsets of one partition, both included."""

    partition: int
    first: int
    last: int


def selected(text: str) -> Range:
    """ "0/12" or "0/12-40". Raises BadSetting.

    >>> selected("0/12-40")
    Range(partition=0, first=12, last=40)
    """
    partition, _, offsets = text.partition("/")
    first, dash, until = offsets.partition("-")
    numbers = (partition, first, until if dash else first)
    if not all(n.isdecimal() and len(n) < 19 for n in numbers) or int(numbers[1]) > int(numbers[2]):
        raise BadSetting("argument", "SELECTION", text, "Write PARTITION/OFFSET as in 0/12, or a range as in 0/12-40")
    return Range(*map(int, numbers))


async def chosen(consumer: Any, settings: Settings, ranges: Iterable[Range]) -> list[Letter]:
    """The letters in `ranges`. Raises Missing when one range holds none: it aged away, or never was."""
    place = await kafka.place_of(consumer, settings, topics.DEAD_LETTERS)
    found: dict[str, Letter] = {}
    for wanted in ranges:
        end = await kafka.begin(consumer, settings, place)
        start = int(await consumer.position(place))
        if wanted.partition != 0 or wanted.last < start or wanted.first >= end:
            raise Missing(
                f"There is no dead letter {wanted.partition}/{wanted.first}",
                f"There are 0/{start} to 0/{end - 1}" if end > start else "There are none at all",
            )
        consumer.seek(place, max(start, wanted.first))
        async for record in kafka.records(consumer, settings, place, min(end, wanted.last + 1)):
            found[f"{record.partition}/{record.offset}"] = letter(record)
    return list(found.values())


# ---------------------------------------------------------------- for people and programs


def pretty(one: Letter) -> str:
    """The value as one reads it: JSON indented, msgpack as JSON, text as it is, other bytes in Python's spelling."""
    value = one.value or b""
    try:
        if is_msgpack(one.headers) and value[:1] != b"{":
            value = msgspec.json.encode(msgspec.msgpack.decode(value))
        return msgspec.json.format(value, indent=2).decode()
    except (msgspec.MsgspecError, UnicodeDecodeError, ValueError, RecursionError, TypeError):
        pass
    try:
        text = value.decode()
    except UnicodeDecodeError:
        return repr(value)
    return text if text.isprintable() else repr(text)


def as_json(one: Letter, *, value: bool = False) -> dict[str, Any]:
    """A letter as a JSON object; with `value` the bytes too: as text where they are text, and always in base64."""
    said: dict[str, Any] = {
        "place": one.place, "at_s": one.at_s, "topic": one.topic, "partition": one.partition, "offset": one.offset,
        "field": one.field, "reason": one.reason, "step": one.step, "key": one.key.decode("utf-8", "replace"),
        "size": len(one.value or b""), "truncated": one.truncated, "replayed_from": one.replayed_from,
    }  # fmt: skip
    if value:
        said["value"] = (one.value or b"").decode("utf-8", "replace")
        said["value_base64"] = one.value
        said["headers"] = {name: content.decode("utf-8", "replace") for name, content in one.headers}
    return said
