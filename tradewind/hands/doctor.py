"""Everything that `tradewind doctor` looks at, in the order in which one mends it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path

from streams.settings import Settings
from tradewind.hands import kafka_checks, machine
from tradewind.hands.checks import Check, skipped
from tradewind.hands.status import status
from tradewind.hands.tables import trust_of


async def examine(
    settings: Settings,
    file: Path | None,
    trust_files: list[Path],
    environ: Mapping[str, str],
    home: Path,
    clock: Callable[[], float],
) -> list[Check]:
    """All checks. `file`: the configuration file that is meant; `environ` and `home` say where Java and its parts are;
    `clock`: unix seconds."""
    reach = await kafka_checks.reach(settings)
    there = reach.state == "ok"
    needed = not there and settings.bootstrap_servers.startswith("127.0.0.1:")
    config, gateways = machine.config(file)
    found = [
        machine.python(),
        machine.java(environ, needed=needed),
        await machine.jars(environ, home, needed=needed),
        machine.disk(settings.state_dir),
        machine.files(),
        *machine.ports(settings, gateways),
        machine.key(settings.state_dir),
        config,
        reach,
    ]
    return found + (await _on_kafka(settings, trust_files, clock) if there else _not_asked())


async def _on_kafka(settings: Settings, trust_files: list[Path], clock: Callable[[], float]) -> list[Check]:
    trust = trust_of(trust_files, settings.state_dir)
    topics, rights, time = await asyncio.gather(
        kafka_checks.declared(settings), kafka_checks.rights(settings), kafka_checks.clock(settings, clock)
    )
    seen = await status(settings, trust, clock)
    return [topics, rights, time, *kafka_checks.tables(seen, trust, settings.table_heartbeat_s)]


def _not_asked() -> list[Check]:
    return [skipped(name, "Kafka cannot be asked") for name in ("topics", "rights", "clock", "tables", "gateways")]
