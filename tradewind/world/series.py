"""A value over time that holds until the next one: prices, carbon, what a zone lends. Made once, read often."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True, slots=True)
class Series:
    """`values[n]` holds from `at_s[n]` on; before the first, the first does. Times grow."""

    at_s: tuple[float, ...]
    values: tuple[float, ...]

    def __post_init__(self) -> None:
        falls = any(after <= before for before, after in pairwise(self.at_s))
        if not self.at_s or len(self.at_s) != len(self.values) or falls:
            raise ValueError("a series needs values, a time for each, and times that grow")

    def at(self, now_s: float) -> float:
        """The value that holds at `now_s`.

        >>> Series((0.0, 10.0), (1.0, 2.0)).at(10.0)
        2.0
        """
        return self.values[max(0, bisect_right(self.at_s, now_s) - 1)]

    def changes(self, from_s: float, until_s: float) -> Iterator[tuple[float, float]]:
        """(time, value) of each change in [from, until)."""
        first = bisect_right(self.at_s, from_s - 1e-9)
        for n in range(first, bisect_right(self.at_s, until_s - 1e-9)):
            yield self.at_s[n], self.values[n]


def steady(value: float, at_s: float = 0.0) -> Series:
    """One value for ever."""
    return Series((at_s,), (value,))


@dataclass(frozen=True, slots=True)
class Stretch:
    """For a while a value is another: times `factor`, or no more than `most`."""

    from_s: float
    until_s: float
    factor: float = 1.0
    most: float = float("inf")

    def changed(self, value: float) -> float:
        return min(value * self.factor, self.most)


def stretched(base: Series, stretches: Iterable[Stretch]) -> Series:
    """`base`, changed for as long as each stretch lasts.

    >>> stretched(steady(2.0), [Stretch(10.0, 20.0, factor=3.0)])
    Series(at_s=(0.0, 10.0, 20.0), values=(2.0, 6.0, 2.0))
    """
    all_ = list(stretches)
    times = sorted({*base.at_s, *(s.from_s for s in all_), *(s.until_s for s in all_)})
    values = []
    for at_s in times:
        value = base.at(at_s)
        for one in all_:
            if one.from_s <= at_s < one.until_s:
                value = one.changed(value)
        values.append(value)
    return Series(tuple(times), tuple(values))
