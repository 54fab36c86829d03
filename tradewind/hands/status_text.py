"""A status for a terminal: what is wrong first, then everything else, a block each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from tradewind.hands.state import EndpointHealthState, GatewayState, GroupState, Status, unused
from tradewind.hands.text import ago, at, columns


def lines(status: Status) -> Iterator[str]:
    """The whole of it."""
    fleet = f"fleet {status.fleet} version {status.fleet_version}" if status.fleet else "no fleet known"
    yield f"tradewind {status.tradewind}  {at(status.at_s)}"
    yield f"Kafka {status.kafka}  prefix {status.topic_prefix}  {fleet}"
    yield "all is well" if status.ok else f"WRONG ({len(status.wrong)})"
    yield from (f"  ! {what}" for what in status.wrong)
    yield from (f"  - {what}" for what in status.noted)
    yield from _block("processes", ("process", "role", "pid", "state"),
                      [(p.name, p.role, p.pid, p.state) for p in status.processes])  # fmt: skip
    yield from _block("tables", ("service", "table", "age", "signature", "why"),
                      [(t.service, f"{t.epoch}.{t.version}", ago(t.age_s), t.signature, t.reason[:100])
                       for t in status.tables])  # fmt: skip
    yield from _block("gateways", ("gateway", "service", "follows", "heard", "table's age", ""),
                      [_gateway(g) for g in status.gateways])  # fmt: skip
    yield from _block("endpoints", ("endpoint", "verdict", "requests/s", "p95 ms", ""),
                      [_endpoint(e) for e in status.endpoints])  # fmt: skip
    yield from _block(
        "workers", ("room", "state", "members", "behind"), [_group(g) for g in status.groups if not unused(status, g)]
    )
    yield from _block("orders", ("endpoint", "by", "since", "until", "reason"),
                      [(o.endpoint, o.by or "-", at(o.at_s), at(o.until_s) if o.until_s else "told otherwise", o.reason)
                       for o in status.orders])  # fmt: skip


def _block(title: str, head: Sequence[str], rows: Iterable[Sequence[object]]) -> Iterator[str]:
    told = list(rows)
    if told:
        yield ""
        yield title
        yield from columns([head, *told], "  ")


def _gateway(one: GatewayState) -> tuple[str, ...]:
    number = "nothing" if one.version is None else f"{one.epoch}.{one.version}"
    marks = [mark for mark, true in (("OLD TABLE", one.behind), ("EXPIRED", one.expired)) if true]
    marks += [f"refused {reason} {count}" for reason, count in one.refused.items()]
    marks += [f"dropped {topic} {count}" for topic, count in one.dropped.items()]
    age = "-" if one.table_age_s is None else ago(one.table_age_s)
    return one.gateway, one.service, number, f"{ago(one.heard_s)} ago", age, ", ".join(marks)


def _endpoint(one: EndpointHealthState) -> tuple[str, ...]:
    p95 = "-" if one.p95_ms is None else f"{one.p95_ms:.0f}"
    drained = f"drained by {one.order.by or 'an operator'}" if one.order is not None else ""
    return one.endpoint, one.verdict, f"{one.rps:g}", p95, "; ".join(filter(None, (drained, one.reason)))


def _group(one: GroupState) -> tuple[object, ...]:
    behind = ", ".join(f"{lag.topic} {'?' if lag.behind is None else lag.behind}" for lag in one.lag)
    return one.room, one.state or "may not be asked", one.members, behind or "-"
