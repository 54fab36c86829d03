"""Says what happens: on the live screen where there is one, else in lines on stderr."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import NoReturn

from rich.console import Console
from rich.live import Live

from streams.runtime import clock
from tradewind.demo.screen import Screen

DRAW_S = 0.5
LINE_EVERY_S = 10.0


class Show:
    """Where a run's words go. Nothing but the report goes to stdout."""

    def __init__(self, screen: Screen, *, as_json: bool) -> None:
        self.screen, self._as_json = screen, as_json
        self._live = False

    def note(self, words: str) -> None:
        """Something happened while the demo played: it stays on the screen for a while."""
        self.screen.notes.append(words)
        if not self._live:
            self.say(words)

    def say(self, words: str) -> None:
        """A line on stderr."""
        print(words, file=sys.stderr, flush=True)

    async def draw(self, at_s: Callable[[], float]) -> NoReturn:
        """Draw for ever, `at_s()` seconds after the load began."""
        console = Console(stderr=True)
        if self._as_json or not console.is_terminal:
            while True:
                await asyncio.sleep(LINE_EVERY_S)
                counts = self.screen.counters
                self.say(f"{at_s():4.0f} s: {counts.due} requests, {counts.failed} failed, {counts.open} open")
        self._live = True
        try:
            with Live(console=console, screen=False, auto_refresh=False) as live:
                while True:
                    picture = self.screen.drawn(at_s(), clock.now_s(), console.width, console.height)
                    live.update(picture, refresh=True)
                    await asyncio.sleep(DRAW_S)
        finally:
            self._live = False
