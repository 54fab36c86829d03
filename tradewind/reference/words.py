"""JSON Schema in words: what a value has to be."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from streams.contract.records import Name, Url
from tradewind.reference.markdown import anchor
from tradewind.world.scenario import Length

Schema = Mapping[str, Any]
_ENDLESS: Final = 1e9


def kind_of(part: Schema) -> str:
    """What a value has to be, in words.

    >>> kind_of({"type": "integer", "minimum": 0, "maximum": 65535})
    'integer, 0 to 65535'
    """
    if "$ref" in part:
        name = str(part["$ref"]).rpartition("/")[2]
        return f"[{name}](#{anchor(name)})"
    if "allOf" in part:
        return kind_of(part["allOf"][0])
    if "anyOf" in part:
        return " or ".join(kind_of(one) for one in part["anyOf"] if one.get("type") != "null")
    if "enum" in part:
        return ", ".join(f"`{value}`" for value in part["enum"] if value is not None)
    return _KINDS.get(part.get("type", ""), _any)(part)


def _array(part: Schema) -> str:
    return f"list of {kind_of(part.get('items') or {})}"


def _object(part: Schema) -> str:
    inner = part.get("additionalProperties")
    return f"map of {kind_of(inner)}" if isinstance(inner, Mapping) else "map"


def _number(part: Schema) -> str:
    least, most = part.get("minimum"), _worth_saying(part.get("maximum"))
    above, below = part.get("exclusiveMinimum"), part.get("exclusiveMaximum")
    said = [f"{_plain(least)} to {_plain(most)}"] if least is not None and most is not None else []
    if not said:
        said += [f"from {_plain(least)}"] if least is not None else []
        said += [f"above {_plain(above)}"] if above is not None else []
        said += [f"at most {_plain(most)}"] if most is not None else []
    said += [f"below {_plain(below)}"] if below is not None else []
    return ", ".join([part["type"], *said])


def _plain(number: float) -> str:
    return f"{int(number) if number == int(number) else number:,}"


def _worth_saying(most: float | None) -> float | None:
    """A bound that somebody could meet; the others only keep integers from overflowing."""
    return most if most is None or most < _ENDLESS else None


def _text(part: Schema) -> str:
    if part.get("format") == "path":
        return "path"
    pattern = part.get("pattern")
    if pattern is None:
        return "text"
    return _KNOWN.get(pattern) or f"text like `{pattern}`".replace("|", "\\|")


def _truth(_: Schema) -> str:
    return "true, false"


def _any(_: Schema) -> str:
    return "anything"


_KINDS: Final[Mapping[str, Callable[[Schema], str]]] = {
    "array": _array,
    "object": _object,
    "integer": _number,
    "number": _number,
    "string": _text,
    "boolean": _truth,
}
_KNOWN: Final = {
    msgspec.json.schema(Name)["pattern"]: "name",
    msgspec.json.schema(Url)["pattern"]: "URL",
    msgspec.json.schema(Length)["pattern"]: "length of time",
    r"^[A-Z]{2}$(?!\n)": "two capital letters",
}


def default_in_words(default: object) -> str:
    """A default as a table shows it.

    >>> default_in_words(0.5), default_in_words(True), default_in_words(None), default_in_words(())
    ('`0.5`', '`true`', 'none', 'empty')
    """
    if default is None or default == "":
        return "none"
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    if isinstance(default, list | tuple | dict):
        return f"`{msgspec.json.encode(default).decode()}`" if default else "empty"
    return f"`{default:g}`" if isinstance(default, float) else f"`{default}`"
