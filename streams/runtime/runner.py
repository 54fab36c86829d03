"""One step on one worker: states, places, dead letters and timing, without any I/O. Carriers only carry.

batch ──► since(folded) ──► edge ──► screen ──► fold ──► urgent? ──► advance ──► view ──► outs
                              └──────────┴──► dead letters (a quota per source, the rest is counted)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from streams import signals
from streams.contract import topics
from streams.contract.topics import MAX_VALUE_BYTES, TOPIC_OF, Topic
from streams.runtime import cloudevents
from streams.runtime.batch import Batch, Headers, Message
from streams.runtime.edge import Edge
from streams.runtime.step import Acts, Errand, Heard, Leaves, Out, Question, Refusal, Screens, Step, Thinks

COALESCE_S = 0.02
"""Urgent views closer together than this become one; a tick's or an answer's view just before delays none of them."""
KEY_BYTES = 4096
"""Of a refused message's key this much is kept."""
WORDS_BYTES = 1000
"""Of a refusal's field, value and reason this much is kept: a decoder may quote all that it was given."""
KEPT_HEADERS = 16
"""Of a refused message's own headers so many are kept, of those that say something of its value."""
_CONTENT = frozenset({"content-type", topics.SIGNATURE, topics.REPLAYED_FROM})
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
    urgent: bool = False
    """Evidence was folded that no view has told yet."""
    urgent_at_s: float = float("-inf")
    """The last view that told evidence."""
    due_at_s: float = float("inf")
    thinking: bool = False
    away: set[str] = field(default_factory=set)
    """On whom an errand is under way."""


