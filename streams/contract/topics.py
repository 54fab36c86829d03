"""Every topic: name, record, key, cleanup, partitions and retention, because they are part of the meaning.

Raw topics are wide (many partitions, one owner each); what the router reads is narrow (one partition each), so that
one worker sees all of it. A record type belongs to exactly one topic.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from streams.contract import records as r

Cleanup = Literal["delete", "compact", "compact,delete"]
Width = Literal["wide", "narrow"]
HOUR_S: Final = 3600
DAY_S: Final = 24 * HOUR_S
MAX_VALUE_BYTES: Final = 1_000_000
"""Longer values are refused at the edge, and by topics themselves."""


class Topic(msgspec.Struct, frozen=True, kw_only=True):
    """One topic. `key` names the record's fields that make the key, joined by '/'."""

    name: str
    record: type[msgspec.Struct] | None
    key: tuple[str, ...]
    cleanup: Cleanup
    width: Width = "narrow"
    retention_s: int | None = None
    retention_bytes: int | None = None
    """Of each partition; None: time alone decides."""
    message_bytes: int = MAX_VALUE_BYTES + 65536
    """The largest batch of messages the topic takes."""
    time_field: str | None = None
    """The field that says when; checked against the broker's clock at the edge."""
    broker_time: bool = False
    """True: the broker stamps records (LogAppendTime), so that a fast clock ages nobody else."""
    experimental: bool = False
    """True: nobody produces it yet; it may still change."""
    says: str

    def full(self, prefix: str) -> str:
        """The topic's name in Kafka under `prefix`: "tradewind" gives "tradewind.fleet.v1"."""
        return f"{prefix}.{self.name}"

    def key_of(self, record: msgspec.Struct) -> str:
        """The printable key of `record`."""
        return "/".join(str(getattr(record, field)) for field in self.key)

    def config(self, *, replication: int = 1) -> dict[str, str]:
        """Topic settings as Kafka names them. min.insync.replicas follows the number of replicas."""
        config = {
            "cleanup.policy": self.cleanup,
            "max.message.bytes": str(self.message_bytes),
            "min.insync.replicas": str(max(1, replication - 1)),
            "message.timestamp.type": "LogAppendTime" if self.broker_time else "CreateTime",
            "retention.ms": "-1" if self.retention_s is None else str(self.retention_s * 1000),
            "segment.ms": "600000",
        }
        if self.retention_bytes is not None:
            config["retention.bytes"] = str(self.retention_bytes)
        if self.cleanup == "compact":
            # a rogue write cannot displace the good record at once
            config["min.compaction.lag.ms"] = "60000"
        return config


