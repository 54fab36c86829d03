"""Traces of one set as rows: at each look at a pool that has replicas, the signs seen until then, and what came."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from math import log
from operator import itemgetter
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bench.spot_traces import Pool, losses
from forecasting.spot.evidence import Evidence
from forecasting.spot.hazard import Signs, fading, signs

WITHIN_S: Final = 3600.0
LOOK: Final = 0.6
SIGNS: Final = Signs._fields
PLAIN_H: Final = 6.0
"""Half-life of the plain Gamma-Poisson posterior that the hazard is held to."""
_HOUR_PRIOR: Final = 20.0
_FAILED: Final = 0.3
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Table:
    """Rows in order of time. `lost`: the part of the replicas that was lost within WITHIN_S."""

    at_s: Floats
    pool: NDArray[np.intp]
    ready: Floats
    lost: Floats
    signs: Floats
    """[rows, SIGNS]; the posterior as its logarithm."""
    plain: Floats
    """Losses per hour by the plain posterior."""
    failed: Floats
    """1: a launch of the pool failed just now, fading within the hour."""
    until_s: float
    """Where looking ends, and judging begins."""
    pools: int
    events: int
    """Replicas lost after `until_s`."""
    exposure_h: float
    """Replica-hours after `until_s`."""

    @property
    def look(self) -> Bools:
        """Rows whose outcome was known when judging begins."""
        return self.at_s + WITHIN_S <= self.until_s

    @property
    def judge(self) -> Bools:
        """Rows that are scored."""
        return self.at_s > self.until_s


class _Watch:
    """One pool as it is watched: its evidence, and what came of it."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.evidence = Evidence()
        self.plain = (0.0, 0.0)
        times = [s.at_s for s in pool.samples]
        lost = [0, *(max(0, a.ready - b.ready) for a, b in zip(pool.samples, pool.samples[1:], strict=False))]
        self.times, self.sums = times, np.cumsum(lost)

    def looked(self, n: int) -> None:
        """The evidence with sample `n`."""
        sample = self.pool.samples[n]
        if n:
            last = self.pool.samples[n - 1]
            passed_h = (sample.at_s - last.at_s) / 3600.0
            kept = 0.5 ** (passed_h / PLAIN_H)
            gone = max(0, last.ready - sample.ready) / max(1, last.ready)
            self.plain = kept * self.plain[0] + gone, kept * self.plain[1] + (passed_h if last.ready else 0.0)
        self.evidence = self.evidence.reported(*sample)

    def lost_within(self, n: int) -> float | None:
        """The part of the replicas of sample `n` that is lost in the hour after it; None: the trace ends before."""
        end_s = self.times[n] + WITHIN_S
        if end_s > self.times[-1]:
            return None
        last = bisect_right(self.times, end_s) - 1
        ready = self.pool.samples[n].ready
        return float(min(ready, self.sums[last] - self.sums[n])) / ready


def table(pools: list[Pool]) -> Table | None:
    """The rows of `pools`, which are neighbours where region or zone are the same. None: they are too few to score."""
    rows = np.array(list(_rows(pools)), np.float64)
    if not len(rows):
        return None
    first = min(pool.samples[0].at_s for pool in pools if pool.samples)
    last = max(pool.samples[-1].at_s for pool in pools if pool.samples)
    until_s = first + LOOK * (last - first)
    events, exposure_h = _after(pools, until_s)
    found = Table(
        at_s=rows[:, 0],
        pool=rows[:, 1].astype(np.intp),
        ready=rows[:, 2],
        lost=rows[:, 3],
        plain=rows[:, 4],
        failed=rows[:, 5],
        signs=rows[:, 6:],
        until_s=until_s,
        pools=len(pools),
        events=events,
        exposure_h=exposure_h,
    )
    return found if found.look.any() and found.judge.any() else None


def _rows(pools: list[Pool]) -> Iterator[tuple[float, ...]]:
    """(time, pool, ready, lost, plain, failed, signs ...). What is seen at a time is seen before anything is judged."""
    watches = [_Watch(pool) for pool in pools]
    looks = sorted((sample.at_s, w, n) for w, pool in enumerate(pools) for n, sample in enumerate(pool.samples))
    for at_s, together in groupby(looks, key=itemgetter(0)):
        now = [(w, n) for _, w, n in together]
        for w, n in now:
            watches[w].looked(n)
        for w, n in now:
            lost = watches[w].lost_within(n) if pools[w].samples[n].ready and n else None
            if lost is not None:
                yield (at_s, w, pools[w].samples[n].ready, lost, *_seen(watches, w, at_s))


def _seen(watches: list[_Watch], w: int, at_s: float) -> tuple[float, ...]:
    """(plain posterior, launch failed lately, signs) of pool `w` at `at_s`."""
    mine = watches[w]
    seen = signs(
        mine.evidence,
        at_s,
        region_lost_at_s=_lost(watches, mine, at_s, zone=False),
        zone_lost_at_s=_lost(watches, mine, at_s, zone=True),
    )
    plain = (mine.plain[0] + 0.5) / (mine.plain[1] + 2.0)
    return plain, fading(mine.evidence.failed_at_s, at_s), log(seen.posterior), *seen[1:]


def _lost(watches: list[_Watch], mine: _Watch, at_s: float, *, zone: bool) -> float | None:
    """The last loss of another pool in the same zone, or in the region's other zones."""
    here = mine.pool
    times = [
        other.evidence.lost_at_s
        for other in watches
        if other is not mine
        and other.pool.region == here.region
        and (other.pool.zone == here.zone) is zone
        and other.evidence.lost_at_s is not None
    ]
    return max(times, default=None)


def _after(pools: list[Pool], since_s: float) -> tuple[int, float]:
    """(replicas lost, replica-hours) after `since_s`."""
    later = [Pool(p.region, p.zone, p.instance, [s for s in p.samples if s.at_s > since_s]) for p in pools]
    hours = sum(
        a.ready * (b.at_s - a.at_s) / 3600.0 for p in later for a, b in zip(p.samples, p.samples[1:], strict=False)
    )
    return sum(map(losses, later)), hours


def with_failed(table: Table, p: Floats) -> Floats:
    """`p` with a hazard a third higher while launches fail: what one would think, before looking."""
    out: Floats = 1.0 - np.exp(np.log1p(-p) * np.exp(_FAILED * (table.failed - table.failed[table.look].mean())))
    return out


def with_hour(table: Table, p: Floats) -> Floats:
    """`p` times what the hour of day had so far, over what was said of it: an outcome counts once it is known."""
    order = np.argsort(table.at_s, kind="stable")
    at_s, said, came = table.at_s[order], -np.log1p(-p[order]), table.lost[order]
    hour = (at_s % 86_400 // 3600).astype(np.intp)
    each = np.median(np.diff(np.unique(at_s))) / WITHIN_S  # looks overlap: each adds what is new in it
    expected, met, out = np.zeros(24), np.zeros(24), np.empty(len(p))
    known = np.searchsorted(at_s + WITHIN_S, at_s, "right")
    done = 0
    for n in range(len(p)):
        for m in range(done, known[n]):
            expected[hour[m]] += each * (1.0 - np.exp(-said[m]))
            met[hour[m]] += each * came[m]
        done = max(done, int(known[n]))
        factor = (_HOUR_PRIOR + met[hour[n]]) / (_HOUR_PRIOR + expected[hour[n]])
        out[order[n]] = 1.0 - np.exp(-said[n] * factor)
    return out
