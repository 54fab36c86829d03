"""Why traffic goes where it goes: a decision, what it weighed, and what keeps each endpoint from a share."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from router_sync.margin import Weighed, Weighing, weighing
from router_sync.sign import Trust
from streams.contract.errors import BadSetting, Missing
from streams.contract.records import Decision, Fleet, RoutingTable
from streams.settings import Settings
from tradewind.hands import facts, kafka, old_tables
from tradewind.hands.decisions import past


class Explained(msgspec.Struct, frozen=True, kw_only=True):
    """A service's table and the decision behind it. `number` is the table's, `decided` its decision's."""

    service: str
    number: str
    decided: str
    made_at_s: float
    method: str
    gap: float | None
    reason: str
    held: str
    """By whose order the table in force is held, and why."""
    vouched: bool | None
    """A signed table leads to the decision, and its bytes are as they were. None: signatures were not checked."""
    inputs: dict[str, int]
    routes: tuple[Weighing, ...]
    said_at_s: float | None = None
    """When the table in force was said last; None: an older one was asked for."""


class Which(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked for; None: everything."""

    service: str
    origin: str | None = None
    class_: str | None = None
    endpoint: str | None = None
    number: tuple[int, int] | None = None


async def explain(settings: Settings, trust: Trust | None, which: Which) -> Explained:
    """The decision behind the table in force, or behind table `which.number`.

    Raises BadSetting when something of that name is not there, Missing when the decision is gone.
    """
    async with kafka.reader(settings) as consumer:
        fleet = await facts.fleet(consumer, settings)
        check(fleet, which)
        table = await old_tables.in_force(consumer, settings, trust, which.service)
        wanted = which.number or (table.epoch, table.version)
        if wanted > (table.epoch, table.version):
            there = f"The table in force is {table.epoch}.{table.version}"
            raise BadSetting("flag", "--version", f"{wanted[0]}.{wanted[1]}", there)
        async for one in past(consumer, settings, which.service, table.decision):
            number = one.decision.epoch, one.decision.version
            # the decision that the table names is the one; older routers' tables name none
            exact = which.number is None and table.decision
            if (one.decision.digest == table.decision) if exact else number <= wanted:
                vouched = one.vouched if trust is not None else None
                return explained(one.decision, table, fleet, which, vouched=vouched)
    raise Missing(
        f"The decision behind table {wanted[0]}.{wanted[1]} of {which.service} is not on the topic",
        "Decisions are kept for 400 days; `tradewind decisions verify` says whether some are missing",
    )


def check(fleet: Fleet, which: Which) -> None:
    """Raises BadSetting when `which` names what the fleet has not."""
    service = facts.service_of(fleet, which.service)
    serving = [e.name for e in fleet.endpoints if service.name in e.services]
    for flag, name, there in (
        ("--origin", which.origin, [o.name for o in fleet.origins]),
        ("--class", which.class_, [c.name for c in service.classes]),
        ("--endpoint", which.endpoint, serving),
    ):
        if name is not None:
            facts.named(flag, name, dict.fromkeys(there))


def explained(
    decision: Decision, table: RoutingTable, fleet: Fleet, which: Which, *, vouched: bool | None
) -> Explained:
    """`decision` in the light of the table in force and the fleet."""
    number = which.number or (table.epoch, table.version)
    return Explained(
        service=decision.service, number=f"{number[0]}.{number[1]}", decided=f"{decision.epoch}.{decision.version}",
        made_at_s=decision.made_at_s, method=decision.method, gap=decision.gap, reason=decision.reason,
        held=table.held if which.number is None else "", vouched=vouched, inputs=decision.inputs,
        routes=tuple(_routes(decision, table, fleet, which)),
        said_at_s=table.issued_at_s if which.number is None else None,
    )  # fmt: skip


def _routes(decision: Decision, table: RoutingTable, fleet: Fleet, which: Which) -> Iterator[Weighing]:
    slo_ms = {c.name: c.slo_p95_ms for s in fleet.services if s.name == decision.service for c in s.classes}
    slo_of = {(r.origin, r.class_): r.slo_p95_ms for r in table.routes}
    for one in decision.considered:
        if which.origin in (None, one.origin) and which.class_ in (None, one.class_):
            slo = slo_of.get((one.origin, one.class_), slo_ms.get(one.class_, 1000.0))
            yield _picked(weighing(one, slo), which.endpoint)


def _picked(route: Weighing, endpoint: str | None) -> Weighing:
    """The route with `endpoint` and, to compare it with, those in use; None: all."""
    if endpoint is None:
        return route
    kept = tuple(e for e in route.endpoints if e.endpoint == endpoint or e.share > 0)
    if all(e.endpoint != endpoint for e in kept):
        kept = (*kept, Weighed(endpoint=endpoint, share=0.0, state="unnamed"))
    return msgspec.structs.replace(route, endpoints=kept)
