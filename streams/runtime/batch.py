"""A fetch of one partition: columns over its messages, each made when it is first asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import attrgetter
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

Headers = Sequence[tuple[str, bytes]]
_timestamp = attrgetter("timestamp")


class Messagelike(Protocol):
    """What a carrier hands over as it got it; aiokafka's ConsumerRecord is one."""

    @property
    def offset(self) -> int: ...
    @property
    def timestamp(self) -> int: ...
    @property
    def key(self) -> bytes | None: ...
    @property
    def value(self) -> bytes | None: ...
    @property
    def headers(self) -> Headers: ...


class Message(NamedTuple):
    """One message; `timestamp` is unix milliseconds, of the broker or the producer, as its topic declares."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Headers = ()


@dataclass(frozen=True)
class Batch:
    """Messages of one partition, in the order of their offsets.

    `topic` is the name in the contract, without prefix; `partitions` is how many partitions that topic has.
    """

    topic: str
    partition: int
    messages: Sequence[Messagelike]
    partitions: int = 1

    def __len__(self) -> int:
        return len(self.messages)

    @cached_property
    def values(self) -> list[bytes | None]:
        """Values in order; None is a tombstone."""
        return [m.value for m in self.messages]

    @cached_property
    def offsets(self) -> NDArray[np.int64]:
        """Offsets, growing, not always by one."""
        return np.fromiter((m.offset for m in self.messages), np.int64, len(self.messages))

    @cached_property
    def timestamps_s(self) -> NDArray[np.float64]:
        """Kafka's timestamps in unix seconds."""
        stamps = np.fromiter(map(_timestamp, self.messages), np.float64, len(self.messages))
        return stamps / 1000.0

    @property
    def keys(self) -> list[bytes | None]:
        """Keys in order."""
        return [m.key for m in self.messages]

    @property
    def next_offset(self) -> int:
        """The offset after the last message; 0 of an empty batch."""
        return self.messages[-1].offset + 1 if self.messages else 0

    def since(self, offset: int) -> Batch:
        """The part of this batch from `offset` on; the batch itself when that is all of it."""
        if not self.messages or self.messages[0].offset >= offset:
            return self
        kept = [m for m in self.messages if m.offset >= offset]
        return Batch(self.topic, self.partition, kept, self.partitions)
