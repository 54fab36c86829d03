"""What a demo was asked to do."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from tradewind.demo.scenarios import DEFAULT, FOLDER, Scenario


@dataclass(frozen=True, slots=True)
class Options:
    """One run. Times are seconds after the load began; `seconds` None: until it is stopped."""

    scenario: str = DEFAULT
    seconds: float | None = None
    outage: str | None = None
    broker_outage_at_s: float | None = None
    surge: str = ""
    """Empty: as the scenario has it."""
    spot_notice_s: float | None = None
    """None: as the scenario has it."""
    cold_start_s: float | None = None
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

    def settled(self, scenario: Scenario) -> Self:
        """With what the scenario has where nothing was said."""
        cold_start_s = scenario.cold_start_s if self.cold_start_s is None else self.cold_start_s
        trace = FOLDER / scenario.trace if self.trace is None and scenario.trace is not None else self.trace
        return replace(
            self,
            rps=self.rps or scenario.rps,
            surge=self.surge or scenario.surge,
            trace=trace,
            cold_start_s=cold_start_s,
        )
