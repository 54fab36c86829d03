"""What the planner asked for in a surge, what became of it, and when it was there. By the topics, as routers hear them.

surge ─► first plan that raises ─► carried out ── cold start ──► as much is ready as is asked for
  0        first_after_s                                          ready_after_s         due: cold start + interval
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec

from streams.contract.records import Capacity, CapacityPlan
from tradewind.demo.parts.run import Found, Run

_TOLD = 12


class Plans(msgspec.Struct, frozen=True):
    """Seconds are after the surge began; None: it did not happen, or there was no surge.

    `made`: plans of the run. `raised`: from the surge on, those for more than was planned of the pool before.
    `carried_out`: of `made`, those with a receipt of an actuator. `needed_rps`: mean arrivals in the surge.
    `ready_after_s`: from when on replicas that are ready hold `needed_rps`. `early_s`: so much sooner than a cold start
    and one control interval; below 0: later. `cold_start_s`: of the pools, as launches showed it, the slowest.
    """

    made: int
    raised: int
    carried_out: int
    first_after_s: float | None
    needed_rps: float | None
    ready_after_s: float | None
    early_s: float | None
    cold_start_s: float | None


class ReplicasAt(msgspec.Struct, frozen=True):
    """All pools together, as of `at_s`: planned, ready, and launched but not ready."""

    at_s: float
    want: int
    ready: int
    starting: int


def measure(run: Run) -> Found:
    """`plans` in figures, and `replicas`: each time one of them changed."""
    from_s, _ = run.surge
    raises = [at_s for at_s, _ in _raising(run) if at_s >= from_s]
    receipts = {(said.pool, said.plan_id) for _, said in run.capacity}
    needed_rps = _needed_rps(run)
    ready_s = _ready_s(run, needed_rps) if needed_rps is not None else None
    return {
        "plans": Plans(
            made=len(run.plans),
            raised=len(raises),
            carried_out=sum((plan.pool, plan.plan_id) in receipts for _, plan in run.plans),
            first_after_s=round(raises[0] - from_s, 2) if raises else None,
            needed_rps=None if needed_rps is None else round(needed_rps, 1),
            ready_after_s=None if ready_s is None else round(ready_s - from_s, 2),
            early_s=None if ready_s is None else round(run.promised_s - ready_s, 2),
            cold_start_s=max((round(c, 1) for _, said in run.capacity if (c := said.cold_start_s)), default=None),
        ),
        "replicas": list(_timeline(run)),
    }


def _raising(run: Run) -> Iterator[tuple[float, CapacityPlan]]:
    """Plans for more than their pool was planned to have before; of the first: than the fleet declares."""
    wanted = _declared(run)
    for at_s, plan in run.plans:
        if plan.want > wanted.get(plan.pool, 0):
            yield at_s, plan
        wanted[plan.pool] = plan.want


def _declared(run: Run) -> dict[str, int]:
    return {e.pool: e.replicas for e in run.fleet.endpoints}


def _needed_rps(run: Run) -> float | None:
    from_s, to_s = run.surge
    ends_s = min(to_s, max((o.at_s for o in run.outcomes), default=0.0))
    arrived = sum(from_s <= o.at_s < ends_s for o in run.outcomes)
    return arrived / (ends_s - from_s) if arrived and ends_s > from_s else None


def _ready_s(run: Run, needed_rps: float) -> float | None:
    """From when on, in the surge, what is ready holds so much; None: at the end of it, it did not."""
    from_s, to_s = run.surge
    each, ready = {e.pool: e.capacity_rps for e in run.fleet.endpoints}, _declared(run)
    since_s: float | None = None
    for at_s, said in run.capacity:
        if at_s >= to_s:
            break
        ready[said.pool] = said.ready
        holds = sum(count * each[pool] for pool, count in ready.items()) >= needed_rps
        since_s = (since_s if since_s is not None else max(at_s, from_s)) if holds else None
    return since_s


def _timeline(run: Run) -> Iterator[ReplicasAt]:
    declared = _declared(run)
    want, seen = dict(declared), dict[str, Capacity]()
    said: list[tuple[float, CapacityPlan | Capacity]] = [*run.plans, *run.capacity]
    last: tuple[int, int, int] | None = None
    for at_s, record in sorted(said, key=lambda one: one[0]):
        if isinstance(record, CapacityPlan):
            want[record.pool] = record.want
        else:
            seen[record.pool] = record
        if (now := _summed(want, declared, seen)) != last:
            yield ReplicasAt(round(at_s, 1), *now)
        last = now


def _summed(want: Mapping[str, int], declared: Mapping[str, int], seen: Mapping[str, Capacity]) -> tuple[int, int, int]:
    ready = sum(seen[pool].ready if pool in seen else count for pool, count in declared.items())
    return sum(want.values()), ready, sum(said.starting for said in seen.values())


def told(found: Found) -> Iterator[str]:
    """For people."""
    plans: Plans = found["plans"]
    yield f"{plans.made} plans, {plans.carried_out} carried out; {plans.raised} asked for more in the surge"
    if plans.first_after_s is not None:
        yield f"the first came {plans.first_after_s:g} s after the surge began"
    if plans.ready_after_s is not None and plans.early_s is not None:
        when = f"{abs(plans.early_s):g} s {'before' if plans.early_s >= 0 else 'after'} it was due"
        yield f"capacity for {plans.needed_rps:g} requests/s was ready {plans.ready_after_s:g} s after it, {when}"
    elif plans.needed_rps is not None:
        yield f"capacity for {plans.needed_rps:g} requests/s was not ready when the surge ended"
    if plans.cold_start_s is not None:
        yield f"a cold start took {plans.cold_start_s:g} s, as launches showed"
    yield from (f"  {max(0.0, one.at_s):5.0f} s  {_bar(one)}" for one in _slots(found["replicas"]))


def _slots(replicas: list[ReplicasAt]) -> list[ReplicasAt]:
    """As it was at the end of each slot of five seconds in which it changed; the last dozen."""
    return list({one.at_s // 5.0: one for one in replicas}.values())[-_TOLD:]


def _bar(one: ReplicasAt) -> str:
    return f"{'█' * one.ready}{'░' * one.starting} {one.ready} ready, {one.starting} starting, {one.want} planned"
