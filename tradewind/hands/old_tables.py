"""What tables said before: found where it can still be found, and said to be gone where it cannot.

The table topic keeps the last table of each service, and older ones until Kafka has compacted them away: those are
exact, and their signatures are checked. Decisions are kept for 400 days and name shares too, rounded and of large
fleets not all of them; they are taken where a signed table vouches for them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Any, Final

import msgspec

from router_sync.holding import fitting
from router_sync.sign import Trust
from router_sync.table import moves
from streams.contract import topics
from streams.contract.errors import BadSetting, Missing, TableRefused
from streams.contract.records import Considered, Decision, Fleet, Route, RoutingTable
from streams.settings import Settings
from tradewind.hands import facts, kafka
from tradewind.hands.decisions import past
from tradewind.hands.tables import judged, newest, shares

SAME: Final = 0.001
"""Shares of a route that differ by less are the same content: decisions round them."""
WHOLE: Final = 0.995
"""A decision names a route whole when the shares it names add up to so much."""


class Old(msgspec.Struct, frozen=True, kw_only=True):
    """What a service's table was. `table` has no endpoints where only the decision is left of it.

    `number` is the first at which it was so; `missing`: routes that the decision does not name whole.
    """

    number: tuple[int, int]
    table: RoutingTable
    missing: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """EPOCH.VERSION"""
        return f"{self.number[0]}.{self.number[1]}"


async def in_force(consumer: Any, settings: Settings, trust: Trust | None, service: str) -> RoutingTable:
    """The table of `service` that gateways follow. Raises BadSetting or Missing when there is none."""
    found = newest(await kafka.held(consumer, settings, topics.ROUTING_TABLE), trust)
    if service in found.held:
        return found.held[service].table
    fleet = await facts.fleet(consumer, settings)
    facts.service_of(fleet, service)
    why = f": {found.refused[service]}" if service in found.refused else ""
    raise Missing(f"There is no table of {service} to follow{why}", "See `tradewind status`")


async def contents(consumer: Any, settings: Settings, trust: Trust | None, service: str) -> AsyncIterator[Old]:
    """What the table of `service` was, the newest first; the first is in force."""
    now = await in_force(consumer, settings, trust, service)
    kept = list(_good(await kafka.held(consumer, settings, topics.ROUTING_TABLE), trust, service))
    by_digest = {table.decision: table for table in reversed(kept) if table.decision}
    alone = True
    async for one in past(consumer, settings, service, now.decision):
        number = one.decision.epoch, one.decision.version
        table = by_digest.get(one.decision.digest)
        if table is not None:
            yield Old(number=number, table=table)
        elif one.vouched or (trust is None and number < (now.epoch, now.version)):
            yield of_decision(one.decision, now)
        else:
            continue
        alone = False
    if alone:
        for table in _changes(kept):
            yield Old(number=(table.epoch, table.version), table=table)


def _good(records: Iterable[Any], trust: Trust | None, service: str) -> Iterator[RoutingTable]:
    """The tables of `service` as gateways would take them, oldest first."""
    for record in records:
        if record.value is None or record.key != service.encode():
            continue
        try:
            yield judged(record, trust).table
        except TableRefused:
            continue


def _changes(kept: list[RoutingTable]) -> list[RoutingTable]:
    """The first of those that follow each other and have the same shares; newest first."""
    found: list[RoutingTable] = []
    for table in kept:
        if not found or not same(found[-1], table):
            found.append(table)
    return found[::-1]


def same(one: RoutingTable, other: RoutingTable) -> bool:
    """Whether both share out the routes that are in both alike."""
    return max(moves(one, other).values(), default=0.0) < SAME


def of_decision(decision: Decision, now: RoutingTable) -> Old:
    """What `decision` left of the table it made; SLOs are those of `now`."""
    slo = {(r.origin, r.class_): r.slo_p95_ms for r in now.routes}
    named = [(one, _shares(one)) for one in decision.considered]
    routes = tuple(
        Route(origin=one.origin, class_=one.class_, slo_p95_ms=slo.get((one.origin, one.class_), 1000.0),
              endpoints=tuple(each), shares=tuple(share / sum(each.values()) for share in each.values()))
        for one, each in named
        if sum(each.values()) >= WHOLE
    )  # fmt: skip
    table = msgspec.structs.replace(
        now, epoch=decision.epoch, version=decision.version, issued_at_s=decision.made_at_s, endpoints=(),
        routes=routes, reason=decision.reason, decision=decision.digest, policies=(), budgets=(), held="",
    )  # fmt: skip
    missing = tuple(f"{one.class_}@{one.origin}" for one, each in named if 0 < sum(each.values()) < WHOLE)
    return Old(number=(decision.epoch, decision.version), table=table, missing=missing)


def _shares(one: Considered) -> dict[str, float]:
    return {c.endpoint: c.share for c in one.candidates if c.share > 0}


async def at(consumer: Any, settings: Settings, trust: Trust | None, service: str, number: tuple[int, int]) -> Old:
    """What the table `number` was. Raises BadSetting when it was not made yet, Missing when it is gone."""
    oldest: Old | None = None
    newest_ = await in_force(consumer, settings, trust, service)
    if number > (newest_.epoch, newest_.version):
        now = f"{newest_.epoch}.{newest_.version}"
        raise BadSetting("argument", "EPOCH.VERSION", f"{number[0]}.{number[1]}", f"The table in force is {now}")
    async for old in contents(consumer, settings, trust, service):
        if old.number <= number:
            return old
        oldest = old
    raise _gone(f"Table {number[0]}.{number[1]} of {service} is gone", oldest)


async def back(consumer: Any, settings: Settings, trust: Trust | None, service: str, steps: int) -> Old:
    """What the table was `steps` changes of shares ago. Raises Missing when that is gone."""
    last: Old | None = None
    done = -1
    async for old in contents(consumer, settings, trust, service):
        if last is None or not same(old.table, last.table):
            done, last = done + 1, old
        if done == steps:
            return last
    plural = "change" if steps == 1 else "changes"
    raise _gone(f"What the table of {service} was {steps} {plural} ago is gone", last)


def _gone(what: str, oldest: Old | None) -> Missing:
    if oldest is None:
        return Missing(what, "Neither the table topic nor decisions that a signed table vouches for have it")
    return Missing(
        f"{what}: Kafka has compacted the table away, and no decision that a signed table vouches for goes back so far",
        f"The oldest that can still be found is {oldest.name}",
    )


def fitted(old: Old, service: str, fleet: Fleet) -> tuple[tuple[Route, ...], list[str]]:
    """The routes of `old` as far as `fleet` still has them, shares adding up to 1; and what had to be left out."""
    routes: list[Route] = []
    left_out = [f"{key}: not all of its shares are known" for key in old.missing]
    for route in old.table.routes:
        held, key = shares(route), f"{route.class_}@{route.origin}"
        names = fitting(route, service, fleet)
        left_out += [f"{key}: {name} is not in the fleet any more" for name in route.endpoints if name not in names]
        if names:
            whole = sum(held[name] for name in names)
            routes.append(
                Route(origin=route.origin, class_=route.class_, slo_p95_ms=route.slo_p95_ms, endpoints=names,
                      shares=tuple(held[name] / whole for name in names))
            )  # fmt: skip
    return tuple(routes), left_out
