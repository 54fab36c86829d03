"""What happens in a demo beside its load, by the names that scenarios use. A new act is a function and a line here."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from streams.contract.records import Fleet, Interruption
from streams.runtime import clock
from streams.runtime.clock import Clock
from streams.settings import Settings
from tradewind.demo import markets
from tradewind.demo.moves import Moves
from tradewind.demo.options import Options
from tradewind.demo.pretend_fleet import PretendFleet
from tradewind.demo.reclaim import USUAL_S, Market, Reclaimed
from tradewind.demo.scenarios import Scenario
from tradewind.demo.talks import Talks, Turn
from tradewind.hands import saying
from tradewind.load import Outcome, Target


@dataclass(slots=True)
class Acted:
    """What acts leave for the report."""

    turns: Sequence[Turn] = ()
    reclaimed: list[Reclaimed] = field(default_factory=list)
    moves: Moves | None = None


@dataclass(frozen=True, slots=True)
class Stage:
    """What an act may use. `at_s()` is seconds after the load began; `note` is shown to whoever looks on, `seen` is
    told what became of a request that the act made itself."""

    scenario: Scenario
    options: Options
    fleet: Fleet
    settings: Settings
    pretend: PretendFleet
    gateways: Mapping[str, str]
    targets: Sequence[Target]
    at_s: Clock
    note: Callable[[str], None]
    seen: Callable[[Outcome], None]
    acted: Acted


async def _markets(stage: Stage) -> None:
    means = stage.scenario.carbon_g_per_kwh
    await markets.feed(stage.fleet, means, stage.settings, at_s=stage.at_s, now_s=clock.now_s)


async def _talks(stage: Stage) -> None:
    class_, scenario = stage.fleet.services[0].classes[0].name, stage.scenario
    talks = Talks(
        [target for target in stage.targets if target.cls == class_],
        scenario.talks,
        (scenario.token_ms or 5.0) / 1000.0,
        stage.options.seconds,
        random.Random(stage.options.seed),
        stage.at_s,
        stage.seen,
    )
    stage.acted.turns = talks.turns
    await talks.run()


async def _spot(stage: Stage) -> None:
    async def say(said: Interruption) -> None:
        await saying.say(stage.settings, said, clock.now_s())

    notice_s = USUAL_S if stage.options.spot_notice_s is None else stage.options.spot_notice_s
    moves = stage.acted.moves = Moves(stage.gateways)
    market = Market(
        stage.fleet, stage.pretend, say, stage.acted.reclaimed.append, stage.note, stage.at_s, clock.now_s
    )  # fmt: skip
    async with asyncio.TaskGroup() as group:
        group.create_task(moves.follow())
        group.create_task(market.run(notice_s, stage.options.seconds))


ACTS: Final[Mapping[str, Callable[[Stage], Awaitable[None]]]] = {"markets": _markets, "spot": _spot, "talks": _talks}
"""Each is begun with the load and cancelled at its end; one that ends by itself ends nothing else."""
