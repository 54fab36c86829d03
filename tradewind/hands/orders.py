"""Orders for the router: given, and waited for until a table shows them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping
from typing import Any, Final

import msgspec
from aiokafka import TopicPartition

from router_sync.policy.law import law_of
from router_sync.sign import Trust
from streams.contract import topics
from streams.contract.errors import Missing, Stop, TableRefused
from streams.contract.records import Endpoint, Fleet, Order
from streams.runtime import cloudevents
from streams.settings import Settings
from tradewind.hands import facts, kafka
from tradewind.hands.tables import Held, gained, judged, newest

WAIT_S: Final = 10.0


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
        before = newest(await kafka.held(consumer, settings, topics.ROUTING_TABLE), trust).held
        place = await kafka.place_of(consumer, settings, topics.ROUTING_TABLE)
        end = await kafka.begin(consumer, settings, place)
        consumer.seek(place, end)
        sent_s = clock()
        await send(settings, order, clock())
        if not wait:
            return []
        return await _waited(consumer, settings, place, order, endpoint, before, trust, lambda: clock() - sent_s)


async def _waited(
    consumer: Any,
    settings: Settings,
    place: TopicPartition,
    order: Order,
    endpoint: Endpoint,
    before: Mapping[str, Held],
    trust: Trust | None,
    since_s: Callable[[], float],
) -> list[Shown]:
    as_ordered = {name: one for name in endpoint.services if (one := before.get(name)) and _is_so(one, order)}
    shown = {name: _shown(one, one, order, 0.0) for name, one in as_ordered.items()}
    try:
        async with asyncio.timeout(WAIT_S):
            while shown.keys() != set(endpoint.services):
                for record in (await consumer.getmany(place, timeout_ms=100)).get(place, []):
                    one = _showing(record, order, trust)
                    if one is not None and one.table.service not in shown:
                        shown[one.table.service] = _shown(one, before.get(one.table.service), order, since_s())
    except TimeoutError:
        missing = ", ".join(sorted(set(endpoint.services) - shown.keys()))
        raise Missing(
            f"The order for {order.endpoint} was sent, and no table for {missing} has shown it within {WAIT_S:g} s",
            "It stands, and is obeyed as soon as a router reads it: see `tradewind status`, and `tradewind "
            "dead-letters list --topic orders.v1` in case it was refused",
        ) from None
    return [shown[name] for name in sorted(shown)]


def _showing(record: Any, order: Order, trust: Trust | None) -> Held | None:
    """The table in `record` when it is good and has the endpoint as ordered."""
    try:
        held = judged(record, trust)
    except TableRefused:
        return None
    return held if _is_so(held, order) else None


def _is_so(held: Held, order: Order) -> bool:
    """Whether the table has the endpoint as ordered."""
    drains = any(e.name == order.endpoint and e.state == "drain" for e in held.table.endpoints)
    return drains == order.drain


def _shown(one: Held, old: Held | None, order: Order, after_s: float) -> Shown:
    table = one.table
    return Shown(
        service=table.service, epoch=table.epoch, version=table.version, after_ms=round(after_s * 1000, 1),
        reason=table.reason, moved=gained(old.table if old else None, table, order.endpoint),
    )  # fmt: skip


async def send(settings: Settings, order: Order, now_s: float) -> None:
    """Put `order` on its topic, acknowledged."""
    topic = topics.ORDERS
    headers = cloudevents.headers(
        topic.name, source="tradewind-hands", event_id=f"{order.endpoint}/{now_s:.6f}", now_s=now_s
    )
    async with kafka.sender(settings) as producer, kafka.answering(settings, operation="WRITE"):
        await producer.send_and_wait(
            topic.full(settings.topic_prefix), msgspec.json.encode(order), key=order.endpoint.encode(), headers=headers
        )


async def forget(settings: Settings, endpoint: str) -> None:
    """A tombstone: whatever was ordered of `endpoint`, which may not be in the fleet any more, is over."""
    async with kafka.sender(settings) as producer, kafka.answering(settings, operation="WRITE"):
        await producer.send_and_wait(topics.ORDERS.full(settings.topic_prefix), None, key=endpoint.encode())
