"""`tradewind table show` and `watch`: the routing tables gateways follow, and why they move."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from streams.contract.errors import BadSetting, Missing, TableRefused
from streams.runtime import clock
from tradewind.cli.options import AsJson, Bootstrap, Config, Prefix, settled

if TYPE_CHECKING:
    from router_sync.sign import Trust
    from streams.settings import Settings
    from tradewind.hands.tables import Tables

app = typer.Typer(
    no_args_is_help=True, help="Look at the routing tables, watch them change, hold them, roll them back."
)
TrustFiles = Annotated[
    list[Path] | None,
    typer.Option(
        "--trust", exists=True, dir_okay=False, metavar="FILE",
        help="A public key of the router; may be given twice. Else STATE_DIR/router.key.pub, where it is.",
    ),
]  # fmt: skip
ServiceName = Annotated[str | None, typer.Argument(help="One service; else all.")]


@app.command()
def show(
    service: ServiceName = None,
    origin: Annotated[str | None, typer.Option(help="Only routes from this origin.")] = None,
    class_: Annotated[str | None, typer.Option("--class", help="Only routes of this class.")] = None,
    trust: TrustFiles = None,
    config: Config = None,
    bootstrap_servers: Bootstrap = None,
    topic_prefix: Prefix = None,
    as_json: AsJson = False,
) -> None:
    """Show the tables in force: who gets which share, at what cost and p95, and why. Exit status 1: there is none.

    Examples:
      tradewind table show
      tradewind table show chat --origin europe --class interactive
      tradewind table show --json | jq '.tables[].routes[].shares'
    """
    from tradewind.hands import table_text

    settings = settled(config, bootstrap_servers=bootstrap_servers, topic_prefix=topic_prefix)
    found = asyncio.run(_tables(settings, trusted(trust, settings)))
    chosen = _chosen(found, service, settings)
    now_s = clock.now_s()
    if as_json:
        shown = [table_text.as_json(held, now_s, origin, class_) for held in chosen]
        print(msgspec.json.encode({"tables": shown, "refused": found.refused}).decode())
        return
    print("\n\n".join("\n".join(table_text.lines(held, now_s, origin, class_)) for held in chosen))
    for name, reason in found.refused.items():
        typer.echo(f"not followed: a table for {name}: {reason}", err=True)


async def _tables(settings: Settings, trust: Trust | None) -> Tables:
    from tradewind.hands import kafka
    from tradewind.hands.tables import tables

    kafka.hush()
    async with kafka.reader(settings) as consumer:
        return await tables(consumer, settings, trust)


def trusted(paths: list[Path] | None, settings: Settings) -> Trust | None:
    from tradewind.hands.tables import trust_of

    return trust_of(paths, settings.state_dir)


def _chosen(found: Tables, service: str | None, settings: Settings) -> list[Any]:
    """The tables asked for. Raises Missing when there is none at all, BadSetting when there is none of that name."""
    from router_sync.orders import meant

    if not found.held:
        refused = "; ".join(f"{name}: {reason}" for name, reason in found.refused.items())
        raise Missing(
            f"No table to follow under {settings.topic_prefix}" + (f" (refused: {refused})" if refused else ""),
            "See `tradewind status`: a router has to run, and its key to be the one that is trusted (--trust)",
        )
    if service is not None and service not in found.held:
        hint = meant(service, found.held).lstrip(": ") or f"there are {', '.join(sorted(found.held))}"
        raise BadSetting("argument", "SERVICE", service, hint)
    return [found.held[name] for name in sorted(found.held) if service in (None, name)]


@app.command()
def watch(
    service: ServiceName = None,
    every: Annotated[bool, typer.Option("--all", help="Heartbeats too: tables in which nothing changed.")] = False,
    trust: TrustFiles = None,
    config: Config = None,
    bootstrap_servers: Bootstrap = None,
    topic_prefix: Prefix = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Say each new table until Ctrl-C: its number, why it was made, what moved. The one in force comes first.

    Examples:
      tradewind table watch
      tradewind table watch chat --json | jq -c '[.version, .reason]'
    """
    from router_sync.client.source import hush_kafka

    settings = settled(config, bootstrap_servers=bootstrap_servers, topic_prefix=topic_prefix)
    hush_kafka()
    asyncio.run(_watch(settings, trusted(trust, settings), service, every=every, as_json=as_json))


async def _watch(settings: Settings, trust: Trust | None, service: str | None, *, every: bool, as_json: bool) -> None:
    from router_sync.table import differs
    from tradewind.hands import table_text
    from tradewind.hands.following import follow

    last: dict[str, Any] = {}
    async for found in follow(settings):
        try:
            held = _held(found, trust)
        except TableRefused as error:
            typer.echo(f"not followed: {error}", err=True)
            continue
        old = last.get(held.table.service)
        if service not in (None, held.table.service) or (old is not None and held.number <= old.number):
            continue
        last[held.table.service] = held
        before = old.table if old is not None else None
        if every or differs(before, held.table, 0.001):
            said = table_text.change(before, held)
            print(msgspec.json.encode(said).decode() if as_json else table_text.change_line(said), flush=True)


def _held(found: Any, trust: Trust | None) -> Any:
    from tradewind.hands.tables import judged

    return judged(found, trust)
