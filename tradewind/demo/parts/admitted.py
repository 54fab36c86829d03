"""A surge while capacity is launched: who was shed, and whether those let in were in time once it could be there.

surge ──── cold start + a control interval ────► promised_at_s ─────────► end of the surge, or of the run
        shed_by_tier "before"                    shed_by_tier "after", admitted_in_slo
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from streams.contract.records import RequestClass
from tradewind.demo.parts.run import Found, Run, class_of
from tradewind.demo.parts.tiers import TIERS
from tradewind.load import Outcome, summarise


class Admitted(msgspec.Struct, frozen=True):
    """Of one tier, from `promised_at_s` on: `in_slo` of those let in were whole and in time; what failed was not."""

    admitted: int
    in_slo: int
    failed: int
    p95_ms: float | None


class Shed(msgspec.Struct, frozen=True):
    """How many of those that arrived were told to come back later."""

    arrived: int
    shed: int


def measure(run: Run) -> Found:
    """`admitted_in_slo`: the share of requests let in from `promised_at_s` on that were in SLO; None where there were
    none. `admitted`, `shed_by_tier`: by tier."""
    from_s, to_s = run.surge
    promised_s = run.promised_s
    gap = [o for o in run.outcomes if from_s <= o.at_s < min(promised_s, to_s)]
    later = [o for o in run.outcomes if promised_s <= o.at_s < to_s]
    admitted = {tier: _admitted(there, run) for tier, there in _by_tier(later, run)}
    whole = sum(one.admitted for one in admitted.values())
    return {
        "promised_at_s": round(promised_s, 1) if promised_s < float("inf") else None,
        "admitted_in_slo": round(sum(one.in_slo for one in admitted.values()) / whole, 4) if whole else None,
        "admitted": admitted,
        "shed_by_tier": {
            tier: {
                when: _shed(there) for when, of in (("before", gap), ("after", later)) if (there := _of(tier, of, run))
            }
            for tier in TIERS
            if _of(tier, [*gap, *later], run)
        },
    }


def _by_tier(outcomes: Sequence[Outcome], run: Run) -> Iterator[tuple[str, list[Outcome]]]:
    for tier in TIERS:
        if there := _of(tier, outcomes, run):
            yield tier, there


def _of(tier: str, outcomes: Sequence[Outcome], run: Run) -> list[Outcome]:
    classes = run.classes
    return [o for o in outcomes if classes[class_of(o)].tier == tier]


def _admitted(outcomes: Sequence[Outcome], run: Run) -> Admitted:
    let_in = [o for o in outcomes if o.error != "shed"]
    p95_ms = summarise(let_in, "latency_ms").p95_ms
    return Admitted(
        admitted=len(let_in),
        in_slo=sum(_in_time(o, run.classes[class_of(o)]) for o in let_in),
        failed=sum(not o.ok for o in let_in),
        p95_ms=None if p95_ms is None else round(p95_ms, 1),
    )


def _in_time(outcome: Outcome, class_: RequestClass) -> bool:
    return outcome.ok and outcome.latency_ms is not None and outcome.latency_ms <= class_.slo_p95_ms


def _shed(outcomes: Sequence[Outcome]) -> Shed:
    return Shed(len(outcomes), sum(o.error == "shed" for o in outcomes))


def told(found: Found) -> Iterator[str]:
    """For people."""
    if found["admitted_in_slo"] is None:
        yield "nothing was admitted after a surge and a cold start: there is no share in SLO to tell"
    else:
        yield (
            f"from {found['promised_at_s']:g} s on (surge, cold start, one control interval) "
            f"{found['admitted_in_slo']:.2%} of what was let in was in SLO"
        )
    for tier, one in found["admitted"].items():
        late = "" if one.p95_ms is None else f", p95 {one.p95_ms:g} ms"
        yield f"  {tier}: {one.in_slo} of {one.admitted} let in were in SLO, {one.failed} failed{late}"
    for tier, when in found["shed_by_tier"].items():
        each = (f"{one.shed} of {one.arrived} {name} that" for name, one in when.items())
        yield f"  {tier}: shed {', '.join(each)}"
