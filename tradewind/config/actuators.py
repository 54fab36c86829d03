"""The section `actuators:` of a tradewind.yaml: mode, and an entry for each kind of target, each with its line."""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final, get_args

import msgspec
from ruamel.yaml.comments import CommentedMap, CommentedSeq

from router_sync.actuators.entry import Entry, Mode
from router_sync.actuators.kinds import KINDS
from router_sync.actuators.section import Actuators
from router_sync.fleet import BadFleet, Misfit, plain, tree_of
from streams.contract.records import Fleet
from tradewind.config.fields import Reader, meant
from tradewind.config.settings import text_of

MODES: Final = get_args(Mode)
_POOLS: Final = 1000
_SECRETS: Final = ("secret", "next_secret")
"""Fields of entries that refer to where a secret is kept."""


def read_actuators(tree: CommentedMap, reader: Reader) -> Actuators | None:
    """The section, None where there is none; what is wrong is noted in `reader`."""
    section = reader.section(tree, "actuators")
    if section is None:
        return None
    before = len(reader.problems)
    given = {key: (value, at) for key, at, value in reader.known(section, "actuators", ("mode", "pools"))}
    mode, at = given.get("mode", ("dry_run", ""))
    if mode not in MODES:
        reader.wrong(at, plain(mode), f"Choose one of {', '.join(MODES)}.")
    pools = tuple(_entries(*given["pools"], reader)) if "pools" in given else ()
    return Actuators(mode=mode, pools=pools) if len(reader.problems) == before else None


def actuators_of(path: Path) -> Actuators:
    """The section in a file whose other sections may be missing or unfit. Raises BadFleet with what is wrong in it."""
    tree = tree_of(text_of(path), str(path))
    reader = Reader(str(path), path.absolute().parent)
    section = read_actuators(tree, reader)
    if reader.problems:
        raise BadFleet(str(path), reader.problems)
    return section or Actuators()


def written(section: Actuators) -> dict[str, Any]:
    """The section as plain values, which `actuators_of` reads again."""
    said: dict[str, Any] = msgspec.to_builtins(section, enc_hook=str)
    return {"actuators": said | {"pools": [{k: v for k, v in one.items() if v is not None} for one in said["pools"]]}}


def referenced(section: Actuators | None) -> frozenset[str]:
    """The environment variables that the section keeps secrets in."""
    entries = section.pools if section is not None else ()
    secrets = [getattr(entry, field, None) for entry in entries for field in _SECRETS]
    return frozenset(one.env for one in secrets if one is not None and one.env)


def _entries(given: Any, at: str, reader: Reader) -> Iterator[Entry]:
    if not isinstance(given, CommentedSeq) or len(given) > _POOLS:
        reader.wrong(at, plain(given), f"List entries, at most {_POOLS}, each with pool and kind.")
        return
    for n, one in enumerate(given):
        path = f"{at}[{n}]"
        reader.lines[path] = int(given.lc.data[n][0]) + 1
        entry = _entry(one, path, reader)
        if entry is not None:
            yield entry


def _entry(given: Any, path: str, reader: Reader) -> Entry | None:
    if not isinstance(given, CommentedMap) or "kind" not in given:
        value = None if isinstance(given, CommentedMap) else plain(given)
        reader.wrong(f"{path}.kind", value, f"Write a mapping with pool and kind, one of {', '.join(KINDS)}.")
        return None
    kind = KINDS.get(str(given["kind"]))
    if kind is None:
        reader.lines[f"{path}.kind"] = int(given.lc.data["kind"][0]) + 1
        reader.wrong(f"{path}.kind", plain(given["kind"]), meant(str(given["kind"]), list(KINDS)))
        return None
    known = {info.encode_name for info in msgspec.structs.fields(kind.entry)}
    reader.private |= {f"{path}.{field}" for field in given if field not in known}  # a secret that is misspelt
    made = reader.struct(kind.entry, given, path)
    return None if made is None else msgspec.convert(made, kind.entry, dec_hook=_path)


def _path(kind: type, value: Any) -> Any:
    if kind is Path:
        return Path(value)
    raise NotImplementedError(kind)


def unfit(fleet: Fleet, section: Actuators) -> Iterator[Misfit]:
    """Entries that no pool of the fleet would ever meet, and ports that two would listen on."""
    pools = sorted({e.pool for e in fleet.endpoints})
    met = {section.number(pool) for pool in pools}
    for n, entry in enumerate(section.pools):
        at, fits = f"actuators.pools[{n}].pool", [pool for pool in pools if fnmatchcase(pool, entry.pool)]
        if not fits:
            yield at, entry.pool, f"It fits no pool of the fleet. {meant(entry.pool, pools)}"
        elif n not in met:
            yield at, entry.pool, f"Entries before it have all that it fits, like {fits[0]}: put it before them."
    yield from _same_port(section)


def _same_port(section: Actuators) -> Iterator[Misfit]:
    taken: dict[int, str] = {}
    for n, entry in enumerate(section.pools):
        for field in ("port", "http_port"):
            port = getattr(entry, field, None)
            if port and port in taken:
                yield f"actuators.pools[{n}].{field}", port, f"{taken[port]} has it already: give each its own."
            elif port:
                taken[port] = f"pools[{n}].{field}"
