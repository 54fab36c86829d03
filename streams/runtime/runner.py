"""One step on one worker: states, places, dead letters and timing, without any I/O. Carriers only carry.

batch ──► since(folded) ──► edge ──► screen ──► fold ──► urgent? ──► advance ──► view ──► outs
                              └──────────┴──► dead letters (a quota per source, the rest is counted)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import msgspec

from streams import signals
from streams.contract import topics
from streams.contract.topics import TOPIC_OF, Topic
from streams.runtime.batch import Batch, Headers, Message
from streams.runtime.edge import JSON, Edge
from streams.runtime.step import Out, Question, Refusal, Screens, Step, Thinks

COALESCE_S = 0.02
"""Urgent views closer together than this become one."""
_encode = msgspec.json.Encoder().encode


@dataclass(slots=True)
class _Partition:
    """What a worker holds of one partition of a step."""

    state: Any
    folded: dict[str, int] = field(default_factory=dict)
    """Topic to the next offset to fold: what lies before it is in the state."""
    restoring: dict[str, int] = field(default_factory=dict)
    """Topic to the end offset seen on assignment; empty: live."""
    judged: Mapping[str, int] = field(default_factory=dict)
    """Topic to the offset below which an owner before us has kept the dead letters: they are not said twice."""
    viewed_at_s: float = float("-inf")
    due_at_s: float = float("inf")
    thinking: bool = False


class Quota:
    """At most `burst` dead letters per source and minute; more are only counted."""

    def __init__(self, burst: int = 100, sources: int = 1000) -> None:
        self.burst, self.sources = burst, sources
        self._spent: dict[str, int] = {}
        self._minute = -1

    def take(self, source: str, now_s: float) -> bool:
        """Whether one more dead letter of `source` may be kept now."""
        if (minute := int(now_s // 60)) != self._minute:
            self._minute = minute
            self._spent.clear()
        name = source if source in self._spent or len(self._spent) < self.sources else "other"
        self._spent[name] = self._spent.get(name, 0) + 1
        return self._spent[name] <= self.burst


class Runner:
    """Runs one step over the partitions its worker owns. Not thread-safe; all times are unix seconds."""

    def __init__(self, step: Step, *, source: str = "tradewind") -> None:
        self.step = step
        self.source = source
        self.partitions: dict[int, _Partition] = {}
        self._edges: dict[str, Edge[Any]] = {r.topic.name: Edge(r.topic) for r in step.reads}
        self._facts: dict[str, dict[bytes, Message]] = {r.topic.name: {} for r in step.shared}
        self._facts_end: dict[str, int] = {}
        self._quota = Quota()

    # ------------------------------------------------------------ owning

    def assign(
        self, partition: int, ends: Mapping[str, int] | None = None, judged: Mapping[str, int] | None = None
    ) -> None:
        """Own `partition`. Until its inputs are folded up to `ends` (topic to end offset) it says nothing.

        Below `judged` (topic to offset) refusals lie on the dead letters already.
        A partition already owned keeps its state, and is not read again.
        """
        if partition in self.partitions:
            return
        held = self.partitions[partition] = _Partition(self.step.stage.empty())
        held.restoring = {topic: end for topic, end in (ends or {}).items() if end > 0}
        held.judged = judged or {}
        for topic, facts in self._facts.items():
            if facts:
                self._fold(held, Batch(topic, partition, tuple(facts.values())), None)

    def release(self, partition: int) -> None:
        """Another worker owns `partition` now; its state is forgotten."""
        self.partitions.pop(partition, None)

    def folded(self, topic: str, partition: int) -> int | None:
        """The next offset of `topic` to fold, None when nothing was."""
        held = self.partitions.get(partition)
        return held.folded.get(topic) if held else None

    def live(self, partition: int) -> bool:
        """Whether `partition` is owned and restored."""
        held = self.partitions.get(partition)
        return held is not None and not held.restoring

    def restored_to(self, topic: str, partition: int, offset: int) -> None:
        """The carrier's position passed `offset` of `topic` without a message (it was compacted or aged away)."""
        if (held := self.partitions.get(partition)) and held.restoring.get(topic, 0) <= offset:
            held.restoring.pop(topic, None)

    # ------------------------------------------------------------ hearing

    def hear(self, batch: Batch, now_s: float) -> list[Out]:
        """Fold a batch of an owned input. Comes back: dead letters, and the views if there was evidence."""
        held = self.partitions.get(batch.partition)
        if held is None:
            return []
        fresh = batch.since(held.folded.get(batch.topic, 0))
        signals.REPEATED.labels(self.step.name).inc(len(batch) - len(fresh))
        if not len(fresh):
            return []
        outs: list[Out] = []
        urgent = self._fold(held, fresh, outs, now_s)
        held.folded[batch.topic] = fresh.next_offset
        self.restored_to(batch.topic, batch.partition, fresh.next_offset)
        if urgent:
            held.due_at_s = min(held.due_at_s, held.viewed_at_s + COALESCE_S)
        return outs + self.speak(now_s, only=batch.partition)

    def hear_shared(self, batch: Batch, now_s: float) -> list[Out]:
        """Fold a batch of a shared input into every partition, those assigned later included."""
        facts = self._facts[batch.topic]
        fresh = batch.since(self._facts_end.get(batch.topic, 0))
        self._facts_end[batch.topic] = max(self._facts_end.get(batch.topic, 0), fresh.next_offset)
        heard, refused = self._edges[batch.topic].open(fresh)
        outs = list(self._dead_letters(fresh, refused, now_s))
        good = [fresh.messages[position] for position in heard.positions]
        for m in good:
            # a bad fact displaces none; put in anew, so that facts stay in the order of their offsets
            facts.pop(m.key or b"", None)
            facts[m.key or b""] = Message(m.offset, m.timestamp, m.key, m.value, m.headers)
        for number, held in self.partitions.items():
            # what the stage refuses is said once, not once a partition
            said = outs if number == min(self.partitions) else None
            if self._fold(held, Batch(batch.topic, batch.partition, good, batch.partitions), said, now_s):
                held.due_at_s = min(held.due_at_s, held.viewed_at_s + COALESCE_S)
        return outs + self.speak(now_s)

    def _fold(self, held: _Partition, batch: Batch, outs: list[Out] | None, now_s: float = 0.0) -> bool:
        stage = self.step.stage
        heard, refused = self._edges[batch.topic].open(batch)
        if isinstance(stage, Screens) and heard.records:
            screened = list(stage.screen(held.state, heard))
            heard, refused = heard.without(screened), refused + screened
        signals.HEARD.labels(self.step.name, batch.topic).inc(len(heard.records))
        if refused and outs is not None:
            judged = held.judged.get(batch.topic, 0)
            unsaid = [r for r in refused if batch.messages[r.position].offset >= judged]
            outs.extend(self._dead_letters(batch, unsaid, now_s))
        if not heard.records:
            return False
        held.state = stage.fold(held.state, heard)
        return stage.urgent(held.state)

    def _dead_letters(self, batch: Batch, refused: Iterable[Refusal], now_s: float) -> Iterable[Out]:
        for refusal in refused:
            message = batch.messages[refusal.position]
            signals.REFUSED.labels(self.step.name, batch.topic).inc()
            key = message.key or b""
            if not self._quota.take(f"{batch.topic}/{key[:64]!r}", now_s):
                signals.DEAD_LETTERS_DROPPED.labels(batch.topic).inc()
                continue
            signals.DEAD_LETTERS.labels(batch.topic).inc()
            yield Out(topics.DEAD_LETTERS.name, key, message.value, self._place(batch, refusal, message.offset, now_s))

    def _place(self, batch: Batch, refusal: Refusal, offset: int, now_s: float) -> Headers:
        return [
            (topics.DEAD_TOPIC, batch.topic.encode()),
            (topics.DEAD_PARTITION, str(batch.partition).encode()),
            (topics.DEAD_OFFSET, str(offset).encode()),
            (topics.DEAD_FIELD, refusal.field.encode()),
            (topics.DEAD_REASON, f"{refusal.reason} (got {refusal.value})".encode()),
            (topics.DEAD_STEP, self.step.name.encode()),
            (topics.DEAD_AT_S, f"{now_s:.3f}".encode()),
        ]

    # ------------------------------------------------------------ speaking

    def tick(self, now_s: float) -> list[Out]:
        """Views of all live partitions, whether urgent or not."""
        for held in self.partitions.values():
            held.due_at_s = now_s
        return self.speak(now_s)

    def next_due_s(self) -> float:
        """When the next urgent view is due; infinity when none is."""
        return min((h.due_at_s for h in self.partitions.values() if not h.restoring), default=float("inf"))

    def speak(self, now_s: float, *, only: int | None = None) -> list[Out]:
        """Views of live partitions that are due."""
        outs: list[Out] = []
        for number, held in self.partitions.items():
            if held.due_at_s <= now_s and not held.restoring and only in (None, number):
                held.state = self.step.stage.advance(held.state, now_s)
                outs.extend(self._out(record, now_s) for record in self.step.stage.view(held.state, now_s))
                held.viewed_at_s, held.due_at_s = now_s, float("inf")
        return outs

    def _out(self, record: msgspec.Struct, now_s: float) -> Out:
        topic: Topic = TOPIC_OF[type(record)]
        key, value = topic.key_of(record).encode(), _encode(record)
        headers: list[tuple[str, bytes]] = [
            ("content-type", JSON),
            ("ce_specversion", b"1.0"),
            ("ce_type", f"tradewind.{topic.name}".encode()),
            ("ce_source", self.source.encode()),
            ("ce_id", f"{self.step.name}/{topic.key_of(record)}/{now_s:.6f}".encode()),
            ("ce_time", _utc(now_s)),
        ]
        if self.step.seal is not None and topic is topics.ROUTING_TABLE:
            headers.extend(self.step.seal(key, value))
        signals.SAID.labels(self.step.name, topic.name).inc()
        return Out(topic.name, key, value, headers)

    # ------------------------------------------------------------ thinking

    def questions(self) -> list[tuple[int, Question]]:
        """Open questions by partition, at most one under way for each."""
        stage, asked = self.step.stage, []
        if isinstance(stage, Thinks):
            for number, held in self.partitions.items():
                if not held.thinking and not held.restoring and (question := stage.question(held.state)):
                    held.thinking = True
                    asked.append((number, question))
        return asked

    def answer(self, partition: int, answer: Any, now_s: float) -> list[Out]:
        """Hand an answer in (None: it failed, ask again later); views that follow from it come back."""
        held, stage = self.partitions.get(partition), self.step.stage
        if held is None or not isinstance(stage, Thinks):
            return []
        held.thinking = False
        if answer is None:
            return []
        held.state = stage.answer(held.state, answer)
        held.due_at_s = min(held.due_at_s, max(now_s, held.viewed_at_s + COALESCE_S))
        return self.speak(now_s)


def _utc(now_s: float) -> bytes:
    return datetime.fromtimestamp(now_s, UTC).isoformat(timespec="milliseconds").encode()
