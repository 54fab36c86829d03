"""Orders for a table: held as it is, held as it was, or held no more; and the table that shows it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from router_sync.holding import words
from router_sync.sign import Trust
from streams.contract import topics
from streams.contract.errors import Missing
from streams.contract.records import TableOrder
from streams.settings import Settings
from tradewind.hands import facts, kafka, old_tables, saying
from tradewind.hands.table_diff import TableDiff, diff
from tradewind.hands.tables import Held


class HeldTable(msgspec.Struct, frozen=True, kw_only=True):
    """The first table that shows an order, after how long, and what it changed. `held`: by whose order, and why."""

    service: str
    epoch: int
    version: int
    after_ms: float
    held: str
    changed: TableDiff


class Given(msgspec.Struct, frozen=True, kw_only=True):
    """An order that was given, what of it could not be held, and the table that shows it, where it was waited for."""

    order: TableOrder
    left_out: list[str] = []
    table: HeldTable | None = None


async def routed(
    settings: Settings, trust: Trust | None, order: TableOrder, to: tuple[int, int] | None, steps: int
) -> Given:
    """`order` with the routes it is to hold: of table `to`, else of `steps` changes ago.

    0: none, the router holds what is in force when it reads the order: by then it may have made another table.
    Raises Missing when they are gone, or nothing of them fits the fleet.
    """
    async with kafka.reader(settings) as consumer:
        fleet = await facts.fleet(consumer, settings)
        facts.service_of(fleet, order.service)
        if to is not None:
            old = await old_tables.at(consumer, settings, trust, order.service, to)
        elif steps:
            old = await old_tables.back(consumer, settings, trust, order.service, steps)
        else:
            await old_tables.in_force(consumer, settings, trust, order.service)
            return Given(order=order)
    routes, left_out = old_tables.fitted(old, order.service, fleet)
    if not routes:
        raise Missing(f"Nothing of table {old.name} fits the fleet any more", "; ".join(left_out[:8]) or "It was empty")
    number = to or old.number
    return Given(order=msgspec.structs.replace(order, routes=routes, of=f"{number[0]}.{number[1]}"), left_out=left_out)


async def give(settings: Settings, given: Given, clock: Callable[[], float], trust: Trust | None, wait: bool) -> Given:
    """Send the order; with `wait` it comes back with the table that shows it.

    Raises Missing when Kafka does not take it, or no table shows it in time: then it stands all the same.
    """
    order = given.order
    wanted = words(order) if order.hold else ""

    def shows(one: Held) -> bool:
        return one.table.held.startswith(wanted) if wanted else not one.table.held

    found = await saying.seen(settings, order, (order.service,), shows, clock, trust, wait)
    if not found:
        return given
    if order.hold and not order.routes:
        order = await _pinned(settings, order, found[0].now, clock)
    return msgspec.structs.replace(given, order=order, table=_held(found[0]))


async def _pinned(settings: Settings, order: TableOrder, held: Held, clock: Callable[[], float]) -> TableOrder:
    """The order with the routes that are held by it, given again: a router that takes over while an endpoint is away
    still knows what it is to get back."""
    table = held.table
    pinned = msgspec.structs.replace(order, routes=table.routes, of=f"{table.epoch}.{table.version}")
    await saying.say(settings, pinned, clock())
    return pinned


def _held(seen: saying.Seen) -> HeldTable:
    table = seen.now.table
    before = seen.before.table if seen.before is not None else table
    return HeldTable(
        service=table.service, epoch=table.epoch, version=table.version, after_ms=round(seen.after_s * 1000, 1),
        held=table.held, changed=diff(before, table),
    )  # fmt: skip


async def left_over(consumer: Any, settings: Settings, service: str) -> bool:
    """Whether an order holds the table of `service`, which the fleet does not have any more."""
    given = facts.last_words(await kafka.held(consumer, settings, topics.TABLE_ORDERS), TableOrder)
    known = await facts.fleet(consumer, settings)
    return service in given and given[service].record.hold and all(s.name != service for s in known.services)
