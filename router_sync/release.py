"""When deferred work should run: of the hours before its deadline the cheapest, with room for it, and never late.

    spare requests per hour, dearest endpoints above      a job of so many requests takes, from its start on, what is
                                                          cheapest in each hour until it is through
         ░░        ░░░░                 │ deadline
    ▒▒   ▒▒   ▒▒   ▒▒▒▒   ▒▒            │                 candidates: now, and each full hour up to the latest safe one
    ██   ██   ██   ████   ██            │                 costs: its mean; it has to be through before the deadline
    ─┬────┬────┬────┬──────┬──┬─────────┼── hours
    now                    latest safe start = deadline - 1.25 x the time it needs alone - grace

Jobs choose one after the other, the most pressing first; what one books is not there for the next. Within an hour a job
begins when those booked before it should be through: so capacity is not overrun.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

import numpy as np

from router_sync.hours import HOUR_S
from router_sync.layout import Floats, Ints
from streams.contract.records import Deferred

SLACK: Final = 0.25
"""Of the time a job needs, kept free before its deadline."""
GRACE_S: Final = 300.0
"""Kept free as well, or a tenth of the time it may wait where that is less."""
WORTH: Final = 0.01
"""A job waits for a gain above this share of what it costs at once; and a plan is changed for one."""


class Slots(NamedTuple):
    """The hours ahead. Shapes: T hours, G groups of endpoints that cost the same and may be used by the same."""

    starts_s: Floats
    """[T] the first is now"""
    widths_s: Floats
    """[T] the first is what is left of the present hour"""
    usd: Floats
    """[T, G] of one request"""
    spare_rps: Floats
    """[G] above what is expected to be used"""


class Wish(NamedTuple):
    """A job that waits."""

    job: Deferred
    may: Floats
    """[G] 1 where law lets it, else 0"""
    egress_usd: Floats
    """[G] of one request"""
    latest_s: float
    """The latest safe start"""
    held_s: float | None
    """The start it was planned for"""


class Plan(NamedTuple):
    """When a job starts, what a request then costs, and what it would cost now."""

    at_s: float
    usd: float
    now_usd: float


def need_s(requests: float, spare_rps: float) -> float:
    """How long a job takes when it has all that is spare to itself."""
    return requests / max(spare_rps, 1e-9)


def latest_safe_s(job: Deferred, alone_s: float, defer_s: float) -> float:
    """The latest start from which a job that takes `alone_s` is through in time; no later than its class may wait.

    >>> job = Deferred(job="j", service="s", class_="c", origin="o", requests=1, submitted_at_s=0, deadline_at_s=36_000)
    >>> latest_safe_s(job, 3600.0, 86_400.0), latest_safe_s(job, 3600.0, 600.0), latest_safe_s(job, 1e9, 86_400.0)
    (31200.0, 600.0, 0)
    """
    grace_s = min(GRACE_S, 0.1 * (job.deadline_at_s - job.submitted_at_s))
    safe_s = job.deadline_at_s - alone_s * (1.0 + SLACK) - grace_s
    return max(job.submitted_at_s, min(safe_s, job.submitted_at_s + defer_s))


def slots(now_s: float, until_s: float) -> tuple[Floats, Floats, list[int]]:
    """Starts, widths and unix hours of the slots from `now_s` to `until_s`: the rest of this hour, then whole ones.

    >>> [part.tolist() for part in slots(1800.0, 9000.0)[:2]]
    [[1800.0, 3600.0, 7200.0], [1800.0, 3600.0, 3600.0]]
    """
    first = int(now_s // HOUR_S)
    hours = list(range(first, max(first, int(until_s // HOUR_S)) + 1))
    starts = np.array([now_s, *(hour * float(HOUR_S) for hour in hours[1:])])
    ends = np.array([(hour + 1) * float(HOUR_S) for hour in hours])
    return starts, ends - starts, hours


class Lane(NamedTuple):
    """Where jobs of one law and one price of egress go first. Shapes: T hours, O groups that are open to them."""

    flat: Ints
    """[T, O] places in `free`, the cheapest of each hour first"""
    usd: Floats
    """[T, O] of one request, in that order"""
    open: Ints
    """[O] the groups"""


class Booking:
    """What is booked of the slots ahead."""

    def __init__(self, ahead: Slots) -> None:
        self.ahead = ahead
        self.free = ahead.spare_rps * ahead.widths_s[:, None]
        """[T, G] requests"""
        self.whole = self.free.copy()
        self._lanes: dict[tuple[bytes, bytes], Lane] = {}

    def lane(self, may: Floats, egress_usd: Floats) -> Lane:
        """The lane of jobs with this law, [G], and this price of egress, [G]; made once."""
        key = may.tobytes(), egress_usd.tobytes()
        if key not in self._lanes:
            open_ = np.flatnonzero(may)
            usd = self.ahead.usd[:, open_] + egress_usd[open_]
            order = np.argsort(usd, axis=1, kind="stable")
            flat = open_[order] + np.arange(len(usd))[:, None] * self.free.shape[1]
            self._lanes[key] = Lane(flat, np.take_along_axis(usd, order, axis=1), open_)
        return self._lanes[key]

    def run(self, requests: float, may: Floats) -> None:
        """Book what is left of a job that runs already, from now on, wherever it is cheapest."""
        self._take(requests, self.lane(may, np.zeros(len(may))), 0)

    def plan(self, wish: Wish) -> Plan:
        """The best start for `wish`, booked; now where nothing better is known, or where it presses."""
        lane = self.lane(wish.may, wish.egress_usd)
        cost, through_s = self.costs(wish, lane)
        starts = self.ahead.starts_s[: len(cost)]
        fits = (through_s <= wish.job.deadline_at_s) & (starts <= wish.latest_s)
        at = _chosen(np.where(fits, cost, np.inf), float(cost[0]), starts, wish.held_s)
        at_s = self._within(at, lane, wish.latest_s)
        self._take(float(wish.job.requests), lane, at)
        now_usd = float(cost[0]) if np.isfinite(cost[0]) else float(lane.usd[0].mean())
        return Plan(at_s, float(cost[at]) if np.isfinite(cost[at]) else now_usd, now_usd)

    def costs(self, wish: Wish, lane: Lane) -> tuple[Floats, Floats]:
        """Mean dollars of a request, and when all are through, by start; infinite where there is not room.

        Of the slots that begin before the deadline: [T] or fewer.
        """
        count = max(1, int(np.searchsorted(self.ahead.starts_s, wish.job.deadline_at_s)))
        room, price = self.free.take(lane.flat[:count]), lane.usd[:count]
        filled, paid = room.cumsum(axis=1), (room * price).cumsum(axis=1)
        before = np.concatenate(([0.0], filled[:, -1].cumsum()))
        spent = np.concatenate(([0.0], paid[:, -1].cumsum()))
        requests = float(wish.job.requests)
        last = np.searchsorted(before, before[:-1] + requests * (1.0 - 1e-12)) - 1
        done = last < count
        at = np.clip(last, np.arange(count), count - 1)
        rest = np.clip(requests - (before[at] - before[:-1]), 0.0, filled[at, -1])
        step = np.minimum((filled[at] < rest[:, None] * (1.0 - 1e-12)).sum(axis=1), room.shape[1] - 1)
        part = paid[at, step] - (filled[at, step] - rest) * price[at, step]
        cost = np.where(done, (spent[at] - spent[:-1] + part) / requests, np.inf)
        busy = self.ahead.widths_s[at] * rest / np.maximum(filled[at, -1], 1e-12)
        return cost, np.where(done, self.ahead.starts_s[at] + busy, np.inf)

    def _within(self, at: int, lane: Lane, latest_s: float) -> float:
        """When in its slot a job begins: once those booked before it should be through, and no later than is safe."""
        whole, free = float(self.whole[at, lane.open].sum()), float(self.free[at, lane.open].sum())
        begun = 1.0 - free / whole if whole > 0 else 0.0
        start_s = float(self.ahead.starts_s[at])
        return max(start_s, min(start_s + begun * float(self.ahead.widths_s[at]), latest_s))

    def _take(self, requests: float, lane: Lane, start: int) -> None:
        flat = self.free.reshape(-1)
        for places in lane.flat[start:]:
            filled = flat[places].cumsum()
            full = int(np.searchsorted(filled, requests))
            flat[places[:full]] = 0.0
            if full < len(places):
                flat[places[full]] = filled[full] - requests
                return
            requests -= float(filled[-1])


def _chosen(cost: Floats, now_usd: float, starts_s: Floats, held_s: float | None) -> int:
    """The slot to start in; `held_s`: the start planned before, which stays unless another is worth a change."""
    best = int(cost.argmin())
    if not np.isfinite(cost[best]) or now_usd <= cost[best] * (1.0 + WORTH):
        return 0
    if held_s is not None and held_s >= starts_s[0]:
        held = int(np.searchsorted(starts_s, held_s, side="right")) - 1
        if cost[held] <= cost[best] * (1.0 + WORTH) and cost[held] <= now_usd:
            return held
    return best


def plans(ahead: Slots, running: Sequence[tuple[float, Floats]], wishes: Sequence[Wish]) -> Iterator[tuple[str, Plan]]:
    """A plan for each of `wishes`, in their order; `running`: what is left of released jobs, and where it may be."""
    booking = Booking(ahead)
    for requests, may in running:
        booking.run(requests, may)
    for wish in wishes:
        yield wish.job.job, booking.plan(wish)


def left_of(job: Deferred, released_s: float, alone_s: float, now_s: float) -> float:
    """The requests of a job released at `released_s` that should not be through at `now_s`."""
    return job.requests * max(0.0, 1.0 - (now_s - released_s) / max(alone_s, 1e-9))
