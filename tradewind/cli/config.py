"""`tradewind config`: what a tradewind.yaml says, whether it can be used, and where each value comes from."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from tradewind.cli.options import AsJson, Bootstrap, Config, Prefix, warn

if TYPE_CHECKING:
    from tradewind.config.shown import Shown
    from tradewind.config.whole import Whole

app = typer.Typer(no_args_is_help=True, help="Check and show tradewind.yaml and all settings.")


@app.command()
def check(
    file: Annotated[
        Path | None, typer.Argument(exists=True, metavar="[FILE]", help="Else TRADEWIND_CONFIG, else the one here.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say all that is wrong with a file: line, field, value, and what would be right. Exit status 1 if anything is.

    What can be used and is likely not meant is a warning.

    Examples:
      tradewind config check
      tradewind config check deploy/tradewind.yaml --json | jq '.problems[].remedy'
    """
    from router_sync.fleet import BadFleet

    try:
        whole = _whole(file)
    except BadFleet as bad:
        if not as_json:
            raise
        said = {"good": False, "problems": [p.told() for p in bad.problems], "warnings": []}
        print(msgspec.json.encode(said).decode())
        raise typer.Exit(1) from None
    if as_json:
        said = {"good": True, "problems": [], "warnings": [caution.told() for caution in whole.cautions]}
        print(msgspec.json.encode(said).decode())
    else:
        warn(whole.cautions)
        print(_good(whole))


def _whole(file: Path | None) -> Whole:
    from tradewind.config.sources import FILE, file_of
    from tradewind.config.whole import read
    from tradewind.fleets import value_of

    whole = read(file_of(file) or FILE)
    value_of(whole.fleet)
    return whole


def _good(whole: Whole) -> str:
    fleet = whole.fleet
    counts = {"endpoint": len(fleet.endpoints), "service": len(fleet.services), "origin": len(fleet.origins)}
    said = ", ".join(f"{count} {name}{'s' * (count != 1)}" for name, count in counts.items())
    return f"{whole.path} is good: {said}"


@app.command()
def show(
    config: Config = None,
    bootstrap_servers: Bootstrap = None,
    topic_prefix: Prefix = None,
    as_json: AsJson = False,
) -> None:
    """Show every setting, its value, and where it came from: flag, environment, file and line, running `up`, default.

    Secrets are never shown: they are in files of their own, and only the path of such a file is a setting.

    Examples:
      tradewind config show
      tradewind config show --json | jq '.settings[] | select(.source != "default")'
    """
    from tradewind.config.shown import actuators_shown, gateway_shown, settings_shown
    from tradewind.config.sources import file_of, settle
    from tradewind.config.whole import read

    settled = settle(config, {"bootstrap_servers": bootstrap_servers, "topic_prefix": topic_prefix})
    file = file_of(config)
    whole = read(file) if file else None
    gateway, actuators = (gateway_shown(whole), actuators_shown(whole)) if whole else ([], [])
    shown = settings_shown(settled)
    if as_json:
        said = {"file": str(file) if file else None, "settings": shown, "gateway": gateway, "actuators": actuators}
        print(msgspec.json.encode(said).decode())
    else:
        print(f"file: {file or 'none here; `tradewind init` writes one'}", file=sys.stderr)
        print(_table([*shown, *gateway, *actuators]))


def _table(rows: Sequence[Shown]) -> str:
    words = [(row.field, _word(row.value), row.source) for row in rows]
    wide, long = (max((len(row[n]) for row in words), default=0) for n in (0, 1))
    return "\n".join(f"{field:{wide}}  {value:{min(long, 40)}}  {source}" for field, value, source in words)


def _word(value: object) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


@app.command()
def schema() -> None:
    """Print the JSON Schema (2020-12) of tradewind.yaml: editors complete and check with it while one writes.

    Example: tradewind config schema > tradewind.schema.json
    and as the file's first line: # yaml-language-server: $schema=tradewind.schema.json
    """
    from tradewind.config.schema import text

    sys.stdout.write(text().decode())
