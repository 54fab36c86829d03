"""What one gateway itself sees of one endpoint: requests in flight, latency, breaker. It outlives tables."""

from __future__ import annotations

import random
from math import exp
from typing import Final

from router_sync.client.breaker import Breaker
from streams.contract.records import HARD_ERRORS, ErrorKind, Route, TableEndpoint, Tier

PEAK_DECAY_S: Final = 10.0
USUAL_DECAY_S: Final = 60.0
RANK: Final[dict[Tier, int]] = {"premium": 0, "standard": 1, "sheddable": 2}
"""Of tiers; the highest is first."""


class LocalEndpoint:
    """State of one endpoint at this gateway. Each `begin` is ended by exactly one of `ok`, `failed`, `dropped`.

    `peak_ms` jumps to a slower answer at once and forgets it over 10 s; `usual_ms` is the mean of about a minute.
    """

    __slots__ = (
        "_answers", "api", "breaker", "concurrency", "continues", "health_path", "heard_at_s", "in_flight",
        "leave_by_s", "model", "name", "peak_ms", "provider", "rank", "region", "seen_at_s", "slo_ms", "state", "url",
        "usual_ms", "zone",
    )  # fmt: skip

    def __init__(self, described: TableEndpoint, rng: random.Random) -> None:
        self.name = described.name
        self.breaker = Breaker(rng)
        self.in_flight = 0
        self.peak_ms = 0.0
        self.usual_ms = 0.0
        self.seen_at_s = 0.0
        self.heard_at_s = float("-inf")
        """When anything, good or bad, was last heard from it."""
        self._answers = 0
        self.describe(described)

    def describe(self, described: TableEndpoint) -> None:
        """Take over what a new table says."""
        self.url, self.state, self.continues = described.url, described.state, described.continues
        self.provider, self.region, self.zone = described.provider, described.region, described.zone
        self.api, self.model, self.health_path = described.api, described.model, described.health_path
        self.concurrency, self.leave_by_s = described.concurrency, described.leave_by_s
        self.slo_ms, self.rank = float("inf"), max(RANK.values())

    def lead(self, route: Route) -> None:
        """`route` leads here: `slo_ms` is of the strictest that does, `rank` of the highest tier."""
        self.slo_ms, self.rank = min(self.slo_ms, route.slo_p95_ms), min(self.rank, RANK[route.tier])

    def begin(self) -> bool:
        """A request goes there; True when it is the breaker's trial. Hand the answer to what ends it."""
        self.in_flight += 1
        return self.breaker.enter()

    def ok(self, now_s: float, latency_ms: float, trial: bool = False) -> None:
        """It answered after `latency_ms`."""
        self.in_flight -= 1
        self.heard_at_s = now_s
        self.observe(now_s, latency_ms)
        self.breaker.good(now_s, trial)

    def failed(self, now_s: float, kind: ErrorKind, trial: bool = False) -> None:
        """It failed in the way `kind` says; 429 counts for the rate only, a caller's own mistake not at all."""
        self.in_flight -= 1
        self.heard_at_s = now_s
        if kind in HARD_ERRORS:
            self.breaker.hard(now_s, trial)
        elif kind == "http_429":
            self.breaker.throttled(now_s, trial)
        else:
            self.breaker.neutral(trial)

    def dropped(self, trial: bool = False) -> None:
        """The caller went away before anything was learnt."""
        self.in_flight -= 1
        self.breaker.neutral(trial)

    def probed(self, now_s: float, alive: bool) -> None:
        """A probe was answered, or not. It closes nothing by itself: only a request that is served does."""
        self.heard_at_s = now_s
        if not alive:
            self.breaker.hard(now_s, self.breaker.shut and not self.breaker.trial)
        elif self.breaker.shut:
            self.breaker.let_try(now_s)

    def observe(self, now_s: float, latency_ms: float) -> None:
        """One more latency; in a request that timed out, the time after which it did."""
        gap_s = max(0.0, now_s - self.seen_at_s)
        self.seen_at_s = now_s
        self._answers += 1
        if latency_ms >= self.peak_ms:
            self.peak_ms = latency_ms
        else:
            keep = exp(-gap_s / PEAK_DECAY_S)
            self.peak_ms = self.peak_ms * keep + latency_ms * (1 - keep)
        # while there are few answers, their plain mean
        weight = max(1 - exp(-gap_s / USUAL_DECAY_S), 1 / self._answers)
        self.usual_ms += (latency_ms - self.usual_ms) * weight

    def slowness(self, now_s: float) -> float:
        """Peak over usual latency, 1 when it is as always; in silence it drifts back to 1 within seconds."""
        usual = self.usual_ms
        if usual <= 0.0:
            return 1.0
        return 1.0 + (self.peak_ms / usual - 1.0) * exp((self.seen_at_s - now_s) / PEAK_DECAY_S)
