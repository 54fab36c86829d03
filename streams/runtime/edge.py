"""The edge: bytes become records, or are refused with field, value and reason. Nothing behind it meets a bad record.

Each value is decoded by itself, so that none can lend its neighbour half a record; where all are good that is one pass
of C code over the batch, and one bad record costs its batch some microseconds and nothing else. Ranges, enums and NaN
are refused by the decoder itself (`streams.contract.records`); size and clock skew are checked here over columns.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from operator import attrgetter
from typing import Any, Generic, TypeVar

import msgspec
import numpy as np

from streams.contract.errors import shown
from streams.contract.topics import MAX_VALUE_BYTES, Topic
from streams.runtime.batch import Batch, Headers
from streams.runtime.step import Heard, Refusal

R = TypeVar("R", bound=msgspec.Struct)
MAX_AHEAD_S = 300.0
"""A record that claims to be further ahead of the broker's clock is refused; one behind it is late at worst."""
TIMES = "times_s"
"""In the memo of what was heard: the times its records claim, where all of them passed."""
MSGPACK = b"application/msgpack"
_PATH = re.compile(r"(?: - at )?(?:`key` in )?`\$\.?(?P<path>[^`]*)`$")
_MISSING = re.compile(r"missing required field `(?P<field>[^`]*)`")
_UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, ValueError, RecursionError)


class Edge(Generic[R]):
    """Opens batches of one topic."""

    def __init__(self, topic: Topic) -> None:
        if topic.record is None:
            raise ValueError(f"{topic.name} carries bytes as they came; it cannot be opened")
        self.topic = topic
        self._json: msgspec.json.Decoder[R] = msgspec.json.Decoder(topic.record)
        self._msgpack: msgspec.msgpack.Decoder[R] = msgspec.msgpack.Decoder(topic.record)
        self._at_s = attrgetter(topic.time_field) if topic.time_field else None

    def open(self, batch: Batch) -> tuple[Heard[R], list[Refusal]]:
        """The records of `batch` that keep the contract, and the refusals. Tombstones are neither."""
        heard = self._whole(batch)
        refused: list[Refusal] = []
        if heard is None:
            heard, refused = self._one_by_one(batch)
        ahead = self._ahead(heard)
        return heard.without(ahead), refused + ahead

    def _whole(self, batch: Batch) -> Heard[R] | None:
        values = batch.values
        if not values:
            return None
        binary = values[0] is not None and not _opens_object(values[0])
        if binary and not all(is_msgpack(m.headers) for m in batch.messages):
            return None
        try:
            if max(map(len, values)) > MAX_VALUE_BYTES:  # type: ignore[arg-type]
                return None
            records = list(map(self._msgpack.decode if binary else self._json.decode, values))  # type: ignore[arg-type]
        except (TypeError, *_UNREADABLE):
            return None
        return Heard(batch, np.arange(len(records)), records)

    def _one_by_one(self, batch: Batch) -> tuple[Heard[R], list[Refusal]]:
        positions: list[int] = []
        records: list[R] = []
        refused: list[Refusal] = []
        for position, message in enumerate(batch.messages):
            if message.value is None:
                continue
            try:
                records.append(self._decode(message.value, message.headers))
                positions.append(position)
            except _UNREADABLE as error:
                refused.append(_refusal(position, message.value, message.headers, error))
        return Heard(batch, np.array(positions, np.intp), records), refused

    def _decode(self, value: bytes, headers: Headers) -> R:
        if len(value) > MAX_VALUE_BYTES:
            raise ValueError(f"{len(value)} bytes are more than the {MAX_VALUE_BYTES} allowed")
        # JSON shows itself by its first byte, which no record in msgpack has; msgpack is taken at its header's word
        binary = not _opens_object(value) and is_msgpack(headers)
        return (self._msgpack if binary else self._json).decode(value)

    def _ahead(self, heard: Heard[R]) -> list[Refusal]:
        if self._at_s is None or not heard.records:
            return []
        at_s = np.fromiter(map(self._at_s, heard.records), np.float64, len(heard.records))
        heard.memo[TIMES] = at_s
        ahead_s = at_s - heard.stamps_s
        if ahead_s.max() <= MAX_AHEAD_S:
            return []
        return [
            Refusal(
                int(heard.positions[i]),
                str(self.topic.time_field),
                shown(at_s[i].item()),
                f"is {ahead_s[i]:.0f} s ahead of the broker's clock, at most {MAX_AHEAD_S:.0f} s allowed: "
                "set the sender's clock",
            )
            for i in np.flatnonzero(ahead_s > MAX_AHEAD_S)
        ]


def _opens_object(value: bytes) -> bool:
    return value[:1] == b"{" or value.lstrip(b" \t\r\n")[:1] == b"{"


def is_msgpack(headers: Iterable[tuple[str, bytes]]) -> bool:
    """Whether the content-type header says msgpack; JSON otherwise."""
    return any(name == "content-type" and value == MSGPACK for name, value in headers)


def _refusal(position: int, value: bytes, headers: Headers, error: Exception) -> Refusal:
    """What was wrong, with the field's path and the offending value where they can be told."""
    if isinstance(error, RecursionError):
        return Refusal(position, "value", shown(value[:80]), "is nested too deeply")
    if len(value) > MAX_VALUE_BYTES:
        return Refusal(position, "value", shown(value[:80]), str(error))
    said = str(error)
    found = _PATH.search(said)
    path = found["path"] if found else ""
    reason = said[: found.start()] if found else said
    if missing := _MISSING.search(reason):
        path = ".".join(filter(None, (path, missing["field"])))
    return Refusal(position, path or "value", shown(_value_at(value, headers, path)), reason)


def _value_at(value: bytes, headers: Headers, path: str) -> Any:
    try:
        binary = not _opens_object(value) and is_msgpack(headers)
        at: Any = (msgspec.msgpack if binary else msgspec.json).decode(value)
        for part in re.findall(r"[^.\[\]]+", path):
            at = at[int(part)] if isinstance(at, list) else at[part]
    except (*_UNREADABLE, LookupError, TypeError):
        return value[:80]
    return at
