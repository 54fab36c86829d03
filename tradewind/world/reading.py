"""A scenario file becomes a validated scenario, or a list of all that is wrong with it, each with its line."""

from __future__ import annotations

import datetime
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, Final

import msgspec
from ruamel.yaml.comments import CommentedMap

from router_sync import fleet as fleets
from router_sync.fleet import BadFleet, Problem, tree_of
from streams.contract.errors import BadSetting
from streams.contract.records import Fleet
from tradewind.config.fields import Reader, meant
from tradewind.hands.text import duration_s
from tradewind.world.ground import names_of
from tradewind.world.scenario import LONGEST_S, Length, Scenario, Whole

BUNDLED: Final = Path(__file__).parent / "scenarios"
_TIMED: Final = ("surges", "faults", "losses", "prices", "carbon_swings")
BEGIN: Final = "name, fleet and demand, as in docs/replay.md"
_LENGTH: Final = "Write a length of time, as in 90s, 30m or 1h30m."


def bundled() -> list[str]:
    """Names of the scenarios that come with Tradewind."""
    return sorted(path.stem for path in BUNDLED.glob("*.yaml"))


def find(name: str) -> Path:
    """The file called `name`, or the bundled scenario of that name. Raises BadSetting when there is neither."""
    if (path := Path(name)).is_file():
        return path
    if (path := BUNDLED / f"{name}.yaml").is_file() and name in bundled():
        return path
    raise BadSetting("argument", "SCENARIO", name, f"Name a YAML file, or one of {', '.join(bundled())}")


def read(path: Path) -> Whole:
    """The scenario in `path`. Raises BadFleet with everything that is wrong with it."""
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = str(getattr(error, "strerror", None) or error)
        raise BadFleet(str(path), [Problem(str(path), "file", reason, "Name a readable YAML file in UTF-8.")]) from None
    return parse(text, path)


def parse(text: str, path: Path) -> Whole:
    """`text` as the file at `path` would say it; a fleet that it names lies beside it."""
    reader = _Reader(str(path), path.absolute().parent)
    tree = tree_of(text, str(path), BEGIN)
    fleet = _fleet(tree, reader)
    made = reader.struct(Scenario, tree, "scenario")
    if fleet is not None and made is not None:
        scenario = msgspec.convert(made, Scenario)
        for at, value, remedy in _unfit(scenario, fleet):
            reader.wrong(f"scenario.{at}", value, remedy)
    if reader.problems or fleet is None or made is None:
        raise BadFleet(str(path), [_plainly(problem) for problem in reader.problems])
    return Whole(scenario, fleet)


def seconds(length: str) -> float:
    """A length of time in seconds; "0s" is 0."""
    return duration_s("length", length) if length.strip("0.smhd") else 0.0


class _Reader(Reader):
    """Knows lengths of time, dates that YAML has made of texts, and that the fleet is read elsewhere."""

    def known(self, tree: CommentedMap, path: str, fields: Any) -> Iterator[tuple[str, str, Any]]:
        every = [*fields, "fleet"] if path == "scenario" else fields
        return ((key, at, value) for key, at, value in super().known(tree, path, every) if at != "scenario.fleet")

    def _leaf(self, kind: Any, given: Any, path: str) -> Any:
        if isinstance(given, datetime.date):
            given = given.isoformat()
        if kind in (Length, Length | None) and given is not None:
            try:
                msgspec.convert(given, Length)
            except msgspec.ValidationError:
                self.wrong(path, given, _LENGTH)
                return None
        return super()._leaf(kind, given, path)


def _plainly(problem: Problem) -> Problem:
    """Without the word that stands for the whole file."""
    return Problem(problem.where, problem.field.removeprefix("scenario."), problem.value, problem.remedy)


def _fleet(tree: CommentedMap, reader: Reader) -> Fleet | None:
    """The fleet in the file, or in the file it names; None when there is none to use, which is noted."""
    given = tree.get("fleet")
    reader.lines["scenario.fleet"] = int(tree.lc.data["fleet"][0]) + 1 if "fleet" in tree.lc.data else 1
    if isinstance(given, CommentedMap):
        reading = fleets.read(given, reader.name)
        fleet = reading.fleet
        reader.problems += [Problem(p.where, f"fleet.{p.field}", p.value, p.remedy) for p in reading.problems]
    elif isinstance(given, str):
        try:
            fleet = fleets.load(reader.folder / given)
        except BadFleet as error:
            reader.problems += error.problems
            return None
    else:
        reader.wrong("scenario.fleet", given, "Write services, origins and endpoints below it, or a file's name.")
        return None
    return None if fleet is None else msgspec.structs.replace(fleet, version=fleet.version or 1)


