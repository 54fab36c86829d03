"""What one pool has shown of itself: how long replicas stood, what was taken away, which launches failed.

```
 ready  3 ──────────── 2 ── 3 ────────── 3 ─── 1      what actuators report
 want   3                                  1          what was planned
                       └ a third was lost      └ let go, as planned: nothing was lost
```

A loss counts as the part of the pool that went, and time as the time in which there was something to lose: forty
replicas that fall together are one piece of evidence, not forty. What is older counts less, half as much after a day.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import log
from typing import Final

from streams.contract.records import SpotEvidence

HALF_LIFE_S: Final = 86_400.0
_HOUR_S: Final = 3600.0
_NEVER_S: Final = -1e12


@dataclass(frozen=True, slots=True)
class Evidence:
    """One pool, as of `at_s` (None: nobody spoke of it). Times are unix seconds; None: it did not happen."""

    at_s: float | None = None
    ready: int | None = None
    want: int | None = None
    """As planned; None: nothing was, and what goes is lost."""
    failed: int | None = None
    """Launches that failed, as the actuator counts them; None: no actuator has spoken yet."""
    losses: float = 0.0
    exposure_h: float = 0.0
    up_since_s: float | None = None
    lost_at_s: float | None = None
    failed_at_s: float | None = None
    """The last launch that failed."""
    grew_at_s: float | None = None
    advised_at_s: float | None = None

    def calm_s(self, now_s: float) -> float:
        """How long replicas have stood and none was lost."""
        return max(0.0, now_s - max(self.up_since_s or _NEVER_S, self.lost_at_s or _NEVER_S))

    def aged(self, now_s: float) -> Evidence:
        """The same at `now_s`, nothing having happened meanwhile. Time does not go back."""
        if self.at_s is None or now_s <= self.at_s:
            return self
        kept: float = 0.5 ** ((now_s - self.at_s) / HALF_LIFE_S)
        stood_h = (1.0 - kept) * HALF_LIFE_S / log(2.0) / _HOUR_S if self.ready else 0.0
        return replace(self, at_s=now_s, losses=kept * self.losses, exposure_h=kept * self.exposure_h + stood_h)

    def reported(self, at_s: float, ready: int, failed: int) -> Evidence:
        """An actuator saw `ready` replicas, and `failed` launches since it began; what was wanted and is gone was lost.

        A report older than what is known says nothing new.
        """
        if self.at_s is not None and at_s < self.at_s:
            return self
        old, before = self.aged(at_s), self.ready or 0
        kept = before if old.want is None else min(before, old.want)
        lost = max(0, kept - ready)
        grew, refused = ready > before, old.failed is not None and failed > old.failed
        return replace(
            old,
            at_s=at_s,
            ready=ready,
            failed=failed,
            losses=old.losses + (lost / before if lost else 0.0),
            lost_at_s=at_s if lost else old.lost_at_s,
            grew_at_s=at_s if grew else old.grew_at_s,
            up_since_s=at_s if grew and not before else old.up_since_s,
            failed_at_s=at_s if refused else old.failed_at_s,
        )

    def planned(self, at_s: float, want: int) -> Evidence:
        """A plan asks for `want` replicas from now on."""
        return replace(self.aged(at_s), want=want)

    def declared(self, at_s: float, ready: int) -> Evidence:
        """The fleet says that there are `ready`; an actuator's word is better."""
        if self.failed is not None or self.ready == ready:
            return self
        old = self.aged(at_s)
        up_since_s = old.up_since_s if old.ready else at_s
        return replace(old, at_s=max(at_s, old.at_s or at_s), ready=ready, up_since_s=up_since_s)

    def noticed(self, at_s: float, part: float) -> Evidence:
        """Somebody said that `part` of the pool goes. Where an actuator reports, it will count what went."""
        if self.at_s is not None and at_s < self.at_s:
            return self
        old = self.aged(at_s)
        losses = old.losses + (part if old.failed is None else 0.0)
        return replace(old, at_s=at_s, losses=losses, lost_at_s=at_s)

    def advised(self, at_s: float) -> Evidence:
        """The provider says that it may want replicas back: advice, not a notice."""
        return replace(self.aged(at_s), advised_at_s=max(at_s, self.advised_at_s or at_s))

    def record(self, usual_usd_per_h: float | None) -> SpotEvidence | None:
        """As it crosses a topic; None where nobody spoke."""
        if self.at_s is None:
            return None
        return SpotEvidence(
            until_s=self.at_s,
            ready=self.ready,
            failed=self.failed,
            losses=self.losses,
            exposure_h=self.exposure_h,
            up_since_s=self.up_since_s,
            lost_at_s=self.lost_at_s,
            failed_at_s=self.failed_at_s,
            usual_usd_per_h=usual_usd_per_h,
        )

    @classmethod
    def of(cls, record: SpotEvidence) -> Evidence:
        """What a worker before this one had gathered."""
        return cls(
            at_s=record.until_s,
            ready=record.ready,
            failed=record.failed,
            losses=record.losses,
            exposure_h=record.exposure_h,
            up_since_s=record.up_since_s,
            lost_at_s=record.lost_at_s,
            failed_at_s=record.failed_at_s,
        )
