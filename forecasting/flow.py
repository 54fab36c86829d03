"""The steps of room 2: what is expected."""

from __future__ import annotations

from forecasting.capacity import PlanCapacity
from forecasting.demand import GRACE_S, MEMORY_S, ExpectDemand
from forecasting.minutes import MINUTE_S
from forecasting.plan.facts import FORGET_S
from forecasting.plan.rates import MEMORY_S as RATES_S
from forecasting.plan.site import Law, declared
from forecasting.spot_risk import ExpectLosses
from streams.contract import topics
from streams.runtime.step import Earliest, Reads, Since, Step
from streams.settings import Settings

PLAN_S = 10.0
"""How often risk and capacity are thought of when nothing is urgent."""


def steps(settings: Settings, law: Law = declared) -> tuple[Step, ...]:
    """The demand forecast, the risk of spot pools, the capacity plan. All their inputs have one partition.

    Of the forecast, residuals come back from the last five hours of demand, seasons from its history. `law`: which
    flows may use which endpoints; without one, what classes declare.
    """
    return _forecast(settings), _spot_risk(settings), _plan(settings, law)


def _forecast(settings: Settings) -> Step:
    # the minute under way at either end is heard in part only
    grace_s = max(GRACE_S, 2 * settings.lateness_s)
    return Step(
        name="forecast",
        reads=(
            Reads(topics.DEMAND, Since(MEMORY_S + 2 * MINUTE_S + grace_s)),
            Reads(topics.DEMAND_HISTORY, Earliest()),
        ),
        writes=(topics.DEMAND_FORECAST, topics.DEMAND_HISTORY, topics.DEAD_LETTERS),
        stage=ExpectDemand(grace_s=grace_s),
        every_s=settings.tick_s,
    )


def _spot_risk(settings: Settings) -> Step:
    return Step(
        name="spot-risk",
        reads=(
            Reads(topics.FLEET, Earliest()),
            Reads(topics.SPOT_PRICES, Earliest()),
            Reads(topics.INTERRUPTIONS, Earliest()),
            Reads(topics.CAPACITY, Earliest()),
            Reads(topics.CAPACITY_PLAN, Earliest()),
            Reads(topics.SPOT_RISK, Earliest()),
        ),
        writes=(topics.SPOT_RISK, topics.DEAD_LETTERS),
        stage=ExpectLosses(usd_per_s=settings.latency_usd_per_s),
        every_s=max(PLAN_S, settings.tick_s),
    )


def _plan(settings: Settings, law: Law) -> Step:
    return Step(
        name="plan",
        reads=(
            Reads(topics.FLEET, Earliest()),
            Reads(topics.ORDERS, Earliest(), tombstones=True),
            Reads(topics.DEMAND, Since(RATES_S)),
            Reads(topics.DEMAND_FORECAST, Earliest()),
            Reads(topics.ENDPOINT_HEALTH, Since(FORGET_S)),
            Reads(topics.SPOT_PRICES, Earliest()),
            Reads(topics.CARBON_INTENSITY, Earliest()),
            Reads(topics.INTERRUPTIONS, Earliest()),
            Reads(topics.SPOT_RISK, Earliest()),
            Reads(topics.CAPACITY, Earliest()),
            Reads(topics.CAPACITY_PLAN, Earliest()),
        ),
        writes=(topics.CAPACITY_PLAN, topics.DEAD_LETTERS),
        stage=PlanCapacity(law, usd_per_s=settings.latency_usd_per_s, carbon_usd_per_kg=settings.carbon_usd_per_kg),
        every_s=max(PLAN_S, settings.tick_s),
    )
