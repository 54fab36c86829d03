"""What became of one request, and the counts of a run while it goes on."""

from collections import Counter
from typing import Literal

import msgspec

ErrorKind = Literal[
    "connect", "reset", "first_byte_timeout", "stall", "truncated", "http_5xx", "http_429", "client_4xx", "not_sent",
    "shed",
]  # fmt: skip


class Outcome(msgspec.Struct, frozen=True, gc=False):
    """One request. Times are ms from when it was sent; `late_ms` is how long after its due time `at_s` that was.

    `ok`: a stream ended with [DONE] and no error in it, or a plain answer was whole JSON with a choice. `error` says
    why not; `not_sent` means too many were open, `shed` that a gateway refused it so that others are in time. `ttft_ms`
    is for streams. The last five come from the gateway's response headers; `table` is "epoch.version", `taken_as` the
    class it was taken as of.
    """

    at_s: float
    origin: str
    cls: str
    stream: bool
    ok: bool
    error: ErrorKind | None = None
    status: int | None = None
    late_ms: float = 0.0
    ttft_ms: float | None = None
    total_ms: float | None = None
    endpoint: str | None = None
    region: str | None = None
    attempts: int | None = None
    table: str | None = None
    taken_as: str | None = None

    @property
    def latency_ms(self) -> float | None:
        """What an SLO is about: the first token of a stream, else the whole answer."""
        return self.ttft_ms if self.stream else self.total_ms


class Counters:
    """Running counts of one run."""

    def __init__(self) -> None:
        self.due = 0
        self.open = 0
        self.ok = 0
        self.failed = 0
        self.not_sent = 0
        self.shed = 0
        self.errors: Counter[str] = Counter()

    def add(self, outcome: Outcome) -> None:
        if outcome.ok:
            self.ok += 1
            return
        if outcome.error == "not_sent":
            self.not_sent += 1
        elif outcome.error == "shed":
            self.shed += 1
        else:
            self.failed += 1
        self.errors[outcome.error or "unknown"] += 1
