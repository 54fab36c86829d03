"""Settings and where each came from: flag, environment, file with line, a running `up`, default."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

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
    """Settings from flags, environment, the file that is meant, a running `up` (unless not `beside_up`), defaults.

    Raises BadFleet with all that is wrong in the file's `settings:`, BadSetting for a flag or variable.
    """
    file = file_of(config)
    said = settings_of(file) if file is not None else Layer()
    settled = settle_layers(flags, said)
    if beside_up and (up := running.read(settled.settings.state_dir)) is not None:
        return settle_layers(flags, said, _as_layer(up))
    return settled


def _as_layer(up: running.Running) -> Layer:
    values = {"bootstrap_servers": up.bootstrap_servers, "topic_prefix": up.topic_prefix}
    return Layer(values, dict.fromkeys(values, f"running `up`, process {up.pid}"))
