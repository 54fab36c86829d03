"""Hazard of losing a replica within the next hour, from what its pool and its neighbours showed.

    hazard = exp(base) * posterior^w * (1 + calm / 10 min)^-c * what was seen lately

The posterior is Gamma-Poisson: (losses + 0.5) / (hours of exposure + 2), older evidence counting less. It is shrunk
(w < 1), because a pool that lost much loses less than it did, and the other way round. Calm is the strongest sign: the
longer replicas stand, the longer they go on to stand, since what was scarce an hour ago is scarce now. The weights were
fitted once, on public traces, and are frozen (`python -m bench.spot --fit` fits them again); those of price and advice
are assumed, for no public trace joins them with losses.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, log, log1p
from typing import Final, NamedTuple

from forecasting.spot.evidence import Evidence

PRIOR_LOSSES: Final = 0.5
PRIOR_H: Final = 2.0
CALM_S: Final = 600.0
LONGEST_S: Final = 7 * 86_400.0
FADES_S: Final = 3600.0
"""What was seen once is worth e times less after so long."""
LEAST_PER_H: Final = 1e-5
MOST_PER_H: Final = 20.0
_Z90: Final = 1.645


@dataclass(frozen=True, slots=True)
class Weights:
    """Of each sign in the logarithm of the hazard."""

    base: float = 0.31
    posterior: float = 0.42
    calm: float = -0.55
    region: float = 0.29
    zone: float = 0.17
    price: float = 0.5
    """Assumed: of the logarithm of the price over its median."""
    advised: float = 0.7
    """Assumed: an advice doubles it."""


FROZEN: Final = Weights()


class Signs(NamedTuple):
    """What the hazard is made of: each in [0, 1] but for the first two and price."""

    posterior: float
    """Losses per hour."""
    calm: float
    """log(1 + calm / 10 min)"""
    region: float = 0.0
    """1: another pool of the region lost replicas just now, fading."""
    zone: float = 0.0
    price: float = 0.0
    """log(price / median), at most doubled or halved."""
    advised: float = 0.0


class Hazard(NamedTuple):
    """Losses of a replica per hour, with the interval (nine in ten) that the evidence leaves."""

    per_h: float
    low_per_h: float
    high_per_h: float


def signs(
    pool: Evidence,
    now_s: float,
    *,
    region_lost_at_s: float | None = None,
    zone_lost_at_s: float | None = None,
    price_ratio: float = 1.0,
) -> Signs:
    """The signs at `now_s` of a pool whose evidence was aged to then; the neighbours' last losses are others' alone.

    `price_ratio`: of its price now to its median.
    """
    return Signs(
        posterior=(pool.losses + PRIOR_LOSSES) / (pool.exposure_h + PRIOR_H),
        calm=log1p(min(pool.calm_s(now_s), LONGEST_S) / CALM_S),
        region=fading(region_lost_at_s, now_s),
        zone=fading(zone_lost_at_s, now_s),
        price=log(min(2.0, max(0.5, price_ratio))),
        advised=fading(pool.advised_at_s, now_s),
    )


def fading(at_s: float | None, now_s: float) -> float:
    """1 for what was seen just now, 0 for what never was.

    >>> [fading(at_s, 7200.0) for at_s in (None, 7200.0, 3600.0)]
    [0.0, 1.0, 0.36787944117144233]
    """
    return 0.0 if at_s is None else exp(-max(0.0, now_s - at_s) / FADES_S)


def hazard(seen: Signs, pool: Evidence, weights: Weights = FROZEN) -> Hazard:
    """The hazard, positive and finite. The interval is that of the posterior alone, seen through its weight."""
    w = weights
    shape = pool.losses + PRIOR_LOSSES
    rest = (
        w.base + w.calm * seen.calm + w.region * seen.region + w.zone * seen.zone
        + w.price * seen.price + w.advised * seen.advised
    )  # fmt: skip
    per_h = rest + w.posterior * log(seen.posterior)
    low, high = (w.posterior * log(_gamma_ratio(shape, z)) for z in (-_Z90, _Z90))
    return Hazard(
        *(min(MOST_PER_H, max(LEAST_PER_H, exp(per_h + more))) for more in (0.0, min(0.0, low), max(0.0, high)))
    )


def _gamma_ratio(shape: float, z: float) -> float:
    """A Gamma variable's quantile over its mean, by Wilson and Hilferty's cube root; `z` is the normal quantile.

    >>> round(_gamma_ratio(10.0, 1.645), 2)
    1.57
    """
    root = 1.0 - 1.0 / (9.0 * shape) + z / (3.0 * shape**0.5)
    return float(max(0.02, root) ** 3)
