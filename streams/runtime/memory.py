"""The memory carrier: topics in a dictionary, a virtual clock, the same runners as on Kafka.

Days pass in seconds, and equal inputs give equal bytes. One worker owns all partitions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from streams.contract.keys import partition_of
from streams.contract.topics import TOPICS, Topic
from streams.runtime.batch import Batch, Headers, Message
from streams.runtime.runner import Runner
from streams.runtime.step import Errand, Out, Step


@dataclass(slots=True)
class _Log:
    """One topic: a list of messages per partition."""

    topic: Topic
    partitions: list[list[Message]]

    def append(self, key: bytes, value: bytes | None, headers: Headers, at_s: float) -> None:
        log = self.partitions[partition_of(key, len(self.partitions))]
        log.append(Message(len(log), int(at_s * 1000), key, value, tuple(headers)))


@dataclass(slots=True)
class _Reader:
    """How far a runner has read each partition of each of its inputs."""

    runner: Runner
    at: dict[tuple[str, int], int] = field(default_factory=dict)
    next_tick_s: float = 0.0


class MemoryCarrier:
    """Runs steps over in-memory topics. Time moves only in `run_until`.

    `act` runs errands, given the virtual time too; what they bring is there at once.
    """

    def __init__(
        self,
        steps: Sequence[Step],
        *,
        now_s: float = 0.0,
        wide: int = 4,
        batch: int = 5000,
        act: Callable[[Errand, float], Any] | None = None,
    ) -> None:
        self.now_s = now_s
        self.batch = batch
        self._act = act
        self.logs = {t.name: _Log(t, [[] for _ in range(wide if t.width == "wide" else 1)]) for t in TOPICS}
        self._readers = [self._reader(step) for step in steps]

    def _reader(self, step: Step) -> _Reader:
        runner = Runner(step)
        for number in range(max(len(self.logs[r.topic.name].partitions) for r in step.owned)):
            runner.assign(number)
        return _Reader(runner, next_tick_s=step.next_tick_s(self.now_s))

    def send(self, topic: Topic | str, key: str | bytes, value: bytes | None, headers: Headers = ()) -> None:
        """Put a message on a topic, stamped with the virtual time; it is read when time moves next."""
        name = topic if isinstance(topic, str) else topic.name
        self.logs[name].append(key.encode() if isinstance(key, str) else key, value, headers, self.now_s)

    def said(self, topic: Topic) -> list[Message]:
        """Everything on a topic, partition by partition, in order."""
        return [message for log in self.logs[topic.name].partitions for message in log]

    def run_until(self, now_s: float) -> None:
        """Let time pass up to `now_s`: messages are read at once, ticks and urgent views come when they are due."""
        self._settle()
        while (due := self._next_due()) <= now_s:
            self.now_s = max(self.now_s, due)
            for reader in self._readers:
                if reader.next_tick_s <= self.now_s:
                    self._send_all(reader.runner.tick(self.now_s))
                    reader.next_tick_s = reader.runner.step.next_tick_s(self.now_s)
                elif reader.runner.next_due_s() <= self.now_s:
                    self._send_all(reader.runner.speak(self.now_s))
            self._settle()
        self.now_s = max(self.now_s, now_s)

    def _next_due(self) -> float:
        return min(min(r.next_tick_s, r.runner.next_due_s()) for r in self._readers)

    def _settle(self) -> None:
        """Read and answer until nothing is left to read."""
        while sum(self._read(reader) for reader in self._readers):
            pass

    def _read(self, reader: _Reader) -> bool:
        step, runner, moved = reader.runner.step, reader.runner, False
        for reads in step.reads:
            log = self.logs[reads.topic.name]
            for number, messages in enumerate(log.partitions):
                start = reader.at.get((reads.topic.name, number), 0)
                if start >= len(messages):
                    continue
                fetched = messages[start : start + self.batch]
                reader.at[reads.topic.name, number] = start + len(fetched)
                batch = Batch(reads.topic.name, number, fetched, len(log.partitions))
                hear = runner.hear_shared if reads.everyone else runner.hear
                self._send_all(hear(batch, self.now_s))
                moved = True
        moved = self._think(runner) or moved
        return self._run_errands(runner) or moved

    def _think(self, runner: Runner) -> bool:
        asked = runner.questions()
        for partition, question in asked:
            self._send_all(runner.answer(partition, question.ask(*question.given), self.now_s))
        return bool(asked)

    def _run_errands(self, runner: Runner) -> bool:
        sent = runner.errands()
        for partition, errand in sent:
            assert self._act is not None, f"{runner.step.name} has errands, and there is nobody to run them: give `act`"
            self._send_all(runner.brought(partition, errand, self._act(errand, self.now_s), self.now_s))
        return bool(sent)

    def _send_all(self, outs: Sequence[Out]) -> None:
        for out in outs:
            self.logs[out.topic].append(out.key, out.value, out.headers, self.now_s)


def latest(messages: Sequence[Message]) -> Mapping[bytes, Message]:
    """The last message by key, as compaction would leave them; tombstones remove."""
    facts: dict[bytes, Message] = {}
    for message in messages:
        if message.value is None:
            facts.pop(message.key or b"", None)
        else:
            facts[message.key or b""] = message
    return facts
