"""Tables as they move, for people: a line when shares or states change, with the router's reason."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from router_sync.client import Follower, KafkaSource
from router_sync.keys import load_trust
from streams.contract.records import RoutingTable
from streams.runtime import clock
from streams.runtime.access import Access
from streams.settings import Settings


async def tell_moves(settings: Settings, trust: Path, say: Callable[[str], None]) -> None:
    """Follow the tables for ever; `say` hears of each that moved since this began."""
    follower = Follower(load_trust(trust))
    source = KafkaSource(Access.of(settings), settings.topic_prefix, client_id="tradewind-up")
    before: dict[str, RoutingTable] = {}
    async for found in source.records():
        table = follower.offer(found, clock.now_s())
        if table is None:
            continue
        if line := moved(before.get(table.service), table):
            say(line)
        before[table.service] = table


def moved(before: RoutingTable | None, table: RoutingTable) -> str | None:
    """What people hear of `table` after `before`; None when it moves nothing."""
    if before is None or (_shares(before) == _shares(table) and _states(before) == _states(table)):
        return None
    told = ", ".join(_told(before, table))
    return f"{table.service} table {table.version}: {table.reason}{f' ({told})' if told else ''}"


def _told(before: RoutingTable, table: RoutingTable) -> Iterator[str]:
    was = _states(before)
    for name, state in _states(table).items():
        if was.get(name) != state:
            yield f"{name} {was.get(name, 'new')} -> {state}"
    yield from (f"{name} gone" for name in was.keys() - _states(table).keys())


def _states(table: RoutingTable) -> dict[str, str]:
    return {endpoint.name: endpoint.state for endpoint in table.endpoints}


def _shares(table: RoutingTable) -> list[tuple[tuple[str, ...], tuple[float, ...]]]:
    return [(route.endpoints, tuple(round(share, 2) for share in route.shares)) for route in table.routes]
