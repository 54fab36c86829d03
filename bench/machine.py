"""Where and when a figure was measured: it means little without."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


def described() -> dict[str, Any]:
    """`machine` {cpu, cores, python}, `commit` ("+": the tree differs from it) and `load` of the last minute."""
    commit = _said("git", "describe", "--always", "--dirty=+")
    machine = {"cpu": _cpu(), "cores": len(os.sched_getaffinity(0)), "python": platform.python_version()}
    return {"machine": machine, "commit": commit, "load": round(os.getloadavg()[0], 2)}


def _cpu() -> str:
    names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return names[0].partition(": ")[2] if names else platform.processor()


def _said(*command: str) -> str:
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()
