"""A whole fetch of one partition at once, from an aiokafka consumer.

aiokafka hands records out one by one, each copied into an object of Python's; half of a reader's time goes there. Here
a batch is unpacked in one go by aiokafka's own C code, and its records are handed on as they are: they have offset,
timestamp, key, value and headers, which is all we ask of a message (`batch.Messagelike`). The private names this leans
on are pinned by tests/contract/test_faust_private.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from aiokafka import TopicPartition
from aiokafka.consumer.fetcher import FetchResult
from aiokafka.errors import ConsumerStoppedError, CorruptRecordException

from streams.runtime.batch import Messagelike

LIMIT = 5000
"""Records of one partition handed over at once; a batch of a producer is never cut, so it may be a few more."""


class Fetched(NamedTuple):
    """Records of one partition and what they cover: all offsets from `start` up to, not including, `next`.

    There may be none at all, where compaction or a transaction's marker left nothing to hand on.
    """

    start: int
    next: int
    records: list[Messagelike]


class Place(NamedTuple):
    """Where a partition is to be read from, where it ended when we looked, what its group had committed."""

    start: int
    end: int
    committed: int | None


async def fetched(consumer: Any, wanted: Collection[TopicPartition], timeout_s: float) -> dict[Any, list[Fetched]]:
    """What has come for each of `wanted`, one bundle a partition; waits up to `timeout_s` for something.

    Raises what the broker answered (KafkaError), ConsumerStoppedError once `consumer` is closed.
    """
    fetcher = consumer._fetcher
    deadline_s = asyncio.get_running_loop().time() + timeout_s
    with fetcher._subscriptions.fetch_context():
        while True:
            if consumer._closed or fetcher._closed:
                raise ConsumerStoppedError
            if fetcher._subscriptions.reassignment_in_progress:
                return {}
            if bundles := _drain(fetcher, wanted):
                return bundles
            left_s = deadline_s - asyncio.get_running_loop().time()
            if left_s <= 0 or not await _more(fetcher, left_s):
                return {}


async def _more(fetcher: Any, timeout_s: float) -> bool:
    waiter = fetcher._create_fetch_waiter()
    done, _ = await asyncio.wait([waiter], timeout=timeout_s)
    if not done:
        waiter.cancel()
        return False
    waiter.result()  # an authorization error is raised here
    return True


def _drain(fetcher: Any, wanted: Collection[TopicPartition]) -> dict[Any, list[Fetched]]:
    bundles: dict[Any, list[Fetched]] = {}
    for partition in list(fetcher._records):
        if partition not in wanted:
            if not fetcher._subscriptions.is_assigned(partition):
                del fetcher._records[partition]
            continue
        result = fetcher._records[partition]
        if not isinstance(result, FetchResult):
            if bundles:
                break  # the error is raised by the next call
            _forget(fetcher, partition)
            result.check_raise()
            continue
        bundle = unpack(result, LIMIT)
        if not result.has_more():
            _forget(fetcher, partition)
        if bundle:
            bundles[partition] = [bundle]
    return bundles


def _forget(fetcher: Any, partition: TopicPartition) -> None:
    """Let the fetcher ask for more of `partition`."""
    del fetcher._records[partition]
    fetcher._notify(fetcher._wait_consume_future)


def unpack(result: Any, limit: int) -> Fetched | None:
    """The next `limit` records or so of a fetch, None when a seek or a rebalance has made it worthless."""
    if not result.check_assignment(result._topic_partition) or not result.has_more():
        return None
    part = result._partition_records
    part._records_iterator = None  # we go around it; it and `part` hold each other, and megabytes of a fetch with them
    start = at = part.next_fetch_offset
    records: list[Any] = []
    while len(records) < limit and part._records.has_next():
        batch = part._records.next_batch()
        if part._check_crcs and not batch.validate_crc():
            raise CorruptRecordException(f"Invalid CRC - {result._topic_partition}")
        if not batch.is_control_batch:
            fresh = list(batch)
            # a fetch from the middle of a batch brings all of it
            records += fresh if not fresh or fresh[0].offset >= at else [r for r in fresh if r.offset >= at]
        at = batch.next_offset
    part.next_fetch_offset = at
    result._update_position()
    if not part._records.has_next():
        result._partition_records = None
    return Fetched(start, at, records) if at > start else None


async def look(consumer: Any, wanted: Mapping[tuple[str, int], float | None]) -> dict[tuple[str, int], Place]:
    """The place of each partition in `wanted`, to be read from a unix time in seconds, or from its beginning (None)."""
    partitions = {tp: TopicPartition(*tp) for tp in wanted}
    begins = await consumer.beginning_offsets(list(partitions.values()))
    ends = await consumer.end_offsets(list(partitions.values()))
    stamps = {partitions[tp]: max(0, int(at_s * 1000)) for tp, at_s in wanted.items() if at_s is not None}
    times = await consumer.offsets_for_times(stamps) if stamps else {}
    places = {}
    for tp, partition in partitions.items():
        start = begins[partition]
        if partition in times:  # None: nothing is as young as that
            start = times[partition].offset if times[partition] else ends[partition]
        committed = await consumer.committed(partition) if consumer._group_id else None
        places[tp] = Place(start, ends[partition], committed)
    return places
