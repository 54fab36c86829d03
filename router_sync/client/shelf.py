"""The last good tables on disk: exact bytes and headers, so that a restart verifies them again."""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import quote

import msgspec

from streams import signals
from streams.contract.formats import FIRST, number_of, too_new

FORMAT: Final = 1
"""Of the files written here. A larger one means that this version would misread it."""


class Found(NamedTuple):
    """A record of the routing-table topic as it lies there; nothing in it is verified."""

    key: bytes
    value: bytes
    headers: list[tuple[str, bytes]]


class _Sheet(msgspec.Struct, frozen=True):
    """A `Found` in a file: JSON, with bytes in base64."""

    key: bytes
    value: bytes
    headers: list[tuple[str, bytes]]
    format: int = FIRST


_decoder = msgspec.json.Decoder(_Sheet)


def pack(found: Found) -> bytes:
    """`found` as the content of a file that `unpack` and `FileSource` read."""
    return msgspec.json.encode(_Sheet(found.key, found.value, found.headers, FORMAT))


def unpack(content: bytes) -> Found:
    """What `pack` was given, by this version or an earlier one. Raises ValueError for anything else."""
    if (number := number_of(content)) > FORMAT:
        raise ValueError(f"the file {too_new(number, FORMAT)}. Update this gateway, or move the file away")
    sheet = _decoder.decode(content)
    return Found(sheet.key, sheet.value, sheet.headers)


class Shelf:
    """A folder with one file per service. Several processes may share it: each write is whole, the last one stays.

    A thread of its own writes: a disk may take its time, and who follows tables also answers requests.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._waiting: dict[str, Found] = {}
        self._lock = threading.Lock()
        self._writer = ThreadPoolExecutor(1, "tradewind-shelf")

    def put(self, service: str, found: Found) -> None:
        """Keep `found` for `service`, soon; of several that wait, the last. A full or read-only disk is an event."""
        with self._lock:
            waits, self._waiting[service] = service in self._waiting, found
        if not waits:
            self._writer.submit(self._write_last, service)

    def settle(self) -> None:
        """Come back when all that was put is on disk, or cannot be."""
        self._writer.submit(lambda: None).result()

    def _write_last(self, service: str) -> None:
        with self._lock:
            found = self._waiting.pop(service)
        self._write(service, found)

    def _write(self, service: str, found: Found) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            handle, draft = tempfile.mkstemp(prefix=".draft.", dir=self.folder)  # mkstemp makes it 0600
            with os.fdopen(handle, "wb") as file:
                file.write(pack(found))
                file.flush()
                os.fsync(file.fileno())
            Path(draft).replace(self._path(service))
        except (OSError, ValueError) as error:
            signals.event("table_not_kept", "warning", service=service, folder=str(self.folder), reason=str(error))

    def all(self) -> Iterator[Found]:
        """Everything kept; a file that cannot be read is left out with an event."""
        for path in sorted(self.folder.glob("*.table")) if self.folder.is_dir() else ():
            try:
                yield unpack(path.read_bytes())
            except (OSError, ValueError) as error:
                signals.event("kept_table_unreadable", "warning", file=str(path), reason=str(error))

    def _path(self, service: str) -> Path:
        return self.folder / f"{quote(service, safe='')}.table"
