"""What a partition says of its endpoints: columns over all rows at once, a verdict per endpoint with its reason.

down       more observers accuse than defend; or over half of the requests met hard failures
degraded   over a fifth of the requests failed; or some observers accuse and as many defend
silent     no gateway or probe spoke of the endpoint for FRESH_S
unknown    none ever did: what an endpoint says of itself is no evidence
up         none of these
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, get_args

import numpy as np
from numpy.typing import NDArray

from streams import signals
from streams.contract.records import HARD_ERRORS, EndpointHealth, ErrorKind, Verdict
from streams.evidence import FRESH_S

if TYPE_CHECKING:
    from streams.health import HealthState

KINDS: Final[tuple[ErrorKind, ...]] = get_args(ErrorKind)
_HARD: Final = np.array([k in HARD_ERRORS for k in KINDS])
_RATED: Final = np.array([k != "client_4xx" for k in KINDS])
TOKENS: Final = 1 + len(KINDS)
WITH_TOKENS: Final = TOKENS + 1
COLUMNS: Final = WITH_TOKENS + 1
"""Of the tally: requests, errors by kind, tokens in, and the requests these came with."""
RATE_S: Final = 10
"""Rates look back this far."""
ENOUGH: Final = 20
"""Requests that a success rate needs to mean something."""
_COUNT: Final = 2**53
_AMOUNT: Final = 1e15
"""The largest that the contract carries: one absurd sender must not cost a whole record."""

Floats = NDArray[np.float64]
Sums = NDArray[np.int64]
Judged = tuple[Verdict, str]
_UP: Final[Judged] = ("up", "")


class Picture:
    """All rows in use at `now_s`, worked out once; records are slices of it."""

    def __init__(self, state: HealthState, taken: Sequence[tuple[int, Any]], now_s: float) -> None:
        self.state, self.now_s = state, now_s
        self.names = [name for _, name in taken]
        rows = self.rows = np.array([row for row, _ in taken], np.intp)
        ends = self.ends = state.end_of[rows]
        recent = state.tally.total(len(state.rows), _rated_from(now_s))[rows]
        self.rps = recent[:, 0] / (now_s - _rated_from(now_s))
        self.totals = np.minimum(state.tally.total(len(state.rows))[rows], _COUNT)
        tokens, brought = self.totals[:, TOKENS].astype(np.float64), self.totals[:, WITH_TOKENS]
        self.tokens = np.divide(tokens, brought, out=np.full(len(rows), np.nan), where=brought > 0)
        self.values = state.latency.quantiles((0.5, 0.95, 0.99), rows)
        self.ttft = state.ttft.quantiles((0.95,), rows)[:, 0]
        self.counts = np.minimum(state.latency.counts()[rows], _COUNT)
        self.heard_s = state.heard_s[rows]
        since_s = now_s - FRESH_S
        self.in_flight = np.minimum(state.in_flight.total(len(state.rows), since_s)[rows], _COUNT)
        self.queue = np.where(state.queue_s[rows] >= since_s, state.queue[rows], np.nan)
        self.first_error_s = state.evidence.first_error(len(state.ends), now_s)[ends]
        special = verdicts(state, rows, now_s, recent)
        self.judged = [special.get(end, _UP) for end in ends.tolist()]

    def record(self, part: slice, number: int, parts: int) -> EndpointHealth:
        """The record of one part of the rows, `number` of `parts`."""
        state, totals, judged = self.state, self.totals[part], self.judged[part]
        p50, p95, p99 = self.values[part].T
        endpoint, service, class_ = zip(*self.names[part], strict=True)
        heard_s, ok_s = self.heard_s[part], state.ok_s[self.rows[part]]
        return EndpointHealth(
            source=state.source,
            part=number,
            parts=parts,
            made_at_s=self.now_s,
            endpoint=endpoint,
            service=service,
            class_=class_,
            verdict=tuple(verdict for verdict, _ in judged),
            reason=tuple(reason for _, reason in judged),
            observations=tuple(self.counts[part].tolist()),
            rps=tuple(np.minimum(np.round(self.rps[part], 4), _AMOUNT).tolist()),
            p50_ms=_known(p50),
            p95_ms=_known(p95),
            p99_ms=_known(p99),
            ttft_p95_ms=_known(self.ttft[part]),
            errors={k: tuple(totals[:, 1 + i].tolist()) for i, k in enumerate(KINDS) if totals[:, 1 + i].any()},
            in_flight=_whole(self.in_flight[part]),
            queue=_whole(self.queue[part]),
            tokens_in=() if np.isnan(self.tokens[part]).all() else _known(self.tokens[part]),
            age_s=_known(np.where(heard_s > 0, np.maximum(0.0, self.now_s - heard_s), np.nan)),
            first_error_at_s=_known(self.first_error_s[part], 6),
            last_ok_at_s=_known(np.where(ok_s > 0, ok_s, np.nan), 6),
            late=min(state.late, _COUNT) if number == 0 else 0,
            duplicates=min(state.duplicates, _COUNT) if number == 0 else 0,
        )


def tell(picture: Picture) -> None:
    """Set the gauge of this partition's endpoints by verdict."""
    verdict_of = dict(zip(picture.ends.tolist(), (verdict for verdict, _ in picture.judged), strict=True))
    counts = Counter(verdict_of.values())
    for verdict in get_args(Verdict):
        signals.VERDICTS.labels(verdict, picture.state.source).set(counts[verdict])


