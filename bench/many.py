"""What the sliding window costs at 200, 2,000 and 20,000 rows: `python -m bench.many [--json]`.

Each size runs in a process of its own, so that its memory is its own. Traffic: rows of Zipf popularity, each with its
own log-normal latency, one sample in a hundred ten times slower, one in ten up to four seconds late. A whole window is
folded before anything is timed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from streams.sketch import Window

BATCH = 5_000
WINDOW_S = 60
QS = (0.5, 0.95, 0.99)
SIZES = (200, 2_000, 20_000)


class Traffic:
    """A second of samples at a time, as batches of (rows, seconds, values)."""

    def __init__(self, rows: int, obs_per_s: int, seed: int = 1) -> None:
        self._rng = np.random.default_rng(seed)
        share = 1 / np.arange(1, rows + 1) ** 0.8
        self._upto = np.cumsum(self._rng.permutation(share / share.sum()))
        self._typical_ms = self._rng.lognormal(5, 0.7, rows)
        self._obs_per_s = obs_per_s

    def second(self, at_s: int) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        n, rng = self._obs_per_s, self._rng
        rows = np.minimum(np.searchsorted(self._upto, rng.random(n)), len(self._upto) - 1)
        values = self._typical_ms[rows] * rng.lognormal(0, 0.4, n) * np.where(rng.random(n) < 0.01, 10, 1)
        seconds = at_s - np.where(rng.random(n) < 0.1, rng.integers(1, 5, n), 0)
        cuts = range(0, n, BATCH)
        return [(rows[i : i + BATCH], seconds[i : i + BATCH], values[i : i + BATCH]) for i in cuts]


def measure(rows: int = 20_000, seconds: int = 10, obs_per_s: int = 20_000) -> dict[str, float]:
    """{rows, ns_per_obs, tick_ms, rss_mb, ...} of this process: medians over `seconds` seconds after a full window."""
    window, traffic = Window(WINDOW_S), Traffic(rows, obs_per_s)
    window.reserve(rows)
    for at_s in range(WINDOW_S):
        _fold(window, traffic.second(at_s))
        window.advance(at_s)
    folds, ticks = [], []
    for at_s in range(WINDOW_S, WINDOW_S + seconds):
        folds.append(_fold(window, traffic.second(at_s)) / obs_per_s)
        ticks.append(_tick(window, at_s))
    return {
        "rows": rows,
        "obs_per_s": obs_per_s,
        "rows_live": int((window.counts() > 0).sum()),
        "ns_per_obs": round(float(np.median(folds)) * 1e9, 1),
        "tick_ms": round(float(np.median(ticks)) * 1e3, 2),
        "tick_max_ms": round(max(ticks) * 1e3, 2),
        "rss_mb": round(_peak_mb(), 1),
    }


def fresh(rows: int = 20_000, seconds: int = 10, obs_per_s: int = 20_000) -> dict[str, float]:
    """What `measure` says in a fresh process."""
    asked = ["--rows", str(rows), "--seconds", str(seconds), "--obs-per-s", str(obs_per_s)]
    run = subprocess.run([sys.executable, "-m", "bench.many", *asked], capture_output=True, text=True, check=True)
    answer: dict[str, float] = json.loads(run.stdout)
    return answer


def _fold(window: Window, batches: list[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> float:
    start = time.perf_counter()
    for rows, seconds, values in batches:
        window.fold(rows, seconds, values)
    return time.perf_counter() - start


def _tick(window: Window, now_s: float) -> float:
    start = time.perf_counter()
    window.advance(now_s)
    window.quantiles(QS)
    return time.perf_counter() - start


def _peak_mb() -> float:
    # VmHWM and not getrusage: the latter also remembers the parent that forked us.
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def _table(found: list[dict[str, float]]) -> str:
    names = list(found[0])
    return "\n".join(["".join(f"{n:>13}" for n in names), *("".join(f"{r[n]:>13,}" for n in names) for r in found)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.add_argument("--rows", type=int, help="only this many rows, in this process, as JSON")
    parser.add_argument("--seconds", type=int, default=10, help="seconds of event time to measure")
    parser.add_argument("--obs-per-s", type=int, default=20_000, help="samples in each second of event time")
    asked = parser.parse_args()
    if asked.rows:
        print(json.dumps(measure(asked.rows, asked.seconds, asked.obs_per_s)))
        return
    found = [fresh(rows, asked.seconds, asked.obs_per_s) for rows in SIZES]
    where: dict[str, Any] = {"machine": platform.machine(), "cpus": os.cpu_count(), "python": platform.python_version()}
    print(json.dumps({**where, "many": found[-1], "growth": found}) if asked.json else _table(found))


if __name__ == "__main__":
    main()
