"""What a gateway tells of a step: endpoint-metrics with histograms, probes, and arrivals by slots."""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil, floor
from typing import Final

import numpy as np
from numpy.random import Generator

from router_sync.gateway.report import GAMMA
from streams.contract.records import Arrivals, Buckets, EndpointMetrics, Record
from tradewind.world.bundle import Row
from tradewind.world.engine import P95, SPREAD, Engine, Span
from tradewind.world.gateway import Gateway
from tradewind.world.ground import Counts, Floats, Ground

SLOT_S: Final = 10.0
_UPTO: Final = np.array(
    [0.05, 0.15, 0.25, 0.35, 0.45, 0.55, 0.65, 0.75, 0.82, 0.87, 0.91, 0.94, 0.96, 0.98, 0.993, 1.0]
)
"""Latencies are told by so many of their quantiles: each stands for the share up to it from the one before."""
_DEVIATIONS: Final = np.array(
    [-1.96, -1.28, -0.84, -0.524, -0.253, 0.0, 0.253, 0.524, 0.786, 1.02, 1.227, 1.44, 1.645, 1.881, 2.219, 2.697]
)
"""The normal quantiles in the middle of each."""
_LN_GAMMA: Final = float(np.log(GAMMA))


class Reporter:
    """Reports of all gateways; arrivals are counted in slots of `slot_s`."""

    def __init__(self, ground: Ground, engine: Engine, rng: Generator, slot_s: float) -> None:
        self._ground, self._engine, self._rng, self._slot_s = ground, engine, rng, slot_s
        self._seq: dict[str, int] = {}

    def said(self, gateway: Gateway, span: Span, at_s: float) -> Iterator[Record]:
        """All that `gateway` says of the step `span`, written at `at_s`."""
        yield from self._metrics(gateway, span, at_s)
        yield from self._probes(gateway, at_s)
        yield from self._arrivals(gateway, span)

    def _next(self, gateway: Gateway) -> int:
        seq = self._seq[gateway.name] = self._seq.get(gateway.name, 0) + 1
        return seq

    def _metrics(self, gateway: Gateway, span: Span, at_s: float) -> Iterator[EndpointMetrics]:
        rows = [(at, row) for at, row in sorted(gateway.rows.items()) if row.requests]
        for ((flow, end), row), latency in zip(rows, self._latencies(rows), strict=True):
            known, name = self._ground.flows[flow], self._ground.ends[end].name
            standing = gateway.sight.standing(end)
            yield EndpointMetrics(
                endpoint=name,
                service=known.service,
                class_=known.class_.name,
                observer=gateway.name,
                boot=1,
                seq=self._next(gateway),
                at_s=at_s,
                interval_s=span.s,
                requests=row.requests,
                errors=row.errors,
                latency=latency,
                hard_streak=standing.streak,
                first_error_at_s=standing.first_error_at_s,
                last_ok_at_s=standing.last_ok_at_s,
                in_flight=gateway.in_flight(end),
                bytes_out=round(row.ok * known.class_.response_kb * 1000.0),
            )

    def _latencies(self, rows: list[tuple[tuple[int, int], Row]]) -> list[Buckets | None]:
        """Histograms of what was answered; None where nothing was."""
        if not rows:
            return []
        counts = np.array([row.ok for _, row in rows], np.float64)
        median_ms = np.array([self._engine.states[end].inside_ms for (_, end), _ in rows])
        rtt_ms = np.array([self._ground.rtt_ms[flow, end] for (flow, end), _ in rows])
        # a p95 of few requests is not quite theirs all: its error, as a share
        error = np.exp(self._rng.standard_normal(len(rows)) * P95 * SPREAD / np.sqrt(np.maximum(counts, 1.0)))
        values = rtt_ms[:, None] + (median_ms * error)[:, None] * np.exp(SPREAD * _DEVIATIONS)
        index = np.ceil(np.log(values) / _LN_GAMMA).astype(np.int64)
        return [_buckets(i, c) for i, c in zip(index.tolist(), self._split(counts).tolist(), strict=True)]

    def _split(self, counts: Floats) -> Counts:
        """[rows, quantiles] whole numbers that add up to each of `counts`, by chance where they do not divide."""
        shifted = np.floor(counts[:, None] * _UPTO + self._rng.random((len(counts), 1)) * (_UPTO < 1.0))
        out: Counts = np.diff(shifted, axis=1, prepend=0.0).astype(np.int64)
        return out

    def _probes(self, gateway: Gateway, at_s: float) -> Iterator[EndpointMetrics]:
        for end, (kind, count) in sorted(gateway.sight.probes.items()):
            name = self._ground.ends[end].name
            standing = gateway.sight.standing(end)
            service = next(s for s in self._ground.fleet.services if s.name in self._ground.ends[end].services)
            yield EndpointMetrics(
                endpoint=name,
                service=service.name,
                class_=service.default_class,
                observer=gateway.name,
                vantage="probe",
                boot=1,
                seq=self._next(gateway),
                at_s=at_s,
                requests=count,
                errors={} if kind is None else {kind: count},
                hard_streak=standing.streak,
                first_error_at_s=standing.first_error_at_s,
                last_ok_at_s=standing.last_ok_at_s,
            )

    def _arrivals(self, gateway: Gateway, span: Span) -> Iterator[Arrivals]:
        flows = [flow for flow, counts in sorted(gateway.counts.items()) if counts.arrived]
        service = tuple(self._ground.flows[flow].service for flow in flows)
        class_ = tuple(self._ground.flows[flow].class_.name for flow in flows)
        counts = [gateway.counts[flow] for flow in flows]
        starts, parts = _slots(span, self._slot_s)
        columns = (_parts([getattr(c, what) for c in counts], parts) for what in ("arrived", "shed", "failed"))
        for at_s, arrived, shed, failed in zip(starts, *columns, strict=True):
            if any(arrived):
                yield Arrivals(
                    gateway=gateway.name,
                    origin=gateway.origin,
                    boot=1,
                    seq=self._next(gateway),
                    at_s=at_s,
                    slot_s=self._slot_s,
                    service=service,
                    class_=class_,
                    arrived=tuple(arrived),
                    admitted=tuple(max(0, n - s) for n, s in zip(arrived, shed, strict=True)),
                    shed=tuple(shed),
                    failed=tuple(failed),
                )


