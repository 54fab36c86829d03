"""`tradewind table freeze`, `unfreeze`, `rollback` and `diff`: an operator's word on one service's table."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from streams.contract.errors import BadSetting
from streams.runtime import clock
from tradewind.cli.drain import By, Reason, Wait, ordered_where, who
from tradewind.cli.options import AsJson, Bootstrap, Config, Prefix, settled
from tradewind.cli.table import TrustFiles, trusted

if TYPE_CHECKING:
    from router_sync.sign import Trust
    from streams.contract.records import RoutingTable, TableOrder
    from streams.settings import Settings
    from tradewind.hands.table_orders import Given

Service = Annotated[str, typer.Argument(help="A service of the fleet.")]
For = Annotated[
    str | None, typer.Option("--for", metavar="TIME", help="It is held no more by itself then, as in 30m or 1h30m.")
]
Number = "EPOCH.VERSION"


def freeze(
    service: Service,
    reason: Reason = "",
    for_: For = None,
    by: By = None,
    wait: Wait = True,
    trust: TrustFiles = None,
    config: Config = None,
    bootstrap_servers: Bootstrap = None,
    topic_prefix: Prefix = None,
    as_json: AsJson = False,
) -> None:
    """Hold a service's shares as they are: prices, latencies and demand move nothing any more.

    What is forbidden, down or drained still loses its share; the rest keeps its proportions. It stays so until
    `table unfreeze`, or until --for, through restarts of the router.

    Examples:
      tradewind table freeze chat --reason "strange bill" --for 1h
      tradewind table freeze chat --json | jq .table.version
    """
    order = _order(service, hold=True, reason=reason, by=by, for_=for_)
    settings = ordered_where(config, bootstrap_servers, topic_prefix)
    _tell(asyncio.run(_given(settings, order, trust, wait=wait)), as_json=as_json, wait=wait)


def rollback(
    service: Service,
    to: Annotated[str | None, typer.Option("--to", metavar=Number, help="The table whose shares come back.")] = None,
    steps: Annotated[
        int | None, typer.Option("--steps", min=1, max=10_000, help="So many changes of shares back instead.")
    ] = None,
    reason: Reason = "",
    for_: For = None,
    by: By = None,
    wait: Wait = True,
    trust: TrustFiles = None,
    config: Config = None,
    bootstrap_servers: Bootstrap = None,
    topic_prefix: Prefix = None,
    as_json: AsJson = False,
) -> None:
    """Bring back the shares of an older table, as a new version, and hold them. `table unfreeze` ends it.

    What is forbidden, down or drained by now gets nothing of them. Old tables are found until Kafka compacts them
    away; after that decisions say what shares were, for 400 days.

    Examples:
      tradewind table rollback chat --steps 1 --reason "worse since noon"
      tradewind table rollback chat --to 1763938800.42 --for 2h
    """
    from tradewind.hands.decisions import number_of

    if (to is None) == (steps is None):
        raise BadSetting("flags", "--to, --steps", (to, steps), "Give one of them: --to EPOCH.VERSION, or --steps 1")
    number = None if to is None else number_of("--to", to)
    order = _order(service, hold=True, reason=reason, by=by, for_=for_)
    settings = ordered_where(config, bootstrap_servers, topic_prefix)
    given = asyncio.run(_given(settings, order, trust, to=number, steps=steps or 0, wait=wait))
    _tell(given, as_json=as_json, wait=wait)


def unfreeze(
    service: Service,
    reason: Reason = "",
    by: By = None,
    wait: Wait = True,
    trust: TrustFiles = None,
    config: Config = None,
    bootstrap_servers: Bootstrap = None,
    topic_prefix: Prefix = None,
    as_json: AsJson = False,
) -> None:
    """Hold a table no more: shares move again, at most half of a route a second.

    Examples:
      tradewind table unfreeze chat
    """
    order = _order(service, hold=False, reason=reason, by=by, for_=None)
    settings = ordered_where(config, bootstrap_servers, topic_prefix)
    _tell(asyncio.run(_ended(settings, order, trust, wait=wait)), as_json=as_json, wait=wait)


def diff(
    service: Service,
    a: Annotated[str | None, typer.Argument(metavar="[A]", help=f"{Number}; else what was before B.")] = None,
    b: Annotated[str | None, typer.Argument(metavar="[B]", help=f"{Number}; else the table in force.")] = None,
    trust: TrustFiles = None,
    config: Config = None,
    bootstrap_servers: Bootstrap = None,
    topic_prefix: Prefix = None,
    as_json: AsJson = False,
) -> None:
    """Say what differs between two tables of a service: states, shares by route, costs, latency, law.

    Examples:
      tradewind table diff chat
      tradewind table diff chat 1763938800.42
      tradewind table diff chat 1763938800.42 1763938800.57 --json | jq .routes
    """
    from tradewind.hands import table_diff
    from tradewind.hands.decisions import number_of

    settings = settled(config, bootstrap_servers=bootstrap_servers, topic_prefix=topic_prefix)
    numbers = [None if text is None else number_of(name, text) for name, text in (("A", a), ("B", b))]
    found = table_diff.diff(*asyncio.run(_two(settings, trusted(trust, settings), service, *numbers)))
    print(msgspec.json.encode(found).decode() if as_json else "\n".join(table_diff.lines(found)))


# ---------------------------------------------------------------- asked of Kafka


def _order(service: str, *, hold: bool, reason: str, by: str | None, for_: str | None) -> TableOrder:
    from streams.contract.records import TableOrder
    from tradewind.hands.text import duration_s

    now_s = clock.now_s()
    until_s = None if for_ is None else now_s + duration_s("--for", for_)
    return TableOrder(service=service, hold=hold, reason=reason[:1500], by=who(by), at_s=now_s, until_s=until_s)


async def _given(
    settings: Settings,
    order: TableOrder,
    trust: list[Path] | None,
    *,
    to: tuple[int, int] | None = None,
    steps: int = 0,
    wait: bool,
) -> Given:
    from tradewind.hands import kafka, table_orders

    kafka.hush()
    keys = trusted(trust, settings)
    given = await table_orders.routed(settings, keys, order, to, steps)
    return await table_orders.give(settings, given, clock.now_s, keys, wait)


async def _ended(settings: Settings, order: TableOrder, trust: list[Path] | None, *, wait: bool) -> Given:
    from streams.contract.topics import TABLE_ORDERS
    from tradewind.hands import facts, kafka, saying, table_orders

    kafka.hush()
    given = table_orders.Given(order=order)
    async with kafka.reader(settings) as consumer:
        if await table_orders.left_over(consumer, settings, order.service):
            await saying.forget(settings, TABLE_ORDERS, order.service)
            return given
        facts.service_of(await facts.fleet(consumer, settings), order.service)
    return await table_orders.give(settings, given, clock.now_s, trusted(trust, settings), wait)


async def _two(
    settings: Settings, trust: Trust | None, service: str, a: tuple[int, int] | None, b: tuple[int, int] | None
) -> tuple[RoutingTable, RoutingTable]:
    from tradewind.hands import kafka, old_tables

    kafka.hush()
    async with kafka.reader(settings) as consumer:
        if b is not None:
            later = (await old_tables.at(consumer, settings, trust, service, b)).table
        else:
            later = await old_tables.in_force(consumer, settings, trust, service)
        if a is not None:
            return (await old_tables.at(consumer, settings, trust, service, a)).table, later
        return (await old_tables.back(consumer, settings, trust, service, 1)).table, later


# ---------------------------------------------------------------- told


def _tell(given: Given, *, as_json: bool, wait: bool) -> None:
    order = given.order
    if as_json:
        told = ("service", "hold", "of", "reason", "by", "at_s", "until_s")
        said = {name: getattr(order, name) for name in told} | {"left_out": given.left_out, "table": given.table}
        print(msgspec.json.encode(said).decode())
        return
    from router_sync.holding import words

    for what in given.left_out[:20]:
        print(f"tradewind: not held: {what}", file=sys.stderr)
    done = words(order) if order.hold else f"held no more, says {order.by}"
    print(f"{order.service} is {done}" + ("" if wait else " (sent; not waited for)"))
    if given.table is not None:
        print("\n".join(_shown(given)))


def _shown(given: Given) -> list[str]:
    from tradewind.hands import table_diff

    table = given.table
    assert table is not None
    head = f"table {table.epoch}.{table.version} after {table.after_ms:.0f} ms"
    routes = list(table_diff.route_lines(table.changed.routes))
    return [head, *(routes or ["  no share moved"])]
