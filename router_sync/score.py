"""Preference: what a request of a flow costs at an endpoint, in dollars, by its parts.

price      of the instance, per request at capacity
latency    the declared price of a late second x seconds over the SLO; a breach counts as at least one second
           late, so that endpoints within the SLO are filled first. The step is ramped over the last tenth of the
           SLO: a p95 that trembles around the limit does not make shares tremble
nearness   a hundredth of the price of a late second for each second of the whole way: breaks ties
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from router_sync.layout import Floats, Layout

BREACH_S: Final = 1.0
RAMP: Final = 0.1
NEARNESS: Final = 0.01


@dataclass(frozen=True, slots=True)
class Scores:
    """Dollars per request. Shapes: F flows, E endpoints."""

    price_usd: Floats
    """[E]"""
    latency_usd: Floats
    """[F, E] lateness and nearness."""
    crowd_usd: Floats
    """[E] what crowding is measured in: price and time of one request, see `optimise`."""

    @property
    def total_usd(self) -> Floats:
        """[F, E]"""
        return self.price_usd[None, :] + self.latency_usd

    def of(self, row: int) -> Floats:
        """[E] the total of one flow: to ask for all of them for each would take a second in a large fleet."""
        out: Floats = self.price_usd + self.latency_usd[row]
        return out


def scores(plan: Layout, p95_ms: Floats, usd_per_s: float) -> Scores:
    """Scores where `p95_ms` [F, E] is the p95 inside each endpoint and a late second costs `usd_per_s`."""
    latency = usd_per_s * felt_s(plan.rtt_ms + p95_ms, plan.slo_ms[:, None])
    crowd = plan.price_usd + usd_per_s * p95_ms.mean(axis=0) / 1000.0
    return Scores(plan.price_usd, latency, np.maximum(crowd, 1e-9))


def felt_s(total_ms: Floats, slo_ms: Floats) -> Floats:
    """Seconds that latency is priced by: lateness, and a crumb of the whole way."""
    out: Floats = late_s(total_ms, slo_ms) + NEARNESS * total_ms / 1000.0
    return out


def late_s(total_ms: Floats, slo_ms: Floats) -> Floats:
    """Seconds late, with the ramped step of a breach.

    >>> late_s(np.array([100.0, 190.0, 200.0, 700.0]), np.array([200.0])).tolist()
    [0.0, 0.5, 1.0, 1.5]
    """
    over = np.maximum(0.0, total_ms - slo_ms) / 1000.0
    return over + BREACH_S * np.clip((total_ms - (1.0 - RAMP) * slo_ms) / (RAMP * slo_ms), 0.0, 1.0)
