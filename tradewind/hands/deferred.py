"""Work that may wait: handed in, looked at, taken back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any, Final, Literal

import msgspec

from router_sync.deferred import LONGEST_S
from streams.contract.errors import BadSetting, Missing, Stop
from streams.contract.records import Deferred, Fleet, Release, RequestClass, Service
from streams.contract.topics import DEFERRED, RELEASES
from streams.settings import Settings
from tradewind.hands import facts, kafka, saying
from tradewind.hands.explain_text import millions
from tradewind.hands.text import ago, at

WAIT_S: Final = 10.0
State = Literal["handed in", "planned", "released"]


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """A job, and what was said of it last; None: nothing yet."""

    state: State
    job: Deferred
    word: Release | None = None


class AlreadyReleased(Stop):
    """The word to begin was given; whoever runs the job has to stop it."""


def wanted(
    fleet: Fleet, service: str, class_: str | None, origin: str | None, within_s: float, now_s: float, **more: Any
) -> Deferred:
    """The job that was asked for. Raises BadSetting when the fleet has not got it, or its class may not wait.

    `class_` may be left out where one class alone may wait, `origin` where there is one alone.
    """
    known = facts.service_of(fleet, service)
    chosen = _class(known, class_)
    origins = {o.name: o for o in fleet.origins}
    if origin is None and len(origins) > 1:
        raise BadSetting("flag", "--origin", origin, f"Say where it comes from: {', '.join(sorted(origins))}")
    place = facts.named("--origin", origin, origins).name if origin is not None else next(iter(origins))
    if within_s > LONGEST_S:
        raise BadSetting("flag", "--within", f"{within_s:.0f} s", "At most 28d: the queue keeps jobs for 30 days")
    return Deferred(
        service=service, class_=chosen.name, origin=place, submitted_at_s=now_s, deadline_at_s=now_s + within_s, **more
    )


def _class(service: Service, name: str | None) -> RequestClass:
    waits = {c.name: c for c in service.classes if c.defer_s > 0}
    if name is None and len(waits) == 1:
        return next(iter(waits.values()))
    if name is None:
        may = (
            f"these may wait: {', '.join(sorted(waits))}" if waits else "none may wait: give one `defer_s` in the fleet"
        )
        raise BadSetting("flag", "--class", name, f"Say of which class; {may}")
    chosen = facts.named("--class", name, {c.name: c for c in service.classes})
    if chosen.defer_s == 0:
        raise BadSetting("flag", "--class", name, "Its requests may not wait: give it `defer_s` in the fleet file")
    return chosen


async def jobs(consumer: Any, settings: Settings) -> list[Job]:
    """All jobs on the topics, the most pressing first."""
    handed_in = facts.last_words(await kafka.held(consumer, settings, DEFERRED), Deferred)
    words = facts.last_words(await kafka.held(consumer, settings, RELEASES), Release)
    found = [_job(fact.record, words[key].record if key in words else None) for key, fact in handed_in.items()]
    return sorted(found, key=lambda one: (one.job.deadline_at_s, one.job.job))


def _job(job: Deferred, word: Release | None) -> Job:
    if word is None or word.made_at_s < job.submitted_at_s:
        return Job(state="handed in", job=job)
    return Job(state="released" if word.released else "planned", job=job, word=word)


async def submit(settings: Settings, job: Deferred, clock: Callable[[], float], wait: bool) -> Job:
    """Hand `job` in; with `wait` it comes back with its plan.

    Raises BadSetting when a job of that name waits, Missing when Kafka does not take it or no plan comes in time.
    """
    async with kafka.reader(settings) as consumer:
        if any(one.job.job == job.job and one.state != "released" for one in await jobs(consumer, settings)):
            raise BadSetting("flag", "--job", job.job, "A job of that name waits: take it back first, or name another")
        place = await kafka.place_of(consumer, settings, RELEASES)
        consumer.seek(place, await kafka.begin(consumer, settings, place))
        await saying.say(settings, job, clock())
        if not wait:
            return Job(state="handed in", job=job)
        try:
            async with asyncio.timeout(WAIT_S):
                while True:
                    records = (await consumer.getmany(place, timeout_ms=100)).get(place, [])
                    word = facts.last_words(records, Release).get(job.job)
                    if word is not None and word.record.made_at_s >= job.submitted_at_s:
                        return _job(job, word.record)
        except TimeoutError:
            raise Missing(
                f"{job.job} was handed in, and nothing was said of it within {WAIT_S:g} s",
                "It is released in time all the same, as soon as a router runs: see `tradewind status`, and "
                "`tradewind dead-letters list --topic deferred.v1` in case it was refused",
            ) from None


async def cancel(settings: Settings, name: str) -> Job:
    """Take the job `name` back. Raises BadSetting when there is none, AlreadyReleased when it was released."""
    async with kafka.reader(settings) as consumer:
        found = {one.job.job: one for one in await jobs(consumer, settings)}
    one = facts.named("JOB", name, found)
    if one.word is not None and one.word.released:
        raise AlreadyReleased(
            f"{name} was released at {at(one.word.release_at_s)}",
            "Whoever runs it has to stop it; it is in the queue no more",
        )
    await saying.forget(settings, DEFERRED, name)
    return one


# ---------------------------------------------------------------- for a person


def rows(found: Iterable[Job], now_s: float) -> list[tuple[str, ...]]:
    """A row a job, the head first."""
    head: tuple[str, ...] = ("job", "what", "requests", "deadline", "state", "$ per million", "why")
    return [head] + [
        (
            one.job.job, f"{one.job.service}/{one.job.class_} from {one.job.origin}", str(one.job.requests),
            at(one.job.deadline_at_s), when(one, now_s), dollars(one.word), one.word.reason if one.word else "",
        )
        for one in found
    ]  # fmt: skip


def when(one: Job, now_s: float) -> str:
    """When it begins, or began, in words."""
    if one.word is None:
        return "handed in, nothing said of it yet"
    at_s = one.word.release_at_s
    if one.word.released:
        return f"released at {at(at_s)}"
    return f"begins at {at(at_s)}, in {ago(at_s - now_s)}"


def dollars(word: Release | None) -> str:
    """What a request is expected to cost then, and what it would have at once."""
    if word is None or not word.usd_per_request:
        return "-"
    return f"{millions(word.usd_per_request)} instead of {millions(word.now_usd_per_request)}"
