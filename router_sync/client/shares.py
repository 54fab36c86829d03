"""Drawing by shares in constant time: Walker's alias method; and by key: a ring of points, as many as the share asks.

In short:
    alias     one column per endpoint, filled by itself up to `keep`, above it by another
    ring      hash(name, i) for i < share * POINTS: a growing share only adds points, so that few keys move
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from typing import Final

POINTS: Final = 4096


def alias(shares: Sequence[float]) -> tuple[list[float], list[int]]:
    """(keep, other): for u uniform in [0, n), i = int(u), draw i when u < keep[i], else other[i].

    `shares` are positive and need not add up to 1.

    >>> alias([0.75, 0.25])
    ([1.0, 1.5], [0, 0])
    """
    count, total = len(shares), sum(shares)
    height = [share * count / total for share in shares]
    other = list(range(count))
    low = [i for i in range(count) if height[i] < 1]
    high = [i for i in range(count) if height[i] >= 1]
    keep = [1.0] * count
    while low and high:
        small, tall = low.pop(), high[-1]
        keep[small], other[small] = height[small], tall
        height[tall] -= 1 - height[small]
        if height[tall] < 1:
            low.append(high.pop())
    return [i + part for i, part in enumerate(keep)], other


def hashed(text: str) -> int:
    """64 bits of `text`, the same on each machine and in each run."""
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big")


class Ring:
    """Keys to numbers 0..n-1 by `shares`: the same key finds the same number while shares change little."""

    def __init__(self, names: Sequence[str], shares: Sequence[float]) -> None:
        total = sum(shares)
        points = sorted(
            (hashed(f"{name}\0{i}"), number)
            for number, (name, share) in enumerate(zip(names, shares, strict=True))
            for i in range(max(1, round(share / total * POINTS)))
        )
        self._at = [at for at, _ in points]
        self._number = [number for _, number in points]

    def walk(self, key: str) -> Iterator[int]:
        """The number of `key`, then those to turn to when it cannot be used; a number may come again."""
        start = bisect_right(self._at, hashed(key))
        count = len(self._number)
        for step in range(count):
            yield self._number[(start + step) % count]
