"""What a model of one series is: two verbs, and answers in quantiles."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class Forecaster(Protocol):
    """A model of one series of equal slots. It knows no clock: what it was taught last is its present."""

    name: str
    """As it stands in records and reports."""

    def learn(self, at_s: float, value: float | None) -> None:
        """The slot that begins at `at_s` (unix seconds) is over, and held `value` (0 or more).

        None: nobody measured it. Slots come in order; those left out count as None.
        Raises ValueError when `value` is negative or not finite, or the slot is not after the last.
        """
        ...

    def forecast(self, ahead_s: float, quantiles: Sequence[float]) -> tuple[float, ...] | None:
        """One value for each of `quantiles` (in (0, 1)), in the unit of `learn`, each finite and 0 or more.

        Of the slot that begins `ahead_s` after the end of the last slot learnt. Higher quantiles are never below lower
        ones. None while too little was learnt to say. Raises ValueError for an `ahead_s` the model was not made for.
        """
        ...
