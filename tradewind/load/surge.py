"""Surges: stretches of time in which a trace is played faster, so that more arrives with its own shape kept."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
_SURGE = re.compile(r"(?P<factor>\d+(?:\.\d+)?)x@(?P<start>\d+(?:\.\d+)?)(?:-(?P<end>\d+(?:\.\d+)?))?")


@dataclass(frozen=True, slots=True)
class Surge:
    """`factor` times the load from `from_s` (included) to `to_s` (excluded) of the run."""

    factor: float
    from_s: float
    to_s: float


def parse_surges(text: str) -> tuple[Surge, ...]:
    """The surges in `text` by time; ValueError names the part that is wrong.

    >>> parse_surges("3x@30")
    (Surge(factor=3.0, from_s=30.0, to_s=inf),)
    >>> parse_surges("2x@10-20, 0.5x@40") == (Surge(2.0, 10.0, 20.0), Surge(0.5, 40.0, float("inf")))
    True
    """
    surges = sorted((_surge(part.strip()) for part in text.split(",") if part.strip()), key=lambda one: one.from_s)
    for earlier, later in pairwise(surges):
        if later.from_s < earlier.to_s:
            raise ValueError(f"surge {text!r}: {earlier} and {later} overlap; end the first, as in 3x@30-60")
    return tuple(surges)


def _surge(part: str) -> Surge:
    found = _SURGE.fullmatch(part)
    if found is None:
        raise ValueError(f"surge {part!r}: write FACTORx@FROM or FACTORx@FROM-TO in seconds, as in 3x@30 or 3x@30-60")
    surge = Surge(float(found["factor"]), float(found["start"]), float(found["end"] or "inf"))
    if not 0 < surge.factor <= 1000 or surge.to_s <= surge.from_s:
        raise ValueError(f"surge {part!r}: the factor must be above 0 and at most 1000, and TO after FROM")
    return surge


def trace_time(run_s: Floats, surges: Sequence[Surge]) -> Floats:
    """How far into the trace the run is at each `run_s`: time passes `factor` times as fast within a surge.

    >>> trace_time(np.array([10.0, 30.0, 40.0]), parse_surges("3x@30")).tolist()
    [10.0, 30.0, 60.0]
    """
    passed = np.array(run_s, dtype=np.float64)
    for surge in surges:
        passed += (surge.factor - 1.0) * np.clip(run_s - surge.from_s, 0.0, surge.to_s - surge.from_s)
    return passed


def run_time(trace_s: Floats, surges: Sequence[Surge]) -> Floats:
    """When in the run each `trace_s` is reached: the inverse of `trace_time`.

    >>> run_time(np.array([10.0, 30.0, 60.0]), parse_surges("3x@30")).tolist()
    [10.0, 30.0, 40.0]
    """
    ends = [end for surge in surges for end in (surge.from_s, surge.to_s) if np.isfinite(end)]
    last_s = max([0.0, *ends])
    beyond_s = last_s + float(np.max(trace_s, initial=0.0)) / min([1.0, *(surge.factor for surge in surges)]) + 1.0
    corners = np.unique(np.array([0.0, *ends, beyond_s]))
    run_s: Floats = np.interp(trace_s, trace_time(corners, surges), corners)
    return run_s
