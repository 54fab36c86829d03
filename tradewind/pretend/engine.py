"""The pretend inference engine: replicas with slots behind one first-come queue, times drawn from the load curve.

It knows no HTTP. Replicas that go let their requests finish: slots go as they become free.
"""

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass

from tradewind.pretend import curve
from tradewind.pretend.metrics import Counts
from tradewind.pretend.settings import EndpointSettings

KV_TOKENS_PER_SLOT = 4096


class QueueFull(Exception):
    """As many requests wait as may."""


@dataclass(slots=True)
class Run:
    """One request in execution. Times are seconds; `ttft_s` counts from when the slot was taken."""

    arrived_at_s: float
    prompt_tokens: int
    output_tokens: int
    finish_reason: str
    ttft_s: float
    between_s: float
    done: bool = False


class Engine:
    """Runs as many requests as its replicas have slots, lets `queue_limit` wait, refuses the rest. One event loop."""

    def __init__(self, settings: EndpointSettings, rng: random.Random, monotonic_s: Callable[[], float]) -> None:
        self.counts = Counts()
        self.running = 0
        self.waiting = 0
        self._settings = settings
        self._rng = rng
        self._monotonic_s = monotonic_s
        self.replicas = settings.replicas
        self._slots = asyncio.Semaphore(self.running_limit)
        self._surplus = 0
        """Slots in use that are to go."""
        self._arrivals = curve.Rate()
        self._held_tokens = 0

    @property
    def running_limit(self) -> int:
        """Requests that run side by side; further ones wait."""
        return self.replicas * self._settings.replica_slots

    @property
    def load(self) -> float:
        """Arrivals over capacity of the last few seconds: 1 is all it can serve."""
        return self._arrivals.get(self._monotonic_s()) / (self.replicas * self._settings.capacity_rps)

    @property
    def kv_cache_usage(self) -> float:
        return min(1.0, self._held_tokens / (self.running_limit * KV_TOKENS_PER_SLOT))

    async def enter(self, prompt_tokens: int, output_limit: int | None) -> Run:
        """A run once a slot is free, to be handed back by `leave`. Raises QueueFull at once when too many wait."""
        arrived_at_s = self._monotonic_s()
        if self._slots.locked() and self.waiting >= self._settings.queue_limit:
            raise QueueFull
        self._arrivals.add(arrived_at_s)
        self.waiting += 1
        try:
            await self._slots.acquire()
        finally:
            self.waiting -= 1
        run = self._draw(arrived_at_s, prompt_tokens, output_limit)
        self.running += 1
        self._held_tokens += run.prompt_tokens + run.output_tokens
        self.counts.prompt_tokens += run.prompt_tokens
        self.counts.queued.observe(self._monotonic_s() - arrived_at_s)
        return run

    async def scale(self, replicas: int) -> None:
        """So many are ready from now on; slots of those that go are taken away as they become free."""
        before, self.replicas = self.running_limit, replicas
        self._surplus += before - self.running_limit
        while self._surplus > 0 and not self._slots.locked():
            await self._slots.acquire()  # at once: there is one
            self._surplus -= 1
        while self._surplus < 0:
            self._slots.release()
            self._surplus += 1

    def first_token(self, run: Run) -> None:
        self.counts.ttft.observe(self._monotonic_s() - run.arrived_at_s)

    def leave(self, run: Run) -> None:
        """Free the slot; a run not marked done counts as aborted."""
        self.running -= 1
        self._held_tokens -= run.prompt_tokens + run.output_tokens
        if self._surplus:
            self._surplus -= 1
        else:
            self._slots.release()
        self.counts.finished[run.finish_reason if run.done else "abort"] += 1
        if run.done:
            self.counts.generation_tokens += run.output_tokens
            self.counts.e2e.observe(self._monotonic_s() - run.arrived_at_s)

    def _draw(self, arrived_at_s: float, prompt_tokens: int, output_limit: int | None) -> Run:
        settings, load = self._settings, self.load
        factor = curve.noise(self._rng, settings.noise_sigma)
        output_tokens, finish_reason = (output_limit, "length") if output_limit else (self._length(), "stop")
        return Run(
            arrived_at_s=arrived_at_s,
            prompt_tokens=prompt_tokens,
            output_tokens=output_tokens,
            finish_reason=finish_reason,
            ttft_s=factor * curve.ttft_ms(settings.base_ttft_ms, load) / 1000.0,
            between_s=factor * curve.between_ms(settings.base_between_ms, load) / 1000.0,
        )

    def _length(self) -> int:
        """Tokens of an answer nobody limited."""
        drawn = 1 + int(self._rng.expovariate(1.0 / self._settings.mean_output_tokens))
        return min(drawn, self._settings.max_model_tokens)
