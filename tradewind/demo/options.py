"""What a demo was asked to do."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tradewind.demo.scenarios import DEFAULT


@dataclass(frozen=True, slots=True)
class Options:
    """One run. Times are seconds after the load began; `seconds` None: until it is stopped."""

    scenario: str = DEFAULT
    seconds: float | None = None
    outage: str | None = None
    broker_outage_at_s: float | None = None
    surge: str = ""
    spot_notice_s: float | None = None
    """None: as the scenario has it."""
    rps: float | None = None
    """None: as the scenario has it."""
    stream_share: float = 0.6
    trace: Path | None = None
    seed: int = 1
    as_json: bool = False
    bootstrap_servers: str | None = None
    topic_prefix: str | None = None
    data: Path = Path(".tradewind/demo")
    keep: bool = False
