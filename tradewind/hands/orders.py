"""Orders for the router: given, and waited for until a table shows them."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import msgspec

from router_sync.policy.law import law_of
from router_sync.sign import Trust
from streams.contract import topics
from streams.contract.errors import Stop
from streams.contract.records import Endpoint, Fleet, Order
from streams.settings import Settings
from tradewind.hands import facts, kafka, saying
from tradewind.hands.saying import Seen, seen
from tradewind.hands.tables import Held, gained


class Shown(msgspec.Struct, frozen=True, kw_only=True):
    """The first table of a service that shows an order: after how long, and per route where the share went."""

    service: str
    epoch: int
    version: int
    after_ms: float
    reason: str
    moved: list[dict[str, Any]]


class Stranded(Stop):
    """An order would leave somebody with nothing that serves; `--force` gives it all the same."""


async def known(consumer: Any, settings: Settings, name: str) -> tuple[Fleet, Endpoint]:
    """The fleet in force and its endpoint `name`. Raises BadSetting with the name that was meant."""
    fleet = await facts.fleet(consumer, settings)
    return fleet, facts.endpoint_of(fleet, name)


def stranded(fleet: Fleet, name: str, out: Collection[str]) -> list[str]:
    """ "service/class" of those that only `name` can serve, all of `out` being drained or down already."""
    law, ready = law_of(fleet), {e.name for e in fleet.endpoints if e.replicas > 0} - set(out)
    return list(dict.fromkeys(f"{key[0]}/{key[2]}" for key in law.rows if law.allowed(key) & ready == {name}))


async def refuse_stranding(consumer: Any, settings: Settings, fleet: Fleet, name: str, now_s: float) -> None:
    """Raises Stranded when draining `name` leaves a class with nothing that serves."""
    drained = await facts.orders(consumer, settings, fleet, now_s)
    down = {
        endpoint
        for said in await facts.health(consumer, settings, now_s)
        for endpoint, verdict in zip(said.endpoint, said.verdict, strict=True)
        if verdict == "down"
    }
    if lost := stranded(fleet, name, {*drained, *down} - {name}):
        raise Stranded(
            f"Nothing but {name} can serve {', '.join(lost)}: the others are drained, down, or not allowed to",
            "Bring another back first, or drain it all the same with --force: those requests are then refused",
        )


async def give(
    settings: Settings, order: Order, clock: Callable[[], float], trust: Trust | None, wait: bool
) -> list[Shown]:
    """Send `order`; with `wait` the tables that show it, one per service of the endpoint: those in force, if they do.

    Raises Missing when Kafka does not take it, or no table shows it within WAIT_S: then it stands all the same.
    """
    async with kafka.reader(settings) as consumer:
        _, endpoint = await known(consumer, settings, order.endpoint)
    found = await seen(settings, order, endpoint.services, lambda one: _is_so(one, order), clock, trust, wait)
    return [shown(one, order.endpoint) for one in found]


def _is_so(held: Held, order: Order) -> bool:
    """Whether the table has the endpoint as ordered."""
    drains = any(e.name == order.endpoint and e.state == "drain" for e in held.table.endpoints)
    return drains == order.drain


def shown(one: Seen, endpoint: str) -> Shown:
    """What a table made of an order, or a notice, for `endpoint`."""
    table, old = one.now.table, one.before
    return Shown(
        service=table.service, epoch=table.epoch, version=table.version, after_ms=round(one.after_s * 1000, 1),
        reason=table.reason, moved=gained(old.table if old else None, table, endpoint),
    )  # fmt: skip


async def forget(settings: Settings, endpoint: str) -> None:
    """Whatever was ordered of `endpoint`, which may not be in the fleet any more, is over."""
    await saying.forget(settings, topics.ORDERS, endpoint)
