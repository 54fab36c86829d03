"""`tradewind doctor`: what is wrong on this machine and on Kafka, each with its remedy."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import typer

from streams.contract.errors import Stop
from streams.runtime import clock
from streams.settings import environment, load
from tradewind.cli.options import AsJson, Bootstrap, Config, Prefix, settled
from tradewind.cli.table import TrustFiles

if TYPE_CHECKING:
    from streams.settings import Settings
    from tradewind.hands.checks import Check


def doctor(
    trust: TrustFiles = None,
    config: Config = None,
    bootstrap_servers: Bootstrap = None,
    topic_prefix: Prefix = None,
    as_json: AsJson = False,
) -> None:
    """Look at Python, Java, disk, ports, clock, limits, keys, the file, Kafka, topics, rights, tables and gateways.

    Each is ok, a warning, a failure or skipped; what is not well comes with its remedy. Nothing is changed or sent.

    Exit status 1: something fails.

    Examples:
      tradewind doctor
      tradewind doctor --json | jq -r '.checks[] | select(.state == "fail") | .remedy'
    """
    from tradewind.config.sources import file_of
    from tradewind.hands import kafka
    from tradewind.hands.doctor import examine

    kafka.hush()
    settings = _settings(config, bootstrap_servers, topic_prefix)
    file = file_of(config)
    found = asyncio.run(examine(settings, file, trust or [], environment(), Path.home(), clock.now_s))
    failed = any(check.state == "fail" for check in found)
    if as_json:
        print(msgspec.json.encode({"ok": not failed, "checks": found}).decode())
    else:
        print("\n".join(_lines(found)))
    raise typer.Exit(1 if failed else 0)


def _settings(config: Path | None, bootstrap_servers: str | None, topic_prefix: str | None) -> Settings:
    """As every command has them; where the file is bad, as they would be without it: that it is bad is a check."""
    flags = {"bootstrap_servers": bootstrap_servers, "topic_prefix": topic_prefix}
    try:
        return settled(config, **flags)
    except Stop:
        return load(**flags)


def _lines(found: list[Check]) -> list[str]:
    from tradewind.hands.text import columns

    mark = {"ok": "ok", "warn": "WARN", "fail": "FAIL", "skipped": "-"}
    lines = []
    for check, line in zip(found, columns([(mark[c.state], c.name, c.says) for c in found]), strict=True):
        lines.append(line)
        if check.remedy:
            lines.append(f"      -> {check.remedy}")
    return lines
