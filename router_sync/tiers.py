"""Who gives way when there is not capacity for all: tiers as ceilings of utilisation, the same for all gateways.

    an endpoint   0 ───────────────────── .85 ──── .95 ── 1     of its capacity
    sheddable     ░░░░░░░░░░░░░░░░░░░░░░░░░|
    standard      ░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░|
    premium       ░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░|

Higher tiers take their part first; a tier gets what is left below its ceiling. What does not fit anywhere its route
leads is shed at the gateways, evenly, before it queues (ceilings by tier: the Gateway API inference extension's
saturation ceilings; there they are each gateway's own).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np

from router_sync.layout import TIER_WEIGHT, Floats, Layout
from streams.contract.records import Tier

CEILING: Final[Mapping[Tier, float]] = {"premium": 1.0, "standard": 0.95, "sheddable": 0.85}
SPARE: Final = 0.02
"""Of a flow: less than this is not worth shedding."""


def admit(plan: Layout, shares: Floats, rps: Floats, capacity_rps: Floats) -> Floats:
    """[F] the share of each flow's requests to admit, 1 where there is room; `rps` [F] is what arrives."""
    load = shares * rps[:, None]
    taken = np.zeros(len(capacity_rps))
    fits = np.ones(shares.shape)
    for tier in sorted(CEILING, key=lambda t: -TIER_WEIGHT[t]):
        rows = [row for row, flow in enumerate(plan.flows) if flow.class_.tier == tier]
        mine = load[rows].sum(axis=0)
        room = np.maximum(CEILING[tier] * capacity_rps - taken, 0.0)
        part = np.where(mine > room, room / np.maximum(mine, 1e-12), 1.0)
        fits[rows] = part
        taken += mine * part
    admitted = (shares * fits).sum(axis=1)
    routed = shares.sum(axis=1)
    return np.where(
        (routed > 0) & (admitted < (1.0 - SPARE) * routed), np.round(admitted / np.maximum(routed, 1e-12), 2), 1.0
    )
