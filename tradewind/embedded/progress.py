"""Shows the first download: a bar on a terminal, a line every tenth elsewhere, nothing when the cache is warm."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from tradewind.embedded import jars

_TITLE = "Fetching Apache Kafka (once)"


def silent(_name: str, _done: int, _total: int) -> None:
    """Shows nothing."""


@contextlib.contextmanager
def shown_on(stream: TextIO) -> Iterator[jars.Progress]:
    """A progress callback that writes to `stream` (stderr, so that stdout stays the command's own)."""
    if stream.isatty():
        with _bar_on(stream) as bar:
            yield bar
    else:
        yield _lines_on(stream)


@contextlib.contextmanager
def _bar_on(stream: TextIO) -> Iterator[jars.Progress]:
    says = TextColumn("{task.description}"), TextColumn("{task.fields[jar]}")
    columns = (says[0], BarColumn(), DownloadColumn(), TransferSpeedColumn(), says[1])
    with contextlib.ExitStack() as shown:
        bar = Progress(*columns, console=Console(file=stream), transient=True)
        task = bar.add_task(_TITLE, total=None, jar="")

        def tell(name: str, done: int, total: int) -> None:
            if not bar.live.is_started:  # a warm cache shows no bar at all
                shown.enter_context(bar)
            bar.update(task, completed=done, total=total, jar=name)

        yield tell


def _lines_on(stream: TextIO) -> jars.Progress:
    told = -1

    def tell(name: str, done: int, total: int) -> None:
        nonlocal told
        tenth = 10 * done // total
        if tenth > told:
            told = tenth
            print(f"{_TITLE}: {done / 1e6:.0f} of {total / 1e6:.0f} MB, {name}", file=stream, flush=True)

    return tell
