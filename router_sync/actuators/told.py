"""A pool's standing in the words of capacity.v1: numbers, the receipt, and a note of what is going on and why."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final

from router_sync.actuators.bounds import Bounds, clamped, one_step
from router_sync.actuators.entry import Entry
from router_sync.actuators.standing import Patience, Standing
from streams.contract.records import Capacity, CapacityPlan

UNDER_WAY: Final = "under way"
"""Is in the note while the plan in force is being carried out."""
_LONGEST: Final = 2000
_WHY: Final = 300
"""Of a reason this much is said."""


def capacity(
    pool: str, standing: Standing, bounds: Bounds, entry: Entry, now_s: float, *, acts: bool
) -> Capacity | None:
    """What there is to say; None while nothing was planned, seen or tried."""
    if standing.seen is None and standing.in_force(now_s) is None and not standing.looking.tries:
        return None
    seen = standing.seen
    return Capacity(
        pool=pool,
        at_s=standing.seen_at_s if seen is not None and standing.seen_at_s is not None else now_s,
        ready=_counted(standing, bounds, entry, now_s) if acts else _ready(standing, bounds),
        starting=seen.starting if seen is not None else 0,
        failed=standing.launches.failed,
        cold_start_s=standing.launches.cold_start_s,
        plan_id=standing.receipt,
        note="; ".join(_notes(standing, bounds, entry, now_s, acts=acts))[:_LONGEST],
        held_until_s=standing.holds_until_s(now_s),
    )


def _ready(standing: Standing, bounds: Bounds) -> int:
    return standing.seen.ready if standing.seen is not None else bounds.replicas


def _counted(standing: Standing, bounds: Bounds, entry: Entry, now_s: float) -> int:
    """What is ready without what is about to be taken away, or is on its way out."""
    ready, seen, plan = _ready(standing, bounds), standing.seen, standing.in_force(now_s)
    if seen is not None and seen.want is not None:
        ready = min(ready, seen.want)
    if plan is None:
        return ready
    goal, _ = clamped(plan.want, bounds, entry)
    leaves = standing.counts_out(plan, goal, entry, now_s)
    return min(ready, one_step(standing.current(), goal, entry)) if leaves else ready


def _notes(standing: Standing, bounds: Bounds, entry: Entry, now_s: float, *, acts: bool) -> Iterator[str]:
    if not acts:
        yield "dry run"
    if (plan := standing.in_force(now_s)) is not None:
        yield f"{plan.plan_id}{_by(plan)}: {', '.join(_of_plan(plan, standing, bounds, entry, now_s))}"
    if standing.looking.tries:
        yield _again("it cannot be looked at", standing.looking)
    elif standing.seen is None:
        yield "nothing of it can be seen: ready is what the fleet declares"
    elif standing.seen.note:
        yield standing.seen.note
    if (changed := _changed(standing)) is not None:
        yield changed


def _of_plan(plan: CapacityPlan, standing: Standing, bounds: Bounds, entry: Entry, now_s: float) -> Iterator[str]:
    goal, limit = clamped(plan.want, bounds, entry)
    if limit:
        yield limit
    if plan.plan_id == standing.answered:
        yield standing.outcome or f"carried out before, {plan.want} wanted"
    elif standing.grown_old(plan, entry, now_s):
        yield "it grew old before it was carried out"
    elif standing.doing.tries:
        yield _again("not carried out", standing.doing)
    else:
        until_s, what = standing.waits_for(plan, goal, entry)
        waits = f"waits until {_clock(until_s)}: {what}" if now_s < until_s else UNDER_WAY
        yield f"{goal} wanted, {waits}"


def _by(plan: CapacityPlan) -> str:
    if not plan.by or plan.until_s is None:
        return ""
    return f" by {plan.by}, who holds the pool until {_clock(plan.until_s)}"


def _again(what: str, patience: Patience) -> str:
    why = patience.why[:_WHY].rstrip(".")
    times = "once" if patience.tries == 1 else f"{patience.tries} times"
    return f"{what}, tried {times}, again at {_clock(patience.again_at_s)}: {why}"


def _changed(standing: Standing) -> str | None:
    """That somebody else set the target since we did."""
    seen, ours = standing.seen, standing.set_to
    if ours is None or seen is None or seen.want in (None, ours):
        return None
    return f"somebody else has set it to {seen.want} since, it is left so until the next plan"


def _clock(at_s: float) -> str:
    """
    >>> _clock(3661)
    '01:01:01Z'
    """
    return datetime.fromtimestamp(at_s, UTC).strftime("%H:%M:%SZ")
