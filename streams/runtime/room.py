"""The steps of one room on one worker: what is owned, from where it is read, when it speaks. It knows no Kafka.

assigned ──► own: look up places ──► Runner.assign
fetched  ──► hear ──► Runner.hear ──┐
pulse: tick, urgent views, answers ─┼──► send
       errands ──► act ──► brought ─┘
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from streams import signals
from streams.contract.topics import Topic
from streams.runtime import clock
from streams.runtime.batch import Batch, Messagelike
from streams.runtime.fetch import Fetched, Place
from streams.runtime.runner import Runner
from streams.runtime.step import Acts, Errand, Out, Question, Reads, Since, Step
from streams.settings import Settings

TP = tuple[str, int]
"""Full name of a topic, and a partition of it."""
Look = Callable[[Mapping[TP, float | None]], Awaitable[Mapping[TP, Place]]]
Send = Callable[[Sequence[Out]], None]
Ask = Callable[[Question], Awaitable[Any]]
Act = Callable[[Errand], Awaitable[Any]]
_ASK_AGAIN_S = 1.0


@dataclass(slots=True)
class _Line:
    """One step being carried: its runner, its inputs by full name, and the next offset to read of each partition."""

    runner: Runner
    inputs: dict[str, Reads]
    at: dict[TP, int] = field(default_factory=dict)
    committed: dict[TP, int] = field(default_factory=dict)
    holes: dict[TP, int] = field(default_factory=dict)
    """Where something was missing and has been asked for again."""
    assigned_at_s: dict[int, float] = field(default_factory=dict)
    """Partitions being restored, and since when (monotonic)."""
    away: dict[int, set[asyncio.Task[None]]] = field(default_factory=dict)
    """Errands under way, by the partition that sent them."""
    wake: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def name(self) -> str:
        return self.runner.step.name

    def since_s(self, topic: str, now_s: float) -> float | None:
        restore = self.inputs[topic].restore
        return now_s - restore.seconds if isinstance(restore, Since) else None

    def release(self, number: int) -> None:
        self.runner.release(number)
        self.assigned_at_s.pop(number, None)
        for errand in self.away.pop(number, ()):
            errand.cancel()  # what it would do is another worker's now
        for tp in [tp for tp in self.at if tp[1] == number]:
            self.holes.pop(tp, None)
            self.committed.pop(tp, None)
            del self.at[tp]
            with contextlib.suppress(KeyError):  # never measured
                signals.LAG.remove(self.name, self.inputs[tp[0]].topic.name, str(number))

    def assign(self, number: int, places: Mapping[TP, Place]) -> None:
        mine = {tp: place for tp, place in places.items() if tp[1] == number}
        named = {self.inputs[tp[0]].topic.name: place for tp, place in mine.items()}
        self.at.update({tp: place.start for tp, place in mine.items()})
        # what was committed beyond the end was of a topic that is no more
        judged = {tp: c for tp, place in mine.items() if (c := place.committed or 0) <= place.end}
        self.committed.update({tp: judged.get(tp, 0) for tp in mine})
        self.assigned_at_s[number] = clock.monotonic_s()
        self.runner.assign(
            number,
            ends={topic: place.end for topic, place in named.items() if place.start < place.end},
            judged={self.inputs[tp[0]].topic.name: offset for tp, offset in judged.items()},
        )
        self.note_live(number)

    def note_live(self, number: int) -> None:
        """Measure the restore of `number` once it is over."""
        if number in self.assigned_at_s and self.runner.live(number):
            took_s = clock.monotonic_s() - self.assigned_at_s.pop(number)
            signals.RESTORE_S.labels(self.name).observe(took_s)
            signals.event("partition_live", step=self.name, partition=number, restore_s=round(took_s, 3))


class Room:
    """Carries `steps` over what it is assigned and handed. `send` takes messages, `ask` answers questions (None: it
    could not), `act` runs errands and raises nothing. All of it in one event loop."""

    def __init__(self, steps: Sequence[Step], settings: Settings, send: Send, ask: Ask, act: Act | None = None) -> None:
        if act is None and any(isinstance(step.stage, Acts) for step in steps):
            raise ValueError("a stage has errands, and there is nobody to run them: give `act`")
        self._settings, self._send, self._ask, self._act = settings, send, ask, act
        self.lines = [
            _Line(Runner(step), {r.topic.full(settings.topic_prefix): r for r in step.owned}) for step in steps
        ]
        self.assigned: set[TP] = set()
        self._suspects: set[TP] = set()
        self._owning = asyncio.Lock()
        self._speaking = asyncio.Event()
        self.pause()
        self._broken: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    # ------------------------------------------------------------ owning

    @property
    def held(self) -> set[int]:
        """Partition numbers with a state here, those kept through a rebalance included."""
        return {number for line in self.lines for number in line.runner.partitions}

    @property
    def ready(self) -> bool:
        """Whether all that is assigned is restored; a worker that stands by with nothing is ready too."""
        return self._speaking.is_set() and not any(line.assigned_at_s for line in self.lines)

    @property
    def paused(self) -> bool:
        """Whether a rebalance is under way, or nothing was assigned yet."""
        return not self._speaking.is_set()

    def pause(self) -> None:
        """Say nothing: others may own the partitions now. What is held, and due, is kept until the next `own`; only
        refusals are said, for it was this worker that read them."""
        self._speaking.clear()
        for line in self.lines:
            line.runner.silent = True

    async def own(self, assigned: Collection[TP], look: Look) -> None:
        """Own exactly `assigned`: forget what went, look up from where to read what is new, keep what was kept.

        What was kept and ends now before where we read is read anew: somebody made its topic anew.
        """
        async with self._owning:
            self.assigned = set(assigned)
            for line in self.lines:
                wanted = {number for topic, number in assigned if topic in line.inputs}
                for gone in set(line.runner.partitions) - wanted:
                    line.release(gone)
                await self._settle(line, wanted, look)
                signals.OWNED.labels(line.name).set(len(line.runner.partitions))
            signals.event("partitions_owned", numbers=sorted(self.held))
            for line in self.lines:
                line.runner.silent = False
                line.wake.set()  # what fell due meanwhile
            self._speaking.set()

    async def renew(self, look: Look) -> dict[TP, int]:
        """Read anew what ends before where we read; where each such partition is to be read from now on."""
        async with self._owning:
            assigned = frozenset(self.assigned)
            if self.paused:
                return {}
            before = {line.name: dict(line.at) for line in self.lines}
            for line in self.lines:
                await self._settle(line, set(line.runner.partitions), look, lambda: self.assigned == assigned)
            moved = {tp for line in self.lines for tp, at in line.at.items() if at < before[line.name].get(tp, 0)}
            return {tp: at for tp in moved if (at := self.position(tp)) is not None}

    async def _settle(
        self, line: _Line, wanted: Collection[int], look: Look, still: Callable[[], bool] = lambda: True
    ) -> None:
        """Look up `wanted`; assign what is new, and again what ends before where we read."""
        now_s, at = clock.now_s(), dict(line.at)
        asked = {(t, n): line.since_s(t, now_s) for t, n in self.assigned if t in line.inputs and n in wanted}
        places = await look(asked) if asked else {}
        if not still():
            return
        beyond = {tp[1] for tp, place in places.items() if at.get(tp, 0) > place.end}
        for number in sorted(wanted):
            if number in line.runner.partitions:
                if number not in beyond:
                    continue
                signals.event("topic_made_anew", "warning", step=line.name, partition=number)
                line.release(number)
            line.assign(number, places)

    def position(self, tp: TP) -> int | None:
        """The next offset of `tp` to read, None when nobody here reads it."""
        return min((line.at[tp] for line in self.lines if tp in line.at), default=None)

    def committable(self) -> dict[TP, int]:
        """What is folded and not committed yet: partition to next offset. Call `committed` once it is."""
        offers = {}
        for tp in {tp for line in self.lines for tp in line.at}:
            at = self.position(tp)
            before = max(line.committed[tp] for line in self.lines if tp in line.at)
            if at is not None and at > before:  # a restore begins below what was committed
                offers[tp] = at
        return offers

    def committed(self, offsets: Mapping[TP, int]) -> None:
        """`offsets` are with the broker now."""
        for line in self.lines:
            line.committed.update({tp: offset for tp, offset in offsets.items() if tp in line.at})

    # ------------------------------------------------------------ hearing

    def hear(self, step: str, tp: TP, fetched: Fetched) -> int | None:
        """Fold what was fetched of an input of `step`; comes back: None, or an offset to fetch again from.

        Everything before `fetched.start` must have been heard. Where it was not (it should not happen) it is asked for
        again, once: what then is still missing has been deleted.
        """
        try:
            line = next(line for line in self.lines if line.name == step)
            return self._hear(line, tp, fetched)
        except Exception as error:  # a stage failed: its state is worth nothing now, the worker has to start anew
            self.broke(error)
            raise

    def _hear(self, line: _Line, tp: TP, fetched: Fetched) -> int | None:
        at = line.at.get(tp)
        if at is None:
            return None
        if fetched.start > at and line.holes.get(tp) != at:
            line.holes[tp] = at
            signals.event("fetch_hole", "warning", step=line.name, topic=tp[0], partition=tp[1], offset=at)
            return at
        topic = line.inputs[tp[0]].topic
        if fetched.records:
            batch = Batch(topic.name, tp[1], fetched.records, self._partitions(topic))
            self._send(line.runner.hear(batch, clock.now_s()))
        line.at[tp] = max(at, fetched.next)
        line.runner.restored_to(topic.name, tp[1], line.at[tp])
        line.note_live(tp[1])
        line.wake.set()
        return None

    def hear_shared(self, topic: Topic, partition: int, records: Sequence[Messagelike], *, anew: bool = False) -> None:
        """Fold what was read of a shared input; `anew`: its offsets have begun again."""
        batch = Batch(topic.name, partition, records, self._partitions(topic))
        for line in self.lines:
            if any(reads.topic is topic for reads in line.runner.step.shared):
                if anew:
                    line.runner.forget_facts(topic.name)
                self._send(line.runner.hear_shared(batch, clock.now_s()))
                line.wake.set()

    def _partitions(self, topic: Topic) -> int:
        return self._settings.wide_partitions if topic.width == "wide" else 1

    # ------------------------------------------------------------ speaking

    async def run(self) -> None:
        """Speak in time, for ever. Raises (in a group) what a stage raised, here or in `hear`."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._until_broken())
            for line in self.lines:
                tasks.create_task(self._pulse(line, tasks))

    def broke(self, error: BaseException) -> None:
        """End `run` with `error`."""
        if not self._broken.done():
            self._broken.set_exception(error)

    async def _until_broken(self) -> None:
        await self._broken

    async def _pulse(self, line: _Line, tasks: asyncio.TaskGroup) -> None:
        tick_at_s = clock.monotonic_s()
        while True:
            await self._speaking.wait()
            due_s = min(tick_at_s - clock.monotonic_s(), line.runner.next_due_s() - clock.now_s())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, due_s)):
                    await line.wake.wait()
            line.wake.clear()
            if not self._speaking.is_set():
                continue
            if clock.monotonic_s() >= tick_at_s:
                now_s = clock.now_s()  # ticks that were missed are not made up for
                tick_at_s = clock.monotonic_s() + line.runner.step.next_tick_s(now_s) - now_s
                with signals.TICK_S.labels(line.name).time():
                    outs = line.runner.tick(clock.now_s())
            else:
                outs = line.runner.speak(clock.now_s())
            self._send(outs)
            for partition, question in line.runner.questions():
                tasks.create_task(self._think(line, partition, question))
            for partition, errand in line.runner.errands():
                self._go(line, partition, errand, tasks)

    async def _think(self, line: _Line, partition: int, question: Question) -> None:
        answer = await self._ask(question)
        if answer is None:
            await asyncio.sleep(_ASK_AGAIN_S)
        self._send(line.runner.answer(partition, answer, clock.now_s()))
        line.wake.set()

    def _go(self, line: _Line, partition: int, errand: Errand, tasks: asyncio.TaskGroup) -> None:
        task = tasks.create_task(self._run(line, partition, errand))
        under_way = line.away.setdefault(partition, set())
        under_way.add(task)
        task.add_done_callback(under_way.discard)

    async def _run(self, line: _Line, partition: int, errand: Errand) -> None:
        assert self._act is not None  # said at the start
        brought = await self._act(errand)
        self._send(line.runner.brought(partition, errand, brought, clock.now_s()))
        line.wake.set()

    def measure(self, end_of: Callable[[TP], int | None]) -> bool:
        """Set the lag of each partition, given the end offsets known now; whether it is time to `renew`.

        It is when a partition ended before where we read, now and at the measure before: a new leader may for a moment
        not know all that the last one had.
        """
        before, self._suspects = self._suspects, set()
        for line in self.lines:
            for tp, at in line.at.items():
                if (end := end_of(tp)) is not None:
                    if end < at:
                        self._suspects.add(tp)
                    signals.LAG.labels(line.name, line.inputs[tp[0]].topic.name, str(tp[1])).set(max(0, end - at))
        return bool(self._suspects & before)