def leave(state: HealthState) -> None:
    """Take this partition's endpoints out of the gauge."""
    for verdict in get_args(Verdict):
        with contextlib.suppress(KeyError):  # never told
            signals.VERDICTS.remove(verdict, state.source)


def verdicts(state: HealthState, rows: NDArray[np.intp], now_s: float, recent_rows: Sums) -> dict[int, Judged]:
    """Verdict and reason by endpoint row; those that are up, which most are, are left out.

    `recent_rows`: requests and errors by kind of the last RATE_S, by row.
    """
    ends = len(state.ends)
    accusers, defenders = state.evidence.judge(ends, now_s)
    recent = _by_endpoint(state, rows, recent_rows)
    errors = recent[:, 1:TOKENS]
    rated, hard = errors[:, _RATED].sum(axis=1), errors[:, _HARD].sum(axis=1)
    failing = (recent[:, 0] >= ENOUGH) & (rated > 0.2 * recent[:, 0])
    tried_s = state.tried_s[:ends]
    silent = tried_s < now_s - FRESH_S
    special = np.flatnonzero((accusers > 0) | failing | silent)
    columns = (c[special].tolist() for c in (accusers, defenders, failing, rated, hard > 0.5 * recent[:, 0], tried_s))
    found: dict[int, Judged] = {}
    for end, accused, defended, fails, bad, broken, last_s in zip(special.tolist(), *columns, strict=True):
        if accused > defended:
            found[end] = "down", f"{accused} of {accused + defended} observers met only hard failures"
        elif fails:
            found[end] = "down" if broken else "degraded", _rate(recent[end], bad)
        elif accused:
            found[end] = "degraded", f"{accused} observers met only hard failures, {defended} did not"
        elif last_s:
            found[end] = "silent", f"nothing heard from gateways for {now_s - last_s:.0f} s"
        else:
            found[end] = "unknown", "no gateway has spoken of it"
    return found


def _rated_from(now_s: float) -> int:
    """The first of the seconds that rates look at; the one that has just begun is among them."""
    return int(now_s) - RATE_S + 1


def _by_endpoint(state: HealthState, rows: NDArray[np.intp], recent: Sums) -> Sums:
    """`recent` of rows added up by endpoint row."""
    found = np.zeros((len(state.ends), recent.shape[1]), np.int64)
    for column in np.flatnonzero(recent.any(axis=0)):
        np.add.at(found[:, column], state.end_of[rows], recent[:, column])
    return found


def _rate(recent: Sums, rated: int) -> str:
    worst = KINDS[int(np.argmax(np.where(_RATED, recent[1:TOKENS], -1)))]
    return f"{rated} of {recent[0]} requests failed in {RATE_S} s, most by {worst}"


def _known(column: Floats, digits: int = 3) -> tuple[float | None, ...]:
    """Plain numbers, None for NaN."""
    values = np.round(column, digits)
    if not np.isnan(values).any():
        return tuple(values.tolist())
    return tuple(None if value != value else value for value in values.tolist())


def _whole(column: Floats) -> tuple[int | None, ...]:
    return tuple(None if value != value else int(value) for value in column.tolist())
