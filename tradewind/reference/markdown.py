"""Markdown that the site and plain viewers read alike."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Sequence


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def cell(text: str) -> str:
    """Text fit for one cell of a table."""
    return " ".join(_escaped(text).replace("|", "\\|").split())


def prose(text: str) -> str:
    return _escaped(inspect.cleandoc(text))


def _escaped(text: str) -> str:
    return text.replace("<", "&lt;").replace("*", "\\*").replace("[", "\\[")


def code(text: str) -> str:
    return f"```sh\n{text}\n```"


def anchor(heading: str) -> str:
    """The id that a heading gets on the site."""
    return re.sub(r"[^\w\s-]", "", heading.lower()).strip().replace(" ", "-")
