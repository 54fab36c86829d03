"""The steps of room 2: what is expected."""

from __future__ import annotations

from forecasting.demand import GRACE_S, MEMORY_S, MINUTE_S, ExpectDemand
from streams.contract import topics
from streams.runtime.step import Reads, Since, Step
from streams.settings import Settings


def steps(settings: Settings) -> tuple[Step, ...]:
    """The demand forecast. Where demand had no gaps, all its residuals come back from the last five hours of it."""
    # the minute under way at either end is heard in part only
    grace_s = max(GRACE_S, 2 * settings.lateness_s)
    return (
        Step(
            name="forecast",
            reads=(Reads(topics.DEMAND, Since(MEMORY_S + 2 * MINUTE_S + grace_s)),),
            writes=(topics.DEMAND_FORECAST, topics.DEAD_LETTERS),
            stage=ExpectDemand(grace_s=grace_s),
            every_s=settings.tick_s,
        ),
    )
