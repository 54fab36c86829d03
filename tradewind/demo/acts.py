"""What happens in a demo beside its load, by the names that scenarios use. A new act is a function and a line here."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final

from streams.contract.records import Fleet
from streams.runtime import clock
from streams.runtime.clock import Clock
from streams.settings import Settings
from tradewind.demo import markets
from tradewind.demo.options import Options
from tradewind.demo.pretend_fleet import PretendFleet
from tradewind.demo.scenarios import Scenario


@dataclass(frozen=True, slots=True)
class Stage:
    """What an act may use. `at_s()` is seconds after the load began; `note` is shown to whoever looks on."""

    scenario: Scenario
    options: Options
    fleet: Fleet
    settings: Settings
    pretend: PretendFleet
    at_s: Clock
    note: Callable[[str], None]


async def _markets(stage: Stage) -> None:
    means = stage.scenario.carbon_g_per_kwh
    await markets.feed(stage.fleet, means, stage.settings, at_s=stage.at_s, now_s=clock.now_s)


ACTS: Final[Mapping[str, Callable[[Stage], Awaitable[None]]]] = {"markets": _markets}
"""Each is begun with the load and cancelled at its end; one that ends by itself ends nothing else."""
