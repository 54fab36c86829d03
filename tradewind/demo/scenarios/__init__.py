"""What a demo plays: one file each, a fleet and a section `scenario` that says who asks for what and what is shown.

    sovereign.yaml    services, origins, endpoints …   a fleet file like any other
                      scenario: mix, streams           who asks as what
                                shows                  parts of the report: `tradewind.demo.parts`
                                acts                   what happens beside the load: `tradewind.demo.acts`

A new one is a new file; only what no scenario has shown or done before needs code.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, NamedTuple

import msgspec
from msgspec import Meta

from router_sync import fleet as fleets
from streams.contract.errors import BadSetting
from streams.contract.records import Amount, Fleet, Name, Share

DEFAULT: Final = "loop"
_FOLDER: Final = Path(__file__).parent
_SECTION: Final = "scenario"


class Scenario(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a fleet is played."""

    about: str
    mix: dict[Name, dict[Name, Share]]
    """Of each origin's requests, how many ask as which class; an origin's part of all is its `demand_rps`."""
    fleet_file: str | None = None
    """Beside this one; None: the fleet stands in the same file."""
    rps: Annotated[float, Meta(gt=0, le=1000)] = 24.0
    """Over all origins, unless the command says otherwise."""
    streams: dict[Name, Share] = {}
    """Of a class's requests, how many are streamed, where that is not as usual."""
    shows: tuple[str, ...] = ()
    acts: tuple[str, ...] = ()
    talks: Annotated[int, Meta(ge=0, le=1000)] = 0
    """Conversations at once, for the act `talks`; as the first class of the service."""
    token_ms: Annotated[float, Meta(gt=0, le=1000)] | None = None
    """From one token of an endpoint to the next, each sent by itself; None: fast, and some at once."""
    carbon_g_per_kwh: dict[Name, Amount] = {}
    """Mean of each grid zone, for the act `markets`."""


class Loaded(NamedTuple):
    """A scenario and its fleet."""

    name: str
    scenario: Scenario
    fleet: Fleet


def names() -> list[str]:
    """All there are, the usual one first."""
    return sorted((path.stem for path in _FOLDER.glob("*.yaml")), key=lambda name: (name != DEFAULT, name))


def load(name: str = DEFAULT) -> Loaded:
    """The scenario `name`. Raises BadSetting for one that is not there."""
    if name not in names():
        raise BadSetting("flag", "--scenario", name, f"Choose one of {', '.join(names())}")
    path = _FOLDER / f"{name}.yaml"
    tree = fleets.tree_of(path.read_text("utf-8"), path.name)
    scenario = msgspec.convert(fleets.plain(tree.pop(_SECTION)), Scenario)
    if scenario.fleet_file is not None:
        return Loaded(name, scenario, fleets.load(path.parent / scenario.fleet_file))
    reading = fleets.read(tree, path.name)
    if reading.fleet is None:
        raise fleets.BadFleet(path.name, reading.problems)
    return Loaded(name, scenario, reading.fleet)
