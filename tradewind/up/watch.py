"""The file while `up` runs: each change is read whole, and either taken over or refused with all that is wrong.

So is each change of a policy's file that it names.

polled ─► changed? ─► read ─┬─ wrong     all problems said once, what is in force stays
                            ├─ fleet     published under the next version
                            └─ the rest  "restart needed"
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path
from typing import Final

from router_sync.fleet import BadFleet
from tradewind.config.settings import text_of
from tradewind.config.whole import Whole, parse

EVERY_S: Final = 0.5
_Mark = tuple[int, int, int]
_LOOKS_AWAY: Final = 4
"""Editors take a file away for a moment when they save it; after so many looks it is said."""


class Watched:
    """The file that `whole` was read from. `look` once in a while."""

    def __init__(self, whole: Whole) -> None:
        self._path = whole.path
        self._files = whole.files
        self._mark: tuple[_Mark | None, ...] | None = None
        self._digest = _digest(whole.text, self._files)
        self._away = 0

    def look(self) -> Whole | BadFleet | None:
        """What it says since it changed, or why that cannot be used; None when it did not change."""
        mark = tuple(map(_mark, (self._path, *self._files)))
        self._away = self._away + 1 if None in mark else 0
        if mark == self._mark or 0 < self._away < _LOOKS_AWAY:
            return None
        self._mark = mark
        try:
            text = text_of(self._path)
            digest = _digest(text, self._files)
            if digest == self._digest:
                return None
            self._digest = digest
            whole = parse(text, self._path)
            if whole.files != self._files:
                self._files = whole.files
                self._digest = _digest(text, self._files)
            return whole
        except BadFleet as bad:
            return bad


async def changes(watched: Watched, every_s: float = EVERY_S) -> AsyncIterator[Whole | BadFleet]:
    """What the file says after each change, for ever."""
    while True:
        await asyncio.sleep(every_s)
        if (said := await asyncio.to_thread(watched.look)) is not None:
            yield said


def need_restart(old: Whole, new: Whole) -> Iterator[str]:
    """What changed and is only read at the start, field by field."""
    for section, before, after in (
        ("settings", old.settings.values, new.settings.values),
        ("gateway", old.gateway.fields, new.gateway.fields),
        ("gateway.ports", old.gateway.ports, new.gateway.ports),
    ):
        for field in sorted(before.keys() | after.keys()):
            if before.get(field) != after.get(field):
                yield f"{section}.{field}"
    if old.actuators != new.actuators:
        yield "actuators"
    names = [{origin.name for origin in whole.fleet.origins} for whole in (old, new)]
    for origin in sorted(names[0] ^ names[1]):
        yield f"origin {origin}"


def _mark(path: Path) -> _Mark | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_ino, stat.st_mtime_ns, stat.st_size


def _digest(text: str, files: Iterable[Path]) -> bytes:
    """Of the file and those it is made of; one that is away is as if it were empty."""
    digest = hashlib.sha256(text.encode())
    for path in files:
        with contextlib.suppress(OSError):
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.digest()