def _slots(span: Span, slot_s: float) -> tuple[list[float], list[float]]:
    """The starts of the slots that a step lies in, and up to which part of the step each reaches.

    >>> _slots(Span(4.0, 6.0), 5.0)
    ([0.0, 5.0], [0.5, 1.0])
    """
    first, last = floor(span.from_s / slot_s), ceil(span.until_s / slot_s)
    starts = [n * slot_s for n in range(first, last)]
    return starts, [(min(at_s + slot_s, span.until_s) - span.from_s) / span.s for at_s in starts]


def _parts(counts: list[int], upto: list[float]) -> list[list[int]]:
    """Whole numbers of each of `counts` by slot: those of all slots add up.

    >>> _parts([5, 1], [0.5, 1.0])
    [[2, 0], [3, 1]]
    """
    if not any(counts):
        return [counts] * len(upto)
    reached = np.floor(np.outer(upto, counts) + 1e-9)
    return np.diff(reached, axis=0, prepend=0.0).astype(np.int64).tolist()  # type: ignore[no-any-return]


def _buckets(index: list[int], count: list[int]) -> Buckets | None:
    """A histogram of neighbouring quantiles, each bucket once."""
    merged: dict[int, int] = {}
    for i, n in zip(index, count, strict=True):
        if n:
            merged[i] = merged.get(i, 0) + n
    return Buckets(gamma=GAMMA, index=tuple(merged), count=tuple(merged.values())) if merged else None
