"""Even chance: draws that fill the unit square evenly, so that few picks stand for many.

A pick takes two draws. Independent ones would need hundreds of picks to come near the shares; these are the R2 sequence
(Martin Roberts, "The unreasonable effectiveness of quasirandom sequences"), whose error falls with the number of picks,
not with its root. The seed decides where it begins.
"""

from __future__ import annotations

import random
from math import exp, sqrt
from typing import Final

_PLASTIC: Final = 1.32471795724474602596
"""The real root of x^3 = x + 1."""
_MANY: Final = 16.0
_STEPS: Final = (1.0 / _PLASTIC, 1.0 / _PLASTIC**2)


class Even(random.Random):
    """A source of chance whose `random` is even over time."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self._at = [super().random(), super().random()]
        self._turn = 0

    def random(self) -> float:
        """The next coordinate, in [0, 1)."""
        turn = self._turn
        self._turn = 1 - turn
        at = self._at[turn] = (self._at[turn] + _STEPS[turn]) % 1.0
        return at


def poisson(rng: random.Random, mean: float) -> int:
    """A whole number by chance, Poisson's with this mean; above a few, the normal one that comes near it."""
    if mean > _MANY:
        return max(0, round(rng.gauss(mean, sqrt(mean))))
    limit, count, product = exp(-mean), 0, rng.random()
    while product > limit:
        count, product = count + 1, product * rng.random()
    return count
