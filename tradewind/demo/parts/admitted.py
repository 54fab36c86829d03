"""A surge while capacity is launched: who was shed, and whether those let in were in time once it could be there.

surge ──── cold start + an interval of the planner ────► promised_at_s ────► end of the surge, or of the run
                      "before"                                  "after": admitted_in_slo is of these
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from streams.contract.records import RequestClass
from tradewind.demo.parts.run import Found, Run, class_of
from tradewind.demo.parts.tiers import TIERS
from tradewind.load import Outcome, summarise

WHEN: Final = ("before", "after")


class Admitted(msgspec.Struct, frozen=True):
    """Of those let in: `in_slo` were whole and in time, `failed` were neither. `p95_ms` is what SLOs are about."""

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
    none. `admitted`, `shed_by_tier`: by tier, before and after that."""
    phases = {when: list(_of(run, when)) for when in WHEN}
    return {
        "promised_at_s": round(run.promised_s, 1) if run.surges else None,
        "admitted_in_slo": _share(_admitted(phases["after"], run)),
        "admitted": {tier: {when: _admitted(there, run) for when, there in of} for tier, of in _tiers(phases, run)},
        "shed_by_tier": {tier: {when: _shed(there) for when, there in of} for tier, of in _tiers(phases, run)},
    }


def _of(run: Run, when: str) -> Iterator[Outcome]:
    """Requests of the surge, before capacity could be there or after."""
    from_s, to_s = run.surge
    for outcome in run.outcomes:
        if from_s <= outcome.at_s < to_s and (outcome.at_s >= run.promised_s) == (when == "after"):
            yield outcome


def _tiers(phases: dict[str, list[Outcome]], run: Run) -> Iterator[tuple[str, list[tuple[str, list[Outcome]]]]]:
    """Tiers, highest first, with what there is of each by phase."""
    classes = run.classes
    for tier in TIERS:
        of = [(when, [o for o in phases[when] if classes[class_of(o)].tier == tier]) for when in WHEN]
        if any(there for _, there in of):
            yield tier, [(when, there) for when, there in of if there]


def _admitted(outcomes: Sequence[Outcome], run: Run) -> Admitted:
    let_in, classes = [o for o in outcomes if o.error != "shed"], run.classes
    p95_ms = summarise(let_in, "latency_ms").p95_ms
    return Admitted(
        admitted=len(let_in),
        in_slo=sum(_in_time(o, classes[class_of(o)]) for o in let_in),
        failed=sum(not o.ok for o in let_in),
        p95_ms=None if p95_ms is None else round(p95_ms, 1),
    )


def _in_time(outcome: Outcome, class_: RequestClass) -> bool:
    return outcome.ok and outcome.latency_ms is not None and outcome.latency_ms <= class_.slo_p95_ms


def _share(one: Admitted) -> float | None:
    return round(one.in_slo / one.admitted, 4) if one.admitted else None


def _shed(outcomes: Sequence[Outcome]) -> Shed:
    return Shed(len(outcomes), sum(o.error == "shed" for o in outcomes))


def told(found: Found) -> Iterator[str]:
    """For people."""
    if found["admitted_in_slo"] is not None:
        yield (
            f"from {found['promised_at_s']:g} s on (the surge, a cold start, an interval of the planner) "
            f"{found['admitted_in_slo']:.2%} of what was let in was in SLO"
        )
    for when, says in zip(WHEN, ("until then", "from then on"), strict=True):
        for tier, shed in found["shed_by_tier"].items():
            if when in shed:
                yield f"  {says}, {tier}: {shed[when].shed} of {shed[when].arrived} shed; {_late(found, tier, when)}"


def _late(found: Found, tier: str, when: str) -> str:
    one: Admitted = found["admitted"][tier][when]
    p95 = "" if one.p95_ms is None else f" (p95 {one.p95_ms:g} ms)"
    return f"of {one.admitted} let in {one.in_slo} were in SLO{p95}, {one.failed} failed"
