"""The steps of room 3: what was decided, and said."""

from __future__ import annotations

from router_sync.actuators.section import Actuators
from router_sync.actuators.stage import CarryOut
from router_sync.deferred import Defer
from router_sync.hours import DAYS
from router_sync.score import Rates
from router_sync.sign import Signer, Trust, seal_with
from router_sync.stage import Router
from streams.contract import topics
from streams.runtime.step import Earliest, Reads, Since, Step
from streams.settings import Settings

MEMORY_S = 120.0
"""Health and demand are restored from this long ago; what is older has aged out."""
AFTER_SHARE = 0.15
"""Of a tick, that the router waits for what health and demand say on theirs: else it would act on it a second later."""
DEFER_SHARE = 0.6
"""Of a tick, that deferred work waits: it comes between the router's ticks."""
CARBON_S = (DAYS + 1) * 86_400.0
"""Carbon is restored from this long ago: what hours ahead are expected by."""


def steps(settings: Settings, signer: Signer, *others: Signer, trust: Trust | None = None) -> tuple[Step, ...]:
    """The router, and the queue of deferred work. All inputs have one partition, so exactly one worker owns them.

    Tables carry one signature per signer. Tables on the topic count for numbering when a key of `trust` signed them;
    None: the keys of the signers.
    """
    signers = (signer, *others)
    keys = trust or Trust({one.kid: one.public for one in signers})
    return (
        Step(
            name="router",
            reads=(
                Reads(topics.FLEET, Earliest()),
                Reads(topics.ORDERS, Earliest(), tombstones=True),
                Reads(topics.TABLE_ORDERS, Earliest(), tombstones=True),
                Reads(topics.ENDPOINT_HEALTH, Since(MEMORY_S)),
                Reads(topics.DEMAND, Since(MEMORY_S)),
                Reads(topics.SPOT_PRICES, Earliest()),
                Reads(topics.CARBON_INTENSITY, Earliest()),
                Reads(topics.SPOT_RISK, Earliest()),
                Reads(topics.CAPACITY, Earliest()),
                Reads(topics.INTERRUPTIONS, Earliest()),
                Reads(topics.ROUTING_TABLE, Earliest()),
            ),
            writes=(topics.ROUTING_TABLE, topics.DECISIONS, topics.DEAD_LETTERS),
            stage=Router(
                ttl_s=settings.table_ttl_s,
                heartbeat_s=settings.table_heartbeat_s,
                rates=Rates(settings.latency_usd_per_s, settings.carbon_usd_per_kg),
                carbon_kind=settings.carbon_kind,
                trust=keys,
            ),
            every_s=settings.tick_s,
            after_s=AFTER_SHARE * settings.tick_s,
            seal=seal_with(signers),
        ),
        Step(
            name="defer",
            reads=(
                Reads(topics.FLEET, Earliest(), everyone=True),
                Reads(topics.DEFERRED, Earliest(), tombstones=True),
                Reads(topics.RELEASES, Earliest()),
                Reads(topics.SPOT_PRICES, Earliest()),
                Reads(topics.CARBON_INTENSITY, Since(CARBON_S)),
            ),
            writes=(topics.RELEASES, topics.DEAD_LETTERS),
            stage=Defer(usd_per_kg=settings.carbon_usd_per_kg),
            every_s=settings.tick_s,
            after_s=DEFER_SHARE * settings.tick_s,
        ),
    )


def actuator_steps(settings: Settings, section: Actuators | None = None) -> tuple[Step, ...]:
    """Who carries plans out. All inputs have one partition: one worker acts, another stands by.

    What it said itself comes back with the rest, so that whoever takes over does nothing twice.
    """
    return (
        Step(
            name="actuators",
            reads=(
                Reads(topics.FLEET, Earliest()),
                Reads(topics.CAPACITY_PLAN, Earliest(), tombstones=True),
                Reads(topics.CAPACITY, Earliest()),
            ),
            writes=(topics.CAPACITY, topics.DEAD_LETTERS),
            stage=CarryOut(section or Actuators()),
            every_s=settings.tick_s,
        ),
    )
