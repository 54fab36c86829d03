"""The page of the command line, from the commands themselves."""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tradewind.reference.markdown import cell, code, prose, table


def cli_page() -> str:
    """Every command: what it does, its arguments and options, examples."""
    import typer

    from tradewind.cli import app

    says = (
        "# Command line\n\nExit status: 0 done, 1 could not, 2 wrong usage, 130 interrupted. What went wrong is one "
        "sentence on stderr, with a remedy. With `--json`, stdout carries one JSON object and nothing else.\n"
    )
    return says + "".join(_commands(typer.main.get_command(app), "tradewind"))


def _commands(command: Any, name: str) -> Iterator[str]:
    inner = getattr(command, "commands", None)
    if inner is None:
        yield _command(command, name)
        return
    if name.count(" "):
        yield f"\n## {name}\n\n{prose(command.help or '')}\n"
    for word in inner:
        yield from _commands(inner[word], f"{name} {word}")


def _command(command: Any, name: str) -> str:
    told, examples = _told(command.help or "")
    taken = [p for p in command.params if not getattr(p, "hidden", False) and p.name != "help"]
    words = [p.metavar or p.name.upper() for p in taken if not _is_option(p)]
    level = "#" * min(3, 1 + name.count(" "))
    parts = [f"\n{level} {name}", prose(told), code(" ".join([name, "[OPTIONS]", *words]))]
    if taken:
        parts.append(table(["", "What"], ([_flag(p), _help(p)] for p in taken)))
    return "\n\n".join([*parts, *([code(examples)] if examples else [])]) + "\n"


def _told(text: str) -> tuple[str, str]:
    """Help without its examples, and the examples, one a line."""
    told, _, examples = re.sub(r"(?m)^Examples?:", "\0", inspect.cleandoc(text), count=1).partition("\0")
    return told.strip(), textwrap.dedent(examples.lstrip(" ").strip("\n")).strip()


def _is_option(parameter: Any) -> bool:
    return any(word.startswith("-") for word in parameter.opts)


def _flag(parameter: Any) -> str:
    if not _is_option(parameter):
        return f"`{parameter.metavar or parameter.name.upper()}`"
    metavar = "" if getattr(parameter, "is_flag", False) else f" {parameter.metavar or _metavar(parameter)}"
    return ", ".join(f"`{word}{metavar}`" for word in parameter.opts)


def _metavar(parameter: Any) -> str:
    return "NUMBER" if isinstance(parameter.default, int | float) else parameter.name.split("_")[-1].upper()


def _help(parameter: Any) -> str:
    said = [parameter.help or ""]
    default = parameter.default
    if parameter.required:
        said.append("Required.")
    elif _is_plain(default):
        said.append(f"Default: `{default}`.")
    return cell(" ".join(filter(None, said)))


def _is_plain(default: object) -> bool:
    return default not in (None, False, "", (), []) and isinstance(default, str | int | float | Path)
