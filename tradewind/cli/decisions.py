"""`tradewind decisions`: every change of a table with its reasons, shown, exported, and verified as a chain."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from streams.contract.errors import BadSetting, Missing
from streams.runtime import clock
from tradewind.cli.options import AsJson, Bootstrap, Config, Prefix, has_room, settled
from tradewind.cli.table import TrustFiles

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from streams.settings import Settings
    from tradewind.hands.decisions import Said

app = typer.Typer(no_args_is_help=True, help="Why tables changed: look, export, and verify the chain.")
ServiceName = Annotated[str | None, typer.Option("--service", help="Only of this service.")]
Since = Annotated[str | None, typer.Option("--since", metavar="TIME", help="Only of this long ago, as in 90s, 1h, 2d.")]


@app.command()
def show(
    service: Annotated[str | None, typer.Argument(help="One service; else all.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="The newest of them.")] = 20,
    config: Config = None,
    bootstrap_servers: Bootstrap = None,
    topic_prefix: Prefix = None,
    as_json: AsJson = False,
) -> None:
    """Show the last decisions, oldest first: when, which table, by whom, why. `explain` tells one of them in full.

    Examples:
      tradewind decisions show chat
      tradewind decisions show --limit 3 --json | jq -r '.decisions[].reason'
    """
    from tradewind.hands.text import at, columns

    settings = settled(config, bootstrap_servers=bootstrap_servers, topic_prefix=topic_prefix)
    found = asyncio.run(_last(settings, service, limit))
    if as_json:
        print(msgspec.json.encode({"decisions": found}).decode())
        return
    rows = [(at(d.made_at_s), d.service, f"{d.epoch}.{d.version}", d.method, d.reason[:160]) for d in found]
    print("\n".join(columns([("when", "service", "table", "by", "why"), *rows])) if rows else "no decisions")


async def _last(settings: Settings, service: str | None, limit: int) -> list[Any]:
    from tradewind.hands import kafka
    from tradewind.hands.decisions import backwards

    kafka.hush()
    found: list[Any] = []
    async with kafka.reader(settings) as consumer:
        async for said in backwards(consumer, settings):
            decision = said.decision
            if decision is not None and service in (None, decision.service):
                found.append(decision)
            if len(found) == limit:
                break
    return found[::-1]


@app.command()
def export(
    file: Annotated[Path, typer.Argument(help="Its ending says how: .jsonl or .parquet; - is JSON lines on stdout.")],
    service: ServiceName = None,
    since: Since = None,
    force: Annotated[bool, typer.Option("--force", help="Even if the file is there: it is written anew.")] = False,
    config: Config = None,
    bootstrap_servers: Bootstrap = None,
    topic_prefix: Prefix = None,
    as_json: AsJson = False,
) -> None:
    """Write decisions into a file: JSON lines byte for byte as they are, or Parquet with a row per endpoint and route.

    Examples:
      tradewind decisions export decisions.jsonl --since 30d
      tradewind decisions export decisions.parquet --service chat --json
      tradewind decisions export - | jq -r .reason
    """
    from tradewind.hands import decision_files

    to_stdout = str(file) == "-"
    kind = "jsonl" if to_stdout else decision_files.format_of(file)
    if not to_stdout and file.exists() and not force:
        raise BadSetting("argument", "FILE", str(file), "It is there: name another, or write over it with --force")
    if not to_stdout:
        has_room(file)
    settings = settled(config, bootstrap_servers=bootstrap_servers, topic_prefix=topic_prefix)
    count = asyncio.run(_export(settings, file, kind, service, since))
    said = {"file": str(file), "format": kind, "decisions": count}
    if to_stdout or not as_json:
        print(f"{count} decisions written", file=sys.stderr)
    else:
        print(msgspec.json.encode(said).decode())


async def _export(settings: Settings, file: Path, kind: str, service: str | None, since: str | None) -> int:
    from tradewind.hands import decision_files, kafka
    from tradewind.hands.decisions import all_of
    from tradewind.hands.text import duration_s

    since_s = None if since is None else clock.now_s() - duration_s("--since", since)
    kafka.hush()
    async with kafka.reader(settings) as consumer:
        said = _of(all_of(consumer, settings, since_s), service)
        if str(file) == "-":
            return await decision_files.write_lines(said, sys.stdout.buffer)
        part = file.with_name(f"{file.name}.part")  # an export that is cut off leaves no file that looks whole
        try:
            if kind == "parquet":
                count = await decision_files.write_parquet(said, part)
            else:
                with part.open("wb") as out:
                    count = await decision_files.write_lines(said, out)
            part.replace(file)
        except OSError as error:
            raise Missing(
                f"{file} cannot be written ({error.strerror})", "Name a file in a folder that is there"
            ) from None
        finally:
            part.unlink(missing_ok=True)
        return count


async def _of(said: AsyncIterator[Said], service: str | None) -> AsyncIterator[Said]:
    async for one in said:
        if service is None or one.key == service.encode():
            yield one


@app.command()
def verify(
    service: ServiceName = None,
    file: Annotated[
        Path | None, typer.Option("--file", dir_okay=False, exists=True, help="An exported .jsonl instead of Kafka.")
    ] = None,
    trust: TrustFiles = None,
    config: Config = None,
    bootstrap_servers: Bootstrap = None,
    topic_prefix: Prefix = None,
    as_json: AsJson = False,
) -> None:
    """Check that decisions are the chain that routers made: each fits its digest, each follows one that is there, and
    the signed table in force vouches for them. Exit status 1: it is broken, and where first.

    Examples:
      tradewind decisions verify
      tradewind decisions verify --service chat --json | jq '.services[].breaks'
      tradewind decisions verify --file decisions.jsonl
    """
    from tradewind.hands import kafka, verify
    from tradewind.hands.tables import trust_of

    if file is not None:
        found = verify.of_file(file, service)
    else:
        settings = settled(config, bootstrap_servers=bootstrap_servers, topic_prefix=topic_prefix)
        kafka.hush()
        keys = trust_of(trust, settings.state_dir)
        found = asyncio.run(verify.verified(settings, keys, service, _progress))
    print(msgspec.json.encode(found).decode() if as_json else "\n".join(verify.lines(found)))
    raise typer.Exit(0 if found.ok else 1)


def _progress(count: int) -> None:
    print(f"{count} decisions read", file=sys.stderr)
