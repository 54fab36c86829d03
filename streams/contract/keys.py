"""Which partition a key lies on: murmur2 as in Apache Kafka's default partitioner."""

from __future__ import annotations

_M = 0x5BD1E995
_MASK = 0xFFFFFFFF


def murmur2(data: bytes) -> int:
    """32-bit murmur2 of `data`, as Kafka's Java client computes it; 0..2^32-1.

    Source: org.apache.kafka.common.utils.Utils.murmur2 (seed 0x9747b28c).

    >>> murmur2(b"21") - 2**32
    -973932308
    """
    h = (0x9747B28C ^ len(data)) & _MASK
    whole = len(data) & ~3
    for i in range(0, whole, 4):
        k = int.from_bytes(data[i : i + 4], "little") * _M & _MASK
        h = (h * _M & _MASK) ^ ((k ^ k >> 24) * _M & _MASK)
    if tail := data[whole:]:
        h = (h ^ int.from_bytes(tail, "little")) * _M & _MASK
    h = (h ^ h >> 13) * _M & _MASK
    return h ^ h >> 15


def partition_of(key: str | bytes, partitions: int) -> int:
    """The partition, 0..`partitions`-1, that a producer hashing with murmur2 puts `key` on."""
    raw = key.encode() if isinstance(key, str) else key
    return (murmur2(raw) & 0x7FFFFFFF) % partitions
