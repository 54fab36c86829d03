"""`tradewind status`: what runs, on which table, how far behind, and what is wrong."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from streams.runtime import clock
from tradewind.cli.options import AsJson, Bootstrap, Config, Prefix, settled
from tradewind.cli.table import TrustFiles

if TYPE_CHECKING:
    from router_sync.sign import Trust
    from streams.settings import Settings
    from tradewind.hands.state import Status

EVERY_S = 2.0
_HOME = "\x1b[H\x1b[J"


def status(
    watch: Annotated[bool, typer.Option("--watch", help="Again and again until Ctrl-C.")] = False,
    trust: TrustFiles = None,
    config: Config = None,
    bootstrap_servers: Bootstrap = None,
    topic_prefix: Prefix = None,
    as_json: AsJson = False,
) -> None:
    """Say how everything is: processes, tables, gateways, endpoints, workers and their lag, dead letters, orders.

    Exit status 0: all is well; 1: something is wrong, and it says what.

    Examples:
      tradewind status
      tradewind status --json | jq -r '.wrong[]'
      tradewind status --watch
    """
    from tradewind.hands import kafka
    from tradewind.hands.tables import trust_of

    settings = settled(config, bootstrap_servers=bootstrap_servers, topic_prefix=topic_prefix)
    keys = trust_of(trust, settings.state_dir)
    kafka.hush()
    found = asyncio.run(_watched(settings, keys, as_json=as_json) if watch else _once(settings, keys, as_json=as_json))
    raise typer.Exit(0 if found.ok else 1)


async def _once(settings: Settings, trust: Trust | None, *, as_json: bool, before: str = "") -> Status:
    from tradewind.hands.status import status as ask
    from tradewind.hands.status_text import lines

    found = await ask(settings, trust, clock.now_s)
    print(msgspec.json.encode(found).decode() if as_json else before + "\n".join(lines(found)), flush=True)
    return found


async def _watched(settings: Settings, trust: Trust | None, *, as_json: bool) -> Status:
    before = _HOME if sys.stdout.isatty() else "\n"
    while True:
        await _once(settings, trust, as_json=as_json, before=before)
        await asyncio.sleep(EVERY_S)
