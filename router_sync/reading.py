"""YAML that knows its lines becomes records, or a list of all that is wrong: file, line, field, value, remedy.

YAML 1.2, so that the country NO stays "NO". Fields are named as in `streams.contract.records`, and no others taken.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, get_args, get_origin
from urllib.parse import urlsplit

import msgspec
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from router_sync.countries import COUNTRIES
from streams.contract.errors import Stop, shown, without_user
from streams.contract.records import Part, RequestClass, RequestFact

BEGIN: Final = "services, origins and endpoints, as in examples/tradewind.yaml"


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


@dataclass(frozen=True, slots=True)
class Caution(Problem):
    """What can be used, and is likely not meant."""

    def __str__(self) -> str:
        return f"{self.where}: {self.field} = {shown(self.value)}. {self.remedy}"


class BadFleet(Stop):
    """A fleet file cannot be used; `problems` names everything that is wrong with it."""

    def __init__(self, path: str, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        if [problem.where for problem in problems] == [path]:  # about no line of it: it is no such file
            super().__init__(f"{path} cannot be used ({problems[0].value})", problems[0].remedy)
            return
        listed = "\n".join(f"  {problem}" for problem in problems).rstrip(".")
        found = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        super().__init__(f"{path} has {found}:\n{listed}", "\nCorrect the file and start again.")


def text_of(path: Path) -> str:
    """The text of the file `path`. Raises BadFleet when there is none."""
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = str(getattr(error, "strerror", None) or error)
        problem = Problem(str(path), "file", reason, "Name a readable YAML file in UTF-8.")
        raise BadFleet(str(path), [problem]) from None


def tree_of(text: str, name: str, begin: str = BEGIN) -> CommentedMap:
    """`text` as a mapping that knows its lines. Raises BadFleet when it is none; `begin` says with what it begins."""
    try:
        tree = YAML(typ="rt").load(text)
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        said = (error.problem or "not YAML").strip().splitlines()[0].partition(" with value ")[0]  # it may be a secret
        raise BadFleet(name, [Problem(f"{name}:{line}", "YAML", said, _syntax(said, text, line))]) from None
    except (YAMLError, ValueError) as error:
        raise BadFleet(name, [Problem(name, "YAML", str(error), "Correct the syntax.")]) from None
    except (RecursionError, LookupError, AttributeError) as error:  # nesting without end; tags like !!bool x
        remedy = "Leave out tags (!!) and deep nesting."
        raise BadFleet(name, [Problem(f"{name}:1", "YAML", type(error).__name__, remedy)]) from None
    if not isinstance(tree, CommentedMap):
        raise BadFleet(name, [Problem(name, "file", _kind(tree), f"Begin with {begin}.")])
    return tree


def _kind(tree: object) -> str:
    """What a file is that holds no mapping. Its content is not said: it may be a secret's file.

    >>> [_kind(tree) for tree in (None, "sk-1", ["a"], 7)]
    ['it is empty', 'it is a text', 'it is a list', 'it is a single value']
    """
    if tree is None:
        return "it is empty"
    return f"it is a {'text' if isinstance(tree, str) else 'list' if isinstance(tree, list) else 'single value'}"


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
class Reader:
    """Reads one file and collects problems. `lines`: path of a field to its line."""

    name: str
    problems: list[Problem] = field(default_factory=list)
    lines: dict[str, int] = field(default_factory=dict)
    others: dict[str, str] = field(default_factory=dict)
    """Path of a field that stands in another file to FILE:LINE there."""
    files: tuple[Path, ...] = ()
    """The other files that were read."""

    def wrong(self, path: str, value: object, remedy: str) -> None:
        """Note that the field at `path` cannot be used."""
        self.problems.append(Problem(self.place(path), path, value, remedy))

    def place(self, path: str) -> str:
        """FILE:LINE of the field at `path`, or of the nearest one around it."""
        near = path
        while near and near not in self.lines and near not in self.others:
            near = near.rpartition(".")[0] if "." in near else near.partition("[")[0] if "[" in near else ""
        return self.others.get(near) or f"{self.name}:{self.lines.get(near, 1)}"

    def takes(self, other: Reader) -> None:
        """Take over what was read from another file."""
        self.problems.extend(other.problems)
        self.others |= {path: f"{other.name}:{line}" for path, line in other.lines.items()} | other.others
        self.files += (Path(other.name), *other.files)

    def items(self, tree: CommentedMap, part: str, kind: type[msgspec.Struct]) -> tuple[Any, ...]:
        """The records in the list at `part`; those that cannot be made are noted and left out."""
        items = tree.get(part)
        self.lines[part] = tree.lc.data[part][0] + 1 if part in tree.lc.data else 1
        if not isinstance(items, CommentedSeq) or not items:
            self.wrong(part, items, f"List at least one, each with {', '.join(_required(kind))}.")
            return ()
        made = [self.item(item, f"{part}[{n}]", kind, items.lc.data[n][0] + 1) for n, item in enumerate(items)]
        return tuple(item for item in made if item is not None)

    def item(self, item: Any, path: str, kind: type[msgspec.Struct], line: int) -> Any:
        """One record, None when it cannot be made (the problems say why)."""
        self.lines[path] = line
        if not isinstance(item, CommentedMap):
            self.wrong(path, item, f"Write a mapping with {', '.join(_required(kind))}.")
            return None
        fields, before = fields_of(kind), len(self.problems)
        self.known(item, path, tuple(fields))
        for key, info in fields.items():
            if info.required and key not in item:
                self.wrong(f"{path}.{key}", None, f"Add it: {_expects(info)}.")
        values = {info.name: self.value(item, path, info) for key, info in fields.items() if key in item}
        return kind(**values) if len(self.problems) == before else None

    def known(self, item: CommentedMap, path: str, fields: Sequence[str]) -> None:
        """Note where fields stand, and those that are not among `fields`."""
        for key in item:
            at = f"{path}.{key}" if path else str(key)
            if key in item.lc.data:
                self.lines[at] = item.lc.data[key][0] + 1
            if key not in fields:
                close = difflib.get_close_matches(str(key), fields, 1)
                meant = f"Did you mean {close[0]}?" if close else f"Known are {', '.join(fields)}."
                self.wrong(at, plain(item[key]), meant)

    def value(self, item: CommentedMap, path: str, info: msgspec.structs.FieldInfo) -> Any:
        """One field of `item`, which has it; None when it cannot be used, which is noted."""
        at = f"{path}.{info.encode_name}" if path else info.encode_name
        given = item[info.encode_name]
        if info.name == "classes" and isinstance(given, CommentedSeq) and given:
            lines = given.lc.data
            made = [self.item(c, f"{at}[{n}]", RequestClass, lines[n][0] + 1) for n, c in enumerate(given)]
            return tuple(c for c in made if c is not None)
        try:
            value = msgspec.convert(plain(given), info.type)
        except msgspec.ValidationError as error:
            self.wrong(at, plain(given), told(info.name, plain(given), error, info.type))
            return None
        for wrong, remedy in _unfit(info.name, value):
            self.wrong(at, wrong, remedy)
        return value


def fields_of(kind: type[msgspec.Struct]) -> dict[str, msgspec.structs.FieldInfo]:
    """The fields of `kind` by the names they have in files."""
    return {info.encode_name: info for info in msgspec.structs.fields(kind)}


def _required(kind: type[msgspec.Struct]) -> list[str]:
    return [name for name, info in fields_of(kind).items() if info.required]


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
    countries = {"jurisdiction": (value,), "jurisdictions": value, "parent_country": (value,) if value else ()}
    for code in countries.get(name, ()):
        if (remedy := no_country(code)) is not None:
            yield code, remedy
    if name == "url" and not _reachable(value):
        yield value, "Write http(s)://host:port, without user, query or fragment."


def no_country(code: str) -> str | None:
    """What to write instead of `code`; None when it is a country's.

    >>> no_country("UK")
    'Use an ISO 3166-1 alpha-2 country code. The United Kingdom is GB.'
    """
    if code in COUNTRIES:
        return None
    meant = {"UK": " The United Kingdom is GB.", "EL": " Greece is GR.", "EU": " Name each country."}
    return f"Use an ISO 3166-1 alpha-2 country code.{meant.get(code, '')}"


_ASKED: Final[dict[str, str]] = {
    "parent_country": "Use an ISO 3166-1 alpha-2 country code in capitals, like DE.",
    "jurisdiction": "Use an ISO 3166-1 alpha-2 country code in capitals, like DE.",
    "jurisdictions": "List ISO 3166-1 alpha-2 country codes in capitals, like [DE, FR].",
    "url": "Write http(s)://host:port, without user, query or fragment.",
    "weigh": f"Write factors on {', '.join(get_args(Part))}, like {{latency: 0}}.",
    "request": f"Write facts, each a text, like {{tenant: acme}}; known are {', '.join(get_args(RequestFact))}.",
}


_KINDS: Final[dict[str, str]] = {
    "float": "a number", "int": "a whole number", "str": "a text", "bool": "true or false", "array": "a list",
    "object": "a mapping",
}  # fmt: skip


def told(name: str, value: object, error: msgspec.ValidationError, kind: Any = None) -> str:
    """What would be right for the field `name` of the type `kind`, in words, where `value` was refused with `error`."""
    if (asked := _ASKED.get(name)) is not None:
        return asked
    if str(error).startswith("Invalid enum value") and (choices := _choices(kind)):
        return f"Choose {'one of' if isinstance(value, str) else 'from'} {', '.join(choices)}."
    said = str(error).replace(" - at `$", " at `").replace("`", "")
    if "regex" in said and isinstance(value, str):
        return "Use letters, digits and _ . : / @ + - only, a letter or digit first."
    for kind, asked in _KINDS.items():
        said = said.replace(f"Expected {kind}", f"Write {asked}").partition(", got ")[0]
    if value is None:
        return f"{said}: put it behind the colon, or take the field away."
    return f"{said}."


def _choices(kind: Any) -> list[str]:
    """The words that a type, or one within it, takes.

    >>> _choices(tuple[Literal["a", "b"], ...] | None)
    ['a', 'b']
    """
    if get_origin(kind) is Literal:
        return [word for word in get_args(kind) if word]
    return [word for inner in get_args(kind) for word in _choices(inner)]


def _reachable(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return bool(parts.hostname) and parts.port != 0 and not (parts.query or parts.fragment or parts.username)
    except ValueError:
        return False
