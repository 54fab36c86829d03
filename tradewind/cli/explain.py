"""`tradewind explain`: why traffic goes where it goes, and what would have to change."""

from __future__ import annotations

import asyncio
from typing import Annotated

import msgspec
import typer

from streams.runtime import clock
from tradewind.cli.options import AsJson, Bootstrap, Config, Prefix, settled
from tradewind.cli.table import TrustFiles


def explain(
    service: Annotated[str, typer.Argument(help="A service of the fleet.")],
    origin: Annotated[str | None, typer.Option(help="Only routes from this origin.")] = None,
    class_: Annotated[str | None, typer.Option("--class", help="Only routes of this class.")] = None,
    endpoint: Annotated[str | None, typer.Option(help="Only this endpoint, beside those in use.")] = None,
    version: Annotated[
        str | None, typer.Option("--version", metavar="EPOCH.VERSION", help="Of this table; else of the one in force.")
    ] = None,
    trust: TrustFiles = None,
    config: Config = None,
    bootstrap_servers: Bootstrap = None,
    topic_prefix: Prefix = None,
    as_json: AsJson = False,
) -> None:
    """Say why traffic goes where it goes: who is allowed, what each endpoint costs by its parts, who has which share,
    and what would have to change for one to get a share, or more.

    Examples:
      tradewind explain chat --origin eu --class interactive
      tradewind explain chat --endpoint us-east-a
      tradewind explain chat --version 1763938800.42 --json | jq '.routes[].endpoints[] | [.endpoint, .state]'
    """
    from tradewind.hands import explain as hands
    from tradewind.hands import explain_text, kafka
    from tradewind.hands.decisions import number_of
    from tradewind.hands.tables import trust_of

    number = None if version is None else number_of("--version", version)
    which = hands.Which(service=service, origin=origin, class_=class_, endpoint=endpoint, number=number)
    settings = settled(config, bootstrap_servers=bootstrap_servers, topic_prefix=topic_prefix)
    kafka.hush()
    found = asyncio.run(hands.explain(settings, trust_of(trust, settings.state_dir), which))
    if as_json:
        print(msgspec.json.encode(found).decode())
        return
    print("\n".join(explain_text.lines(found, clock.now_s())))
