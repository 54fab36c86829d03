"""`tradewind.yaml` becomes a validated Fleet, or a list of all that is wrong with it, each with its line.

YAML 1.2, so that the country NO stays "NO". Names of fields are those of `streams.contract.records`.

    text ─► ruamel (keeps lines) ─► each field by itself ─► what must fit together ─► Fleet

Fields that are wrong by themselves are said first: what refers to them could only be guessed at.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

import msgspec
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from router_sync.countries import COUNTRIES
from router_sync.policy import forbidden
from streams.contract.errors import Stop, shown, without_user
from streams.contract.records import Endpoint, Fleet, Origin, RequestClass, Service

_PARTS: Final[dict[str, type[msgspec.Struct]]] = {"services": Service, "origins": Origin, "endpoints": Endpoint}
_TOP: Final = ("fleet", "version", *_PARTS)
ELSEWHERE: Final = ("settings", "gateway", "actuators")
"""Sections of the same file that others read: `tradewind.config`."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with a fleet file: file and line, the field's path, the value, and what would be right."""

    where: str
    field: str
    value: object
    remedy: str

    def __str__(self) -> str:
        if self.value is None:
            return f"{self.where}: {self.field} is missing. {self.remedy}"
        return f"{self.where}: {self.field} = {shown(self.value)} cannot be used. {self.remedy}"

    def told(self) -> dict[str, object]:
        """For programs: file, line (None where it is about the whole file), field, value, remedy."""
        file, _, line = self.where.rpartition(":")
        file, at = (file, int(line)) if line.isdecimal() else (self.where, None)
        value = without_user(self.value) if isinstance(self.value, str) else self.value
        return {"file": file, "line": at, "field": self.field, "value": value, "remedy": self.remedy}


