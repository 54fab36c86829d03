"""What is the case now: what is needed, what there is in each pool, what it costs. Made before each plan.

Counted on (health, notices, orders) ─► bounds (clamps, benches) ─► money ─► the mix to be found.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import floor, log, log1p
from typing import Final

import numpy as np

from forecasting.plan.facts import Facts
from forecasting.plan.mix import Mix, grouped
from forecasting.plan.need import Need, need
from forecasting.plan.rates import Rates
from forecasting.plan.site import Floats, Site
from forecasting.spot.evidence import Evidence
from forecasting.spot.watch import Watch
from streams.contract.records import CapacityPlan

BENCH_S: Final = 600.0
"""A pool that lost replicas, or could not launch, gets none for at least so long, nor for two cold starts."""
PATIENCE: Final = 1.5
"""So many cold starts what was planned counts as on its way."""


@dataclass(frozen=True, slots=True)
class Stock:
    """What there is of one pool, and how much of it there may be."""

    ready: int
    starting: int
    most: float
    """Infinity: as many as the fleet says."""
    benched: str = ""
    """Why it gets no launches, or but one; empty: it is not."""
    lost_at_s: float | None = None


@dataclass(frozen=True, slots=True)
class Situation:
    """One moment. [E] arrays are in the order of the site."""

    site: Site
    need: Need
    mix: Mix
    stocks: Mapping[str, Stock]
    gone: Mapping[str, str]
    """Endpoints that are not counted on, and why."""
    cold_start_s: float
    """The longest of the pools that are planned."""

    @property
    def alarms(self) -> frozenset[str]:
        """What calls for a plan at once, when it was not there before."""
        gone = (f"gone {name}" for name in self.gone)
        lost = (f"lost {pool} {stock.lost_at_s}" for pool, stock in self.stocks.items() if stock.lost_at_s is not None)
        rising = np.flatnonzero(self.need.surge).tolist()
        surges = (f"surge {self.site.flows[n].key} {step(self.need.ahead[n])}" for n in rising)
        return frozenset((*gone, *lost, *surges))


def step(rps: float) -> int:
    """Demand in steps of a quarter: a surge that grows by one is news.

    >>> [step(rps) for rps in (0.0, 100.0, 120.0, 130.0)]
    [0, 20, 21, 21]
    """
    return floor(log1p(rps) / log(1.25))


def situation(
    site: Site,
    watch: Watch,
    facts: Facts,
    rates: Rates,
    plans: Mapping[str, CapacityPlan],
    *,
    reserve: float,
    fill: float,
    carbon_usd_per_kg: float,
    now_s: float,
) -> Situation:
    """The situation at `now_s`; `plans` are those in force."""
    gone = facts.gone(site, watch.capacity, now_s)
    stocks = _stocks(watch, facts, plans, now_s)
    planned = {pool for pool, rows in site.rows_of.items() if site.planned[rows].any()}
    cold_start_s = max(map(watch.cold_start_s, planned), default=0.0)
    needed = need(site, rates, facts.forecasts, cold_start_s, now_s)
    usable = np.array([name not in gone for name in site.names], np.bool_)
    leave = facts.fewer(site, watch.capacity, now_s)
    ready = usable * _split(site, {pool: stock.ready for pool, stock in stocks.items()})
    ready = np.maximum(0.0, ready - [leave.get(name, 0) for name in site.names])
    least, most = _bounds(site, stocks, ready)
    price = np.array([watch.price_usd_per_h(pool, now_s) for pool in site.pool])
    cold_h = np.array([watch.cold_start_s(pool) for pool in site.pool]) / 3600.0
    pools = {pool: n for n, pool in enumerate(stocks)}
    mix = Mix(
        **grouped(site, needed, usable)._asdict(),
        capacity_rps=site.capacity_rps,
        usd_per_h=np.maximum(1e-6, price + _risk(site, facts) + carbon_usd_per_kg * _carbon_kg(site, facts)),
        launch_usd_per_h=price * cold_h,
        ready=ready,
        starting=usable * _split(site, {pool: stock.starting for pool, stock in stocks.items()}),
        least=usable * least,
        most=usable * most,
        spot=site.spot,
        zone=site.zone,
        pool=np.array([pools[pool] for pool in site.pool], np.intp),
        reserve=reserve,
        fill=fill,
    )
    return Situation(site, needed, mix, stocks, gone, cold_start_s)


def _stocks(watch: Watch, facts: Facts, plans: Mapping[str, CapacityPlan], now_s: float) -> dict[str, Stock]:
    seen = watch.evidence(now_s)
    return {
        pool: _stock(pool, watch, facts, seen.get(pool, Evidence()), plans.get(pool), now_s) for pool in watch.pools
    }


def _stock(pool: str, watch: Watch, facts: Facts, seen: Evidence, plan: CapacityPlan | None, now_s: float) -> Stock:
    """An actuator's word, else the fleet's. What was planned lately is on its way, even if nobody has seen it start."""
    said = watch.capacity.get(pool)
    declared = sum(e.replicas for e in watch.pools[pool])
    ready, starting = (declared, 0) if said is None else (said.ready, said.starting)
    cold_start_s = watch.cold_start_s(pool)
    bench, why = _bench(pool, facts, seen, max(BENCH_S, 2.0 * cold_start_s), now_s)
    if bench is not None:
        return Stock(ready, starting, ready + max(starting, bench), why, seen.lost_at_s)
    if plan is not None and said is not None and now_s < plan.made_at_s + PATIENCE * cold_start_s:
        starting = max(starting, plan.want - ready)
    return Stock(ready, starting, np.inf, lost_at_s=seen.lost_at_s)


def _bench(pool: str, facts: Facts, seen: Evidence, ttl_s: float, now_s: float) -> tuple[int | None, str]:
    """(how many launches a benched pool may have under way, why); None: it is not benched.

    None until its time is over; then one, to try; and when that one stands, as many as are wanted.
    """
    before = facts.risks[pool].evidence if pool in facts.risks else None
    lost_at_s = seen.lost_at_s if seen.lost_at_s is not None or before is None else before.lost_at_s
    failed_at_s = seen.failed_at_s if seen.failed_at_s is not None or before is None else before.failed_at_s
    spot = pool.endswith("/spot")
    at_s, why = max((lost_at_s or 0.0) * spot, 0.0), "it lost replicas"
    if failed_at_s is not None and failed_at_s > at_s:
        at_s, why = failed_at_s, "a launch failed"
    if not at_s or (seen.grew_at_s or 0.0) > at_s:
        return None, ""
    if now_s < at_s + ttl_s:
        return 0, f"benched for {at_s + ttl_s - now_s:.0f} s more: {why}"
    return 1, f"tried with one launch: {why}"


def _split(site: Site, numbers: Mapping[str, int]) -> Floats:
    """[E] a pool's number over its endpoints, in proportion to the replicas that are declared."""
    out = np.zeros(len(site.names))
    for pool, mine in site.rows_of.items():
        parts = np.maximum(site.replicas[mine], 1e-9)
        exact = np.cumsum(numbers[pool] * parts / parts.sum())
        out[mine] = np.diff(np.concatenate(([0.0], np.round(exact))))
    return out


def _bounds(site: Site, stocks: Mapping[str, Stock], ready: Floats) -> tuple[Floats, Floats]:
    """([E] least, [E] most): clamps of the fleet, within them what benches allow; what is not planned is as it is."""
    allowed = np.array([stocks[pool].most for pool in site.pool])
    most = np.where(site.planned, np.maximum(site.least, np.minimum(site.most, allowed)), ready)
    return np.where(site.planned, np.minimum(site.least, most), ready), most


def _risk(site: Site, facts: Facts) -> Floats:
    """[E] of spot pools; before anything was said of one: nothing."""
    return np.array([facts.risks[pool].risk_usd_per_h if pool in facts.risks else 0.0 for pool in site.pool])


def _carbon_kg(site: Site, facts: Facts) -> Floats:
    """[E] kilograms of CO2-equivalent per hour of a replica; 0 where grid or power are unknown."""
    g_per_kwh = [facts.carbon[grid].carbon_g_per_kwh if grid in facts.carbon else 0.0 for grid in site.grid]
    out: Floats = site.power_kw * np.array(g_per_kwh) / 1000.0
    return out
