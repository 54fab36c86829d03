"""Fields of structs read from a YAML tree that knows its lines: all that is wrong is collected, nothing is guessed.

Relative paths start where the file is.
"""

from __future__ import annotations

import difflib
import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final, Union, get_args, get_origin

import msgspec
from ruamel.yaml.comments import CommentedMap, CommentedSeq

from router_sync.fleet import Problem, plain, told
from streams.contract.errors import is_secret

_MAY_BE_ABSENT: Final = frozenset({"state_dir", "table_file"})
"""Paths that somebody makes later; all others have to be there."""


@dataclass(slots=True)
class Reader:
    """Reads sections of one file. `name`: what problems call it; `folder`: where it lies."""

    name: str
    folder: Path
    problems: list[Problem] = field(default_factory=list)
    lines: dict[str, int] = field(default_factory=dict)
    """Path of a field to its line."""
    private: set[str] = field(default_factory=set)
    """Paths of which the value is not said: a secret may stand there by mistake."""

    def wrong(self, path: str, value: object, remedy: str) -> None:
        """Note that the field at `path` cannot be used; what may be a secret is not repeated."""
        from router_sync.gateway.config import HIDDEN, hidden  # with all of the gateway, which few commands need

        secret = hidden(path) or is_secret(path) or path in self.private
        shown = HIDDEN if value is not None and secret else value
        self.problems.append(Problem(self.place(path), path, shown, remedy))

    def place(self, path: str) -> str:
        """FILE:LINE of the field at `path`, or of the nearest one around it."""
        while path not in self.lines and "." in path:
            path = path.rpartition(".")[0]
        return f"{self.name}:{self.lines.get(path, 1)}"

    def section(self, tree: CommentedMap, path: str) -> CommentedMap | None:
        """The mapping at the top-level key `path`; None when there is none, which is noted unless it is left out."""
        if path not in tree:
            return None
        self.lines[path] = _line(tree, path)
        given = tree[path]
        if isinstance(given, CommentedMap):
            return given
        if given is not None:
            self.wrong(path, plain(given), "Write a mapping: one `field: value` a line, indented.")
        return None

    def known(self, tree: CommentedMap, path: str, fields: Sequence[str]) -> Iterator[tuple[str, str, Any]]:
        """(field, its path, value) of what is known; the rest is noted with what may have been meant."""
        for key in tree:
            at = f"{path}.{key}"
            self.lines[at] = _line(tree, key)
            if key in fields:
                yield str(key), at, tree[key]
            else:
                self.wrong(at, plain(tree[key]), meant(str(key), fields))

    def struct(self, kind: type[msgspec.Struct], given: Any, path: str) -> dict[str, Any] | None:
        """Fields of a `kind` as plain values, None when it cannot be made."""
        infos = {info.encode_name: info for info in msgspec.structs.fields(kind)}
        if not isinstance(given, CommentedMap):
            self.wrong(path, plain(given), f"Write a mapping with any of {', '.join(infos)}.")
            return None
        before = len(self.problems)
        made = {key: self.value(infos[key].type, value, at) for key, at, value in self.known(given, path, list(infos))}
        for key, info in infos.items():
            if info.required and key not in given:
                self.wrong(f"{path}.{key}", None, "Add it.")
        if len(self.problems) == before:
            self._whole(kind, made, path)
        return made if len(self.problems) == before else None

    def _whole(self, kind: type[msgspec.Struct], made: dict[str, Any], path: str) -> None:
        """What a struct says about its fields together."""
        try:
            msgspec.convert(made, kind, dec_hook=_as_path)
        except msgspec.ValidationError as error:
            self.wrong(path, made, f"{error}.")

    def value(self, kind: Any, given: Any, path: str) -> Any:
        """One value as plain ones, paths made absolute; None when it cannot be used, which is noted."""
        inner = _struct_in(kind)
        if inner is not None and get_origin(_bare(kind)) is dict and isinstance(given, CommentedMap):
            return {key: self.struct(inner, value, at) for key, at, value in self.known(given, path, list(given))}
        if inner is not None and isinstance(given, CommentedSeq):
            return [self._item(inner, given, n, f"{path}[{n}]") for n in range(len(given))]
        if inner is not None and given is not None:
            return self.struct(inner, given, path)
        return self._leaf(kind, plain(given), path)

    def _item(self, kind: type[msgspec.Struct], given: CommentedSeq, n: int, path: str) -> Any:
        self.lines[path] = given.lc.data[n][0] + 1
        return self.struct(kind, given[n], path)

    def _leaf(self, kind: Any, given: Any, path: str) -> Any:
        def located(wanted: type, value: Any) -> Any:
            return self.located(value, path) if wanted is Path and isinstance(value, str) else _as_path(wanted, value)

        try:
            return msgspec.to_builtins(msgspec.convert(given, kind, dec_hook=located), enc_hook=str)
        except (msgspec.ValidationError, NotImplementedError) as error:
            name = path.rpartition(".")[2]
            remedy = told(name, given, error, kind) if isinstance(error, msgspec.ValidationError) else "Write a path."
            self.wrong(path, given, remedy)
            return None

    def located(self, value: str, path: str) -> Path:
        """`value` as an absolute path that starts where the file is; one that is not there is noted."""
        found = (self.folder / Path(value).expanduser()).absolute()
        if path.rpartition(".")[2] not in _MAY_BE_ABSENT and not found.exists():
            self.wrong(path, value, f"There is no {found}: paths start where {Path(self.name).name} is.")
        return found


def meant(key: str, known: Sequence[str]) -> str:
    """What may have been meant by the unknown field `key`."""
    close = difflib.get_close_matches(key, known, 1)
    return f"Did you mean {close[0]}?" if close else f"Known are {', '.join(known)}."


def flat(values: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """(path, value) of every leaf of nested mappings."""
    for key, value in values.items():
        at = f"{path}.{key}" if path else key
        if isinstance(value, Mapping) and value:
            yield from flat(value, at)
        else:
            yield at, value


def _line(tree: CommentedMap, key: Any) -> int:
    return int(tree.lc.data[key][0]) + 1 if key in tree.lc.data else 1


def _as_path(wanted: type, value: Any) -> Any:
    if wanted is Path and isinstance(value, str | Path):
        return Path(value)
    raise NotImplementedError(wanted)


def _bare(kind: Any) -> Any:
    """A type without its ranges, and without None."""
    if get_origin(kind) is Annotated:
        return _bare(get_args(kind)[0])
    if get_origin(kind) in (Union, types.UnionType):
        inner = [one for one in get_args(kind) if one is not type(None)]
        return _bare(inner[0]) if len(inner) == 1 else kind
    return kind


def _struct_in(kind: Any) -> type[msgspec.Struct] | None:
    """The struct that `kind` is or holds (in a list, as values of a mapping); None when there is none."""
    bare = _bare(kind)
    if isinstance(bare, type) and issubclass(bare, msgspec.Struct):
        return bare
    inner = [_bare(one) for one in get_args(bare)] if get_origin(bare) in (tuple, list, dict) else []
    return next((one for one in inner if isinstance(one, type) and issubclass(one, msgspec.Struct)), None)
