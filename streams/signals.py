"""Every metric and event of ours: name, unit, labels, help. Count per record, log per change.

A metric is declared once, here. An event writes its log line and its metric together. Labels are few and bounded.
"""

from __future__ import annotations

import logging
import sys
from typing import Final, Literal, TextIO

import msgspec
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

REGISTRY: Final = CollectorRegistry(auto_describe=True)
"""Ours alone, so that a library's metrics never mix in unasked."""
_log = logging.getLogger("tradewind")


def _counter(name: str, says: str, *labels: str) -> Counter:
    return Counter(f"tradewind_{name}", says, labels, registry=REGISTRY)


def _gauge(name: str, says: str, *labels: str) -> Gauge:
    return Gauge(f"tradewind_{name}", says, labels, registry=REGISTRY)


def _histogram(name: str, says: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
    return Histogram(f"tradewind_{name}", says, labels, registry=REGISTRY, buckets=buckets)


_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)

BUILD: Final = _gauge("build_info", "Always 1; says which version and role runs.", "version", "role")
EVENTS: Final = _counter("events_total", "Events by name; each has a log line.", "event", "level")

# carriers
HEARD: Final = _counter("records_heard_total", "Records folded into a step.", "step", "topic")
SAID: Final = _counter("records_said_total", "Records a step published.", "step", "topic")
REFUSED: Final = _counter("records_refused_total", "Records refused at the edge.", "step", "topic")
REPEATED: Final = _counter("records_repeated_total", "Records read again and not folded twice.", "step")
DEAD_LETTERS: Final = _counter("dead_letters_total", "Refused records that were kept.", "topic")
DEAD_LETTERS_DROPPED: Final = _counter(
    "dead_letters_dropped_total", "Refused records beyond their source's quota; only counted.", "topic"
)
LAG: Final = _gauge("lag_records", "Records behind the end of the topic.", "step", "topic", "partition")
OWNED: Final = _gauge("partitions_owned", "Partitions this worker owns.", "step")
RESTORE_S: Final = _histogram("restore_seconds", "From assignment of a partition to live.", _SECONDS, "step")
TICK_S: Final = _histogram("tick_seconds", "Time a step's views take.", _SECONDS, "step")
SEND_FAILED: Final = _counter("send_failed_total", "Messages the broker did not take.", "topic")

# heard
LATE: Final = _counter("observations_late_total", "Observations beyond the allowed lateness.")
DUPLICATES: Final = _counter("records_duplicate_total", "Records seen before by (observer, boot, seq).")
VERDICTS: Final = _gauge("endpoints", "Endpoints by verdict, as of their partition.", "verdict", "source")

# decided
TABLES: Final = _counter("tables_published_total", "Routing tables published.", "service", "why")
SOLVE_S: Final = _histogram("solve_seconds", "Time of one solve.", _SECONDS, "method")
RESERVE: Final = _gauge("reserve_share", "Of each endpoint's capacity, kept for what nobody expects.")
ZONE_LOSS: Final = _gauge("zone_loss_unserved_rps", "Requests/s without capacity if the zone that carries most fell.")
BUDGET_SPENT: Final = _gauge("budget_spent", "Spent of a budget since the day began, in its unit.", "budget")
BUDGET_PRICE: Final = _gauge(
    "budget_price", "The price that keeps a budget: extra dollars per dollar, or per kg.", "budget"
)
GAP: Final = _gauge("objective_gap_share", "Objective of the greedy shares above the LP's, as a share.", "service")
UNSERVED: Final = _gauge("unserved_rps", "Demand no allowed capacity is left for.", "service")
HELD: Final = _gauge("table_held", "1 while an operator's order holds the shares of a table.", "service")
WAITING: Final = _gauge("deferred_jobs", "Jobs that wait for a cheaper or greener hour.")
RELEASED: Final = _counter("deferred_released_total", "Jobs that were told to begin.", "service")