# ---------------------------------------------------------------- what must fit together

Misfit = tuple[str, object, str]


def _unfit(scenario: Scenario, fleet: Fleet) -> Iterator[Misfit]:
    """(path, value, remedy) of what does not fit the fleet, or the time there is."""
    yield from _unfit_start(scenario)
    lasts_s = seconds(scenario.lasts)
    if not 60.0 <= lasts_s <= LONGEST_S:
        yield "lasts", scenario.lasts, f"Write from 1m to {LONGEST_S / 86_400:.0f}d."
    pools = [end.pool for end in fleet.endpoints]
    for n, end in enumerate(fleet.endpoints):
        if end.pool in pools[:n]:
            yield f"fleet.endpoints[{n}]", end.name, f"Its pool, {end.pool}, has an endpoint already: set its instance."
    places = {name for end in fleet.endpoints for name in names_of(end)}
    for part in _TIMED:
        for n, item in enumerate(getattr(scenario, part)):
            if seconds(item.at) >= lasts_s:
                yield f"{part}[{n}].at", item.at, f"It lies after the end, {scenario.lasts}."
            if seconds(item.lasts) <= 0.0:
                yield f"{part}[{n}].lasts", item.lasts, "It has to be longer than nothing."
            if (where := getattr(item, "where", None)) is not None and where not in places:
                yield f"{part}[{n}].where", where, _named(where, places, "an endpoint, zone, region or provider")
    yield from _unfit_flows(scenario, fleet)
    yield from _unfit_grids(scenario, fleet)


def _unfit_start(scenario: Scenario) -> Iterator[Misfit]:
    try:
        at_s = start_s(scenario)
    except ValueError:
        yield "start", scenario.start, "Write a time in UTC, as in 2026-06-16T00:00:00Z."
        return
    if at_s % 60:
        yield "start", scenario.start, "Begin at a whole minute."


def start_s(scenario: Scenario) -> float:
    """When it begins, unix seconds. Raises ValueError when that is no time."""
    at = datetime.datetime.fromisoformat(scenario.start)
    return (at if at.tzinfo is not None else at.replace(tzinfo=datetime.UTC)).timestamp()


def services_of(fleet: Fleet, service: str, class_: str) -> list[str]:
    """The services meant: the one that is named, or those that have the class."""
    return [s.name for s in fleet.services if service in ("", s.name) and class_ in {c.name for c in s.classes}]


def _unfit_flows(scenario: Scenario, fleet: Fleet) -> Iterator[Misfit]:
    origins = {origin.name for origin in fleet.origins}
    classes = {c.name for service in fleet.services for c in service.classes}
    for part in ("demand", "surges", "work"):
        for n, item in enumerate(getattr(scenario, part)):
            if item.origin and item.origin not in origins:
                yield f"{part}[{n}].origin", item.origin, _named(item.origin, origins, "an origin")
            if item.class_ and item.class_ not in classes:
                yield f"{part}[{n}].class", item.class_, _named(item.class_, classes, "a class")
            elif part != "surges" and len(found := services_of(fleet, item.service, item.class_)) != 1:
                remedy = f"Name one that has the class {item.class_}: {', '.join(found or classes)}."
                yield f"{part}[{n}].service", item.service, remedy
    asked = {(item.service, item.origin, item.class_) for item in scenario.demand}
    for n, item in enumerate(scenario.work):
        if (item.service, item.origin, item.class_) in asked:
            yield f"work[{n}].class", item.class_, "It has other demand from there: give work that waits its own class."


def _unfit_grids(scenario: Scenario, fleet: Fleet) -> Iterator[Misfit]:
    zones = {end.grid_zone for end in fleet.endpoints if end.grid_zone}
    known = {item.grid_zone for item in scenario.carbon}
    for n, item in enumerate(scenario.carbon):
        if item.grid_zone not in zones:
            yield f"carbon[{n}].grid_zone", item.grid_zone, _named(item.grid_zone, zones, "a grid zone of an endpoint")
    for n, swing in enumerate(scenario.carbon_swings):
        if swing.grid_zone not in known:
            yield f"carbon_swings[{n}].grid_zone", swing.grid_zone, _named(swing.grid_zone, known, "one of carbon:")


def _named(name: str, known: Collection[str], what: str) -> str:
    return f"Name {what}. {meant(name, sorted(known))}"
