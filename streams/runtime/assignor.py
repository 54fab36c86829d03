"""Who reads which partition: the same number of all topics goes to the same worker, and stays there.

Without tables Faust falls back to aiokafka's round robin, which tears the topics of a step apart (one-partition topics
would be dealt out one by one). Here the number is what is dealt: each worker says which numbers it holds, keeps as many
of them as is fair, and only the rest moves, so that a rebalance restores little.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import msgspec
from aiokafka.coordinator.assignors.abstract import AbstractPartitionAssignor
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment, ConsumerProtocolMemberMetadata


def share_out(numbers: Iterable[int], held: Mapping[str, Collection[int]]) -> dict[str, list[int]]:
    """Numbers by member, at most one more for one than for another; who `held` a number keeps it if that is fair.

    >>> share_out(range(4), {"a": [0, 1, 2, 3], "b": []})
    {'a': [0, 1], 'b': [2, 3]}
    """
    left = sorted(set(numbers))
    low, extra = divmod(len(left), len(held))
    largest_first = sorted(held, key=lambda member: (-len(held[member]), member))
    room = {member: low + (place < extra) for place, member in enumerate(largest_first)}
    given: dict[str, list[int]] = {member: [] for member in sorted(held)}
    for member in largest_first:
        kept = [number for number in left if number in held[member]][: room[member]]
        given[member] += kept
        left = [number for number in left if number not in kept]
    for member, numbers_of in given.items():
        while left and len(numbers_of) < room[member]:
            numbers_of.append(left.pop(0))
    return {member: sorted(numbers_of) for member, numbers_of in given.items()}


class Together(AbstractPartitionAssignor):  # type: ignore[misc]
    """An assignor of aiokafka's kind; one object a worker, `held` says which numbers it holds now."""

    name = "tradewind-together"
    version = 0

    def __init__(self, held: Callable[[], Collection[int]]) -> None:
        self._held = held

    def metadata(self, topics: Iterable[str]) -> Any:
        """What this worker tells the group."""
        return ConsumerProtocolMemberMetadata(self.version, sorted(topics), msgspec.json.encode(sorted(self._held())))

    def assign(self, cluster: Any, members: Mapping[str, Any]) -> dict[str, Any]:
        """What each member of the group is to read; asked of the group's leader."""
        topics = {topic for member in members.values() for topic in member.subscription}
        counts = {topic: len(cluster.partitions_for_topic(topic) or ()) for topic in topics}
        shares = share_out(range(max(counts.values(), default=0)), {m: _claimed(meta) for m, meta in members.items()})
        return {
            member: ConsumerProtocolMemberAssignment(
                self.version,
                [(t, [n for n in shares[member] if n < counts[t]]) for t in sorted(meta.subscription)],
                b"",
            )
            for member, meta in members.items()
        }

    def on_assignment(self, assignment: Any) -> None:
        """Nothing to remember: what is held is asked anew each time."""


def _claimed(metadata: Any) -> list[int]:
    try:
        return msgspec.json.decode(metadata.user_data or b"[]", type=list[int])
    except msgspec.MsgspecError:
        return []
