"""Bounded trials: an endpoint that was slow when it was last measured, and has had no traffic since, gets a little.

    slow ── unmeasured for a while ──► trial: priced as declared, at most EXPLORE of any flow
      ▲                                  │ measured slow again: the next trial comes after twice the time
      └──────────────────────────────────┘ measured well: it comes back, step by step like one that was down

Without trials nobody would learn that it is well again; with unbounded ones all traffic would go and look.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from router_sync.curve import Curve
from router_sync.layout import Floats, Layout

EXPLORE: Final = 0.02
SLOW: Final = 1.5
"""Times the declared latency."""
FIRST_S: Final = 60.0
MOST_S: Final = 900.0


@dataclass(slots=True)
class Doubt:
    """An endpoint that is slow for all we know."""

    tries: int = 0
    trying_since_s: float | None = None

    @property
    def wait_s(self) -> float:
        """Before the next trial."""
        return min(MOST_S, FIRST_S * 2.0**self.tries)


@dataclass(slots=True)
class Explorer:
    """Doubts by endpoint."""

    doubts: dict[str, Doubt] = field(default_factory=dict)

    def advance(self, plan: Layout, curve: Curve, measured_s: Mapping[str, float], now_s: float) -> frozenset[str]:
        """Begin and end trials; the endpoints that were slow and are well now."""
        slow = np.any(curve.base_ms > SLOW * plan.declared_ms, axis=0)
        well = [name for name in self.doubts if name not in plan.endpoint_at or not slow[plan.endpoint_at[name]]]
        passed = frozenset(name for name in well if self.doubts.pop(name).trying_since_s is not None)
        for column in np.flatnonzero(slow).tolist():
            name = plan.names[column]
            self._look(self.doubts.setdefault(name, Doubt()), measured_s.get(name, now_s), now_s)
        return passed

    def trials(self, plan: Layout) -> Floats:
        """[E] the most of any flow that an endpoint may get: EXPLORE while it is on trial, else 1."""
        most = np.ones(len(plan.names))
        for name, doubt in self.doubts.items():
            if doubt.trying_since_s is not None and name in plan.endpoint_at:
                most[plan.endpoint_at[name]] = EXPLORE
        return most

    def hopeful(self, plan: Layout, curve: Curve) -> Curve:
        """`curve` with those on trial as they are declared."""
        trial = self.trials(plan) < 1.0
        if not trial.any():
            return curve
        base = np.where(trial, np.minimum(curve.base_ms, plan.declared_ms), curve.base_ms)
        return curve._replace(base_ms=base, margin_ms=np.where(trial, 0.0, curve.margin_ms))

    @staticmethod
    def _look(doubt: Doubt, measured_s: float, now_s: float) -> None:
        if doubt.trying_since_s is None:
            if now_s - measured_s >= doubt.wait_s:
                doubt.trying_since_s, doubt.tries = now_s, doubt.tries + 1
        elif measured_s > doubt.trying_since_s:
            doubt.trying_since_s = None
