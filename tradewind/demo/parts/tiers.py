"""What became of each tier's requests, before, in and after the surge."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import msgspec

from streams.contract.records import RequestClass
from tradewind.demo.parts.run import PHASES, Found, Run, class_of
from tradewind.load import Outcome, summarise

_TIERS: Final = ("premium", "standard", "sheddable")


class TierShare(msgspec.Struct, frozen=True):
    """Of one tier in one phase. `share`: served of all; `in_slo`: in time of those served; None where there are none.

    `p95_ms` is what SLOs are about: to the first token of streams, else to the whole answer.
    """

    arrived: int
    served: int
    shed: int
    failed: int
    share: float
    p95_ms: float | None
    in_slo: float | None


def measure(run: Run) -> Found:
    """`share_by_tier`: by tier and phase, by the class each request was taken as of."""
    classes, found = run.classes, defaultdict[str, dict[str, TierShare]](dict)
    for phase, outcomes in run.phases():
        by_tier = defaultdict[str, list[Outcome]](list)
        for outcome in outcomes:
            by_tier[classes[class_of(outcome)].tier].append(outcome)
        for tier, there in by_tier.items():
            found[tier][phase] = _of_tier(there, classes)
    return {"share_by_tier": {tier: found[tier] for tier in _TIERS if tier in found}}


def _of_tier(outcomes: Sequence[Outcome], classes: Mapping[str, RequestClass]) -> TierShare:
    whole = summarise(outcomes, "latency_ms")
    slack = [classes[class_of(o)].slo_p95_ms - o.latency_ms for o in outcomes if o.ok and o.latency_ms is not None]
    return TierShare(
        arrived=whole.requests,
        served=whole.ok,
        shed=whole.shed,
        failed=whole.failed + whole.not_sent,
        share=round(whole.ok / whole.requests, 4),
        p95_ms=None if whole.p95_ms is None else round(whole.p95_ms, 1),
        in_slo=round(sum(s >= 0 for s in slack) / len(slack), 4) if slack else None,
    )


def told(found: Found) -> Iterator[str]:
    """For people."""
    for tier, phases in found["share_by_tier"].items():
        for phase, one in phases.items():
            when = f" {phase} the surge" if len(phases) > 1 or phase != PHASES[0] else ""
            late = "" if one.in_slo is None else f"; p95 {one.p95_ms:g} ms, {one.in_slo:.1%} in time"
            yield f"{tier}{when}: {one.served} of {one.arrived} served, {one.shed} shed, {one.failed} failed{late}"
