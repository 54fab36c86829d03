"""Keys while the demo runs: 1, 2, 3 … break and mend a region, q ends it. Only where there is a terminal."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import termios
import tty
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def keys(pressed: Callable[[str], None]) -> Iterator[bool]:
    """Call `pressed` with each key; False where stdin is no terminal. The terminal is put back as it was."""
    if not sys.stdin.isatty():
        yield False
        return
    number, loop = sys.stdin.fileno(), asyncio.get_running_loop()
    before = termios.tcgetattr(number)
    tty.setcbreak(number)

    def readable() -> None:
        for key in os.read(number, 64).decode(errors="ignore"):
            pressed(key)

    loop.add_reader(number, readable)
    try:
        yield True
    finally:
        loop.remove_reader(number)
        termios.tcsetattr(number, termios.TCSADRAIN, before)
