"""Rolling back-test: what a model said at each moment of the past that it had not seen, held against what came.

```
 slots  |──────────── past: first 60 % ────────────|──────────── test ────────────|
                                                    origin ──► ahead: scored
```

A word is judged by the single slot at its horizon, from data up to and including its origin. Gaps are never scored.
Everything here is a sum over numbers a model has said; nothing is tuned to them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from forecasting.models.many import Many, Word
from forecasting.models.past import SPIKE
from forecasting.models.weights import pinball
from forecasting.protocol import QUANTILES, Floats, Judged
from forecasting.traces import Trace

PAST: Final = 0.6
LEAST: Final = 10
"""A series is not scored at a horizon with fewer words than this."""
LEAST_SLOTS: Final = 25
"""Shorter series have no test of so many."""
MOST_WORDS: Final = 4000
"""Of a test: where there are more moments to speak at, evenly spaced ones are taken."""
UNMET: Final = 0.01
MOST_MARGIN: Final = 10.0
ALIKE: Final = 0.02
Doubles = NDArray[np.float64]
_QUANTILES: Final = np.array(QUANTILES, np.float32)


@dataclass(frozen=True)
class Panel:
    """Series that walk together: equal slots, equal length."""

    traces: tuple[Trace, ...]
    values: Floats
    """[slot, series]"""
    ahead_s: tuple[float, ...]

    @property
    def step_s(self) -> float:
        """Length of a slot."""
        return self.traces[0].step_s

    @property
    def past(self) -> int:
        """Slots of the past; the first of the test has this number."""
        return int(PAST * len(self.values))

    @property
    def lags(self) -> tuple[int, ...]:
        """Horizons in slots."""
        return tuple(round(ahead_s / self.step_s) for ahead_s in self.ahead_s)


def panels(traces: Sequence[Trace], horizons_s: Sequence[float]) -> list[Panel]:
    """Series of equal slots and nearly equal length; longer ones of a panel lose their oldest slots, 2 % at most."""
    made: list[Panel] = []
    for step_s in sorted({trace.step_s for trace in traces}):
        ahead_s = tuple(h for h in horizons_s if h >= step_s)
        left = sorted(
            (t for t in traces if t.step_s == step_s and len(t.values) >= LEAST_SLOTS), key=lambda t: len(t.values)
        )
        while left and ahead_s:
            slots = len(left[0].values)
            alike = tuple(t for t in left if len(t.values) <= slots * (1 + ALIKE))
            left = left[len(alike) :]
            made.append(Panel(alike, np.stack([t.values[-slots:] for t in alike], axis=1), ahead_s))
    return made


@dataclass(frozen=True, slots=True)
class Said:
    """What was said in the test of a panel, and what came. Arrays [origin, series, horizon]; NaN: not scored."""

    panel: Panel
    slots: NDArray[np.intp]
    """[origin] the last slot that was known."""
    truth: Floats
    quantiles: dict[str, Floats]
    """Teller to [origin, series, horizon, quantile]; "ensemble" is the forecast."""
    last: Floats
    provide: Floats
    spike: Floats
    spiked: Floats
    """1: some slot up to the horizon was above twice the hour before; 0: none; NaN: a gap, or it was one already."""


def walk(model: Many, panel: Panel, begin: int, end: int, each: Callable[[int, Sequence[Judged]], None]) -> None:
    """Teach `model` slots `begin` to `end`; after each, `each(slot, judged)`."""
    for slot in range(begin, end):
        each(slot, model.learn(slot, panel.values[slot]))


def tested(model: Many, panel: Panel, tellers: Sequence[str]) -> Said:
    """What `model`, which has lived the past of `panel`, says in its test."""
    words: list[tuple[Word, Floats, Floats]] = []
    slots = np.arange(panel.past - 1, len(panel.values) - min(panel.lags))
    slots = slots[:: -(-len(slots) // MOST_WORDS)]
    wanted = set(slots.tolist())

    def note(slot: int) -> None:
        if slot in wanted:
            word, now = model.word(), model.past.back(0)
            words.append((word, now, model.forecast().spike))

    note(panel.past - 1)
    walk(model, panel, panel.past, int(slots[-1]) + 1, lambda slot, _: note(slot))
    return _said(panel, slots, words, tellers)


def _said(
    panel: Panel, slots: NDArray[np.intp], words: list[tuple[Word, Floats, Floats]], tellers: Sequence[str]
) -> Said:
    told = np.stack([word.tellers for word, _, _ in words])
    quantiles = {"ensemble": np.stack([word.quantiles for word, _, _ in words])}
    quantiles |= {name: told[:, :, :, at] for at, name in enumerate(tellers)}
    hour = np.stack([word.level.hour for word, _, _ in words])
    now = np.stack([last for _, last, _ in words])
    truth, most = _ahead(panel, slots)
    calm = (now <= SPIKE * hour) & (hour > 0)
    spiked = np.where(np.isnan(most) | ~calm[..., None], np.nan, most > SPIKE * hour[..., None])
    return Said(
        panel,
        slots,
        truth,
        quantiles,
        np.broadcast_to(now[..., None], truth.shape),
        np.stack([word.provide for word, _, _ in words]),
        np.stack([spike for _, _, spike in words]),
        spiked.astype(np.float32),
    )


def _ahead(panel: Panel, slots: NDArray[np.intp]) -> tuple[Floats, Floats]:
    """[origin, series, horizon] of what came at the horizon, and of the most up to it; NaN: a gap, or past the end."""
    values = np.pad(panel.values, ((0, max(panel.lags)), (0, 0)), constant_values=np.nan)
    moved = [values[slots + n] for n in range(1, max(panel.lags) + 1)]
    most = np.maximum.accumulate(np.stack(moved), axis=0)  # NaN stays: a word with a gap ahead is not judged
    at = [lag - 1 for lag in panel.lags]
    return np.stack([moved[n] for n in at], axis=-1), np.stack([most[n] for n in at], axis=-1)


@dataclass(frozen=True, slots=True)
class Cell:
    """One series at one horizon: what its score is made of."""

    trace: Trace
    ahead_s: float
    busy: float
    """Share of the past's slots with demand."""
    slots: NDArray[np.intp]
    """[word] the last slot of the trace that was known."""
    truth: Floats
    said: dict[str, Floats]
    """Teller to [word, quantile]."""
    last: Floats
    provide: Floats
    spike: Floats
    spiked: Floats


