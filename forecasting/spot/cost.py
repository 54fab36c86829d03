"""What the risk of a loss costs, in dollars per hour of one replica."""

from __future__ import annotations

from math import exp
from typing import Final

LATE_S: Final = 1.0
"""A request that nobody serves in time is as bad as one a second late: the router counts a breach so too."""


def risk_usd_per_h(
    hazard_per_h: float, price_usd_per_h: float, cold_start_s: float, capacity_rps: float, usd_per_s: float
) -> float:
    """hazard x (cold start paid twice + requests unserved meanwhile x what a late second costs).

    The start of the lost replica was paid, and that of the next one is. Requests go unserved only where the reserve is
    gone already, by another loss within the same cold start: with a chance of 1 - exp(-hazard x cold start), for pools
    that share their fate have much the same hazard. `usd_per_s` is the price of a late second.

    >>> round(risk_usd_per_h(0.2, 1.0, 300.0, 50.0, 0.001), 4)
    0.0829
    """
    cold_h = cold_start_s / 3600.0
    started_twice = 2.0 * cold_h * price_usd_per_h
    unserved = capacity_rps * cold_start_s * (1.0 - exp(-hazard_per_h * cold_h))
    return hazard_per_h * (started_twice + unserved * LATE_S * usd_per_s)
