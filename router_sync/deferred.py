"""Deferred work: jobs that may wait are released in the cheapest hour before their deadline, and never late.

    deferred.v1 ──► jobs ──┐
    fleet, law ────────────┼─► plan of all that wait ─► a plan that changed, or the word to begin ─► releases.v1
    prices, carbon ────────┤                                                                           │
    releases.v1 ───────────┘ own words: a router that takes over goes on where the last one stopped ◄──┘

Nothing known is no reason to be late: without a fleet, prices or a lawful endpoint a job goes at its latest safe start.
Only time is chosen here; where the requests go, the table says when they come.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from router_sync.fleet import misfits
from router_sync.hours import HOUR_S, HeardCosts
from router_sync.layout import Floats, Layout, layout
from router_sync.market import Market, market_of, servable
from router_sync.orders import meant
from router_sync.release import Plan, Slots, Wish, latest_safe_s, left_of, plans, slots
from router_sync.state import Misfit, outdated
from streams import signals
from streams.contract.errors import shown
from streams.contract.records import CarbonIntensity, Deferred, Fleet, Release, SpotPrice
from streams.contract.topics import CARBON_INTENSITY, DEFERRED
from streams.runtime.step import Heard, Refusal

CALM_S: Final = 60.0
"""Prices and carbon that moved are planned by at most so often; jobs and fleets at once."""
CHANGED_S: Final = 60.0
"""A plan that moved by less is not said again."""
AHEAD_S: Final = 7 * 24.0 * HOUR_S
"""So far ahead hours are looked at."""
WORK: Final = 4_000_000
"""Of jobs x hours x groups of endpoints that are planned at once, so that the router's loop is not held up."""
FEWEST: Final = 20
"""Jobs, the most pressing, are planned however much work that is; the others when those before them have gone."""
KEEP_S: Final = 24.0 * HOUR_S
"""After its deadline a released job is remembered so long."""
LONGEST_S: Final = 28 * 24.0 * HOUR_S
"""The queue keeps jobs for 30 days: one with a later deadline could be forgotten before it."""


@dataclass(slots=True)
class Queue:
    """What waits, what was said of it, and by what it is decided."""

    jobs: dict[str, Deferred] = field(default_factory=dict)
    words: dict[str, Release] = field(default_factory=dict)
    """The last word on each job, whoever of us said it."""
    plan: Layout | None = None
    costs: HeardCosts = field(default_factory=HeardCosts)
    plans: dict[str, Plan] = field(default_factory=dict)
    latest_s: dict[str, float] = field(default_factory=dict)
    """The latest safe start of each job that waits."""
    by: str = ""
    """By what carbon is expected, in words."""
    stale: bool = True
    """Jobs or the fleet changed since the last plan."""
    moved: bool = False
    """Costs did."""
    planned_s: float = -math.inf
    said: tuple[Release, ...] = ()
    said_at_s: float = -math.inf

    def word(self, job: Deferred) -> Release | None:
        """What was said of `job`; None: nothing yet. A job that was handed in again later is another."""
        word = self.words.get(job.job)
        return word if word is not None and word.made_at_s >= job.submitted_at_s else None

    def waiting(self) -> Iterator[Deferred]:
        """Jobs that were not released."""
        return (job for job in self.jobs.values() if (word := self.word(job)) is None or not word.released)


