"""Flags that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

Bootstrap = Annotated[
    str | None,
    typer.Option("--bootstrap-servers", metavar="HOST:PORT", help="Kafka. [env: TRADEWIND_BOOTSTRAP_SERVERS]"),
]
Prefix = Annotated[
    str | None, typer.Option("--topic-prefix", help="First part of every topic's name. [env: TRADEWIND_TOPIC_PREFIX]")
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object on stdout, all else on stderr.")]
