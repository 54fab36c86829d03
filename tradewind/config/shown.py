"""Every setting with its value and where it came from, for people and programs. What may be a secret is not shown."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from streams.settings import DEFAULT, Settled
from tradewind.config.actuators import written
from tradewind.config.fields import flat
from tradewind.config.gateway import common
from tradewind.config.whole import Whole

_SECRET: Final = re.compile(r"(password|secret|token|credential|api_?key|bearer)s?$")
_HIDDEN: Final = "(hidden)"


class Shown(msgspec.Struct, frozen=True):
    """One setting. `source`: flag, environment NAME, FILE:LINE, running `up`, or default."""

    field: str
    value: Any
    source: str


def settings_shown(settled: Settled) -> list[Shown]:
    """One line per setting; files of secrets by their path, and nothing of what they hold."""
    values = settled.settings.model_dump()
    return [Shown(field, _fit(field, values[field]), source) for field, source in settled.sources.items()]


def gateway_shown(whole: Whole) -> list[Shown]:
    """One line per setting that gateways have in common, and one per port that is named."""
    ports = {"ports": whole.gateway.ports} if whole.gateway.ports else {}
    said = dict(flat({"gateway": {**_without_literals(whole.gateway.fields), **ports}}))
    usual = dict(flat({"gateway": dict(_usual())}))
    return [
        Shown(at, _fit(at, value), f"{whole.path}:{_line(whole.lines, at)}" if at in said else DEFAULT)
        for at, value in {**usual, **said}.items()
        if value not in ({}, None) or at in said
    ]


def actuators_shown(whole: Whole) -> list[Shown]:
    """One line per field that the section of actuators says, and the mode; none where there is no section."""
    if whole.actuators is None:
        return []
    said = written(whole.actuators)["actuators"]
    parts = {f"actuators.pools[{n}]": entry for n, entry in enumerate(said["pools"])}
    values = {"actuators.mode": said["mode"]} | dict(flat(parts))
    return [
        Shown(at, value, f"{whole.path}:{whole.lines[at]}" if at in whole.lines else DEFAULT)
        for at, value in values.items()
        if at in whole.lines or at == "actuators.mode"
    ]


def _usual() -> Iterator[tuple[str, Any]]:
    for name, info in common().items():
        default = None if info.required else info.default
        yield name, msgspec.to_builtins(default, enc_hook=str) if default is not msgspec.NODEFAULT else None


def _line(lines: Mapping[str, int], path: str) -> int:
    while path not in lines and "." in path:
        path = path.rpartition(".")[0]
    return lines.get(path, 1)


def _fit(field: str, value: Any) -> Any:
    if value is not None and _SECRET.search(field.rpartition(".")[2]):
        return _HIDDEN
    return str(value) if isinstance(value, Path) else value


def _without_literals(fields: Mapping[str, Any]) -> dict[str, Any]:
    """`fields` with those values of upstreams' headers hidden that stand where a reference could.

    Done before paths are made of names: a header may be called x.file, and then looks like a reference.
    """
    if not (upstreams := fields.get("upstreams")):
        return dict(fields)
    return {**fields, "upstreams": {name: _only_references(one) for name, one in upstreams.items()}}


def _only_references(upstream: Mapping[str, Any]) -> dict[str, Any]:
    headers = upstream.get("headers") or {}
    shown = {name: value if isinstance(value, Mapping) else _HIDDEN for name, value in headers.items()}
    return {**upstream, "headers": shown} if headers else dict(upstream)
