"""The way that is in a measured p95, to be taken off it: an endpoint is to blame for its own part.

Callers near and far are in one p95, and the slow tail of the mix is mostly the far ones':

    load of an endpoint, farthest callers first   ████ 190 ms │ ████████ 85 ms │ ████████████████ 12 ms
                                                  └── a quarter of it: mean way ──┘

So the mean way of the farthest quarter of the load is taken off. It moves smoothly with who calls: an origin that comes
or goes must not make an endpoint look slower or faster than it is. Load is averaged over about as long as a p95 looks
back.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from router_sync.layout import Floats, Layout

LOOK_S: Final = 30.0
TAIL: Final = 0.25
FAR: Final = 0.5
"""Of a measured p95 at most this share is the way: else the traffic that an outage sends round the world would make its
refuge look slow, and move on."""


@dataclass(slots=True)
class Load:
    """Requests per second [F, E] by table and demand, averaged over LOOK_S."""

    rps: Floats | None = None
    at_s: float = 0.0

    def see(self, shares: Floats | None, rps: Floats, now_s: float) -> None:
        """Take in what the `shares` in force make of `rps` [F]."""
        if shares is None:
            return
        now = shares * rps[:, None]
        gone_s, self.at_s = max(0.0, now_s - self.at_s), now_s
        self.rps = now if self.rps is None else self.rps + (1.0 - np.exp(-gone_s / LOOK_S)) * (now - self.rps)


def way_ms(plan: Layout, load_rps: Floats | None) -> Floats:
    """[E] the mean way of the farthest TAIL of each endpoint's load; 0 where there is none."""
    if load_rps is None:
        return np.zeros(len(plan.names))
    load = np.take_along_axis(load_rps, plan.far_first, axis=0)
    ways = np.take_along_axis(plan.rtt_ms, plan.far_first, axis=0)
    tail = TAIL * load.sum(axis=0)
    before = np.cumsum(load, axis=0) - load
    part = np.clip(tail - before, 0.0, load)
    out: Floats = (part * ways).sum(axis=0) / np.maximum(tail, 1e-12)
    return out


def inside_ms(measured_ms: Floats, way: Floats) -> Floats:
    """What is left of `measured_ms` without the `way`."""
    out: Floats = measured_ms - np.minimum(way, FAR * measured_ms)
    return out
