"""`tradewind.yaml` becomes a validated Fleet, or a list of all that is wrong with it, each with its line.

    text ─► ruamel (keeps lines) ─► each field by itself ─► what must fit together ─► Fleet ─► what is likely not meant

Fields that are wrong by themselves are said first: what refers to them could only be guessed at.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple

import msgspec
from ruamel.yaml.comments import CommentedMap

from router_sync.misfits import Misfit, misfits
from router_sync.policy.file import section
from router_sync.policy.likely import cautions
from router_sync.reading import BadFleet, Caution, Problem, Reader, fields_of, plain, text_of, told, tree_of
from streams.contract.records import Budget, Endpoint, Fleet, Origin, Service

__all__ = [
    "ELSEWHERE", "BadFleet", "Caution", "Misfit", "Problem", "Reading", "load", "misfits", "parse", "plain", "read",
    "read_file", "told", "tree_of", "with_version",
]  # fmt: skip
_PARTS: Final[dict[str, type[msgspec.Struct]]] = {"services": Service, "origins": Origin, "endpoints": Endpoint}
_TOP: Final = ("fleet", "version", *_PARTS, "policies", "budgets")
ELSEWHERE: Final = ("settings", "gateway", "actuators", "scenario")
"""Sections of the same file that others read: `tradewind.config`, and how a demo plays it: `tradewind.demo`."""


class Reading(NamedTuple):
    """What a file says: the fleet, None when there are problems."""

    fleet: Fleet | None
    problems: list[Problem]
    lines: dict[str, int]
    """Path of a field to its line."""
    cautions: list[Caution]
    """What can be used, and is likely not meant."""
    files: tuple[Path, ...]
    """The other files it is made of."""


def load(path: Path | str) -> Fleet:
    """The fleet in the YAML file `path`. Its version is the file's, or 0: then the publisher numbers it.

    Raises BadFleet with every problem found.
    """
    return read_file(path)[0]


def read_file(path: Path | str) -> tuple[Fleet, list[Caution]]:
    """The fleet in the YAML file `path`, and what of it is likely not meant. Raises BadFleet as `load`."""
    reading = read(tree_of(text_of(Path(path)), str(path)), str(path))
    return _good(reading, str(path)), reading.cautions


def parse(text: str, name: str = "tradewind.yaml") -> Fleet:
    """The fleet in `text`; `name` is what problems call the file. Raises BadFleet with every problem found."""
    return _good(read(tree_of(text, name), name), name)


def _good(reading: Reading, name: str) -> Fleet:
    if reading.fleet is None:
        raise BadFleet(name, reading.problems)
    return reading.fleet


def read(tree: CommentedMap, name: str) -> Reading:
    """The fleet sections of `tree`, as of `tree_of`, with all that is wrong with them."""
    reader = Reader(name)
    fleet = _fleet(tree, reader)
    likely = [*cautions(fleet), *_unclassified(fleet, reader.lines)] if fleet else []
    warned = [Caution(reader.place(at), at, value, remedy) for at, value, remedy in likely]
    return Reading(fleet, reader.problems, reader.lines, warned, reader.files)


def _unclassified(fleet: Fleet, lines: Mapping[str, int]) -> Iterator[Misfit]:
    """Classes that are public because nothing else was said, where rules ask what they are."""
    if not any("data_class" in {**rule.when, **rule.unless} for policy in fleet.policies for rule in policy.rules):
        return
    for n, service in enumerate(fleet.services):
        for m, class_ in enumerate(service.classes):
            path = f"services[{n}].classes[{m}].data_class"
            if path not in lines:
                remedy = f"{class_.name} is that because nothing else is said, and rules ask for it: say it."
                yield path, class_.data_class, remedy


def with_version(fleet: Fleet, version: int) -> Fleet:
    """`fleet` under another version; versions grow with each change."""
    return msgspec.structs.replace(fleet, version=version)


def _fleet(tree: CommentedMap, reader: Reader) -> Fleet | None:
    reader.known(tree, "", (*_TOP, *ELSEWHERE))
    parts = {part: reader.items(tree, part, kind) for part, kind in _PARTS.items()}
    parts["policies"] = section(tree, reader)
    if "budgets" in tree:
        parts["budgets"] = reader.items(tree, "budgets", Budget)
    fields = fields_of(Fleet)
    named = {key: reader.value(tree, "", fields[key]) for key in ("fleet", "version") if key in tree}
    if reader.problems:
        return None
    fleet = Fleet(**{"version": 0, **named, **parts})
    for path, value, remedy in misfits(fleet):
        reader.wrong(path, value, remedy)
    return None if reader.problems else fleet
