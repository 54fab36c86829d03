"""One scenario lived through: built, decided by the house or a rival, and summed up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from streams.contract.errors import BadSetting
from streams.runtime import clock
from streams.settings import Settings
from tradewind.world.brain import Brain, Expect, House, settings_of
from tradewind.world.build import built
from tradewind.world.reading import seconds
from tradewind.world.rivals import RULES, Ruled
from tradewind.world.scenario import Whole
from tradewind.world.setup import Setup
from tradewind.world.summary import Summary, summary
from tradewind.world.world import World

OURS: Final = House.name
ROUTERS: Final = (OURS, *RULES)
Progress = Callable[[float, float], bool]
"""Told how far it is (0..1) and where (unix seconds); False ends the run there."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """How a scenario is lived through; None: as it says itself."""

    router: str = OURS
    expect: Expect = "forecast"
    seed: int | None = None
    from_s: float = 0.0
    """Seconds after the scenario's start, a multiple of 60."""
    until_s: float | None = None
    cold_start_s: float | None = None


def replay(
    whole: Whole, settings: Settings, options: Options, progress: Progress = lambda _share, _at_s: True
) -> Summary:
    """The run of `whole`. Raises BadSetting when the part that is asked for is none of it."""
    from_s, until_s = span_of(whole, options)
    setup = built(whole, seed=options.seed, from_s=from_s, cold_start_s=options.cold_start_s)
    began_s = clock.monotonic_s()
    world = World(
        setup,
        brain_of(setup, settings, options),
        setup.start_s + until_s - from_s,
        hindsight=options.expect == "hindsight",
    )
    finished = _lived(world, progress)
    return summary(
        world,
        scenario=whole.scenario.name,
        expect=options.expect,
        wall_s=clock.monotonic_s() - began_s,
        ended_early=not finished,
    )


def span_of(whole: Whole, options: Options) -> tuple[float, float]:
    """From when to when, seconds after the scenario's start."""
    lasts_s = seconds(whole.scenario.lasts)
    until_s = lasts_s if options.until_s is None else options.until_s
    if options.from_s % 60:
        raise BadSetting("flag", "--from", options.from_s, "Name a whole minute after the start, as in 9h30m")
    if not options.from_s < until_s <= lasts_s:
        raise BadSetting(
            "flag", "--to", until_s, f"It has to lie after --from, and not after the end, {whole.scenario.lasts}"
        )
    return options.from_s, until_s


def brain_of(setup: Setup, settings: Settings, options: Options) -> Brain:
    """Who decides. Raises BadSetting when nobody is called so."""
    if options.router == OURS:
        return House(setup.fleet, settings_of(settings), setup.start_s, setup.seed, options.expect)
    if options.router in RULES:
        return Ruled(options.router, RULES[options.router])
    raise BadSetting("flag", "--router", options.router, f"Name one of {', '.join(ROUTERS)}")


def _lived(world: World, progress: Progress) -> bool:
    """Whether it came to its end."""
    start_s, lasts_s = world.setup.start_s, world.end_s - world.setup.start_s
    return all(progress((now_s - start_s) / lasts_s, now_s) for now_s in world.live())
