"""`tradewind notice`: an endpoint is about to go, says a person or a script."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Annotated, Final, Literal

import msgspec
import typer

from streams.runtime import clock
from tradewind.cli.drain import EndpointName, Wait, lines, ordered_where
from tradewind.cli.options import AsJson, Bootstrap, Config, Prefix
from tradewind.cli.table import TrustFiles

if TYPE_CHECKING:
    from streams.contract.records import Interruption
    from streams.settings import Settings
    from tradewind.hands.orders import Shown

Kind = Literal["preempt", "terminate", "stop", "maintenance", "outage", "rebalance"]
_NOW: Final = re.compile(r"0+(\.0*)?[smhd]?")


def notice(
    endpoint: EndpointName,
    kind: Annotated[Kind, typer.Option("--kind", help="What will happen; rebalance is advice, and drains nobody.")] = (
        "preempt"
    ),
    in_: Annotated[
        str, typer.Option("--in", metavar="TIME", help="When it goes, as in 30s or 2m. [default: now, without notice]")
    ] = "0s",
    reason: Annotated[str, typer.Option("--reason", help="Why; it is said in the reasons of tables.")] = "",
    replicas: Annotated[
        int | None, typer.Option("--replicas", min=1, max=100_000, help="So many of its replicas go. [default: all]")
    ] = None,
    wait: Wait = True,
    trust: TrustFiles = None,
    config: Config = None,
    bootstrap_servers: Bootstrap = None,
    topic_prefix: Prefix = None,
    as_json: AsJson = False,
) -> None:
    """Say that an endpoint is about to go: no new requests from now on, live streams and sessions elsewhere by then.

    It holds until a minute after; whoever answers then is let in again step by step. To take an endpoint out for as
    long as you like, use `drain`. Exit status 1: it was not sent, or no table has shown it in time.

    Examples:
      tradewind notice eu-west-spot-a --kind preempt --in 30s --reason "spot notice i-0abc"
      tradewind notice eu-west-a --kind maintenance --in 1h --json
      tradewind notice eu-west-a --kind terminate --in 2m --replicas 1 --no-wait
    """
    from streams.contract.records import Interruption

    now_s = clock.now_s()
    said = Interruption(
        endpoint=endpoint,
        kind=kind,
        notice_at_s=now_s,
        deadline_at_s=_deadline(in_, now_s),
        replicas=replicas,
        reason=reason[:2000],
    )
    settings = ordered_where(config, bootstrap_servers, topic_prefix)
    shown = asyncio.run(_given(settings, said, trust, wait=wait))
    if as_json:
        print(msgspec.json.encode({**msgspec.to_builtins(said), "tables": shown}).decode())
    else:
        _tell(said, shown, now_s, wait=wait)


def _deadline(in_: str, now_s: float) -> float | None:
    from tradewind.hands.text import duration_s

    return None if _NOW.fullmatch(in_) else now_s + duration_s("--in", in_)


async def _given(settings: Settings, said: Interruption, trust: TrustFiles, *, wait: bool) -> list[Shown]:
    from tradewind.hands import kafka, notices
    from tradewind.hands.tables import trust_of

    kafka.hush()
    return await notices.give(settings, said, clock.now_s, trust_of(trust, settings.state_dir), wait)


def _tell(said: Interruption, shown: list[Shown], now_s: float, *, wait: bool) -> None:
    from router_sync.notices import words
    from tradewind.hands.notices import drains

    print(words(said, now_s))
    if not drains(said):
        print("it drains nobody: " + ("advice raises the price of risk" if said.replicas is None else "some stay"))
    elif not wait:
        print("sent; not waited for")
    for one in shown:
        print("\n".join(lines(one)))