FLEET: Final = Topic(
    name="fleet.v1", record=r.Fleet, key=("fleet",), cleanup="compact", says="What there is: the validated fleet."
)
ORDERS: Final = Topic(
    name="orders.v1",
    record=r.Order,
    key=("endpoint",),
    cleanup="compact",
    time_field="at_s",
    says="What operators ordered of an endpoint: drain it, or end that. A tombstone ends it too.",
)
TABLE_ORDERS: Final = Topic(
    name="table-orders.v1",
    record=r.TableOrder,
    key=("service",),
    cleanup="compact",
    time_field="at_s",
    says="What operators ordered of a table: hold its shares, roll them back, or end that. A tombstone ends it too.",
)
DEFERRED: Final = Topic(
    name="deferred.v1",
    record=r.Deferred,
    key=("job",),
    cleanup="compact,delete",
    retention_s=30 * DAY_S,
    time_field="submitted_at_s",
    says="The queue of work that may wait for a cheaper or greener hour. A tombstone takes a job back.",
)
RELEASES: Final = Topic(
    name="releases.v1",
    record=r.Release,
    key=("job",),
    cleanup="compact,delete",
    retention_s=30 * DAY_S,
    time_field="made_at_s",
    says="When deferred work should run, and the word to begin.",
)
ENDPOINT_METRICS: Final = Topic(
    name="endpoint-metrics.v1",
    record=r.EndpointMetrics,
    key=("endpoint",),
    cleanup="delete",
    width="wide",
    retention_s=6 * HOUR_S,
    time_field="at_s",
    broker_time=True,
    says="One interval of one endpoint, service and class as one observer saw it.",
)
ARRIVALS: Final = Topic(
    name="arrivals.v1",
    record=r.Arrivals,
    key=("gateway",),
    cleanup="delete",
    width="wide",
    retention_s=6 * HOUR_S,
    time_field="at_s",
    broker_time=True,
    says="What one gateway was asked in one slot.",
)
SPOT_PRICES: Final = Topic(
    name="spot-prices.v1",
    record=r.SpotPrice,
    key=("pool",),
    cleanup="compact,delete",
    retention_s=90 * DAY_S,
    time_field="observed_at_s",
    experimental=True,
    says="Price of a pool, effective and observed time.",
)
CARBON_INTENSITY: Final = Topic(
    name="carbon-intensity.v1",
    record=r.CarbonIntensity,
    key=("grid_zone", "kind", "basis"),
    cleanup="delete",
    retention_s=7 * DAY_S,
    experimental=True,
    says="Carbon intensity of a grid zone; average and marginal, measured and forecast apart, each hour kept.",
)
INTERRUPTIONS: Final = Topic(
    name="interruptions.v1",
    record=r.Interruption,
    key=("endpoint",),
    cleanup="delete",
    retention_s=7 * DAY_S,
    time_field="notice_at_s",
    says="A notice that an endpoint is about to go.",
)
ENDPOINT_HEALTH: Final = Topic(
    name="endpoint-health.v1",
    record=r.EndpointHealth,
    key=("source",),
    cleanup="delete",
    retention_s=HOUR_S,
    time_field="made_at_s",
    broker_time=True,
    says="Latency quantiles, rate, errors and verdict; each second, and at once on evidence.",
)
DEMAND: Final = Topic(
    name="demand.v1",
    record=r.Demand,
    key=("source",),
    cleanup="delete",
    retention_s=7 * DAY_S,
    broker_time=True,
    says="Arrivals summed per slot, service, origin and class.",
)
DEMAND_FORECAST: Final = Topic(
    name="demand-forecast.v1",
    record=r.DemandForecast,
    key=("service", "origin", "class_"),
    cleanup="compact,delete",
    retention_s=7 * DAY_S,
    time_field="made_at_s",
    says="Demand some horizons ahead, by quantile.",
)
DEMAND_HISTORY: Final = Topic(
    name="demand-history.v1",
    record=r.DemandHistory,
    key=("service", "origin", "class_"),
    cleanup="compact,delete",
    retention_s=8 * DAY_S,
    time_field="made_at_s",
    says="A week of each series, written once an hour: what a forecaster that starts anew knows of it.",
)
SPOT_RISK: Final = Topic(
    name="spot-risk.v1",
    record=r.SpotRisk,
    key=("pool",),
    cleanup="compact,delete",
    retention_s=7 * DAY_S,
    time_field="made_at_s",
    says="Hazard per hour of losing a replica, with its interval and reasons.",
)
CAPACITY_PLAN: Final = Topic(
    name="capacity-plan.v1",
    record=r.CapacityPlan,
    key=("pool",),
    cleanup="compact",
    time_field="made_at_s",
    says="How many replicas a pool should have, and why. A tombstone takes the plan back, an operator's too.",
)
CAPACITY: Final = Topic(
    name="capacity.v1",
    record=r.Capacity,
    key=("pool",),
    cleanup="compact",
    says="What actuators saw and did.",
)
ROUTING_TABLE: Final = Topic(
    name="routing-table.v1",
    record=r.RoutingTable,
    key=("service",),
    cleanup="compact",
    says="Signed, numbered snapshots that gateways follow.",
)
GATEWAY_STATUS: Final = Topic(
    name="gateway-status.v1",
    record=r.GatewayStatus,
    key=("gateway", "service"),
    cleanup="compact",
    time_field="at_s",
    says="Which table a gateway follows, its age, and what it refused.",
)
DECISIONS: Final = Topic(
    name="decisions.v1",
    record=r.Decision,
    key=("service",),
    cleanup="delete",
    retention_s=400 * DAY_S,
    says="Why a table changed.",
)
SESSIONS: Final = Topic(
    name="sessions.v1",
    record=r.Session,
    key=("session",),
    cleanup="compact,delete",
    retention_s=DAY_S,
    time_field="at_s",
    says="Where a live session has its home, and until when it has to move.",
)
DEAD_LETTERS: Final = Topic(
    name="dead-letters.v1",
    record=None,
    key=(),
    cleanup="delete",
    retention_s=14 * DAY_S,
    retention_bytes=2**30,
    message_bytes=MAX_VALUE_BYTES + 2 * 65536,  # a value that just fitted where it came from, and where it stood
    says="Refused bytes as they came; headers say where they stood and why they were refused.",
)

TOPICS: Final[tuple[Topic, ...]] = (
    FLEET,
    ORDERS,
    TABLE_ORDERS,
    DEFERRED,
    RELEASES,
    ENDPOINT_METRICS,
    ARRIVALS,
    SPOT_PRICES,
    CARBON_INTENSITY,
    INTERRUPTIONS,
    ENDPOINT_HEALTH,
    DEMAND,
    DEMAND_FORECAST,
    DEMAND_HISTORY,
    SPOT_RISK,
    CAPACITY_PLAN,
    CAPACITY,
    ROUTING_TABLE,
    GATEWAY_STATUS,
    DECISIONS,
    SESSIONS,
    DEAD_LETTERS,
)
TOPIC_OF: Final[dict[type[msgspec.Struct], Topic]] = {t.record: t for t in TOPICS if t.record is not None}

DEAD_TOPIC: Final = "tw-topic"
DEAD_PARTITION: Final = "tw-partition"
DEAD_OFFSET: Final = "tw-offset"
DEAD_FIELD: Final = "tw-field"
DEAD_REASON: Final = "tw-reason"
DEAD_STEP: Final = "tw-step"
DEAD_AT_S: Final = "tw-at-s"
DEAD_LENGTH: Final = "tw-length"
"""Headers of a dead letter, all printable. A length is there where the value was cut: it is the whole one's."""
REPLAYED_FROM: Final = "tw-replayed-from"
"""Header of a dead letter that was sent again: which one it was, as partition/offset of the dead letters."""
SIGNATURE: Final = "tw-sig"
"""Header of a routing table: alg=Ed25519;kid=…;sig=base64. Two of them during a change of keys."""
