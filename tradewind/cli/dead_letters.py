"""`tradewind dead-letters`: what was refused, why, and how it is sent again."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from streams.contract.errors import BadSetting
from streams.runtime import clock
from tradewind.cli.options import AsJson, Bootstrap, Config, Prefix, settled

if TYPE_CHECKING:
    from streams.settings import Settings
    from tradewind.hands.letters import Letter
    from tradewind.hands.replay import Replayed

app = typer.Typer(no_args_is_help=True, help="Look at refused messages, and send them again.")
Topic = Annotated[str | None, typer.Option("--topic", help="Only what came from this topic, as in orders.v1.")]
Since = Annotated[str | None, typer.Option("--since", metavar="TIME", help="Only of this long ago, as in 90s, 1h, 2d.")]
_GOOD = frozenset({"sent", "would be sent"})


@app.command("list")
def list_(
    topic: Topic = None,
    since: Since = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="The newest of them.")] = 50,
    config: Config = None,
    bootstrap_servers: Bootstrap = None,
    topic_prefix: Prefix = None,
    as_json: AsJson = False,
) -> None:
    """List dead letters, oldest first: their place, where they came from, which field was refused and why.

    Examples:
      tradewind dead-letters list --since 1h
      tradewind dead-letters list --topic endpoint-metrics.v1 --json | jq -r '.letters[].reason'
    """
    from tradewind.hands import letters
    from tradewind.hands.text import at, columns

    settings = settled(config, bootstrap_servers=bootstrap_servers, topic_prefix=topic_prefix)
    found, count = asyncio.run(_listed(settings, topic, since, limit))
    if as_json:
        print(msgspec.json.encode({"count": count, "letters": [letters.as_json(one) for one in found]}).decode())
        return
    rows = [(one.place, at(one.at_s), f"{one.topic} {one.partition}/{one.offset}", one.field, one.reason[:120])
            for one in found]  # fmt: skip
    if rows:
        print("\n".join(columns([("place", "when", "came from", "field", "reason"), *rows])))
    said = f"{count} dead letters" if count != 1 else "1 dead letter"
    typer.echo(said + (f", the newest {len(found)} shown" if count > len(found) else ""), err=True)


async def _listed(settings: Settings, topic: str | None, since: str | None, limit: int) -> tuple[list[Letter], int]:
    from tradewind.hands import kafka, letters

    kafka.hush()
    name, since_s = letters.contract_name(topic, settings), _since_s(since)
    async with kafka.reader(settings) as consumer:
        return await letters.last(letters.letters(consumer, settings, since_s, name), limit)


def _since_s(since: str | None) -> float | None:
    from tradewind.hands.text import duration_s

    return None if since is None else clock.now_s() - duration_s("--since", since)


@app.command()
def show(
    place: Annotated[str, typer.Argument(metavar="PARTITION/OFFSET", help="As `list` says it.")],
    config: Config = None,
    bootstrap_servers: Bootstrap = None,
    topic_prefix: Prefix = None,
    as_json: AsJson = False,
) -> None:
    """Show one dead letter: what it holds, where it stood, and what was wrong with it.

    Examples:
      tradewind dead-letters show 0/12
      tradewind dead-letters show 0/12 --json | jq -r .value_base64 | base64 -d
    """
    from tradewind.hands import letters

    settings = settled(config, bootstrap_servers=bootstrap_servers, topic_prefix=topic_prefix)
    wanted = letters.selected(place)
    [one] = asyncio.run(_chosen(settings, [msgspec.structs.replace(wanted, last=wanted.first)]))
    print(msgspec.json.encode(letters.as_json(one, value=True)).decode() if as_json else "\n".join(_lines(one)))


async def _chosen(settings: Settings, ranges: list[Any]) -> list[Letter]:
    from tradewind.hands import kafka, letters

    kafka.hush()
    async with kafka.reader(settings) as consumer:
        return await letters.chosen(consumer, settings, ranges)


def _lines(one: Letter) -> list[str]:
    from tradewind.hands.letters import pretty
    from tradewind.hands.text import at, columns

    cut = f" (cut: the whole has {one.whole} bytes)" if one.truncated else ""
    head = [
        ("place", one.place), ("refused", f"{at(one.at_s)} by {one.step or 'nobody we know'}"),
        ("came from", f"{one.topic} {one.partition}/{one.offset}"), ("key", repr(one.key.decode("utf-8", "replace"))),
        ("field", one.field), ("reason", one.reason), ("value", f"{len(one.value or b'')} bytes{cut}"),
        *((f"header {name}", value.decode("utf-8", "replace")) for name, value in one.headers),
    ]  # fmt: skip
    if one.replayed_from:
        head.append(("replayed", f"it was {one.replayed_from} before"))
    return [*columns(head), pretty(one)]


@app.command()
def replay(
    selection: Annotated[
        list[str] | None,
        typer.Argument(metavar="PARTITION/OFFSET-OFFSET", help="Which, as in 0/12 or 0/12-40; or --topic, --since."),
    ] = None,
    topic: Topic = None,
    since: Since = None,
    yes: Annotated[bool, typer.Option("--yes/--dry-run", help="Send them; else only say what would be sent.")] = False,
    again: Annotated[bool, typer.Option("--again", help="Those that were replayed before, too.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="With --topic or --since: the newest of them.")] = 1000,
    config: Config = None,
    bootstrap_servers: Bootstrap = None,
    topic_prefix: Prefix = None,
    as_json: AsJson = False,
) -> None:
    """Send dead letters again to where they came from, byte for byte, once the cause is mended. Says so first.

    Only raw input: endpoint-metrics.v1 and arrivals.v1. Cut ones are left out, those replayed before, and the oldest
    beyond --limit. Exit status 1: some were left out.

    Examples:
      tradewind dead-letters replay 0/12
      tradewind dead-letters replay 0/12-40 --yes
      tradewind dead-letters replay --topic endpoint-metrics.v1 --since 1h --yes
    """
    settings = settled(config, bootstrap_servers=bootstrap_servers, topic_prefix=topic_prefix)
    if bool(selection) == bool(topic or since):
        raise BadSetting(
            "arguments", "SELECTION", selection or None, "Name places as in 0/12-40, or --topic or --since"
        )
    fates, older = asyncio.run(_replayed(settings, selection or [], (topic, since, limit), yes=yes, again=again))
    left = [one for one in fates if one.fate not in _GOOD]
    if as_json:
        print(msgspec.json.encode({"dry_run": not yes, "older_left_out": older, "letters": fates}).decode())
    else:
        _tell(fates, yes=yes)
    if older:
        typer.echo(f"{older} older {'one' if older == 1 else 'ones'} left out: --limit is {limit}", err=True)
    raise typer.Exit(1 if left or older else 0)


async def _replayed(
    settings: Settings, selection: list[str], query: tuple[str | None, str | None, int], *, yes: bool, again: bool
) -> tuple[list[Replayed], int]:
    """What became of each, and how many older ones the limit left out."""
    from tradewind.hands import kafka, letters
    from tradewind.hands.replay import replay as send_again

    kafka.hush()
    ranges = [letters.selected(text) for text in selection]
    name, since_s = letters.contract_name(query[0], settings), _since_s(query[1])
    async with kafka.reader(settings) as consumer:
        if ranges:
            found = await letters.chosen(consumer, settings, ranges)
            count = len(found)
        else:
            found, count = await letters.last(letters.letters(consumer, settings, since_s, name), query[2])
        return await send_again(consumer, settings, found, yes=yes, again=again), count - len(found)


def _tell(fates: list[Replayed], *, yes: bool) -> None:
    from tradewind.hands.text import columns

    rows = [(one.place, one.fate, one.to or "-", one.key or "-", one.says) for one in fates]
    if rows:
        print("\n".join(columns([("place", "", "to", "key", ""), *rows])))
    good = sum(one.fate in _GOOD for one in fates)
    done = "sent" if yes else "would be sent; send with --yes"
    typer.echo(f"{good} of {len(fates)} {done}", err=True)
