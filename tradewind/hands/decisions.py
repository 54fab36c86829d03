"""Decisions on their topic: the newest first, or all of them; and which of them a signed table vouches for."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Final, NamedTuple

import msgspec

from router_sync.chain import fits
from streams.contract.errors import BadSetting
from streams.contract.records import Decision
from streams.contract.topics import DECISIONS
from streams.settings import Settings
from tradewind.hands import kafka

CHUNK: Final = 200
"""Records that are read at once on the way back: each may be a megabyte."""
_decode: Final = msgspec.json.Decoder(Decision).decode


class Said(NamedTuple):
    """A decision as it stands on the topic. `place` is partition/offset."""

    place: str
    at_s: float
    key: bytes
    value: bytes

    @property
    def decision(self) -> Decision | None:
        """What was decided; None when it cannot be read."""
        try:
            return _decode(self.value)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return None


def number_of(argument: str, text: str) -> tuple[int, int]:
    """(epoch, version) of "1763938800.42". Raises BadSetting that names `argument`.

    >>> number_of("--to", "1763938800.42")
    (1763938800, 42)
    """
    epoch, _, version = text.partition(".")
    if not (epoch.isdecimal() and version.isdecimal() and len(text) <= 40):
        where = "flag" if argument.startswith("-") else "argument"
        raise BadSetting(where, argument, text, "Write EPOCH.VERSION as `tradewind table show` says it")
    return int(epoch), int(version)


async def all_of(consumer: Any, settings: Settings, since_s: float | None = None) -> AsyncIterator[Said]:
    """All decisions, oldest first, or those not older than `since_s`."""
    place = await kafka.place_of(consumer, settings, DECISIONS)
    end = await kafka.begin(consumer, settings, place, since_s)
    async for record in kafka.records(consumer, settings, place, end):
        if record.value is not None:
            yield _said(record)


async def backwards(consumer: Any, settings: Settings) -> AsyncIterator[Said]:
    """All decisions, newest first."""
    place = await kafka.place_of(consumer, settings, DECISIONS)
    end = await kafka.begin(consumer, settings, place)
    first = int(await consumer.position(place))
    while end > first:
        start = max(first, end - CHUNK)
        consumer.seek(place, start)
        chunk = [_said(record) async for record in kafka.records(consumer, settings, place, end) if record.value]
        for said in reversed(chunk):
            yield said
        end = start


def _said(record: Any) -> Said:
    return Said(f"{record.partition}/{record.offset}", record.timestamp / 1000, record.key or b"", record.value)


class Past(NamedTuple):
    """A decision of one service. `vouched`: a signed table leads to it link by link, and its bytes are as they were."""

    decision: Decision
    vouched: bool
    place: str


async def past(consumer: Any, settings: Settings, service: str, anchor: str) -> AsyncIterator[Past]:
    """Decisions of `service`, newest first. `anchor`: the digest that its table in force names; empty: none does."""
    want = anchor
    async for said in backwards(consumer, settings):
        decision = said.decision
        if decision is None or decision.service != service:
            continue
        vouched = bool(want) and decision.digest == want and fits(said.value, want)
        want = decision.previous if vouched else want
        yield Past(decision, vouched, said.place)
