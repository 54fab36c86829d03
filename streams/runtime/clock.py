"""The only reader of the clock. Everything else takes `now_s` as an argument."""

from __future__ import annotations

import time
from collections.abc import Callable

Clock = Callable[[], float]
"""Seconds; of which epoch, the one who hands it out says."""


def now_s() -> float:
    """Unix seconds, UTC."""
    return time.time()


def monotonic_s() -> float:
    """Seconds that never go back; only differences mean something."""
    return time.monotonic()


def cpu_s() -> float:
    """CPU seconds (user and system) this process has used."""
    return time.process_time()
