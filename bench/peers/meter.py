"""What every consumer of `bench.ingest` measures itself with, and the rolling p95 that those without one use.

A consumer is a script: `consumer.py BOOTSTRAP TOPIC OBSERVATIONS`. It reads the topic from its beginning until it has
folded that many observations, prints one JSON object as the last line of its output, and exits.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

CORE = 0
"""Consumers run on this core, the broker on the others."""
WINDOW_S = 60


def asked() -> tuple[str, str, int]:
    """(bootstrap servers, topic, observations) from the command line; the process is pinned from here on."""
    if (os.cpu_count() or 1) > 1:
        os.sched_setaffinity(0, {CORE})
    return sys.argv[1], sys.argv[2], int(sys.argv[3])


class Meter:
    """Counts observations; wall time and CPU run from the first record at hand to the last one folded."""

    def __init__(self, expected: int) -> None:
        self.expected, self.seen = expected, 0
        self._start: tuple[float, float] | None = None
        self._end = (0.0, 0.0)

    def start(self) -> None:
        """The first record is at hand; later calls change nothing."""
        self._start = self._start or _now()

    def add(self, observations: int) -> bool:
        """Whether all have been folded now."""
        self.seen += observations
        if self.seen >= self.expected:
            self._end = _now()
        return self.seen >= self.expected

    def say(self, p95_ms: dict[str, float]) -> None:
        """Print what was measured, with the p95 by endpoint as the consumer saw it last."""
        start = self._start or _now()
        found = {
            "observations": self.seen,
            "seconds": self._end[0] - start[0],
            "cpu_s": self._end[1] - start[1],
            "rss_mb": peak_mb(),
            "p95_ms": p95_ms,
        }
        print("\n" + json.dumps(found), flush=True)  # on a line of its own, whatever a library may have drawn before


def _now() -> tuple[float, float]:
    used = os.times()
    return time.perf_counter(), used.user + used.system


def peak_mb() -> float:
    """Peak resident memory of this process in MB (VmHWM: getrusage would also remember the parent that forked us)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


class Rolling:
    """p95 per endpoint over 60 s in 1 s buckets: a log histogram within 1 %, worked out anew for each new second.

    It is as lean as it can be (no late records, no growth, no checks), so that a peer pays for itself and not for us.
    """

    GAMMA = 1.01 / 0.99
    FLOOR = -116  # 0.1 ms
    BINS = 760

    def __init__(self, endpoints: int = 256) -> None:
        self.rows: dict[str, int] = {}
        self.p95: np.ndarray = np.zeros(endpoints)
        self._counts = np.zeros(endpoints * self.BINS, np.int32)
        self._seconds: dict[int, list[np.ndarray]] = {}
        self._newest = 0
        self._held: tuple[list[str], list[float], list[float]] = ([], [], [])

    def one(self, endpoint: str, at_s: float, value: float) -> None:
        """One observation. Those of a second are folded together when it is over (or by `flush`)."""
        if at_s >= self._newest + 1 and self._held[0]:
            self.flush()
        self._newest = max(self._newest, int(at_s))
        names, times, values = self._held
        names.append(endpoint)
        times.append(at_s)
        values.append(value)

    def flush(self) -> None:
        """Fold what `one` holds back."""
        held, self._held = self._held, ([], [], [])
        if held[0]:
            self.add(*held)
        self.tick()

    def add(self, endpoints: Sequence[str], at_s: Sequence[float], values: Sequence[float]) -> None:
        """Observations as columns."""
        try:
            rows = np.fromiter(map(self.rows.__getitem__, endpoints), np.int64, len(endpoints))
        except KeyError:
            for name in dict.fromkeys(endpoints):
                self.rows.setdefault(name, len(self.rows))
            return self.add(endpoints, at_s, values)
        bins = np.ceil(np.log(values) / np.log(self.GAMMA)).astype(np.int64) - self.FLOOR
        flat, seconds = rows * self.BINS + bins, np.array(at_s).astype(np.int64)
        np.add.at(self._counts, flat, 1)
        for second in range(int(seconds[0]), int(seconds[-1]) + 1):
            self._seconds.setdefault(second, []).append(flat[seconds == second])
        if (newest := int(seconds[-1])) > self._newest:
            self._newest = newest
            self.tick()
        return None

    def tick(self) -> None:
        """Expire what has left the window, and work out all p95."""
        for second in [s for s in self._seconds if s <= self._newest - WINDOW_S]:
            np.subtract.at(self._counts, np.concatenate(self._seconds.pop(second)), 1)
        upto = self._counts.reshape(-1, self.BINS)[: len(self.rows)].cumsum(axis=1)
        rank = np.ceil(upto[:, -1:] * 0.95)
        at = (upto < rank).sum(axis=1) + self.FLOOR
        self.p95[: len(at)] = 2 * self.GAMMA**at / (self.GAMMA + 1)

    def said(self) -> dict[str, float]:
        """The newest p95 by endpoint, milliseconds."""
        self.tick()
        return {name: round(float(self.p95[row]), 3) for name, row in self.rows.items()}
