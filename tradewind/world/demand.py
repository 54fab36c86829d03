"""Who asks how much, when. Arrivals are drawn once from what is demanded, so that all who are judged meet the same.

A demand is one method wide: curves of a scenario here, a recorded trace by another caller.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, exp, pi
from typing import Final, Protocol

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from tradewind.world.ground import Counts, Floats

DAY_S: Final = 86_400.0
MINUTE_S: Final = 60.0
NOISE_S: Final = 600.0
"""Noise is forgotten over this long: ups and downs of about ten minutes."""
_CHUNK_S: Final = 3600


class Demand(Protocol):
    """Requests per second that are asked for, by flow."""

    def rps(self, at_s: Floats) -> Floats:
        """[F, times] at each of `at_s`, unix seconds."""
        ...


@dataclass(frozen=True, slots=True)
class Curve:
    """What one flow asks on an ordinary day: a wave with its crest at `peak_s` of the day, and noise around it."""

    flow: int
    mean_rps: float
    swing: float = 0.0
    """Of the mean, up and down; 0..1."""
    peak_s: float = 0.0
    noise: float = 0.0
    """Standard deviation of the logarithm."""


@dataclass(frozen=True, slots=True)
class Surge:
    """For a while some flows ask `factor` times as much; it grows and falls within `ramp_s`."""

    flows: tuple[int, ...]
    from_s: float
    until_s: float
    factor: float
    ramp_s: float = 0.0

    def factors(self, at_s: Floats) -> Floats:
        ramp_s = max(self.ramp_s, 1e-9)
        part = np.clip(np.minimum((at_s - self.from_s) / ramp_s, (self.until_s + ramp_s - at_s) / ramp_s), 0.0, 1.0)
        out: Floats = 1.0 + (self.factor - 1.0) * np.where(at_s < self.from_s, 0.0, part)
        return out


class Curves:
    """Curves, surges and noise of a scenario that begins at `start_s` and lasts `lasts_s`."""

    def __init__(
        self,
        flows: int,
        curves: Sequence[Curve],
        surges: Sequence[Surge],
        start_s: float,
        lasts_s: float,
        rng: Generator,
    ) -> None:
        self._flows, self._curves, self._surges, self._start_s = flows, curves, surges, start_s
        self._noise = [_wander(rng, ceil(lasts_s / MINUTE_S) + 2) for _ in curves]

    def rps(self, at_s: Floats) -> Floats:
        """As `Demand`; what lies outside the scenario has the noise of its ends."""
        out = np.zeros((self._flows, len(at_s)))
        minutes = (at_s - self._start_s) / MINUTE_S
        for curve, noise in zip(self._curves, self._noise, strict=True):
            wave = 1.0 + curve.swing * np.cos(2.0 * pi * (at_s - curve.peak_s) / DAY_S)
            wander = np.interp(minutes, np.arange(len(noise)), noise)
            out[curve.flow] += curve.mean_rps * wave * np.exp(curve.noise * wander - curve.noise**2 / 2.0)
        for surge in self._surges:
            out[list(surge.flows)] *= surge.factors(at_s)
        return out


class ByMinute:
    """A recorded demand: requests per second of each flow [F, minutes], on a line between minutes."""

    def __init__(self, rps: Floats, start_s: float) -> None:
        self._rps, self._start_s = rps, start_s

    def rps(self, at_s: Floats) -> Floats:
        """As `Demand`; what lies outside the record is as its ends."""
        minutes = (at_s - self._start_s) / MINUTE_S
        return np.array([np.interp(minutes, np.arange(len(row)), row) for row in self._rps])


class Arrivals:
    """Requests that come by chance, at the rates of a demand: so many a second of each flow, an hour drawn at a time.

    What comes in a second depends on the seed alone, not on how long steps are or who serves it.
    """

    def __init__(self, demand: Demand, start_s: float, rng: Generator) -> None:
        self._demand, self._start_s, self._rng = demand, start_s, rng
        self._upto: list[NDArray[np.int64]] = []
        """By hour: arrivals of each flow before each of its seconds, [F, 3601]."""

    def between(self, from_s: float, until_s: float) -> Counts:
        """[F] arrivals in the seconds from `from_s` until `until_s`; both are whole seconds after the start."""
        return self._before(round(until_s - self._start_s)) - self._before(round(from_s - self._start_s))

    def _before(self, second: int) -> Counts:
        hour, within = divmod(second, _CHUNK_S)
        while len(self._upto) <= hour:
            self._draw()
        out: Counts = self._upto[hour][:, within]
        return out

    def _draw(self) -> None:
        begin_s = self._start_s + len(self._upto) * _CHUNK_S
        rates = self._demand.rps(begin_s + 0.5 + np.arange(_CHUNK_S, dtype=np.float64))
        drawn = self._rng.poisson(np.maximum(rates, 0.0))
        before = self._upto[-1][:, -1:] if self._upto else np.zeros((len(drawn), 1), np.int64)
        self._upto.append(np.hstack((before, before + drawn.cumsum(axis=1))))


def _wander(rng: Generator, minutes: int) -> Floats:
    """A walk around 0 with deviation 1 that forgets itself over NOISE_S, a value a minute."""
    keep = exp(-MINUTE_S / NOISE_S)
    steps = rng.standard_normal(minutes) * (1.0 - keep**2) ** 0.5
    out = np.empty(minutes)
    last = float(rng.standard_normal())
    for n, step in enumerate(steps.tolist()):
        last = keep * last + step
        out[n] = last
    return out
