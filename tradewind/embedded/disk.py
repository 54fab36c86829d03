"""How much disk an embedded broker takes, from the topics as they are declared and the settings it is started with.

A partition whose old records may go holds at most what it may keep and one segment more, because whole segments go;
and an offset and a time index for the segment that is written. Between two looks at what may go (10 s, and 5 s until
the file is gone) it can grow by what is written meanwhile: that is added by the caller, who knows his rate.

Topics that are only compacted hold the last value of each key, however long they live: twice that, and the segments
that were not compacted yet. How many keys there are is up to the fleet, so they are counted with two segments each.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from streams.contract.topics import TOPICS, Topic
from tradewind.embedded.properties import INDEX_BYTES, METADATA_BYTES, MIB, RETENTION_BYTES, SEGMENT_BYTES

LATE_S: Final = 15
"""Seconds for which a partition may grow beyond its bound: from one look to the next, and until the file is gone."""
_INDEXES: Final = 2 * INDEX_BYTES
_METADATA_INDEXES: Final = 20 * MIB  # two of 10 MiB, which no setting makes smaller
_OF_KAFKA: Final = METADATA_BYTES + 2 * SEGMENT_BYTES + _METADATA_INDEXES + 2 * (SEGMENT_BYTES + _INDEXES)
"""Its own records of topics with a snapshot, the offsets of groups, transactions."""


def partition_bytes(topic: Topic, retention_bytes: int = RETENTION_BYTES) -> int:
    """The most that one partition of `topic` holds, in bytes, but for what is written within LATE_S."""
    if topic.cleanup == "compact":
        return 2 * SEGMENT_BYTES + _INDEXES
    keeps = retention_bytes if topic.retention_bytes is None else topic.retention_bytes
    return keeps + SEGMENT_BYTES + _INDEXES


def most_bytes(
    topics: Iterable[Topic] = TOPICS, *, wide_partitions: int = 4, retention_bytes: int = RETENTION_BYTES
) -> int:
    """The most that the data folder of a broker with `topics` holds, in bytes, but for what is written within LATE_S.

    About 4.5 GB for all topics of the contract with the usual settings; a gigabyte of it for dead letters alone.
    """
    width = {"wide": wide_partitions, "narrow": 1}
    return _OF_KAFKA + sum(width[topic.width] * partition_bytes(topic, retention_bytes) for topic in topics)
