"""Latency as a function of load: what an endpoint's own traffic makes of it.

    p95(n) = base + slope * n + bend * (n - KNEE)+      n: how full it is; 1: it works at capacity at its pace at ease
    W(n)   = w0   + w1 * n    + w2   * (n - KNEE)+      the time of a whole answer
    n(rps) = rps * W(n) / full                          Little's law

        p95 │              ╱     base    without load: what an endpoint costs to a request that comes
            │             ╱      slope   batching: every request in flight makes the others a little slower
       base │─────────────       bend    queueing: from the knee on they wait
            └──────────────► rps

All coefficients but the base are 0 or more, so both are convex, and n(rps) is too: it has no end where the endpoint is
saturated, whatever capacity was declared. `full` is what is in flight at capacity at ease, and no more than it holds.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from router_sync.layout import Floats

KNEE: Final = 0.7
FULLEST: Final = 4.0
"""Times full: beyond that a line says nothing."""


class Curve(NamedTuple):
    """Curves of one fleet. Shapes: C rows of (service, class), E endpoints."""

    base_ms: Floats
    """[C, E]"""
    slope_ms: Floats
    """[C, E]"""
    bend_ms: Floats
    """[C, E]"""
    margin_ms: Floats
    """[C, E] what is not explained, for whom an SLO is to be kept."""
    empty_s: Floats
    """[E] w0, where nothing else is under way."""
    crowd_s: Floats
    """[E] w1"""
    bend_s: Floats
    """[E] w2"""
    full: Floats
    """[E] requests in flight."""

    def filled(self, rps: Floats) -> Floats:
        """[E, K] how full it is at `rps` [E, K] requests per second; at most FULLEST."""
        full, empty, crowd, bend = (column[:, None] for column in (self.full, self.empty_s, self.crowd_s, self.bend_s))
        before = _share(rps * empty, full - rps * crowd)
        beyond = _share(rps * (empty - KNEE * bend), full - rps * (crowd + bend))
        out: Floats = np.where(before <= KNEE, before, np.maximum(beyond, KNEE))
        return out

    def extra_ms(self, rps: Floats) -> Floats:
        """[C, E, K] on top of the base, at `rps` [E, K]."""
        n = self.filled(rps)
        out: Floats = self.slope_ms[:, :, None] * n + self.bend_ms[:, :, None] * np.maximum(n - KNEE, 0.0)
        return out


def _share(taken: Floats, room: Floats) -> Floats:
    """taken / room, at most FULLEST; FULLEST where there is no room at all."""
    out: Floats = np.where(taken < FULLEST * room, taken / np.where(room > 0, room, 1.0), FULLEST)
    return out
