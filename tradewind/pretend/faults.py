"""Faults on command: what may be ordered, and the switch that holds what is in force.

none ──order──► slow | hanging | breaking | refusing ──for_s over, or order none──► none
     ──order──► dead (the process is gone; whoever supervises it may start it again)
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Annotated, Literal, get_args

import msgspec

FaultKind = Literal["none", "dead", "refusing", "slow", "hanging", "breaking"]
FAULT_KINDS: tuple[FaultKind, ...] = get_args(FaultKind)


class FaultOrder(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One order. `for_s` None lasts until another order; `factor` is for slow, `after_chunks` for breaking streams."""

    kind: FaultKind
    for_s: Annotated[float, msgspec.Meta(gt=0, le=86_400)] | None = None
    factor: Annotated[float, msgspec.Meta(ge=1, le=1_000)] = 10.0
    after_chunks: Annotated[int, msgspec.Meta(ge=0, le=1_000)] = 2


class FaultState(msgspec.Struct, frozen=True):
    """What is in force; `left_s` None means until another order."""

    kind: FaultKind
    left_s: float | None
    factor: float
    after_chunks: int


HEALTHY = FaultOrder(kind="none")
RETRY_S = 0.5


def parse_order(body: bytes) -> FaultOrder:
    """The order in a JSON body; `ValueError` says what is wrong and what is accepted."""
    try:
        return msgspec.json.decode(body, type=FaultOrder)
    except msgspec.DecodeError as error:
        raise ValueError(f'{error}; send {{"kind": one of {", ".join(FAULT_KINDS)}, "for_s": seconds > 0}}') from error


class FaultSwitch:
    """The order in force. `turn` is called with (before, after) at each change and does what the kind needs."""

    def __init__(
        self, turn: Callable[[FaultOrder, FaultOrder], Awaitable[None]], monotonic_s: Callable[[], float]
    ) -> None:
        self.order = HEALTHY
        self._turn = turn
        self._monotonic_s = monotonic_s
        self._ends_at_s: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._ending: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self._one_at_a_time = asyncio.Lock()

    @property
    def factor(self) -> float:
        """By how much times are multiplied now."""
        return self.order.factor if self.order.kind == "slow" else 1.0

    def state(self) -> FaultState:
        left_s = None if self._ends_at_s is None else max(0.0, self._ends_at_s - self._monotonic_s())
        return FaultState(self.order.kind, left_s, self.order.factor, self.order.after_chunks)

    async def set(self, order: FaultOrder) -> None:
        """Put `order` in force; one still running is ended by it. Raises what `turn` raises, then nothing changed."""
        async with self._one_at_a_time:
            await self._turn(self.order, order)
            self._forget_timer()
            self.order = order
            if order.for_s is not None:
                self._start_timer(order.for_s)
            self._changed.set()
            self._changed = asyncio.Event()

    async def changed(self) -> None:
        """Returns at the next order, or when the one in force runs out."""
        await self._changed.wait()

    async def close(self) -> None:
        """Forget timers and let go whoever waits in `changed`; `turn` is not called."""
        self._forget_timer()
        if self._ending is not None:
            self._ending.cancel()
            await asyncio.wait([self._ending])
        self.order = HEALTHY
        self._changed.set()

    def _start_timer(self, for_s: float) -> None:
        self._ends_at_s = self._monotonic_s() + for_s
        self._timer = asyncio.get_running_loop().call_later(for_s, self._run_out)

    def _run_out(self) -> None:
        self._ending = asyncio.ensure_future(self._end())

    async def _end(self) -> None:
        try:
            await self.set(HEALTHY)
        except OSError:  # the port was taken meanwhile: the fault lasts until it is free
            self._start_timer(RETRY_S)

    def _forget_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._ends_at_s = None, None
