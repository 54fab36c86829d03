"""Settings and where each came from: flag, environment, a running `up`, file with line, default."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from router_sync.fleet import BadFleet
from streams.settings import Layer, Settled, environment
from streams.settings import settle as settle_layers
from tradewind import running
from tradewind.config.settings import settings_of

FILE: Final = Path("tradewind.yaml")
VARIABLE: Final = "TRADEWIND_CONFIG"
"""Names the file where no flag does; empty: no file, not even one that lies here."""


def file_of(config: Path | None) -> Path | None:
    """The file that is meant: `config`, else TRADEWIND_CONFIG, else ./tradewind.yaml where there is one."""
    if config is not None:
        return config
    named = environment().get(VARIABLE)
    if named is not None:
        return Path(named) if named else None
    return FILE if FILE.is_file() else None


def settle(config: Path | None, flags: Mapping[str, Any], *, beside_up: bool = True) -> Settled:
    """Settings from flags, environment, a running `up` (unless not `beside_up`), the file that is meant, defaults.

    A running `up` says where its Kafka is whatever has been written into the file since, and also where the file has
    become unusable. Raises BadFleet with all that is wrong in the file's `settings:`, BadSetting for a flag or a
    variable.
    """
    file = file_of(config)
    try:
        said = settings_of(file) if file is not None else Layer()
    except BadFleet:
        if config is not None or not beside_up or (up := _beside(settle_layers(flags))) is None:
            raise
        return settle_layers(flags, up)
    settled = settle_layers(flags, said)
    if beside_up and (up := _beside(settled)) is not None:
        return settle_layers(flags, up, said)
    return settled


def _beside(settled: Settled) -> Layer | None:
    """What the `up` that runs in the state folder says of its Kafka; None when none runs."""
    up = running.read(settled.settings.state_dir)
    if up is None:
        return None
    values = {"bootstrap_servers": up.bootstrap_servers, "topic_prefix": up.topic_prefix}
    return Layer(values, dict.fromkeys(values, f"running `up`, process {up.pid}"))
