"""The section `settings:` of a tradewind.yaml: fields of `streams.settings.Settings`, each with its line."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

from ruamel.yaml.comments import CommentedMap

from router_sync.fleet import BadFleet, Problem, plain, tree_of
from streams.settings import Layer, Settings, wrongs
from tradewind.config.fields import Reader


def read_settings(tree: CommentedMap, reader: Reader) -> Layer:
    """The section as a layer for `streams.settings.settle`; what is wrong is noted in `reader`."""
    section = reader.section(tree, "settings")
    if section is None:
        return Layer()
    given = {
        key: _located(key, plain(value), at, reader)
        for key, at, value in reader.known(section, "settings", list(Settings.model_fields))
    }
    for field, value, said in wrongs(given):
        reader.wrong(f"settings.{field}" if field else "settings", value, f"{said}.")
    return Layer(given, {key: reader.place(f"settings.{key}") for key in given})


def settings_of(path: Path) -> Layer:
    """The section `settings:` of a file whose fleet may be unfit. Raises BadFleet with what is wrong in the section."""
    tree = tree_of(text_of(path), str(path))
    reader = Reader(str(path), path.absolute().parent)
    layer = read_settings(tree, reader)
    if reader.problems:
        raise BadFleet(str(path), reader.problems)
    return layer


def text_of(path: Path) -> str:
    """What the file says. Raises BadFleet when it cannot be read."""
    try:
        return path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = str(getattr(error, "strerror", None) or error)
        remedy = "Name a readable YAML file in UTF-8, or write one with `tradewind init`."
        raise BadFleet(str(path), [Problem(str(path), "file", reason, remedy)]) from None


def is_path(field: str) -> bool:
    """Whether the setting `field` is a path."""
    annotation = Settings.model_fields[field].annotation
    return annotation is Path or Path in get_args(annotation)


def _located(field: str, value: Any, path: str, reader: Reader) -> Any:
    return reader.located(value, path) if is_path(field) and isinstance(value, str) else value