class BadFleet(Stop):
    """A fleet file cannot be used; `problems` names everything that is wrong with it."""

    def __init__(self, path: str, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        if [problem.where for problem in problems] == [path]:  # about no line of it: it could not be read
            super().__init__(f"{path} cannot be used ({problems[0].value})", problems[0].remedy)
            return
        listed = "\n".join(f"  {problem}" for problem in problems).rstrip(".")
        found = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        super().__init__(f"{path} has {found}:\n{listed}", "\nCorrect the file and start again.")


def load(path: Path | str) -> Fleet:
    """The fleet in the YAML file `path`. Its version is the file's, or 0: then the publisher numbers it.

    Raises BadFleet with every problem found.
    """
    try:
        text = Path(path).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = str(getattr(error, "strerror", None) or error)
        problem = Problem(str(path), "file", reason, "Name a readable YAML file in UTF-8.")
        raise BadFleet(str(path), [problem]) from None
    return parse(text, str(path))


def parse(text: str, name: str = "tradewind.yaml") -> Fleet:
    """The fleet in `text`; `name` is what problems call the file. Raises BadFleet with every problem found."""
    fleet, problems, _ = read(tree_of(text, name), name)
    if fleet is None:
        raise BadFleet(name, problems)
    return fleet


class Reading(NamedTuple):
    """What a file says: the fleet, None when there are problems; `lines`: path of a field to its line."""

    fleet: Fleet | None
    problems: list[Problem]
    lines: dict[str, int]


def read(tree: CommentedMap, name: str) -> Reading:
    """The fleet sections of `tree`, as of `tree_of`, with all that is wrong with them."""
    reader = _Reader(name)
    return Reading(reader.read(tree), reader.problems, reader.lines)


def with_version(fleet: Fleet, version: int) -> Fleet:
    """`fleet` under another version; versions grow with each change."""
    return msgspec.structs.replace(fleet, version=version)


def tree_of(text: str, name: str) -> CommentedMap:
    """`text` as a mapping that knows its lines. Raises BadFleet when it is none."""
    try:
        tree = YAML(typ="rt").load(text)
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        said = (error.problem or "not YAML").strip().splitlines()[0].partition(" with value ")[0]  # it may be a secret
        raise BadFleet(name, [Problem(f"{name}:{line}", "YAML", said, _syntax(said, text, line))]) from None
    except (YAMLError, ValueError) as error:
        raise BadFleet(name, [Problem(name, "YAML", str(error), "Correct the syntax.")]) from None
    if not isinstance(tree, CommentedMap):
        remedy = f"Begin with {', '.join(_TOP)}, as in examples/tradewind.yaml."
        raise BadFleet(name, [Problem(f"{name}:1", "file", tree, remedy)])
    return tree


def _syntax(said: str, text: str, line: int) -> str:
    """What would make YAML of it: common slips by name."""
    lines = text.splitlines()
    if "\\t" in said or (line <= len(lines) and "\t" in lines[line - 1]):
        return "Indent with blanks: YAML takes no tabs there."
    if "duplicate key" in said:
        return "Name each field once: leave one of the two."
    if "mapping values are not allowed" in said:
        return "Quote a text that holds a colon, and begin the lines of one mapping below each other."
    return "Correct the syntax: check indentation, quotes and brackets up to this line."


@dataclass(slots=True)
class _Reader:
    """Reads one file and collects problems. `lines`: path of a field to its line."""

    name: str
    problems: list[Problem] = field(default_factory=list)
    lines: dict[str, int] = field(default_factory=dict)

    def read(self, tree: CommentedMap) -> Fleet | None:
        self._known(tree, "", (*_TOP, *ELSEWHERE))
        parts = {part: self._items(tree, part, kind) for part, kind in _PARTS.items()}
        named = {
            key: self._value(tree, "", info)
            for key in ("fleet", "version")
            if key in tree and (info := _fields(Fleet)[key])
        }
        if self.problems:
            return None
        fleet = Fleet(**{"version": 0, **named, **parts})
        for path, value, remedy in misfits(fleet):
            self._wrong(path, value, remedy)
        return None if self.problems else fleet

    def _wrong(self, path: str, value: object, remedy: str) -> None:
        near = path
        while near and near not in self.lines:
            near = near.rpartition(".")[0] if "." in near else near.partition("[")[0] if "[" in near else ""
        self.problems.append(Problem(f"{self.name}:{self.lines.get(near, 1)}", path, value, remedy))

    def _items(self, tree: CommentedMap, part: str, kind: type[msgspec.Struct]) -> tuple[Any, ...]:
        items = tree.get(part)
        self.lines[part] = tree.lc.data[part][0] + 1 if part in tree.lc.data else 1
        if not isinstance(items, CommentedSeq) or not items:
            self._wrong(part, items, f"List at least one, each with {', '.join(_required(kind))}.")
            return ()
        made = [self._item(item, f"{part}[{n}]", kind, items.lc.data[n][0] + 1) for n, item in enumerate(items)]
        return tuple(item for item in made if item is not None)

    def _item(self, item: Any, path: str, kind: type[msgspec.Struct], line: int) -> Any:
        """One record, None when it cannot be made (the problems say why)."""
        self.lines[path] = line
        if not isinstance(item, CommentedMap):
            self._wrong(path, item, f"Write a mapping with {', '.join(_required(kind))}.")
            return None
        fields, before = _fields(kind), len(self.problems)
        self._known(item, path, tuple(fields))
        for key, info in fields.items():
            if info.required and key not in item:
                self._wrong(f"{path}.{key}", None, f"Add it: {_expects(info)}.")
        values = {info.name: self._value(item, path, info) for key, info in fields.items() if key in item}
        return kind(**values) if len(self.problems) == before else None

    def _known(self, item: CommentedMap, path: str, fields: Sequence[str]) -> None:
        for key in item:
            at = f"{path}.{key}" if path else str(key)
            if key in item.lc.data:
                self.lines[at] = item.lc.data[key][0] + 1
            if key not in fields:
                close = difflib.get_close_matches(str(key), fields, 1)
                meant = f"Did you mean {close[0]}?" if close else f"Known are {', '.join(fields)}."
                self._wrong(at, plain(item[key]), meant)

    def _value(self, item: CommentedMap, path: str, info: msgspec.structs.FieldInfo) -> Any:
        at = f"{path}.{info.encode_name}" if path else info.encode_name
        given = item[info.encode_name]
        if info.name == "classes" and isinstance(given, CommentedSeq) and given:
            lines = given.lc.data
            made = [self._item(c, f"{at}[{n}]", RequestClass, lines[n][0] + 1) for n, c in enumerate(given)]
            return tuple(c for c in made if c is not None)
        try:
            value = msgspec.convert(plain(given), info.type)
        except msgspec.ValidationError as error:
            self._wrong(at, plain(given), told(info.name, plain(given), error))
            return None
        for wrong, remedy in _unfit(info.name, value):
            self._wrong(at, wrong, remedy)
        return value


def _fields(kind: type[msgspec.Struct]) -> dict[str, msgspec.structs.FieldInfo]:
    return {info.encode_name: info for info in msgspec.structs.fields(kind)}


def _required(kind: type[msgspec.Struct]) -> list[str]:
    return [name for name, info in _fields(kind).items() if info.required]


def _expects(info: msgspec.structs.FieldInfo) -> str:
    units = {"ms": "milliseconds", "rps": "requests per second", "h": "US dollars per hour"}
    words = {"services": "a list", "classes": "a list", "jurisdiction": "a country code like DE", "url": "an address"}
    words |= dict.fromkeys(("name", "provider", "region", "zone"), "a name")
    return words.get(info.name) or units.get(info.name.rsplit("_", 1)[-1], "a text")


def plain(value: Any) -> Any:
    """ruamel's annotated values as plain ones."""
    if isinstance(value, dict):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [plain(inner) for inner in value]
    for kind in (bool, int, float, str):
        if isinstance(value, kind):
            return kind(value)
    return value


def _unfit(name: str, value: Any) -> Iterator[tuple[object, str]]:
    """(value, remedy) of what a field's type could not tell: countries that are none, addresses that cannot be."""
    for code in {"jurisdiction": (value,), "jurisdictions": value}.get(name, ()):
        if code not in COUNTRIES:
            meant = {"UK": " The United Kingdom is GB.", "EL": " Greece is GR.", "EU": " Name each country."}
            yield code, f"Use an ISO 3166-1 alpha-2 country code.{meant.get(code, '')}"
    if name == "url" and not _reachable(value):
        yield value, "Write http(s)://host:port, without user, query or fragment."


_ASKED: Final[dict[str, str]] = {
    "jurisdiction": "Use an ISO 3166-1 alpha-2 country code in capitals, like DE.",
    "jurisdictions": "List ISO 3166-1 alpha-2 country codes in capitals, like [DE, FR].",
    "url": "Write http(s)://host:port, without user, query or fragment.",
}


_KINDS: Final[dict[str, str]] = {
    "float": "a number", "int": "a whole number", "str": "a text", "bool": "true or false", "array": "a list",
    "object": "a mapping",
}  # fmt: skip


def told(name: str, value: object, error: msgspec.ValidationError) -> str:
    """What would be right for the field `name`, in words, where `value` was refused with `error`."""
    if (asked := _ASKED.get(name)) is not None:
        return asked
    said = str(error).replace(" - at `$", " at `").replace("`", "")
    if "regex" in said and isinstance(value, str):
        return "Use letters, digits and _ . : / @ + - only, a letter or digit first."
    for kind, asked in _KINDS.items():
        said = said.replace(f"Expected {kind}", f"Write {asked}").partition(", got ")[0]
    if value is None:
        return f"{said}: put it behind the colon, or take the field away."
    return f"{said}."


def _reachable(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return bool(parts.hostname) and parts.port != 0 and not (parts.query or parts.fragment or parts.username)
    except ValueError:
        return False


# ---------------------------------------------------------------- what must fit together

Misfit = tuple[str, object, str]


def misfits(fleet: Fleet) -> Iterator[Misfit]:
    """(path, value, remedy) of everything in `fleet` that does not fit together; nothing: it can be routed over."""
    for part in _PARTS:
        yield from _twice(part, [item.name for item in getattr(fleet, part)])
    yield from _of_services(fleet)
    yield from _of_origins(fleet)
    yield from _of_endpoints(fleet)
    yield from _of_law(fleet)


def _twice(part: str, names: Sequence[str]) -> Iterator[Misfit]:
    for n, name in enumerate(names):
        if name in names[:n]:
            yield f"{part}[{n}].name", name, f"{part}[{names.index(name)}] is called so already: names are unique."


def _of_services(fleet: Fleet) -> Iterator[Misfit]:
    served = {service for endpoint in fleet.endpoints for service in endpoint.services}
    for n, service in enumerate(fleet.services):
        names = [c.name for c in service.classes]
        yield from _twice(f"services[{n}].classes", names)
        if service.default_class not in names:
            yield f"services[{n}].default_class", service.default_class, f"Name one of its classes: {', '.join(names)}."
        if service.name not in served:
            yield f"services[{n}].name", service.name, "No endpoint serves it: add it to an endpoint's services."


def _of_origins(fleet: Fleet) -> Iterator[Misfit]:
    regions = sorted({endpoint.region for endpoint in fleet.endpoints})
    for n, origin in enumerate(fleet.origins):
        if missing := [region for region in regions if region not in origin.rtt_ms]:
            remedy = f"Add the round trip in milliseconds to {', '.join(missing)}."
            yield f"origins[{n}].rtt_ms", dict(origin.rtt_ms), remedy


def _of_endpoints(fleet: Fleet) -> Iterator[Misfit]:
    known = [service.name for service in fleet.services]
    for n, endpoint in enumerate(fleet.endpoints):
        yield from _twice(f"endpoints[{n}].services", endpoint.services)
        for service in endpoint.services:
            if service not in known:
                yield f"endpoints[{n}].services", service, f"Name a service of this file: {', '.join(known)}."
        for service in endpoint.models:
            if service not in endpoint.services:
                yield f"endpoints[{n}].models", service, f"Name one of its services: {', '.join(endpoint.services)}."
    yield from _of_apis(fleet)


def _of_apis(fleet: Fleet) -> Iterator[Misfit]:
    """A service is asked for in one way, whoever serves it."""
    api_of: dict[str, str] = {}
    for n, endpoint in enumerate(fleet.endpoints):
        for service in endpoint.services:
            if (first := api_of.setdefault(service, endpoint.api)) != endpoint.api:
                remedy = f"Another endpoint serves {service} as {first}: give all endpoints of a service the same api."
                yield f"endpoints[{n}].api", endpoint.api, remedy


def _of_law(fleet: Fleet) -> Iterator[Misfit]:
    """Classes that may be processed somewhere, but nowhere that serves them: each request would be refused."""
    for n, service in enumerate(fleet.services):
        serving = [e for e in fleet.endpoints if service.name in e.services]
        for m, class_ in enumerate(service.classes):
            if serving and all(forbidden(class_, endpoint) for endpoint in serving):
                there = ", ".join(sorted({e.jurisdiction for e in serving}))
                remedy = f"{service.name} is served in {there} only: add an endpoint or a country."
                yield f"services[{n}].classes[{m}].jurisdictions", list(class_.jurisdictions), remedy
