"""A stage that counts: what was folded, and how much of it was different. For tests of carriers.

Run as a program it is a worker: `python -m tests.contract.counting ROOM METRICS_PORT`, settings from the environment.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from streams.contract import topics
from streams.contract.records import Demand, EndpointMetrics, Fleet
from streams.runtime.step import Earliest, Heard, Question, Reads, Refusal, Since, Step


@dataclass
class Counts:
    source: str = "nobody"
    seen: set[tuple[str, int, int]] = field(default_factory=set)
    folded: int = 0
    fleet: int = 0
    squares: int = 0
    urgent: bool = False


class Counting:
    """Says, for a partition: different records (`arrived`), folded records (`admitted`), fleet version (`shed`).

    A record with errors is evidence and is spoken of at once; one of the endpoint "nobody" is screened out.
    """

    def empty(self) -> Counts:
        return Counts()

    def screen(self, state: Counts, heard: Heard[EndpointMetrics]) -> Iterable[Refusal]:
        for position, record in zip(heard.positions, heard.records, strict=True):
            if getattr(record, "endpoint", "") == "nobody":
                yield Refusal(int(position), "endpoint", "nobody", "is not in the fleet")

    def fold(self, state: Counts, heard: Heard[EndpointMetrics | Fleet]) -> Counts:
        state.urgent = False
        if heard.topic == topics.FLEET.name:
            state.fleet = max(state.fleet, *(record.version for record in heard.records))
            return state
        state.source = f"count/{heard.batch.partition}"
        state.folded += len(heard.records)
        state.seen.update((record.observer, record.boot, record.seq) for record in heard.records)
        if any(record.endpoint == "poison" for record in heard.records):
            raise ValueError("poison")
        state.urgent = any(record.errors for record in heard.records)
        return state

    def advance(self, state: Counts, now_s: float) -> Counts:
        return state

    def view(self, state: Counts, now_s: float) -> Iterable[Demand]:
        if state.folded:
            yield Demand(
                source=state.source,
                at_s=now_s,
                service=("s",),
                origin=("o",),
                class_=("c",),
                arrived=(len(state.seen),),
                admitted=(state.folded,),
                shed=(state.fleet,),
                failed=(state.squares,),
            )

    def urgent(self, state: Counts) -> bool:
        return state.urgent


class Pondering(Counting):
    """Counting, and the square of the count worked out beside the loop (`failed`); at 13 it hangs, at 7 it raises."""

    def question(self, state: Counts) -> Question | None:
        count = len(state.seen)
        return Question(square, (count,)) if count and state.squares != count * count else None

    def answer(self, state: Counts, answer: int) -> Counts:
        state.squares = answer
        return state


def square(count: int) -> int:
    if count == 7:
        raise ValueError("seven")
    if count == 13:
        time.sleep(60)
    return count * count


def steps(stage: Counting | None = None, *, every_s: float = 0.2, memory_s: float = 600.0) -> tuple[Step, ...]:
    return (
        Step(
            name="count",
            reads=(Reads(topics.ENDPOINT_METRICS, Since(memory_s)), Reads(topics.FLEET, Earliest(), everyone=True)),
            writes=(topics.DEMAND, topics.DEAD_LETTERS),
            stage=stage or Counting(),
            every_s=every_s,
        ),
    )


def metric(endpoint: str, seq: int, at_s: float, **more: object) -> EndpointMetrics:
    return EndpointMetrics(endpoint=endpoint, service="s", observer="g", boot=1, seq=seq, at_s=at_s, **more)


if __name__ == "__main__":
    from streams import settings
    from streams.runtime.worker import run_worker

    sys.exit(run_worker(steps(), settings.load(), sys.argv[1], int(sys.argv[2])))