class Quota:
    """At most `burst` dead letters per source and minute, `total` and `total_bytes` of all; more are only counted."""

    def __init__(
        self, burst: int = 100, sources: int = 1000, *, total: int = 10_000, total_bytes: int = 64_000_000
    ) -> None:
        self.burst, self.sources, self.total, self.total_bytes = burst, sources, total, total_bytes
        self._spent: dict[str, int] = {}
        self._taken = self._bytes = 0
        self._minute = -1

    def take(self, source: str, now_s: float, size: int = 0) -> bool:
        """Whether one more dead letter of `source`, of `size` bytes, may be kept now."""
        if (minute := int(now_s // 60)) != self._minute:
            self._minute, self._taken, self._bytes = minute, 0, 0
            self._spent.clear()
        name = source if source in self._spent or len(self._spent) < self.sources else "other"
        self._spent[name] = self._spent.get(name, 0) + 1
        if self._spent[name] > self.burst or self._taken >= self.total or self._bytes + size > self.total_bytes:
            return False
        self._taken, self._bytes = self._taken + 1, self._bytes + size
        return True


class Runner:
    """Runs one step over the partitions its worker owns. Not thread-safe; all times are unix seconds."""

    def __init__(self, step: Step, *, source: str = "tradewind") -> None:
        self.step = step
        self.source = source
        # looked up once: such a check asks for each method by name
        self._screens = step.stage if isinstance(step.stage, Screens) else None
        self._thinks = step.stage if isinstance(step.stage, Thinks) else None
        self._acts = step.stage if isinstance(step.stage, Acts) else None
        self.partitions: dict[int, _Partition] = {}
        self._heard = {r.topic.name: signals.HEARD.labels(step.name, r.topic.name) for r in step.reads}
        self._edges: dict[str, Edge[Any]] = {r.topic.name: Edge(r.topic) for r in step.reads}
        self._tombs = frozenset(r.topic.name for r in step.reads if r.tombstones)
        self._facts: dict[str, dict[bytes, Message]] = {r.topic.name: {} for r in step.shared}
        self._facts_end: dict[str, int] = {}
        self._witness = step.stage.empty() if step.shared else None
        """A state of no partition, that has heard the shared facts only: what it refuses is no fact."""
        self._quota = Quota()
        self.silent = False
        """True: nothing is viewed; what is due stays due."""

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
        held = self.partitions.pop(partition, None)
        if held is not None and isinstance(self.step.stage, Leaves):
            self.step.stage.leave(held.state)

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
        if len(batch) > len(fresh):
            signals.REPEATED.labels(self.step.name).inc(len(batch) - len(fresh))
        if not len(fresh):
            return []
        outs: list[Out] = []
        urgent = self._fold(held, fresh, outs, now_s)
        held.folded[batch.topic] = fresh.next_offset
        self.restored_to(batch.topic, batch.partition, fresh.next_offset)
        if urgent:
            _hurry(held)
        return outs + self.speak(now_s, only=batch.partition)

    def hear_shared(self, batch: Batch, now_s: float) -> list[Out]:
        """Fold a batch of a shared input into every partition, those assigned later included."""
        facts = self._facts[batch.topic]
        fresh = batch.since(self._facts_end.get(batch.topic, 0))
        self._facts_end[batch.topic] = max(self._facts_end.get(batch.topic, 0), fresh.next_offset)
        heard, refused = self._screened(self._witness, fresh)
        outs = list(self._dead_letters(fresh, refused, now_s))
        if heard.records:
            self._witness = self.step.stage.fold(self._witness, heard)
        good = [fresh.messages[position] for position in heard.positions]
        for m in good:
            # a bad fact displaces none; put in anew, so that facts stay in the order of their offsets
            facts.pop(m.key or b"", None)
            facts[m.key or b""] = Message(m.offset, m.timestamp, m.key, m.value, m.headers)
        for held in self.partitions.values():
            if self._fold(held, Batch(batch.topic, batch.partition, good, batch.partitions), None):
                _hurry(held)
        return outs + self.speak(now_s)

    def forget_facts(self, topic: str) -> None:
        """The shared `topic` was made anew: its offsets begin again, and what it said before is no fact any more.

        What partitions have folded of it stays with them until they hear something else.
        """
        self._facts[topic].clear()
        self._facts_end.pop(topic, None)
        self._witness = self.step.stage.empty()
        for name, facts in self._facts.items():
            if facts:
                heard, _ = self._screened(self._witness, Batch(name, 0, tuple(facts.values())))
                self._witness = self.step.stage.fold(self._witness, heard)

    def _screened(self, state: Any, batch: Batch) -> tuple[Heard[Any], list[Refusal]]:
        """What edge and stage let pass, and what they refuse."""
        heard, refused = self._edges[batch.topic].open(batch)
        if self._screens is not None and heard.records:
            screened = list(self._screens.screen(state, heard))
            heard, refused = heard.without(screened), refused + screened
        return heard, refused

    def _fold(self, held: _Partition, batch: Batch, outs: list[Out] | None, now_s: float = 0.0) -> bool:
        stage = self.step.stage
        heard, refused = self._screened(held.state, batch)
        self._heard[batch.topic].inc(len(heard.records))
        if refused and outs is not None:
            judged = held.judged.get(batch.topic, 0)
            unsaid = [r for r in refused if batch.messages[r.position].offset >= judged]
            outs.extend(self._dead_letters(batch, unsaid, now_s))
        if not heard.records and not (batch.topic in self._tombs and any(m.value is None for m in batch.messages)):
            return False
        held.state = stage.fold(held.state, heard)
        return stage.urgent(held.state)

    def _dead_letters(self, batch: Batch, refused: Iterable[Refusal], now_s: float) -> Iterable[Out]:
        for refusal in refused:
            message = batch.messages[refusal.position]
            signals.REFUSED.labels(self.step.name, batch.topic).inc()
            key, value = (message.key or b"")[:KEY_BYTES], message.value and message.value[:MAX_VALUE_BYTES]
            if not self._quota.take(f"{batch.topic}/{key[:64]!r}", now_s, len(key) + len(value or b"")):
                signals.DEAD_LETTERS_DROPPED.labels(batch.topic).inc()
                continue
            signals.DEAD_LETTERS.labels(batch.topic).inc()
            place = self._place(batch, refusal, message.offset, now_s)
            if message.value and value != message.value:
                place = [*place, (topics.DEAD_LENGTH, str(len(message.value)).encode())]
            yield Out(topics.DEAD_LETTERS.name, key, value, [*place, *_kept(message.headers)])

    def _place(self, batch: Batch, refusal: Refusal, offset: int, now_s: float) -> Headers:
        return [
            (topics.DEAD_TOPIC, batch.topic.encode()),
            (topics.DEAD_PARTITION, str(batch.partition).encode()),
            (topics.DEAD_OFFSET, str(offset).encode()),
            (topics.DEAD_FIELD, refusal.field.encode()[:WORDS_BYTES]),
            (topics.DEAD_REASON, f"{refusal.reason[:WORDS_BYTES]} (got {refusal.value[:WORDS_BYTES]})".encode()),
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
        if self.silent:
            return outs
        for number, held in self.partitions.items():
            if held.due_at_s <= now_s and not held.restoring and only in (None, number):
                held.state = self.step.stage.advance(held.state, now_s)
                outs.extend(self._out(record, now_s) for record in self.step.stage.view(held.state, now_s))
                held.viewed_at_s, held.due_at_s = now_s, float("inf")
                held.urgent_at_s = now_s if held.urgent else held.urgent_at_s
                held.urgent = False
        return outs

    def _out(self, record: msgspec.Struct, now_s: float) -> Out:
        topic: Topic = TOPIC_OF[type(record)]
        key, value = topic.key_of(record).encode(), _encode(record)
        event_id = f"{self.step.name}/{key.decode()}/{now_s:.6f}"
        headers = cloudevents.headers(topic.name, source=self.source, event_id=event_id, now_s=now_s)
        if self.step.seal is not None and topic is topics.ROUTING_TABLE:
            headers.extend(self.step.seal(key, value))
        signals.SAID.labels(self.step.name, topic.name).inc()
        return Out(topic.name, key, value, headers)

    # ------------------------------------------------------------ thinking

    def questions(self) -> list[tuple[int, Question]]:
        """Open questions by partition, at most one under way for each."""
        asked: list[tuple[int, Question]] = []
        if self._thinks is not None:
            for number, held in self.partitions.items():
                if not held.thinking and not held.restoring and (question := self._thinks.question(held.state)):
                    held.thinking = True
                    asked.append((number, question))
        return asked

    def answer(self, partition: int, answer: Any, now_s: float) -> list[Out]:
        """Hand an answer in (None: it failed, ask again later); views that follow from it come back."""
        held = self.partitions.get(partition)
        if held is None or self._thinks is None:
            return []
        held.thinking = False
        if answer is None:
            return []
        held.state = self._thinks.answer(held.state, answer)
        return self._soon(held, now_s)

    def _soon(self, held: _Partition, now_s: float) -> list[Out]:
        held.due_at_s = min(held.due_at_s, max(now_s, held.viewed_at_s + COALESCE_S))
        return self.speak(now_s)

    # ------------------------------------------------------------ acting

    def errands(self) -> list[tuple[int, Errand]]:
        """Errands to run now by partition, at most one under way on each it is on; none while silent."""
        sent: list[tuple[int, Errand]] = []
        if self._acts is not None and not self.silent:
            for number, held in self.partitions.items():
                for errand in () if held.restoring else self._acts.errands(held.state):
                    if errand.on not in held.away:
                        held.away.add(errand.on)
                        sent.append((number, errand))
        return sent

    def brought(self, partition: int, errand: Errand, what: Any, now_s: float) -> list[Out]:
        """Hand in what came of an errand; views that follow from it come back."""
        held = self.partitions.get(partition)
        if held is None or errand.on not in held.away or self._acts is None:
            return []
        held.away.discard(errand.on)
        held.state = self._acts.brought(held.state, errand, what)
        return self._soon(held, now_s)


def _kept(headers: Headers) -> Headers:
    """What a refused message said of its value: without it the bytes could not be read, or sent again as they were."""
    said = [(name, value) for name, value in headers if name in _CONTENT or name.startswith("ce_")]
    return [(name, value) for name, value in said[:KEPT_HEADERS] if len(name) + len(value) <= WORDS_BYTES]


def _hurry(held: _Partition) -> None:
    """Evidence: view at once, or with what else comes within COALESCE_S of the last evidence told."""
    held.urgent = True
    held.due_at_s = min(held.due_at_s, held.urgent_at_s + COALESCE_S)