def cells(said: Said) -> list[Cell]:
    """The cells of a panel that can be scored: words enough, and lv_add was wrong at least once."""
    found = []
    for at, trace in enumerate(said.panel.traces):
        past = said.panel.values[: said.panel.past, at]
        busy = float(np.mean(past[~np.isnan(past)] > 0)) if not np.isnan(past).all() else 0.0
        for h, ahead_s in enumerate(said.panel.ahead_s):
            (known,) = np.nonzero(~np.isnan(said.truth[:, at, h]))
            told = {name: quantiles[known, at, h] for name, quantiles in said.quantiles.items()}
            pick = [each[known, at, h] for each in (said.truth, said.last, said.provide, said.spike, said.spiked)]
            slots = said.slots[known] + len(trace.values) - len(said.panel.values)
            if len(known) >= LEAST and cost(pick[0], told["lv_add"]) > 0:
                found.append(Cell(trace, ahead_s, busy, slots, pick[0], told, *pick[1:]))
    return found


def cost(truth: Floats, said: Floats) -> float:
    """Mean pinball loss over words and quantiles, in the unit of demand."""
    return float(pinball(truth, said, _QUANTILES).mean(dtype=np.float64))


def relative(cell: Cell, teller: str) -> float:
    """The cost of `teller` over lv_add's. What SPL scales both by (the in-sample seasonal-naive error) cancels."""
    return cost(cell.truth, cell.said[teller]) / cost(cell.truth, cell.said["lv_add"])


def geometric(values: Sequence[float]) -> float | None:
    """Geometric mean; None of nothing. Zeros count as a millionth."""
    return float(np.exp(np.mean(np.log(np.maximum(values, 1e-6))))) if len(values) else None


def covered(cell: Cell, teller: str) -> Doubles:
    """[quantile] share of words that were not exceeded."""
    shares: Doubles = np.mean(cell.truth[:, None] <= cell.said[teller], axis=0)
    return shares


def capacity(said: Floats) -> Callable[[float], Floats]:
    """Capacity by margin: the median and so many times the way from there to q99."""
    return lambda margin: said[:, 0] + np.float32(margin) * (said[:, -1] - said[:, 0])


def over_at_unmet(truth: Floats, by_margin: Callable[[float], Floats]) -> float:
    """ov1: over-provisioned share of demand, at the least margin (up to 10) that leaves 1 % unmet, in hindsight.

    Where that does not do, what ten-fold costs: less than it ought to.
    """
    low, high = 0.0, MOST_MARGIN
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (low, middle) if _unmet(truth, by_margin(middle)) <= UNMET else (middle, high)
    return _over(truth, by_margin(high))


def controlled(cell: Cell) -> tuple[float, float]:
    """(unmet, over-provisioned) share of demand, had there been what the controller said."""
    return _unmet(cell.truth, cell.provide), _over(cell.truth, cell.provide)


def _unmet(truth: Floats, capacity: Floats) -> float:
    return float(np.maximum(0, truth - capacity).sum(dtype=np.float64) / truth.sum(dtype=np.float64))


def _over(truth: Floats, capacity: Floats) -> float:
    return float(np.maximum(0, capacity - truth).sum(dtype=np.float64) / truth.sum(dtype=np.float64))


def average_precision(chance: Floats, happened: Floats) -> float | None:
    """Area under precision over recall, steps as they come; None where nothing happened.

    >>> average_precision(np.array([.9, .8, .1]), np.array([1., 0., 1.]))
    0.8333333333333333
    """
    if not happened.any():
        return None
    order = np.argsort(-chance, kind="stable")
    hits = np.cumsum(happened[order])
    last = np.flatnonzero(np.diff(chance[order], append=-np.inf))  # equal chances are one step
    precision, recall = hits[last] / (last + 1), hits[last] / hits[-1]
    return float(np.sum(np.diff(recall, prepend=0) * precision))