# actuators
PLANS: Final = _counter("plans_total", "Capacity plans handed to actuators, by what came of them.", "kind", "outcome")
REPLICAS: Final = _gauge("pool_replicas", "Replicas of a pool as its actuator saw it last.", "pool", "state")
LAUNCH_S: Final = _histogram(
    "launch_seconds", "From a launch to readiness.", (5, 10, 20, 30, 60, 120, 180, 300, 600, 1200, 3600), "kind"
)

# gateways
REQUESTS: Final = _counter("requests_total", "Requests answered by the gateway.", "service", "class", "code")
ATTEMPTS: Final = _counter("attempts_total", "Attempts at endpoints.", "endpoint", "outcome")
REQUEST_S: Final = _histogram("request_seconds", "From the request's last byte to the answer's.", _SECONDS, "class")
RETRIES: Final = _counter("retries_total", "Attempts after the first.", "reason")
CONTINUED: Final = _counter("streams_continued_total", "Streams that broke off and went on at another endpoint.")
LEFT: Final = _counter(
    "streams_left_total", "Streams at endpoints that were to be left: moved, kept or lost, and why.",
    "outcome", "reason",
)  # fmt: skip
LOST_SERVABLE: Final = _counter(
    "lost_servable_total", "Requests that failed though an endpoint was left that had not been asked.", "service"
)
SHED: Final = _counter(
    "shed_total", "Requests refused so that others are in time, by who said so: table, full, limits.",
    "service", "class", "why",
)  # fmt: skip
SATURATION: Final = _gauge(
    "route_saturation", "How full a route's endpoints are, as this gateway sees it; 1 is full.", "service", "class"
)
SESSION_HOMES: Final = _counter(
    "session_homes_total", "Homes of sessions: begun, moved, or learnt from other gateways; and why they moved.",
    "what", "why",
)  # fmt: skip
UNLAWFUL: Final = _counter(
    "unlawful_routes_total", "Endpoints that a table's routes name and its own law forbids; gateways leave them out.",
    "service",
)  # fmt: skip
GUARDED: Final = _counter("guard_refusals_total", "Requests that an endpoint's guard refused by law.", "endpoint")
TABLE_AGE: Final = _gauge("table_age_seconds", "Age of the table in force.", "service")
TABLE_VERSION: Final = _gauge("table_version", "Version of the table in force.", "service")
TABLE_EPOCH: Final = _gauge("table_epoch", "Epoch of the table in force.", "service")
TABLES_REFUSED: Final = _counter("tables_refused_total", "Tables a gateway refused.", "reason")
REPORTS_DROPPED: Final = _counter("reports_dropped_total", "Reports dropped while the broker was away.", "topic")
IN_FLIGHT: Final = _gauge("in_flight_requests", "Requests under way at an endpoint, from here.", "endpoint")
BREAKER_OPEN: Final = _gauge("breaker_open", "1 while the breaker of an endpoint is open.", "endpoint")

Level = Literal["debug", "info", "warning", "error"]


def event(name: str, level: Level = "info", **fields: object) -> None:
    """Something happened: one log line, one count. `fields` are plain values; never secrets."""
    EVENTS.labels(name, level).inc()
    _log.log(getattr(logging, level.upper()), name, extra={"fields": fields})


def exposition() -> bytes:
    """All metrics in Prometheus' text format."""
    return generate_latest(REGISTRY)


CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


class _JsonLines(logging.Formatter):
    """One JSON object a line: at_s, level, role, event, and the event's fields."""

    def __init__(self, role: str) -> None:
        super().__init__()
        self.role = role

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "at_s": round(record.created, 3),
            "level": record.levelname.lower(),
            "role": self.role,
            "event": record.getMessage(),
        }
        line.update(getattr(record, "fields", {}))
        if record.name != "tradewind":
            line["logger"] = record.name
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line, enc_hook=repr).decode()


def log_to(stream: TextIO | None, role: str, level: Level = "info") -> None:
    """Send structured log lines of ours, and warnings of libraries, to `stream` (stderr when None)."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(_JsonLines(role))
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    _log.setLevel(level.upper())
