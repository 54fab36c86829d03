"""Files that may change while a gateway runs: looked at every few seconds, beside the requests and never in one.

changed ─► read anew ─► good: in force from now on      event file_taken_over
                   └──► bad: the old one stays          event file_refused, with what to do
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from pathlib import Path

from streams import signals
from streams.contract.errors import Stop

_Stamp = tuple[int, int, int]


class Watch:
    """`add` before the first reading, so that no change between the two goes unseen."""

    def __init__(self, every_s: float) -> None:
        self._every_s = every_s
        self._watched: list[_Watched] = []

    def add(self, what: str, paths: Iterable[Path], reload: Callable[[], None]) -> None:
        """From now on call `reload` when one of `paths` has changed; it raises to keep what was, best a Stop."""
        if paths := tuple(paths):
            self._watched.append(_Watched(what, paths, reload))

    async def run(self) -> None:
        """Look until cancelled; ends at once where there is nothing to look at."""
        while self._watched:
            await asyncio.sleep(self._every_s)
            # a file system that hangs is not to hang us
            self.take(await asyncio.to_thread(self.changed))

    def changed(self) -> list[_Watched]:
        """What has changed since it was asked for the last time."""
        return [watched for watched in self._watched if watched.changed()]

    @staticmethod
    def take(changed: Iterable[_Watched]) -> None:
        """Read anew; what is bad is told and left."""
        for watched in changed:
            files = ", ".join(map(str, watched.paths))
            try:
                watched.reload()
            except Exception as error:  # noqa: BLE001 - one bad file must not stop another's change: it is seen once
                reason = str(error) if isinstance(error, Stop) else f"{type(error).__name__} while it was read"
                signals.event("file_refused", "error", what=watched.what, files=files, reason=reason, kept="old")
            else:
                signals.event("file_taken_over", what=watched.what, files=files)


class _Watched:
    __slots__ = ("_stamps", "paths", "reload", "what")

    def __init__(self, what: str, paths: tuple[Path, ...], reload: Callable[[], None]) -> None:
        self.what, self.paths, self.reload = what, paths, reload
        self._stamps = [_stamp(path) for path in paths]

    def changed(self) -> bool:
        stamps = [_stamp(path) for path in self.paths]
        before, self._stamps = self._stamps, stamps
        return stamps != before


def _stamp(path: Path) -> _Stamp | None:
    """Of what the path leads to in the end: secrets are often mounted as links that are turned."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
