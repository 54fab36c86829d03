"""Sends requests at their times whether or not earlier ones were answered (open loop); notes what became of each."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from tradewind.load.outcome import Counters, Outcome
from tradewind.load.trace import Arrivals

__all__ = ["Counters", "Outcome", "Shot", "Target", "drive", "plan"]

OPEN_MAX = 2_000
LOOK_UP_S = 0.25  # how long a stop may go unnoticed


@dataclass(frozen=True, slots=True)
class Target:
    """Whom a request is sent to, and as whom: the gateway of an origin, and a key that stands for a class."""

    origin: str
    cls: str
    url: str  # the gateway's, without a path
    api_key: str
    model: str
    weight: float = 1.0
    stream_share: float = 0.5  # of the requests, 0..1


@dataclass(frozen=True, slots=True)
class Shot:
    """One request to be sent `at_s` seconds after the start."""

    at_s: float
    target: Target
    stream: bool
    input_tokens: int
    output_tokens: int


def plan(arrivals: Arrivals, targets: Sequence[Target], rng: random.Random) -> list[Shot]:
    """One shot an arrival, its target drawn by weight and its kind by the target's share of streams."""
    if not targets or any(one.weight < 0 for one in targets) or not any(one.weight > 0 for one in targets):
        raise ValueError(f"targets: {list(targets)!r:.200}; give at least one with a weight above 0, none below")
    drawn = rng.choices(list(targets), weights=[one.weight for one in targets], k=len(arrivals))
    rows = zip(arrivals.at_s.tolist(), arrivals.input_tokens.tolist(), arrivals.output_tokens.tolist(), strict=True)
    return [
        Shot(at_s, target, rng.random() < target.stream_share, input_tokens, output_tokens)
        for (at_s, input_tokens, output_tokens), target in zip(rows, drawn, strict=True)
    ]


async def drive(
    shots: Sequence[Shot],
    send: Callable[[Shot, float], Awaitable[Outcome]],
    *,
    monotonic_s: Callable[[], float],
    counters: Counters | None = None,
    on_outcome: Callable[[Outcome], None] | None = None,
    open_max: int = OPEN_MAX,
    stop: asyncio.Event | None = None,
) -> list[Outcome]:
    """Outcomes of all shots, by due time; returns when the last is known. `send(shot, late_ms)` must end by itself.

    At most `open_max` requests are open at once; one due beyond that is not sent and counted as such. After `stop` is
    set nothing more is sent and what is open is waited for. Cancelled, it cancels what is open.
    """
    run = _Run(send, counters or Counters(), on_outcome)
    started_at_s = monotonic_s()
    try:
        for shot in shots:
            late_s = await _wait_until(started_at_s + shot.at_s, monotonic_s, stop)
            if stop is not None and stop.is_set():
                break
            run.shoot(shot, late_s * 1000.0, open_max)
        await run.finish()
    finally:
        await run.cancel()
    return sorted(run.outcomes, key=lambda one: one.at_s)


class _Run:
    """The open requests of one run."""

    def __init__(
        self,
        send: Callable[[Shot, float], Awaitable[Outcome]],
        counters: Counters,
        on_outcome: Callable[[Outcome], None] | None,
    ) -> None:
        self.outcomes: list[Outcome] = []
        self._send = send
        self._counters = counters
        self._on_outcome = on_outcome
        self._open: set[asyncio.Task[None]] = set()

    def shoot(self, shot: Shot, late_ms: float, open_max: int) -> None:
        self._counters.due += 1
        if len(self._open) >= open_max:
            return self._note(Outcome(shot.at_s, shot.target.origin, shot.target.cls, shot.stream, False, "not_sent"))
        task = asyncio.ensure_future(self._one(shot, late_ms))
        self._open.add(task)
        self._counters.open += 1
        task.add_done_callback(self._closed)
        return None

    async def finish(self) -> None:
        """Wait for what is open; a defect in `send` is raised here."""
        await asyncio.gather(*self._open)

    async def cancel(self) -> None:
        for task in self._open:
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    async def _one(self, shot: Shot, late_ms: float) -> None:
        self._note(await self._send(shot, late_ms))

    def _closed(self, task: asyncio.Task[None]) -> None:
        self._counters.open -= 1
        if task.cancelled() or task.exception() is None:
            self._open.discard(task)

    def _note(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)
        self._counters.add(outcome)
        if self._on_outcome is not None:
            self._on_outcome(outcome)


async def _wait_until(at_s: float, monotonic_s: Callable[[], float], stop: asyncio.Event | None) -> float:
    """Seconds by which `at_s` was missed; earlier when stopped."""
    left_s = at_s - monotonic_s()
    if left_s <= 0:
        await asyncio.sleep(0)  # behind: let open requests have their turn all the same
    while left_s > 0 and not (stop is not None and stop.is_set()):
        await asyncio.sleep(min(left_s, LOOK_UP_S))
        left_s = at_s - monotonic_s()
    return max(0.0, -left_s)
