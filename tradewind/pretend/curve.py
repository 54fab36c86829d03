"""How long an inference endpoint takes at a given load: pure sums, no clock.

The time to first token follows the curve fitted to a public vLLM load test: base + 6·x/(1-x) ms with x = 1.15·load,
where load is arrivals per second over the endpoint's capacity. That the time between tokens doubles towards
saturation is our choice, not a fit.
"""

import math
import random

X_PER_LOAD = 1.15
X_MAX = 0.98  # beyond it the queue, not the curve, makes callers wait
QUEUE_MS = 6.0


def saturation(load: float) -> float:
    """x of the curve, in [0, 0.98], for a `load` of 0 (idle) upwards.

    >>> saturation(0.0), saturation(0.5), saturation(3.0)
    (0.0, 0.575, 0.98)
    """
    return min(max(X_PER_LOAD * load, 0.0), X_MAX)


def ttft_ms(base_ms: float, load: float) -> float:
    """Median time to first token in ms of an endpoint that needs `base_ms` when idle.

    >>> ttft_ms(40.0, 0.0)
    40.0
    >>> round(ttft_ms(40.0, 0.8), 1), round(ttft_ms(40.0, 2.0), 1)
    (109.0, 334.0)
    """
    x = saturation(load)
    return base_ms + QUEUE_MS * x / (1.0 - x)


def between_ms(base_ms: float, load: float) -> float:
    """Median time between two tokens in ms of an endpoint that needs `base_ms` when idle.

    >>> between_ms(5.0, 0.0), between_ms(5.0, 2.0)
    (5.0, 9.9)
    """
    return base_ms * (1.0 + saturation(load))


def noise(rng: random.Random, sigma: float) -> float:
    """A factor drawn around 1 (its median), lognormal; `sigma` 0 gives exactly 1."""
    return rng.lognormvariate(0.0, sigma) if sigma > 0.0 else 1.0


def slots_for(capacity_rps: float, base_ttft_ms: float, base_between_ms: float, tokens: float) -> int:
    """Requests that must run side by side to finish `capacity_rps` of `tokens` output tokens each when saturated.

    Little's law at the curve's end: with as many slots, less than the capacity never waits and more of it always does.

    >>> slots_for(40.0, 40.0, 5.0, 28.0)
    25
    """
    served_ms = ttft_ms(base_ttft_ms, 1.0) + tokens * between_ms(base_between_ms, 1.0)
    return max(1, math.ceil(capacity_rps * served_ms / 1000.0))


class Rate:
    """Arrivals per second, exponentially forgetting over `memory_s`; time is told, not asked."""

    def __init__(self, memory_s: float = 2.0) -> None:
        self._memory_s = memory_s
        self._rps = 0.0
        self._at_s = 0.0

    def add(self, at_s: float) -> None:
        self._rps = self.get(at_s) + 1.0 / self._memory_s
        self._at_s = at_s

    def get(self, now_s: float) -> float:
        return self._rps * math.exp(-max(0.0, now_s - self._at_s) / self._memory_s)
