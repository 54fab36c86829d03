"""`tradewind demand`: what is expected of it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from tradewind.cli.options import AsJson, Bootstrap, Config, Prefix, settled

if TYPE_CHECKING:
    from streams.settings import Settings
    from tradewind.hands.demand import Flow


def demand(
    service: Annotated[str | None, typer.Argument(help="Only of this service.")] = None,
    config: Config = None,
    bootstrap_servers: Bootstrap = None,
    topic_prefix: Prefix = None,
    as_json: AsJson = False,
) -> None:
    """Show what is expected of demand: in the next hour, and by the hour in the next day.

    The day is told by whoever told the last days best: yesterday's hours, the last days' mean, last week's, or Prophet,
    which says what is trend and what is the time of day (extra: forecast). Takes a second a flow with Prophet.

    Examples:
      tradewind demand
      tradewind demand chat --json | jq '.flows[] | [.flow, .tomorrow.model, .tomorrow.wrong]'
    """
    from tradewind.hands import demand as hands
    from tradewind.hands.text import columns

    settings = settled(config, bootstrap_servers=bootstrap_servers, topic_prefix=topic_prefix)
    found = asyncio.run(_flows(settings, service))
    if as_json:
        print(msgspec.json.encode({"flows": found}).decode())
        return
    print("\n".join(columns(hands.rows(found))) if found else "nothing was forecast")


async def _flows(settings: Settings, service: str | None) -> list[Flow]:
    from tradewind.hands import demand as hands
    from tradewind.hands import kafka

    kafka.hush()
    async with kafka.reader(settings) as consumer:
        return await hands.flows(consumer, settings, service)