class Defer:
    """The stage. `usd_per_kg`: what a kilogram of CO2-equivalent costs."""

    def __init__(self, *, usd_per_kg: float = 0.1) -> None:
        self.usd_per_kg = usd_per_kg

    def empty(self) -> Queue:
        """Nobody waits."""
        return Queue()

    # ------------------------------------------------------------ heard

    def screen(self, state: Queue, heard: Heard[Any]) -> Iterable[Refusal]:
        """Refuse jobs of services, classes and origins that are not there, and intensities of no time at all."""
        for position, record in zip(heard.positions.tolist(), heard.records, strict=True):
            if heard.topic == DEFERRED.name:
                key = heard.batch.messages[position].key or b""
                for name, value, why in _misfits(record, key, state.plan):
                    yield Refusal(position, name, shown(value), why)
                    break
            elif heard.topic == CARBON_INTENSITY.name and record.valid_until_s <= record.valid_from_s:
                yield Refusal(position, "valid_until_s", shown(record.valid_until_s), "is not after valid_from_s")

    def fold(self, state: Queue, heard: Heard[Any]) -> Queue:
        """Take in jobs, own words, the fleet, prices and carbon."""
        if heard.topic == DEFERRED.name:
            _handed_in(state, heard)
            return state
        for record in heard.records:
            match record:
                case Release():
                    known = state.words.get(record.job)
                    # of the same time where a submitter's clock runs ahead: a word to begin is never taken back
                    if known is None or (record.made_at_s, record.released) >= (known.made_at_s, known.released):
                        state.words[record.job] = record
                case Fleet():
                    _follow(state, record)
                case SpotPrice():
                    state.moved |= state.costs.fold_price(record)
                case CarbonIntensity():
                    state.costs.fold_carbon(record)
                    state.moved = True
        return state

    def urgent(self, state: Queue) -> bool:
        """Work that may wait for hours may wait for the tick."""
        return False

    # ------------------------------------------------------------ decided

    def advance(self, state: Queue, now_s: float) -> Queue:
        """Plan anew where something changed or an hour is over; release what is due."""
        state.costs.advance(now_s)
        _forget(state, now_s)
        if _due(state, now_s):
            self._plan(state, now_s)
        state.said, state.said_at_s = tuple(_words(state, now_s)), now_s
        state.words |= {word.job: word for word in state.said}
        state.stale |= any(word.released for word in state.said)
        _measure(state)
        return state

    def view(self, state: Queue, now_s: float) -> Iterable[Release]:
        """Plans that changed and words to begin, made for this moment."""
        return state.said if state.said_at_s == now_s else ()

    def leave(self, state: Queue) -> None:
        """Another worker owns the queue."""
        signals.WAITING.set(0)

    def _plan(self, state: Queue, now_s: float) -> None:
        state.plans, state.latest_s = {}, {}
        state.stale = state.moved = False
        state.planned_s = now_s
        wanted, rest = _wanted(state)
        state.latest_s |= {job.job: latest_safe_s(job, 0.0, math.inf) for job in rest}
        if state.plan is None or not wanted:
            return
        starts, widths, hours = slots(now_s, min(now_s + AHEAD_S, max(job.deadline_at_s for job, _ in wanted)))
        rows = {row for job in state.jobs.values() if (row := servable(state.plan, job)) is not None}
        market = market_of(state.plan, state.costs, hours, rows, self.usd_per_kg)
        wishes = sorted((_wish(state, market, job, row) for job, row in wanted), key=lambda w: (w.latest_s, w.job.job))
        state.latest_s |= {wish.job.job: wish.latest_s for wish in wishes}
        state.by = market.by
        ahead = Slots(starts, widths, market.usd, market.spare_rps)
        most = max(FEWEST, WORK // max(1, market.usd.size))
        state.plans = dict(plans(ahead, list(_running(state, market, now_s)), wishes[:most]))


def _wish(state: Queue, market: Market, job: Deferred, row: int) -> Wish:
    word = state.word(job)
    return market.wish(job, row, None if word is None else word.release_at_s)


def _running(state: Queue, market: Market, now_s: float) -> Iterator[tuple[float, Floats]]:
    """What is left of released jobs, and where it may be served."""
    for job in state.jobs.values():
        word, row = state.word(job), servable(market.plan, job)
        if word is not None and word.released and row is not None:
            may = market.may(row)
            left = left_of(job, word.release_at_s, market.alone_s(job, may), now_s)
            if left > 0:
                yield left, may


def _measure(state: Queue) -> None:
    signals.WAITING.set(sum(1 for _ in state.waiting()))
    for word in state.said:
        if word.released:
            signals.RELEASED.labels(word.service).inc()


# ---------------------------------------------------------------- what is said


def _words(state: Queue, now_s: float) -> Iterator[Release]:
    for job in list(state.waiting()):
        word, plan = state.word(job), state.plans.get(job.job)
        latest_s = state.latest_s.get(job.job, math.inf)
        if now_s >= min(latest_s, math.inf if plan is None else plan.at_s):
            yield _word(state, job, plan, now_s, released=True, reason=_why_now(plan, now_s, latest_s))
        elif plan is not None and (word is None or abs(word.release_at_s - plan.at_s) >= CHANGED_S):
            yield _word(state, job, plan, now_s, released=False, reason=_why_then(state, plan))


def _word(state: Queue, job: Deferred, plan: Plan | None, now_s: float, *, released: bool, reason: str) -> Release:
    before = state.word(job)
    expected = (0.0, 0.0) if plan is None else (plan.usd, plan.now_usd)
    return Release(
        job=job.job,
        service=job.service,
        # a submitter's clock may run ahead of ours: a word is never of before its job
        made_at_s=max(now_s, job.submitted_at_s),
        release_at_s=now_s if released or plan is None else plan.at_s,
        released=released,
        usd_per_request=round(expected[0], 12),
        now_usd_per_request=round(expected[1], 12) if before is None else before.now_usd_per_request,
        reason=reason,
    )


def _why_now(plan: Plan | None, now_s: float, latest_s: float) -> str:
    if plan is None:
        return "latest safe start; what it costs is not known"
    if now_s >= latest_s:
        return "latest safe start"
    return _gain(plan) or "nothing is known to be gained by waiting"


def _why_then(state: Queue, plan: Plan) -> str:
    gain = _gain(plan)
    return f"{gain}; carbon {state.by}" if gain and state.by else gain or "begins when those before it are through"


def _gain(plan: Plan) -> str:
    """How much cheaper it is then than now; empty where it is not."""
    share = 1.0 - plan.usd / plan.now_usd if plan.now_usd > 0 else 0.0
    return f"{100 * share:.0f} % cheaper than at once" if share >= 0.005 else ""


def _wanted(state: Queue) -> tuple[list[tuple[Deferred, int]], list[Deferred]]:
    """Jobs that wait, with their rows in the plan; and those that no known endpoint may serve."""
    wanted, rest = [], []
    for job in state.waiting():
        row = None if state.plan is None else servable(state.plan, job)
        if row is None:
            rest.append(job)
        else:
            wanted.append((job, row))
    return wanted, rest


# ---------------------------------------------------------------- what is heard


def _misfits(job: Deferred, key: bytes, plan: Layout | None) -> Iterator[Misfit]:
    """What is wrong with a job by itself, and where the fleet of `plan` is in force."""
    if key != job.job.encode():
        yield "key", key[:128], f"is not the job's name, {job.job}"
    if job.deadline_at_s > job.submitted_at_s + LONGEST_S:
        yield "deadline_at_s", job.deadline_at_s, "is more than 28 days after submitted_at_s: hand it in later"
    if plan is None:
        return
    services = {s.name: s for s in plan.fleet.services}
    origins = [o.name for o in plan.fleet.origins]
    if (service := services.get(job.service)) is None:
        yield "service", job.service, f"is not in the fleet{meant(job.service, services)}"
    elif job.class_ not in (classes := [c.name for c in service.classes]):
        yield "class", job.class_, f"is no class of {job.service}{meant(job.class_, classes)}"
    if job.origin not in origins:
        yield "origin", job.origin, f"is not in the fleet{meant(job.origin, origins)}"


def _handed_in(state: Queue, heard: Heard[Deferred]) -> None:
    """Take jobs in, and those back whose tombstones came; the last word on a job holds."""
    passed = dict(zip(heard.positions.tolist(), heard.records, strict=True))
    for position, message in enumerate(heard.batch.messages):
        job = passed.get(position)
        if job is not None and state.jobs.get(job.job) != job:
            state.jobs[job.job], state.stale = job, True
        elif job is None and message.value is None:
            gone = state.jobs.pop((message.key or b"").decode("utf-8", "replace"), None)
            state.stale |= gone is not None


def _follow(state: Queue, fleet: Fleet) -> None:
    """Plan by `fleet` from now on, where it may follow; the router says aloud what is wrong with others."""
    held = state.plan.fleet if state.plan is not None else None
    if held != fleet and outdated(held, fleet) is None and not any(misfits(fleet)):
        state.plan, state.stale = layout(fleet), True


def _due(state: Queue, now_s: float) -> bool:
    """Whether to plan anew."""
    if state.stale or now_s // HOUR_S != state.planned_s // HOUR_S:
        return True
    return state.moved and now_s >= state.planned_s + CALM_S


def _forget(state: Queue, now_s: float) -> None:
    """Forget released jobs long past their deadline, and words on jobs that nobody knows any more."""
    for name, job in list(state.jobs.items()):
        word = state.word(job)
        if word is not None and word.released and now_s > max(job.deadline_at_s, word.release_at_s) + KEEP_S:
            del state.jobs[name]
    for name, word in list(state.words.items()):
        if name not in state.jobs and now_s > word.release_at_s + KEEP_S:
            del state.words[name]
