"""What the gateway tells of what it saw: rows per endpoint, service and class, and arrivals per second.

Rows wait for the interval; a hard failure sends its endpoint's rows at once (and then at most every 20 ms), because
failover waits for it. Failures in a row are counted per endpoint over all its services and classes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from math import ceil, log
from typing import Final

from router_sync.gateway.sink import Sink
from streams.contract.records import HARD_ERRORS, Arrivals, Buckets, EndpointMetrics, ErrorKind, Vantage

GAMMA: Final = 1.01 / 0.99
"""Buckets of at most 1 % relative error."""
_LN_GAMMA: Final = log(GAMMA)
_FLOOR_MS: Final = 0.1
VALUES: Final = 200
"""More values than this are sent as buckets."""
_GAP_S: Final = 0.02
_SLOT_S: Final = 1.0
RELAPSE_S: Final = 60.0
_RECENT_S: Final = 2.0
WELL_S: Final = 5.0
"""Who has answered a request within this time is well: a 5xx may be about the request (see `blame`)."""
_NEEDED: Final = 2
_MOST_NEEDED: Final = 32


@dataclass(slots=True)
class _Row:
    """One interval of one endpoint, service and class."""

    requests: int = 0
    errors: dict[ErrorKind, int] = field(default_factory=dict)
    latency_ms: list[float] = field(default_factory=list)
    ttft_ms: list[float] = field(default_factory=list)
    bytes_in: int = 0
    bytes_out: int = 0
    tokens_in: int | None = None
    tokens_out: int | None = None


@dataclass(slots=True)
class Standing:
    """How an endpoint stands with this gateway, over all services and classes."""

    streak: int = 0
    first_error_at_s: float | None = None
    last_ok_at_s: float | None = None
    in_flight: int = 0
    probes_ok: int = 0
    needed: int = _NEEDED
    """Probes in a row that end a streak; more of them for who falls again within a minute."""
    risen_at_s: float = float("-inf")
    failed_at_s: float = float("-inf")
    """The last hard failure of a request."""
    served_at_s: float = float("-inf")
    """The last good answer to a request."""

    def ok(self, at_s: float) -> None:
        self.served_at_s = at_s
        self._rise(at_s)

    def probe_ok(self, at_s: float) -> None:
        if at_s - self.failed_at_s < _RECENT_S:
            return  # /health may be well where answers are not
        self.probes_ok += 1
        if self.streak == 0 or self.probes_ok >= self.needed:
            self._rise(at_s)

    def hard(self, at_s: float, *, request: bool = False) -> None:
        if request:
            self.failed_at_s = at_s
        if self.streak == 0:
            again = at_s - self.risen_at_s < RELAPSE_S
            self.needed = min(_MOST_NEEDED, self.needed * 2) if again else _NEEDED
        self.streak += 1
        self.probes_ok = 0
        if self.first_error_at_s is None:
            self.first_error_at_s = at_s

    def _rise(self, at_s: float) -> None:
        if self.streak >= 3:
            self.risen_at_s = at_s
        self.streak, self.first_error_at_s, self.last_ok_at_s = 0, None, at_s


@dataclass(slots=True)
class _Slot:
    """arrived, admitted, shed, failed by (service, class)."""

    at_s: float
    counts: dict[tuple[str, str], list[int]] = field(default_factory=dict)

    def of(self, service: str, class_: str) -> list[int]:
        return self.counts.setdefault((service, class_), [0, 0, 0, 0])


class Reporter:
    """Collects and sends. `now_s` is unix seconds; `boot` tells this start from others of the same `name`."""

    def __init__(self, sink: Sink, name: str, origin: str, boot: int, now_s: Callable[[], float]) -> None:
        self._sink, self._name, self._origin, self._boot, self._now_s = sink, name, origin, boot, now_s
        self._seq = 0
        self._rows: dict[tuple[str, str, str], _Row] = {}
        self._standing: dict[str, Standing] = {}
        self._slot = _Slot(float(int(now_s())))
        self._urgent: set[str] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._flushed_at_s = float("-inf")
        self._since_s = now_s()

    def standing(self, endpoint: str) -> Standing:
        standing = self._standing.get(endpoint)
        if standing is None:
            standing = self._standing[endpoint] = Standing()
        return standing

    def well(self, endpoint: str) -> bool:
        """Whether it has answered a request well in the last `WELL_S`, and failed none since that counts."""
        standing = self.standing(endpoint)
        return standing.streak == 0 and 0.0 <= self._now_s() - standing.served_at_s <= WELL_S

    def row(self, endpoint: str, service: str, class_: str) -> _Row:
        """The open row; whoever adds to it does so before the next await."""
        where = (endpoint, service, class_)
        row = self._rows.get(where)
        if row is None:
            row = self._rows[where] = _Row()
        return row

    def served(
        self,
        endpoint: str,
        service: str,
        class_: str,
        *,
        latency_ms: float,
        ttft_ms: float | None = None,
        bytes_in: int = 0,
        bytes_out: int = 0,
        tokens: tuple[int | None, int | None] = (None, None),
    ) -> None:
        """An attempt that was answered."""
        row = self.row(endpoint, service, class_)
        row.requests += 1
        row.latency_ms.append(latency_ms)
        if ttft_ms is not None:
            row.ttft_ms.append(ttft_ms)
        row.bytes_in += bytes_in
        row.bytes_out += bytes_out
        if tokens[0] is not None:
            row.tokens_in = (row.tokens_in or 0) + tokens[0]
        if tokens[1] is not None:
            row.tokens_out = (row.tokens_out or 0) + tokens[1]
        self.standing(endpoint).ok(self._now_s())

    def failed(self, endpoint: str, service: str, class_: str, kind: ErrorKind) -> None:
        """An attempt that was not; a hard failure is sent at once."""
        row = self.row(endpoint, service, class_)
        row.requests += 1
        row.errors[kind] = row.errors.get(kind, 0) + 1
        if kind in HARD_ERRORS:
            self.standing(endpoint).hard(self._now_s(), request=True)
            self._hurry(endpoint)

    def probed(self, endpoint: str, service: str, class_: str, kind: ErrorKind | None) -> None:
        """A probe: evidence that it lives or fails, and no latency. A failure is sent at once, a recovery too."""
        now_s, standing = self._now_s(), self.standing(endpoint)
        before = standing.streak
        if kind is None:
            standing.probe_ok(now_s)
        else:
            standing.hard(now_s)
        row = _Row(requests=1, errors={} if kind is None else {kind: 1})
        urgent = kind is not None or (before > 0 and standing.streak == 0)
        self._emit(endpoint, service, class_, row, "probe", now_s, 0.0, urgent=urgent)

    # -- arrivals -----------------------------------------------------------------------------------------------------

    def arrived(self, service: str, class_: str, *, shed: bool = False) -> None:
        counts = self._current().of(service, class_)
        counts[0] += 1
        counts[2 if shed else 1] += 1

    def lost(self, service: str, class_: str) -> None:
        """A request that arrived was not served in the end."""
        self._current().of(service, class_)[3] += 1

    def _current(self) -> _Slot:
        at_s = float(int(self._now_s()))
        if at_s != self._slot.at_s:
            self._close_slot()
            self._slot = _Slot(at_s)
        return self._slot

    def _close_slot(self) -> None:
        if not self._slot.counts:
            return
        rows = list(self._slot.counts.items())
        self._sink.emit(
            Arrivals(
                gateway=self._name,
                origin=self._origin,
                boot=self._boot,
                seq=self._next(),
                at_s=self._slot.at_s,
                slot_s=_SLOT_S,
                service=tuple(where[0] for where, _ in rows),
                class_=tuple(where[1] for where, _ in rows),
                arrived=tuple(counts[0] for _, counts in rows),
                admitted=tuple(counts[1] for _, counts in rows),
                shed=tuple(counts[2] for _, counts in rows),
                failed=tuple(counts[3] for _, counts in rows),
            ),
            self._now_s(),
        )

    # -- sending ------------------------------------------------------------------------------------------------------

    def flush(self, *, last: bool = False) -> None:
        """Send all rows, and the slot when its second is over; with `last`, everything."""
        now_s = self._now_s()
        rows, self._rows = self._rows, {}
        for (endpoint, service, class_), row in rows.items():
            self._emit(endpoint, service, class_, row, "gateway", now_s, now_s - self._since_s)
        self._since_s = now_s
        if last:
            self._close_slot()
            self._slot = _Slot(float(int(now_s)))
            if self._timer is not None:
                self._timer.cancel()
        else:
            self._current()

    def _hurry(self, endpoint: str) -> None:
        self._urgent.add(endpoint)
        if self._timer is None:
            loop = asyncio.get_running_loop()
            # the first failure goes now; in a flood of them every 20 ms will do
            self._timer = loop.call_at(max(loop.time(), self._flushed_at_s + _GAP_S), self._flush_urgent)

    def _flush_urgent(self) -> None:
        now_s = self._now_s()
        self._flushed_at_s, self._timer = asyncio.get_running_loop().time(), None
        for where in [where for where in self._rows if where[0] in self._urgent]:
            self._emit(*where, self._rows.pop(where), "gateway", now_s, max(0.0, now_s - self._since_s), urgent=True)
        self._urgent.clear()

    def _emit(
        self,
        endpoint: str,
        service: str,
        class_: str,
        row: _Row,
        vantage: Vantage,
        now_s: float,
        interval_s: float,
        *,
        urgent: bool = False,
    ) -> None:
        standing = self.standing(endpoint)
        latency, ttft = buckets(row.latency_ms), buckets(row.ttft_ms)
        record = EndpointMetrics(
            endpoint=endpoint,
            service=service,
            class_=class_,
            observer=self._name,
            vantage=vantage,
            boot=self._boot,
            seq=self._next(),
            at_s=now_s,
            interval_s=max(0.0, interval_s),
            requests=row.requests,
            errors=row.errors,
            latency_ms=() if latency else tuple(row.latency_ms),
            latency=latency,
            ttft_ms=() if ttft else tuple(row.ttft_ms),
            ttft=ttft,
            hard_streak=standing.streak,
            first_error_at_s=standing.first_error_at_s,
            last_ok_at_s=standing.last_ok_at_s,
            in_flight=standing.in_flight if vantage == "gateway" else None,
            tokens_in=row.tokens_in,
            tokens_out=row.tokens_out,
            bytes_in=row.bytes_in,
            bytes_out=row.bytes_out,
        )
        self._sink.emit(record, now_s, urgent=urgent)

    def _next(self) -> int:
        self._seq += 1
        return self._seq


def buckets(values: list[float]) -> Buckets | None:
    """`values` in milliseconds as a log histogram; None when they are few enough to be sent as they are."""
    if len(values) <= VALUES:
        return None
    counts: dict[int, int] = {}
    for value in values:
        index = ceil(log(max(value, _FLOOR_MS)) / _LN_GAMMA)
        counts[index] = counts.get(index, 0) + 1
    filled = tuple(sorted(counts))
    return Buckets(gamma=GAMMA, index=filled, count=tuple(counts[i] for i in filled))
