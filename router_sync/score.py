"""Preference: what a request of a flow costs at an endpoint, in dollars, by its parts.

price      of the instance, per request at capacity: the spot price in force, else the list price
egress     of what is sent back
carbon     energy of a request x grams per kWh of the grid x the price of carbon
latency    the declared price of a late second x seconds over the SLO; a breach counts as at least one second
           late, so that endpoints within the SLO are filled first. The step is ramped over the last tenth of the
           SLO: a p95 that trembles around the limit does not make shares tremble. And nearness: a hundredth of
           that price for each second of the whole way breaks ties
risk       what losing the capacity is expected to cost
rule       what rules of preference and budgets add

Load has its price too: `crowding`, what using more of an endpoint costs to those who use it.
Parts are added up as they are, never normalised: an irrelevant candidate changes nobody's price.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np

from router_sync.curve import Curve
from router_sync.layout import Floats, Layout
from router_sync.problem import FREE, RESERVE
from router_sync.quotes import Quoted
from streams.contract.records import Part

CROWDING: Final = np.array([0.0, 0.1, 0.3, 3.0])
"""By segment, in units of price and time of one request: so that endpoints share load before anything is late."""
DRAWN: Final = 4
"""An endpoint twice as dear as a flow's cheapest draws this power of two less of it."""
BREACH_S: Final = 1.0
RAMP: Final = 0.1
NEARNESS: Final = 0.01
_J_PER_KWH: Final = 3.6e6


class Rates(NamedTuple):
    """What a unit of each thing costs that has no market."""

    usd_per_s: float = 0.001
    """Of a late second."""
    usd_per_kg: float = 0.0
    """Of CO2-equivalent."""


RATES: Final = Rates()


class Duals(NamedTuple):
    """What budgets add, by flow [F]: see `budgets`."""

    per_usd: Floats
    """To each dollar of price and egress."""
    per_g: Floats
    """Dollars, to each gram."""


@dataclass(frozen=True, slots=True)
class Scores:
    """Dollars per request, as rules weigh them. Shapes: F flows, E endpoints."""

    parts: Mapping[Part, Floats]
    """[F, E] each, in the order of `Part`."""
    rule_usd: Floats
    """[F, E]"""
    total_usd: Floats
    """[F, E]"""
    crowd_usd: Floats
    """[E, SEGMENTS] on top, by utilisation: see `problem`."""
    spend_usd: Floats
    """[F, E] dollars paid for a request, whatever rules make of them."""
    carbon_g: Floats
    """[E] grams of a request; NaN: unknown."""


def scores(
    plan: Layout,
    quoted: Quoted,
    curve: Curve,
    capacity_rps: Floats,
    rps: Floats,
    rates: Rates = RATES,
    duals: Duals | None = None,
    reserve: float = RESERVE,
) -> Scores:
    """Scores at what is `quoted`, with latencies by `curve`, over `capacity_rps` [E] for `rps` [F] of demand.

    `duals` None: no budget binds.
    """
    shape = plan.may.shape
    price = quoted.price_usd_per_h / 3600.0 / plan.replica_rps
    egress = np.outer(plan.response_gb, plan.egress_usd_per_gb)
    carbon_g = plan.power_w / plan.replica_rps / _J_PER_KWH * quoted.carbon_g_per_kwh
    grams = np.nan_to_num(carbon_g)
    total_ms = plan.rtt_ms + (curve.base_ms + curve.margin_ms)[plan.class_of]
    parts: dict[Part, Floats] = {
        "price": np.broadcast_to(price, shape),
        "egress": egress,
        "carbon": np.broadcast_to(grams * rates.usd_per_kg / 1000.0, shape),
        "latency": rates.usd_per_s * felt_s(total_ms, plan.target_ms[:, None]),
        "risk": np.broadcast_to(quoted.risk_usd_per_h / 3600.0 / plan.replica_rps, shape),
    }
    parts = {part: plan.wishes.weigh[:, n, None] * usd for n, (part, usd) in enumerate(parts.items())}
    spend = price + egress
    rule = plan.wishes.prefer_usd
    if duals is not None:
        rule = rule + duals.per_usd[:, None] * spend + duals.per_g[:, None] * grams
    total: Floats = sum(parts.values(), rule)
    crowd_unit = np.maximum(price + rates.usd_per_s * curve.base_ms.mean(axis=0) / 1000.0, 1e-9)
    crowd = np.outer(crowd_unit, CROWDING) + crowding(plan, curve, capacity_rps, rps, total, rates, reserve)
    return Scores(parts, rule, total, crowd, spend, carbon_g)


def crowding(
    plan: Layout, curve: Curve, capacity_rps: Floats, rps: Floats, total_usd: Floats, rates: Rates, reserve: float
) -> Floats:
    """[E, SEGMENTS] what a request in each segment of an endpoint's capacity adds to the latency of all who are there.

    Who will be there: of each flow as much as is asked for, and the less the dearer the endpoint is than the flow's
    cheapest. Whoever would be late there anyway goes elsewhere, and says nothing of what crowding costs.
    """
    edges = np.array([0.0, FREE[0], sum(FREE), 1.0 - reserve, 1.0])
    extra_ms = curve.extra_ms(capacity_rps[:, None] * edges)
    dear = float(total_usd.max(initial=1e-12))
    cheapest = np.where(plan.may, total_usd, dear).min(axis=1, keepdims=True, initial=dear)
    drawn = np.where(plan.may, rps[:, None] * (cheapest / np.maximum(total_usd, 1e-12)) ** DRAWN, 0.0)
    asked = _by_class(plan, drawn)
    way_ms = _by_class(plan, drawn * plan.rtt_ms) / np.maximum(asked, 1e-12)
    part = asked / np.maximum(asked.sum(axis=0), 1e-12)
    usual_ms = way_ms + curve.base_ms + curve.margin_ms
    target = plan.class_target_ms[:, None, None]
    usd = rates.usd_per_s * (felt_s(usual_ms[:, :, None] + extra_ms, target) - felt_s(usual_ms[:, :, None], target))
    whole = edges * np.einsum("ce,cek->ek", part, usd)
    return np.maximum.accumulate(np.diff(whole, axis=1) / np.diff(edges), axis=1)


def felt_s(total_ms: Floats, target_ms: Floats) -> Floats:
    """Seconds that latency is priced by: lateness, and a crumb of the whole way."""
    out: Floats = late_s(total_ms, target_ms) + NEARNESS * total_ms / 1000.0
    return out


def _by_class(plan: Layout, values: Floats) -> Floats:
    """[C, E] sums of [F, E] over the origins of each class."""
    out = np.zeros((len(plan.classes), values.shape[1]))
    np.add.at(out, plan.class_of, values)
    return out


def late_s(total_ms: Floats, target_ms: Floats) -> Floats:
    """Seconds late, with the ramped step of a breach.

    >>> late_s(np.array([100.0, 190.0, 200.0, 700.0]), np.array([200.0])).tolist()
    [0.0, 0.5, 1.0, 1.5]
    """
    over = np.maximum(0.0, total_ms - target_ms) / 1000.0
    return over + BREACH_S * np.clip((total_ms - (1.0 - RAMP) * target_ms) / (RAMP * target_ms), 0.0, 1.0)
