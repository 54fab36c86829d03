"""`tradewind drain` and `tradewind undrain`: an operator's word on one endpoint."""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from streams.runtime import clock
from tradewind.cli.options import AsJson, Bootstrap, Config, Prefix
from tradewind.cli.table import TrustFiles

if TYPE_CHECKING:
    from streams.contract.records import Order
    from streams.settings import Settings
    from tradewind.hands.orders import Shown


def endpoint_names(incomplete: str) -> list[str]:
    """Endpoints of ./tradewind.yaml that begin so, for the shell; none where there is no such file."""
    from router_sync.fleet import load
    from streams.contract.errors import Stop

    with contextlib.suppress(Stop):
        return [e.name for e in load(Path("tradewind.yaml")).endpoints if e.name.startswith(incomplete)]
    return []


EndpointName = Annotated[str, typer.Argument(help="An endpoint of the fleet.", autocompletion=endpoint_names)]
Reason = Annotated[str, typer.Option("--reason", help="Why; it is said in tables and in `tradewind status`.")]
By = Annotated[str | None, typer.Option("--by", help="Who says so; else this user at this machine.")]
Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="Until a table shows it, ten seconds at most.")]


def drain(
    endpoint: EndpointName,
    reason: Reason = "",
    for_: Annotated[
        str | None, typer.Option("--for", metavar="TIME", help="It comes back by itself then, as in 30m or 1h30m.")
    ] = None,
    by: By = None,
    force: Annotated[
        bool, typer.Option("--force", help="Even if some requests can then be served nowhere: they are refused.")
    ] = False,
    wait: Wait = True,
    trust: TrustFiles = None,
    config: Config = None,
    bootstrap_servers: Bootstrap = None,
    topic_prefix: Prefix = None,
    as_json: AsJson = False,
) -> None:
    """Send an endpoint no new requests; those under way are finished. It stays so until `undrain`, or until --for.

    Exit status 1: it was not sent, or no table has shown it in time.

    Examples:
      tradewind drain eu-west-a --reason "new driver"
      tradewind drain eu-west-a --for 30m --json
      tradewind drain eu-west-a --no-wait
    """
    from streams.contract.records import Order
    from tradewind.hands.text import duration_s

    now_s = clock.now_s()
    until_s = None if for_ is None else now_s + duration_s("--for", for_)
    order = Order(endpoint=endpoint, drain=True, reason=reason[:2000], by=who(by), at_s=now_s, until_s=until_s)
    settings = ordered_where(config, bootstrap_servers, topic_prefix)
    _tell(order, asyncio.run(_given(settings, order, trust, force=force, wait=wait)), as_json=as_json, wait=wait)


def undrain(
    endpoint: EndpointName,
    reason: Reason = "",
    by: By = None,
    wait: Wait = True,
    trust: TrustFiles = None,
    config: Config = None,
    bootstrap_servers: Bootstrap = None,
    topic_prefix: Prefix = None,
    as_json: AsJson = False,
) -> None:
    """Let a drained endpoint have requests again: a tenth of its share at once, all of it within ten seconds.

    Examples:
      tradewind undrain eu-west-a
      tradewind undrain eu-west-a --json | jq '.tables[].version'
    """
    from streams.contract.records import Order

    order = Order(endpoint=endpoint, drain=False, reason=reason[:2000], by=who(by), at_s=clock.now_s())
    settings = ordered_where(config, bootstrap_servers, topic_prefix)
    _tell(order, asyncio.run(_given(settings, order, trust, force=True, wait=wait)), as_json=as_json, wait=wait)


def ordered_where(config: Path | None, bootstrap_servers: str | None, topic_prefix: str | None) -> Settings:
    """Settings; says it aloud when nobody has named a Kafka, for then the order may meet somebody else's fleet."""
    from streams.settings import DEFAULT
    from tradewind.config.sources import settle

    settings, sources = settle(config, {"bootstrap_servers": bootstrap_servers, "topic_prefix": topic_prefix})
    if sources["bootstrap_servers"] == DEFAULT:
        said = f"no `up` runs in {settings.state_dir}, and no file, variable or flag names a Kafka"
        print(f"tradewind: {said}: the order goes to {settings.bootstrap_servers}", file=sys.stderr)
    return settings


async def _given(
    settings: Settings, order: Order, trust: list[Path] | None, *, force: bool, wait: bool
) -> list[Shown] | None:
    """The tables that show the order; None: it was given for an endpoint that is no more."""
    from tradewind.hands import facts, kafka, orders
    from tradewind.hands.tables import trust_of

    kafka.hush()
    keys = trust_of(trust, settings.state_dir)
    async with kafka.reader(settings) as consumer:
        if not order.drain and await facts.left_over(consumer, settings, order.endpoint):
            await orders.forget(settings, order.endpoint)
            return None
        fleet, _ = await orders.known(consumer, settings, order.endpoint)
        if not force:
            await orders.refuse_stranding(consumer, settings, fleet, order.endpoint, clock.now_s())
    return await orders.give(settings, order, clock.now_s, keys, wait)


def who(by: str | None) -> str:
    """Who gives the order: what was said, else user@machine."""
    if by is not None:
        return by[:128]
    try:
        return f"{getpass.getuser()}@{socket.gethostname()}"[:128]
    except (KeyError, OSError):  # a container's user without a name
        return socket.gethostname()[:128]


def _tell(order: Order, shown: list[Shown] | None, *, as_json: bool, wait: bool) -> None:
    if as_json:
        said = {"endpoint": order.endpoint, "drain": order.drain, "reason": order.reason, "by": order.by,
                "at_s": order.at_s, "until_s": order.until_s, "tables": shown or []}  # fmt: skip
        print(msgspec.json.encode(said).decode())
        return
    from tradewind.hands.text import at

    if shown is None:
        print(f"{order.endpoint} is not in the fleet any more; the order on it is over")
        return
    until = f" until {at(order.until_s)}" if order.until_s is not None else ""
    print(f"{order.endpoint} {'is drained' + until if order.drain else 'has requests again'}, says {order.by}"
          + ("" if wait else " (sent; not waited for)"))  # fmt: skip
    for one in shown:
        print("\n".join(lines(one)))


def lines(one: Shown) -> list[str]:
    from tradewind.hands.text import percent

    lines = [f"{one.service}: table {one.epoch}.{one.version} after {one.after_ms:.0f} ms"]
    for route in one.moved:
        others = ", ".join(
            f"{name} {'+' if share > 0 else ''}{percent(share)}" for name, share in route["others"].items()
        )
        had_has = f"{percent(route['had'])} -> {percent(route['has'])}"
        lines.append(f"  {route['class']} from {route['origin']}: {had_has}; {others or 'nobody took it'}")
    if not one.moved:
        lines.append("  no route has a share there now")
    return lines
