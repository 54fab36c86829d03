"""Work that may wait: jobs are put on the queue topic and begun by the word of a release, or without one.

    submitted ─► deferred.v1 ─► word: releases.v1 ─► sent at the job's own rate ─► by its deadline, or late
                     │
                     ├── nobody answers within ANSWER_S: begun at once, nobody keeps a queue here
                     └── the last moment at which it could still be done: begun without waiting on

What gateways turn away, or cannot serve, goes back to its job and is sent again: such work has a sender who waits.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import inf
from typing import Final, Literal

from streams.contract.records import Deferred, Release
from tradewind.world.engine import Span
from tradewind.world.ground import Ground
from tradewind.world.market import Told

ANSWER_S: Final = 120.0
SAFE: Final = 1.1
"""Times what sending takes, the last moment lies before the deadline."""
Begun = Literal["", "released", "unanswered", "last moment"]


@dataclass(frozen=True, slots=True)
class Load:
    """A job as its owner knows it."""

    job: str
    flow: int
    requests: int
    submitted_at_s: float
    deadline_at_s: float
    rps: float
    """It is sent at."""


@dataclass(slots=True)
class Job:
    """How far a job is."""

    load: Load
    left: int
    begun: Begun = ""
    begun_at_s: float = inf
    answered: bool = False
    """Whether anybody has said anything about it."""
    owed: float = 0.0
    """Of a request that is due."""

    def due(self, span: Span) -> int:
        """How many requests it sends in a step, in which it may have to begin."""
        last_s = self.load.deadline_at_s - SAFE * self.left / self.load.rps
        if not self.begun and span.until_s > last_s:
            self._begin("last moment", max(span.from_s, self.load.submitted_at_s))
        if not self.begun and not self.answered and span.from_s >= self.load.submitted_at_s + ANSWER_S:
            self._begin("unanswered", span.from_s)
        if not self.begun or span.until_s <= self.load.submitted_at_s:
            return 0
        self.owed += self.load.rps * span.s
        count = min(self.left, int(self.owed))
        self.owed = min(1.0, self.owed - count)
        self.left -= count
        return count

    def hear(self, release: Release, now_s: float) -> None:
        """Take the word of the queue."""
        self.answered = True
        if release.released and not self.begun:
            self._begin("released", now_s)

    def _begin(self, why: Begun, at_s: float) -> None:
        self.begun, self.begun_at_s = why, at_s


class Work:
    """All jobs of a run."""

    def __init__(self, ground: Ground, loads: Sequence[Load]) -> None:
        self._ground = ground
        self.jobs = {load.job: Job(load, load.requests) for load in loads}

    def told(self, from_s: float, until_s: float) -> Iterator[Told]:
        """Jobs submitted in [from, until)."""
        for job in self.jobs.values():
            load = job.load
            if from_s <= load.submitted_at_s < until_s:
                flow = self._ground.flows[load.flow]
                yield load.submitted_at_s, Deferred(
                    job=load.job, service=flow.service, class_=flow.class_.name, origin=flow.origin,
                    requests=load.requests, submitted_at_s=load.submitted_at_s, deadline_at_s=load.deadline_at_s,
                )  # fmt: skip

    def hear(self, release: Release, now_s: float) -> None:
        """A word about a job; one that is not of this world changes nothing."""
        if (job := self.jobs.get(release.job)) is not None:
            job.hear(release, now_s)

    def due(self, span: Span) -> dict[int, list[tuple[Job, int]]]:
        """Flow to the jobs that send in a step, with how many requests."""
        sent: dict[int, list[tuple[Job, int]]] = {}
        for job in self.jobs.values():
            if job.left and job.load.submitted_at_s < span.until_s and (count := job.due(span)):
                sent.setdefault(job.load.flow, []).append((job, count))
        return sent
