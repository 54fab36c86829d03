"""The memory carrier: topics in a dictionary, a virtual clock, the same runners as on Kafka.

Days pass in seconds, and equal inputs give equal bytes. One worker owns all partitions.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from streams.contract.keys import partition_of
from streams.contract.topics import TOPICS, Topic
from streams.runtime.batch import Batch, Headers, Message
from streams.runtime.runner import Runner
from streams.runtime.step import Errand, Out, Step


@dataclass(slots=True)
class _Log:
    """One partition of a topic: its messages from offset `first` on; those before it are forgotten."""

    first: int = 0
    messages: list[Message] = field(default_factory=list)

    @property
    def end(self) -> int:
        return self.first + len(self.messages)

    def since(self, offset: int, most: int | None = None) -> list[Message]:
        """At most `most` messages from `offset` on."""
        start = max(0, offset - self.first)
        return self.messages[start : None if most is None else start + most]

    def forget(self) -> None:
        self.first = self.end
        self.messages.clear()


@dataclass(slots=True)
class _Reader:
    """How far a runner has read each partition of each of its inputs."""

    runner: Runner
    step: Step
    """As its runner's, at the carrier's pace."""
    at: dict[tuple[str, int], int] = field(default_factory=dict)
    next_tick_s: float = 0.0


class MemoryCarrier:
    """Runs steps over in-memory topics. Time moves only in `run_until`.

    `act` runs errands, given the virtual time too; what they bring is there at once.

    What lies on the topics `forgotten` is dropped once it was read: a day of reports need not be held.
    """

    def __init__(
        self,
        steps: Sequence[Step],
        *,
        now_s: float = 0.0,
        wide: int = 4,
        batch: int = 5000,
        act: Callable[[Errand, float], Any] | None = None,
        forgotten: Collection[Topic] = (),
    ) -> None:
        self.now_s = now_s
        self.batch = batch
        self._act = act
        self.logs = {t.name: [_Log() for _ in range(wide if t.width == "wide" else 1)] for t in TOPICS}
        self._forgotten = [log for topic in forgotten for log in self.logs[topic.name]]
        self._news = False
        """Something was sent that somebody may not have read yet."""
        self._readers = [self._reader(step) for step in steps]

    def _reader(self, step: Step) -> _Reader:
        runner = Runner(step)
        for number in range(max(len(self.logs[r.topic.name]) for r in step.owned)):
            runner.assign(number)
        return _Reader(runner, step, next_tick_s=step.next_tick_s(self.now_s))

    def pace(self, every_s: float) -> None:
        """From now on steps speak every `every_s` seconds where nothing is urgent: a calm hour needs few views."""
        for reader in self._readers:
            reader.step = replace(reader.runner.step, every_s=every_s)
            reader.next_tick_s = reader.step.next_tick_s(self.now_s)

    def send(self, topic: Topic | str, key: str | bytes, value: bytes | None, headers: Headers = ()) -> None:
        """Put a message on a topic, stamped with the virtual time; it is read when time moves next."""
        name = topic if isinstance(topic, str) else topic.name
        self._append(name, key.encode() if isinstance(key, str) else key, value, headers)

    def said(self, topic: Topic) -> list[Message]:
        """Everything on a topic that is not forgotten, partition by partition, in order."""
        return [message for log in self.logs[topic.name] for message in log.messages]

    def since(self, topic: Topic, offset: int) -> list[Message]:
        """What lies on a topic of one partition from `offset` on."""
        (log,) = self.logs[topic.name]
        return log.since(offset)

    def run_until(self, now_s: float) -> None:
        """Let time pass up to `now_s`: messages are read at once, ticks and urgent views come when they are due."""
        self._settle()
        while (due := self._next_due()) <= now_s:
            self.now_s = max(self.now_s, due)
            for reader in self._readers:
                if reader.next_tick_s <= self.now_s:
                    self._send_all(reader.runner.tick(self.now_s))
                    reader.next_tick_s = reader.step.next_tick_s(self.now_s)
                elif reader.runner.next_due_s() <= self.now_s:
                    self._send_all(reader.runner.speak(self.now_s))
            self._settle()
        self.now_s = max(self.now_s, now_s)

    def _next_due(self) -> float:
        return min((min(r.next_tick_s, r.runner.next_due_s()) for r in self._readers), default=float("inf"))

    def _settle(self) -> None:
        """Read and answer until nothing is left to read."""
        self._news = True
        while self._news:
            self._news = False
            for reader in self._readers:
                self._read(reader)
        for log in self._forgotten:
            log.forget()

    def _read(self, reader: _Reader) -> None:
        runner = reader.runner
        for reads in runner.step.reads:
            logs = self.logs[reads.topic.name]
            for number, log in enumerate(logs):
                start = reader.at.get((reads.topic.name, number), 0)
                if start >= log.end:
                    continue
                fetched = log.since(start, self.batch)
                reader.at[reads.topic.name, number] = start + len(fetched)
                self._news |= start + len(fetched) < log.end
                batch = Batch(reads.topic.name, number, fetched, len(logs))
                hear = runner.hear_shared if reads.everyone else runner.hear
                self._send_all(hear(batch, self.now_s))
        self._think(runner)
        self._run_errands(runner)

    def _think(self, runner: Runner) -> None:
        for partition, question in runner.questions():
            self._news = True
            self._send_all(runner.answer(partition, question.ask(*question.given), self.now_s))

    def _run_errands(self, runner: Runner) -> None:
        for partition, errand in runner.errands():
            assert self._act is not None, f"{runner.step.name} has errands, and there is nobody to run them: give `act`"
            self._news = True
            self._send_all(runner.brought(partition, errand, self._act(errand, self.now_s), self.now_s))

    def _send_all(self, outs: Sequence[Out]) -> None:
        for out in outs:
            self._append(out.topic, out.key, out.value, out.headers)

    def _append(self, topic: str, key: bytes, value: bytes | None, headers: Headers) -> None:
        logs = self.logs[topic]
        log = logs[partition_of(key, len(logs))] if len(logs) > 1 else logs[0]
        log.messages.append(Message(log.end, int(self.now_s * 1000), key, value, tuple(headers)))
        self._news = True


def latest(messages: Sequence[Message]) -> Mapping[bytes, Message]:
    """The last message by key, as compaction would leave them; tombstones remove."""
    facts: dict[bytes, Message] = {}
    for message in messages:
        if message.value is None:
            facts.pop(message.key or b"", None)
        else:
            facts[message.key or b""] = message
    return facts
