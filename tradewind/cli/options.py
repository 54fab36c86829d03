"""Flags that several commands share."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from streams.contract.errors import Missing
from streams.settings import Settings

Bootstrap = Annotated[
    str | None,
    typer.Option("--bootstrap-servers", metavar="HOST:PORT", help="Kafka. [env: TRADEWIND_BOOTSTRAP_SERVERS]"),
]
Prefix = Annotated[
    str | None, typer.Option("--topic-prefix", help="First part of every topic's name. [env: TRADEWIND_TOPIC_PREFIX]")
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object on stdout, all else on stderr.")]
Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        exists=True,
        dir_okay=False,
        help="A tradewind.yaml; else TRADEWIND_CONFIG, else the one here.",
    ),
]


def settled(config: Path | None = None, **flags: Any) -> Settings:
    """Settings from flags that are not None, the environment, a running `tradewind up`, the file, then defaults.

    The file is `config`, else the one TRADEWIND_CONFIG names (empty: none), else ./tradewind.yaml where there is one.
    Raises BadSetting with the field, the value and where it came from; BadFleet with all that is wrong in the file's
    `settings:`.
    """
    from tradewind.config.sources import settle

    return settle(config, flags).settings


def warn(cautions: Iterable[object]) -> None:
    """Say what can be used and is likely not meant, on stderr."""
    for caution in cautions:
        print(f"warning: {caution}", file=sys.stderr)


def has_room(file: Path) -> None:
    """See, before the work is done, that `file` could be written after it. Raises Missing when its folder lacks."""
    remedy = "Name a file in a folder that is there"
    if file.is_dir():
        raise Missing(f"{file} cannot be written (it is a folder)", remedy)
    if not file.parent.is_dir():
        raise Missing(f"{file} cannot be written (there is no folder {file.parent})", remedy)
