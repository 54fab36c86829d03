"""The state folder: for one `up` at a time."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Final

from streams.contract.errors import Missing

LOCK: Final = "up.lock"


@contextlib.contextmanager
def taken(folder: Path) -> Iterator[None]:
    """`folder`, made where there is none, for this process alone.

    Raises Missing with the process id of the one that has it, or when it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / LOCK).open("a+")
    except OSError as error:
        what = f"The folder {folder} cannot be written ({error.strerror})"
        raise Missing(what, "Name another one: `state_dir` under `settings:`, or TRADEWIND_STATE_DIR") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise _running(folder, lock) from None
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        yield


def _running(folder: Path, lock: IO[str]) -> Missing:
    lock.seek(0)
    pid = lock.read().strip() or "unknown"
    return Missing(
        f"Another `tradewind up` runs in {folder}, process {pid}",
        f"Stop it (Ctrl-C there, or kill {pid}), or give this one a folder of its own: TRADEWIND_STATE_DIR",
    )
