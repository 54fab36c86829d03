"""Who was received at an endpoint, written down by the endpoint itself: proof that no gateway and no table can bend.

A line a request, appended when its head is read: a request that was received has crossed the border, whether it was
answered or not. Lines survive `kill -9`, for nothing of them waits in the process.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import msgspec


class Received(msgspec.Struct, frozen=True, omit_defaults=True):
    """One request: when (unix seconds), and what its caller said of himself."""

    at_s: float
    origin: str = ""
    cls: str = ""


class Ledger:
    """Appends to `path`; None writes nothing."""

    def __init__(self, path: Path | None) -> None:
        self._number = None if path is None else os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def note(self, received: Received) -> None:
        """Write it down."""
        if self._number is not None:
            os.write(self._number, msgspec.json.encode(received) + b"\n")

    def close(self) -> None:
        """Nothing is written after that."""
        if self._number is not None:
            os.close(self._number)
            self._number = None


def read(path: Path) -> Iterator[Received]:
    """All that stands there; a line that was cut by a crash is passed over, a file that is not there is empty."""
    try:
        lines = path.read_bytes().splitlines(keepends=True)
    except FileNotFoundError:
        return
    yield from (msgspec.json.decode(line, type=Received) for line in lines if line.endswith(b"\n"))
