"""The steps of room 1: what was heard."""

from __future__ import annotations

from streams.contract import topics
from streams.demand import DemandStage
from streams.health import Health
from streams.runtime.step import Earliest, Reads, Since, Step
from streams.settings import Settings


def steps(settings: Settings) -> tuple[Step, ...]:
    """Health and demand. State is minutes long, and comes back from the last window of the raw topics."""
    memory = Since(settings.window_s + settings.lateness_s)
    return (
        Step(
            name="health",
            reads=(Reads(topics.ENDPOINT_METRICS, memory), Reads(topics.FLEET, Earliest(), everyone=True)),
            writes=(topics.ENDPOINT_HEALTH, topics.DEAD_LETTERS),
            stage=Health(window_s=settings.window_s, lateness_s=settings.lateness_s),
            every_s=settings.tick_s,
        ),
        Step(
            name="demand",
            reads=(Reads(topics.ARRIVALS, memory), Reads(topics.FLEET, Earliest(), everyone=True)),
            writes=(topics.DEMAND, topics.DEAD_LETTERS),
            stage=DemandStage(keep_s=settings.window_s, lateness_s=settings.lateness_s),
            every_s=settings.tick_s,
        ),
    )
