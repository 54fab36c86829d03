"""`lv_add`: it stays as it is, give or take what that rule got wrong lately.

The naive method with empirical residual quantiles (Hyndman & Athanasopoulos, "Forecasting: Principles and Practice",
3rd ed., 5.2 and 5.5), over a rolling window. It is the floor that other models are measured against, and not a good
forecast: it knows no trend and no time of day, so its upper quantiles pay for every slope with width.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Sequence
from math import ceil, isfinite
from typing import Final

RESIDUALS: Final = 250
"""Residuals kept for each horizon: the newest ones."""
LEAST: Final = 30
"""A horizon with fewer residuals has no forecast yet."""


class Residuals:
    """The newest `most` residuals, in order of age and in order of size. Adding costs a search and a short move."""

    __slots__ = ("_by_age", "_by_size", "most")

    def __init__(self, most: int = RESIDUALS) -> None:
        self.most = most
        self._by_age: deque[float] = deque()
        self._by_size: list[float] = []

    def __len__(self) -> int:
        return len(self._by_size)

    def add(self, residual: float) -> None:
        """Take one in; the oldest goes when there are too many."""
        if len(self._by_age) == self.most:
            del self._by_size[bisect_left(self._by_size, self._by_age.popleft())]
        self._by_age.append(residual)
        insort(self._by_size, residual)

    def quantile(self, q: float) -> float:
        """The smallest residual that the next one exceeds with probability 1 - q at most, were they exchangeable.

        With fewer than q / (1 - q) residuals that cannot be told, and the largest one stands in: at q = 0.99 up to 99.
        Raises IndexError when there is none.
        """
        size = len(self._by_size)
        # rank (n + 1) q and not n q: of n + 1 exchangeable values the next one is equally likely to have any rank
        return self._by_size[min(size, max(1, ceil((size + 1) * q - 1e-9))) - 1]


class LastValue:
    """Last value plus a quantile of the residuals that the last value left at this horizon, never below 0.

    A slot nobody measured carries the last value on: it is forecast from, and nothing is learnt from it.
    """

    name = "lv_add"

    def __init__(
        self, horizons_s: Sequence[float], *, step_s: float = 60.0, residuals: int = RESIDUALS, least: int = LEAST
    ) -> None:
        """`horizons_s` are whole multiples of `step_s`, the length of a slot; 0 is the slot that comes next."""
        self._step_s, self._least = step_s, least
        self._lags = {ahead_s: round(ahead_s / step_s) + 1 for ahead_s in horizons_s}
        self._residuals = {ahead_s: Residuals(residuals) for ahead_s in horizons_s}
        self._past: deque[float] = deque(maxlen=max(self._lags.values()))
        self._at_s = float("-inf")

    def learn(self, at_s: float, value: float | None) -> None:
        """See `Forecaster.learn`. A slot without a value before the first one is left out."""
        if at_s <= self._at_s:
            raise ValueError(f"slot {at_s} is not after {self._at_s}: teach slots in order, each once")
        if value is not None and not (isfinite(value) and value >= 0):
            raise ValueError(f"value {value} of slot {at_s} has to be finite, and 0 or more")
        if self._past:
            # what lies further back than the longest lag is not looked at any more
            missed = min(round((at_s - self._at_s) / self._step_s) - 1, self._past.maxlen or 0)
            self._past.extend([self._past[-1]] * missed)
        if value is not None:
            self._score(value)
            self._past.append(value)
        elif self._past:
            self._past.append(self._past[-1])
        self._at_s = at_s if self._past else self._at_s

    def forecast(self, ahead_s: float, quantiles: Sequence[float]) -> tuple[float, ...] | None:
        """See `Forecaster.forecast`. None until `least` residuals were met at this horizon."""
        residuals = self._residuals.get(ahead_s)
        if residuals is None:
            raise ValueError(f"ahead_s {ahead_s} is not among {sorted(self._residuals)}: name it when making the model")
        if len(residuals) < self._least:
            return None
        return tuple(max(0.0, self._past[-1] + residuals.quantile(q)) for q in quantiles)

    def _score(self, value: float) -> None:
        for ahead_s, lag in self._lags.items():
            if len(self._past) >= lag:
                self._residuals[ahead_s].add(value - self._past[-lag])
