"""The two-stage programme: what is kept now, what there is a cold start from now. Solved beside the loop by HiGHS.

    least    sum usd x + launches + replicas held on to + lateness + what stays unserved + reserves that lack + crowds
    now      flows of each group + unserved = demand;   flows at an endpoint <= capacity kept,  kept <= ready
    ahead    the same, with capacity x;                 launched >= x - (ready + starting),     held on to >= kept - x
    reserve  capacity x in a circle + lack >= demand in it + r,   r >= part of each spot zone in it,  r >= unsure
    spread   capacity x of a spot pool <= a third of all + crowded

What is on its way is paid for, so nothing is launched that pending launches cover. What is needed until something
cheaper stands is kept until then: the answer is the more of kept and x, and shrinks when it is asked again.

Few endpoints are solved in whole replicas, with every flow in it. Of many, fractions are rounded up, and flows are
priced: each group begins with its cheapest endpoints, and gets those that would pay (by the duals) until none does.
The answer depends on the question alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

import numpy as np

from forecasting.plan.mix import SHORT, SPREAD, SPREAD_WORTH, Answer, Circle, Mix
from forecasting.plan.programme import Found, Programme
from forecasting.plan.site import Bools, Floats
from streams.runtime import clock

WHOLE: Final = 1000
"""Up to so many pairs of groups and endpoints whole replicas are asked for."""
FIRST: Final = 12
"""Endpoints that a group begins with, where flows are priced."""
MORE: Final = 8
ROUNDS: Final = 4
"""The last of them bring a thousandth."""
_PAYS: Final = 1e-6
Columns = list[int]


class _Stage(NamedTuple):
    """Where a stage stands in a programme: columns of what is unserved, rows of demand, rows of capacity (-1: none)."""

    unserved: Columns
    demand: list[int]
    capacity: list[int]


class _Built(NamedTuple):
    programme: Programme
    replicas: Columns
    kept: Columns
    now: _Stage
    ahead: _Stage


def solve(mix: Mix) -> Answer | None:
    """The best mix; None when HiGHS found none. For `Question`: it runs in a process beside the loop."""
    began_s = clock.monotonic_s()
    found = _whole(mix) if mix.may.size <= WHOLE else _priced(mix)
    if found is None:
        return None
    built, values = found
    needed = np.ceil(np.maximum(values[built.replicas], values[built.kept]) - 1e-6)
    replicas = np.clip(needed, mix.least, np.maximum(mix.most, mix.least))
    return Answer(
        serial=mix.serial,
        method="lp",
        replicas=replicas,
        unserved_rps=float(values[built.ahead.unserved].sum()),
        usd_per_h=float(replicas @ mix.usd_per_h),
        solve_s=clock.monotonic_s() - began_s,
    )


def _whole(mix: Mix) -> tuple[_Built, Floats] | None:
    built = _build(mix, mix.may, mix.may)
    found = built.programme.solved(len(built.replicas))
    return None if found is None else (built, found.values)


def _priced(mix: Mix) -> tuple[_Built, Floats] | None:
    """Columns are added while some would pay; what there is after the last round is a solution in any case."""
    each = mix.usd_per_h / mix.capacity_rps
    now = _cheapest(mix.late_usd, mix.may & (mix.ready > 0), FIRST)
    ahead = _cheapest(each + 3600.0 * mix.late_usd, mix.may, FIRST)
    best: tuple[_Built, Floats] | None = None
    for _ in range(ROUNDS):
        built = _build(mix, now, ahead)
        found = built.programme.solved(0)
        if found is None:
            return best
        best = built, found.values
        more = _paying(mix, built.now, found, mix.may & (mix.ready > 0) & ~now)
        later = _paying(mix, built.ahead, found, mix.may & ~ahead)
        if not (more | later).any():
            break
        now, ahead = now | more, ahead | later
    return best


def _cheapest(cost: Floats, may: Bools, most: int) -> Bools:
    """[G, E] of what each group may use, the `most` cheapest."""
    out = np.zeros(may.shape, np.bool_)
    order = np.argsort(np.where(may, cost, np.inf), axis=1, kind="stable")[:, :most]
    np.put_along_axis(out, order, True, axis=1)
    return out & may


def _paying(mix: Mix, stage: _Stage, found: Found, left: Bools) -> Bools:
    """[G, E] of `left`, the flows that would make the whole cheaper: the best few of each group."""
    served = found.duals[stage.demand][:, None]
    rows = np.array(stage.capacity)
    filled = np.where(rows >= 0, found.duals[rows], 0.0)[None, :]
    reduced = 3600.0 * mix.late_usd - served - filled
    return _cheapest(reduced, left & (reduced < -_PAYS * np.maximum(1.0, np.abs(served))), MORE)


def _build(mix: Mix, now: Bools, ahead: Bools) -> _Built:
    """The programme with the flows `now` and `ahead` [G, E] in it."""
    programme = Programme()
    bounds = zip(mix.usd_per_h.tolist(), mix.most.tolist(), mix.least.tolist(), strict=True)
    ends = [programme.column(usd, most, least) for usd, most, least in bounds]
    kept = _kept(programme, mix, ends)
    built = _Built(
        programme,
        ends,
        kept,
        _stage(programme, mix, kept, mix.now, now),
        _stage(programme, mix, ends, mix.ahead, ahead),
    )
    for circle in mix.circles():
        _reserve(programme, mix, ends, circle)
    _spread(programme, mix, ends)
    return built


def _kept(programme: Programme, mix: Mix, ends: Columns) -> Columns:
    """Launches; and columns of what is kept until they stand: holding on to more than x costs what a launch does."""
    kept = []
    for end, usd, ready, pending in zip(
        ends, mix.launch_usd_per_h.tolist(), mix.ready.tolist(), mix.pending.tolist(), strict=True
    ):
        launched, keep, on = programme.column(usd), programme.column(0.0, ready), programme.column(usd)
        programme.row({launched: 1.0, end: -1.0}, least=-pending)
        programme.row({on: 1.0, end: 1.0, keep: -1.0}, least=0.0)
        kept.append(keep)
    return kept


def _stage(programme: Programme, mix: Mix, capacity: Columns, demand: Floats, flows: Bools) -> _Stage:
    """`demand` is served by `capacity` (columns of replicas) through `flows`."""
    loads: list[dict[int, float]] = [{} for _ in capacity]
    unserved, rows = [], []
    for group, usd in enumerate(mix.unserved_usd.tolist()):
        missing = programme.column(3600.0 * usd)
        terms = {missing: 1.0}
        for end in np.flatnonzero(flows[group]).tolist() if demand[group] > 0 else ():
            flow = programme.column(3600.0 * float(mix.late_usd[group, end]))
            terms[flow] = loads[end][flow] = 1.0
        rows.append(programme.row(terms, float(demand[group]), float(demand[group])))
        unserved.append(missing)
    each = zip(capacity, mix.capacity_rps.tolist(), loads, strict=True)
    filled = [programme.row({**load, column: -rps}, most=0.0) if load else -1 for column, rps, load in each]
    return _Stage(unserved, rows, filled)


def _reserve(programme: Programme, mix: Mix, ends: Columns, circle: Circle) -> None:
    held = programme.column(0.0, lower=mix.reserve * circle.unsure_rps)
    lack = programme.column(SHORT * float((mix.usd_per_h / mix.capacity_rps).max(initial=0.0)))
    inside = {ends[e]: float(mix.capacity_rps[e]) for e in np.flatnonzero(circle.members).tolist()}
    programme.row({**inside, lack: 1.0, held: -1.0}, least=circle.demand_rps)
    for zone in _zones(mix, circle):
        programme.row({held: 1.0, **{ends[e]: -mix.reserve * float(mix.capacity_rps[e]) for e in zone}}, least=0.0)


def _zones(mix: Mix, circle: Circle) -> Iterator[list[int]]:
    """The spot endpoints of each zone within a circle."""
    spot = mix.spot & circle.members
    for zone in np.unique(mix.zone[spot]).tolist():
        yield np.flatnonzero(spot & (mix.zone == zone)).tolist()


def _spread(programme: Programme, mix: Mix, ends: Columns) -> None:
    """One column for all capacity, so that the rows are short."""
    if not mix.spot.any():
        return
    worth = SPREAD_WORTH * float((mix.usd_per_h / mix.capacity_rps).min())
    whole = programme.column(0.0)
    programme.row({whole: -1.0, **dict(zip(ends, mix.capacity_rps.tolist(), strict=True))}, 0.0, 0.0)
    for pool in np.unique(mix.pool[mix.spot]).tolist():
        crowded = programme.column(worth)
        mine = {ends[e]: -float(mix.capacity_rps[e]) for e in np.flatnonzero(mix.pool == pool).tolist()}
        programme.row({whole: SPREAD, crowded: 1.0, **mine}, least=0.0)
