"""The `tradewind` command. Heavy imports wait until a command needs them; errors are one sentence with a remedy.

Exit status: 0 done, 1 could not, 2 wrong usage.
"""

from __future__ import annotations

import sys
from typing import Annotated, Final

import typer

from streams.contract.errors import BadSetting, TradewindError
from tradewind import __version__
from tradewind.cli import (
    capacity,
    collect,
    config,
    dead_letters,
    decisions,
    defer,
    demand,
    demo,
    doctor,
    drain,
    explain,
    init,
    keys,
    notice,
    policy,
    replay,
    roles,
    status,
    table,
    table_orders,
    topics,
    up,
    version,
)

_USAGE: Final = frozenset({"argument", "arguments", "flag", "flags"})

app = typer.Typer(
    name="tradewind",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Balances AI inference over clouds, regions, instance types and edge sites by what they deliver right now.",
    epilog="Start with:  tradewind demo",
)
app.command("demo")(demo.demo)
app.command("fault")(demo.fault)
app.command("replay")(replay.replay)
app.command("init")(init.init)
app.command("up")(up.up)
app.command("status")(status.status)
table.app.command("diff")(table_orders.diff)
table.app.command("freeze")(table_orders.freeze)
table.app.command("unfreeze")(table_orders.unfreeze)
table.app.command("rollback")(table_orders.rollback)
app.add_typer(table.app, name="table")
app.command("explain")(explain.explain)
app.command("drain")(drain.drain)
app.command("undrain")(drain.undrain)
app.command("notice")(notice.notice)
app.add_typer(collect.app, name="collect")
app.command("demand")(demand.demand)
app.add_typer(capacity.app, name="capacity")
app.add_typer(decisions.app, name="decisions")
app.add_typer(defer.app, name="defer")
app.add_typer(dead_letters.app, name="dead-letters")
app.command("doctor")(doctor.doctor)
app.add_typer(config.app, name="config")
app.add_typer(policy.app, name="policy")
app.command("version")(version.tell_version)
app.command("worker")(roles.worker)
app.command("gateway")(roles.gateway)
app.command("flow")(roles.flow)
app.add_typer(keys.app, name="keys")
app.add_typer(topics.app, name="topics")
app.add_typer(topics.fleet_app, name="fleet")


def _version(asked: bool) -> None:
    if asked:
        print(f"tradewind {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Say the version and stop.")
    ] = False,
) -> None:
    """Options before the command."""


def main() -> None:
    """Run the command line; an error of ours becomes one sentence on stderr and exit status 1, of usage 2."""
    try:
        app()
    except TradewindError as error:
        print(f"tradewind: {error}", file=sys.stderr)
        sys.exit(2 if isinstance(error, BadSetting) and error.where in _USAGE else 1)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(0)  # whoever read our output has seen enough
