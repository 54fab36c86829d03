"""Tables of structs, a row for each field: from the types, the defaults and the text below each field."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, get_type_hints

import msgspec

from tradewind.reference.markdown import cell, prose, table
from tradewind.reference.words import Schema, default_in_words, kind_of

HEAD = ("Field", "Value", "Default", "What")
_OURS = ("streams", "forecasting", "router_sync", "tradewind")


def sections(kind: type[msgspec.Struct], *, level: int = 2) -> str:
    """A struct and the structs inside it, each under a heading."""
    return "\n\n".join(section(inner, level) for inner in inside(kind))


def section(kind: type[msgspec.Struct], level: int = 2) -> str:
    """One struct: its docstring, and a row for each field."""
    return f"{'#' * level} {kind.__name__}\n\n{prose(kind.__doc__ or '')}\n\n{fields(kind)}"


def fields(kind: type[msgspec.Struct], besides: type[msgspec.Struct] | None = None) -> str:
    """A row for each field of a struct, without those that it has as `besides` has them."""
    docs, hints = attribute_docs(kind), get_type_hints(kind, include_extras=True)
    return table(
        HEAD,
        (
            [f"`{f.encode_name}`", kind_of(_schema(hints[f.name])), _default(f), cell(docs.get(f.name, ""))]
            for f in msgspec.structs.fields(kind)
            if besides is None or f.name == "kind" or f not in msgspec.structs.fields(besides)
        ),
    )


def inside(kind: type[msgspec.Struct]) -> list[type[msgspec.Struct]]:
    """`kind`, then the structs that its fields hold, in the order met."""
    found: dict[type[msgspec.Struct], None] = {kind: None}
    for hint in get_type_hints(kind, include_extras=True).values():
        for inner in _structs_of(msgspec.inspect.type_info(hint)):
            found.update(dict.fromkeys(inside(inner)))
    return list(found)


def attribute_docs(kind: type) -> dict[str, str]:
    """The text below each attribute of a class and of its bases among ours, by attribute."""
    docs: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        if base.__module__.partition(".")[0] in _OURS:
            parsed = ast.parse(textwrap.dedent(inspect.getsource(base))).body[0]
            docs.update(_documented(parsed.body if isinstance(parsed, ast.ClassDef) else []))
    return docs


def _documented(body: Sequence[ast.stmt]) -> Iterator[tuple[str, str]]:
    for line, after in pairwise(body):
        if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name) and isinstance(after, ast.Expr):
            text = after.value
            if isinstance(text, ast.Constant) and isinstance(text.value, str):
                yield line.target.id, inspect.cleandoc(text.value)


def _schema(hint: Any) -> Schema:
    (made,), _ = msgspec.json.schema_components([hint], schema_hook=_outside)
    return made


def _outside(kind: type) -> dict[str, Any]:
    return {"type": "string", "format": "path"} if issubclass(kind, Path) else {}


def _default(field: msgspec.structs.FieldInfo) -> str:
    if field.required:
        return "required"
    default = field.default_factory() if field.default is msgspec.NODEFAULT else field.default
    return "as below" if isinstance(default, msgspec.Struct) else default_in_words(default)


def _structs_of(info: msgspec.inspect.Type) -> Iterator[type[msgspec.Struct]]:
    if isinstance(info, msgspec.inspect.StructType):
        yield info.cls
        return
    for name in ("types", "item_types", "item_type", "type", "value_type"):
        inner = getattr(info, name, ())
        for part in inner if isinstance(inner, tuple) else (inner,):
            yield from _structs_of(part)
