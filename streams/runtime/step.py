"""Fold, advance, view: what a stage is, and what a step reads and writes.

A batch of records changes state; time passes over state; views only read it. The same stage runs on Faust
(`runtime.kafka`) and in a replay or a test (`runtime.memory`). At the same `now_s`, having read the same records, both
say the same, however the batches were cut and the topics interleaved.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

import msgspec
import numpy as np
from numpy.typing import NDArray

from streams.contract.topics import Topic
from streams.runtime.batch import Batch, Headers

S = TypeVar("S")
R = TypeVar("R", bound=msgspec.Struct)


@dataclass(frozen=True, slots=True)
class Refusal:
    """A message that was refused: which one (`position` in its batch), which field and value, and why."""

    position: int
    field: str
    value: str
    reason: str


@dataclass(frozen=True)
class Heard(Generic[R]):
    """The records of a batch that passed the edge, and where they stood in it."""

    batch: Batch
    positions: NDArray[np.intp]
    records: list[R]
    memo: dict[str, Any] = field(default_factory=dict, compare=False)
    """What a stage worked out while screening and needs again when it folds."""

    @property
    def topic(self) -> str:
        """The topic's name in the contract."""
        return self.batch.topic

    @property
    def stamps_s(self) -> NDArray[np.float64]:
        """Kafka's time of each record, unix seconds."""
        return self.batch.timestamps_s[self.positions]

    def without(self, refused: Sequence[Refusal]) -> Heard[R]:
        """The same without what was refused."""
        if not refused:
            return self
        keep = ~np.isin(self.positions, [r.position for r in refused])
        return Heard(self.batch, self.positions[keep], [r for r, k in zip(self.records, keep, strict=True) if k])


class Stage(Protocol[S]):
    """One thought about records. Callers use only what `fold` and `advance` return: they may reuse what they got."""

    def empty(self) -> S:
        """The state of a partition nobody has spoken on."""
        ...

    def fold(self, state: S, heard: Heard[Any]) -> S:
        """Records change state; no clock, no network."""
        ...

    def advance(self, state: S, now_s: float) -> S:
        """Time passes: what is old expires. Called before a view. Time never goes back."""
        ...

    def view(self, state: S, now_s: float) -> Iterable[msgspec.Struct]:
        """What there is to say; only reads."""
        ...

    def urgent(self, state: S) -> bool:
        """Whether the last fold brought evidence that cannot wait for the tick."""
        ...


@runtime_checkable
class Screens(Protocol):
    """A stage that refuses records its state knows to be wrong, such as those of unknown endpoints."""

    def screen(self, state: Any, heard: Heard[Any]) -> Iterable[Refusal]:
        """What must not be folded, and why; only reads."""
        ...


@runtime_checkable
class Leaves(Protocol):
    """A stage that has said something of a partition elsewhere than on a topic, such as in a gauge."""

    def leave(self, state: Any) -> None:
        """Take it back: the partition is another worker's now."""
        ...


@dataclass(frozen=True, slots=True)
class Question:
    """Work too long for the loop: `ask(*given)` runs in a process beside it; all of it can be pickled."""

    ask: Callable[..., Any]
    given: tuple[Any, ...]
    deadline_s: float | None = None
    """How long the work may take; None: what the carrier gives everybody. Longer ones do not hold up the others."""


@runtime_checkable
class Thinks(Protocol):
    """A stage with questions that are answered beside the loop; its views never wait for an answer."""

    def question(self, state: Any) -> Question | None:
        """What to work out next, asked after a view; None when nothing changed. One question at a time."""
        ...

    def answer(self, state: Any, answer: Any) -> Any:
        """The state that knows `answer`; it is viewed at once."""
        ...


@dataclass(frozen=True, slots=True)
class Errand:
    """Something to do in the world outside topics: on whom (one at a time for each of them), and what."""

    on: str
    what: Any


@runtime_checkable
class Acts(Protocol):
    """A stage that has things done outside topics. Its views never wait for them, nor one errand for another's."""

    def errands(self, state: Any) -> Iterable[Errand]:
        """What to do now, asked after each view; only reads. One on somebody who has an errand under way is not run."""
        ...

    def brought(self, state: Any, errand: Errand, what: Any) -> Any:
        """The state that knows what came of `errand`, which it does not ask for again; it is viewed at once."""
        ...


@dataclass(frozen=True, slots=True)
class Earliest:
    """Restore from all that the topic holds: compacted facts."""


@dataclass(frozen=True, slots=True)
class Since:
    """Restore from the last `seconds`: window and lateness of minutes-long state."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Reads:
    """One input of a step, and how it comes back when a partition is assigned.

    `everyone`: each worker reads all of it (small facts such as the fleet), outside the consumer group.
    `tombstones`: `fold` is also called for a batch of which only tombstones are left, for the stage to look at.
    """

    topic: Topic
    restore: Earliest | Since
    everyone: bool = False
    tombstones: bool = False


Seal = Callable[[bytes, bytes], Headers]
"""Headers that seal (key, value) of an outgoing message."""


@dataclass(frozen=True, slots=True)
class Step:
    """One line of the map: who reads what, who writes what, how often it speaks when nothing is urgent.

    A step's state is per partition: the same partition number of all its inputs folds into the same state.
    """

    name: str
    reads: tuple[Reads, ...]
    writes: tuple[Topic, ...]
    stage: Stage[Any]
    every_s: float = 1.0
    after_s: float = 0.0
    """How long after each whole `every_s` of the clock it speaks: who hears another's views lets them come first."""
    seal: Seal | None = None

    def next_tick_s(self, now_s: float) -> float:
        """When it speaks next, having spoken at `now_s`; a tick that came late does not bring the next one at once.

        >>> Step("router", (), (), None, every_s=1.0, after_s=0.25).next_tick_s(10.27)
        11.25
        """
        passed_s = (now_s - self.after_s) % self.every_s
        missing_s = self.every_s - passed_s
        return now_s + (missing_s if missing_s > self.every_s / 10 else missing_s + self.every_s)

    @property
    def owned(self) -> tuple[Reads, ...]:
        """Inputs with one owner per partition."""
        return tuple(r for r in self.reads if not r.everyone)

    @property
    def shared(self) -> tuple[Reads, ...]:
        """Inputs that every worker reads."""
        return tuple(r for r in self.reads if r.everyone)


@dataclass(frozen=True, slots=True)
class Out:
    """One message to send: topic in the contract (without prefix), printable key, exact bytes (None: a tombstone)."""

    topic: str
    key: bytes
    value: bytes | None
    headers: Headers = ()
