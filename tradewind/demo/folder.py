"""The folder of a run: marked as ours, for one run at a time, emptied at the start. Nobody else's is ever emptied."""

from __future__ import annotations

import contextlib
import fcntl
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from streams.contract import formats
from streams.contract.errors import Missing

MARK = ".tradewind-demo"
"""Whoever holds the lock on this file has the folder; a folder without it is not ours."""
_SAYS = "This folder belongs to `tradewind demo`, which empties it at each start.\nFormat 1.\n"
_FORMAT = re.compile(r"^Format (\d{1,9})\b", re.MULTILINE)


@contextlib.contextmanager
def fresh_folder(folder: Path, *, keep: bool) -> Iterator[None]:
    """`folder` for one run at a time: empty but for our mark, or as it was with `keep`.

    Raises Missing when it holds what no demo has put there, when another run has it, or when it cannot be written;
    TooNew when a newer version made what is to be kept.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _refuse_others(folder)
        mark = (folder / MARK).open("a")
    except OSError as error:
        raise _cannot("written", folder, error) from None
    with mark:
        try:
            fcntl.flock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise Missing(f"Another demo runs in {folder}", "Stop it, or name another folder: --data DIR") from None
        _sign(folder / MARK, keep=keep)
        if not keep:
            _empty(folder)
        yield


def _refuse_others(folder: Path) -> None:
    mark = folder / MARK
    ours = mark.is_file() and not mark.is_symlink()
    if not ours and any(folder.iterdir()):
        raise Missing(
            f"{folder} is not a demo's folder and is not empty",
            "Name an empty or a new one: --data DIR (or empty it yourself)",
        )


def _sign(mark: Path, *, keep: bool) -> None:
    if keep and (said := _FORMAT.search(mark.read_text("utf-8", "replace"))):
        remedy = "Start without --keep, which empties it, or name another folder: --data DIR"
        formats.require(mark, int(said[1]), 1, remedy)
    mark.write_text(_SAYS)


def _empty(folder: Path) -> None:
    try:
        for old in folder.iterdir():
            if old.is_dir() and not old.is_symlink():  # what a link points to is not ours
                shutil.rmtree(old)
            elif old.name != MARK:
                old.unlink()
    except OSError as error:
        raise _cannot("emptied", folder, error) from None


def _cannot(what: str, folder: Path, error: OSError) -> Missing:
    return Missing(f"The folder {folder} cannot be {what} ({error.strerror})", "Name another: --data DIR")
