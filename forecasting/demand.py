"""Demand some horizons ahead, by quantile, for every (service, origin, class) that was heard.

```
 demand ─────────► minutes ─► closed ─► blocks of 16 series: learn, forecast ─┬─► demand-forecast
 demand-history ─► recalled ───────────────▲      │ once an hour              └─► demand-history
                                           │      ▼
                               trees ◄─ refit ◄─ lessons     (in a process beside the loop, once a day)
```

A series is spoken of from its first whole minute on: what is not known of it yet, the trees that were shipped know of
others. Hours of state come back from the demand topic, a week of each series from its history: see decision 16. What is
learnt waits for the first view, so that it does not matter which of the two was read first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from forecasting.lessons import MOST, Lessons
from forecasting.minutes import IDLE, MINUTE_S, SERIES, Key, Minutes
from forecasting.models.fit import can_fit, refit
from forecasting.models.many import JUDGED_S, RESIDUALS, Many, shipped
from forecasting.models.trees import Trees, unpacked
from forecasting.protocol import QUANTILES, Floats, Forecast, Forecasters
from streams.contract.errors import shown
from streams.contract.records import Demand, DemandForecast, DemandHistory, Horizon, Pattern
from streams.runtime.step import Heard, Question, Refusal

HORIZONS_S: Final = (300.0, 600.0, 1800.0, 3600.0)
SPIKE_WITHIN_S: Final = 600.0
GRACE_S: Final = 10.0
"""A minute is closed this long after its end: slots may grow for some seconds, and have to come here."""
MEMORY_S: Final = (RESIDUALS + 1) * MINUTE_S + HORIZONS_S[-1]
"""What the longest horizon's residuals look back on: a restart reads as much of the demand topic."""
BLOCK: Final = 16
"""Series that learn together: fewer cost more each, more cost a small fleet for places nobody lives in."""
STAGGER_S: Final = 0.02
"""Blocks learn one after the other, so that twenty thousand series never hold up the loop for seconds."""
AT_ONCE: Final = 400
"""Minutes of blocks learnt in one go, about a second's work: a restart of many series is spread over ticks."""
REFIT: Final = 24 * 60
"""Minutes from one fit of trees to the next; lessons are spread over twice as many."""
LEAST_LESSONS: Final = 5000
REFIT_WITHIN_S: Final = 120.0
_HOUR: Final = 60
_WORDS: Final = len(HORIZONS_S) * 2 * REFIT / (JUDGED_S / MINUTE_S)
"""Of a series in two days."""


def ensemble() -> Forecasters:
    """The model of a new block."""
    return Many(BLOCK, MINUTE_S, [round(ahead_s / MINUTE_S) + 1 for ahead_s in HORIZONS_S])


@dataclass(slots=True)
class Block:
    """Sixteen places, and the first minute they were not taught."""

    model: Forecasters
    places: NDArray[np.intp]
    next: int


@dataclass(slots=True)
class History:
    """What a history record said."""

    made_at_s: float
    first: int
    means: Floats
    mean_s: float

    @property
    def asked(self) -> int:
        """The last minute in which there was demand; the beginning of time when there was none."""
        (busy,) = np.nonzero(np.nan_to_num(self.means) > 0)
        return int((self.first + busy[-1] + 1) * self.mean_s // MINUTE_S) - 1 if len(busy) else 0


@dataclass(slots=True)
class Expected:
    """Minutes, blocks of series, and histories that no block was taught yet."""

    minutes: Minutes = field(default_factory=Minutes)
    blocks: list[Block] = field(default_factory=list)
    histories: dict[Key, History] = field(default_factory=dict)
    lessons: Lessons = field(default_factory=Lessons)
    trees: dict[str, Trees] = field(default_factory=dict)
    """Those fitted here that were better than those before them."""
    spoken: list[int] = field(default_factory=list)
    """The blocks that learned when last there was something to learn, and when that was."""
    spoken_at_s: float = float("-inf")


class ExpectDemand:
    """The stage: demand in, forecasts out, once for each closed minute (the newest, when several closed at once)."""

    def __init__(
        self, *, model: Callable[[], Forecasters] = ensemble, grace_s: float = GRACE_S, refits: bool | None = None
    ) -> None:
        """`refits`: whether trees are fitted anew; None: where scikit-learn is there."""
        self.model, self.grace_s = model, grace_s
        self.refits = can_fit() if refits is None else refits

    def empty(self) -> Expected:
        """Nothing was heard."""
        return Expected()

    def screen(self, state: Expected, heard: Heard[Any]) -> Iterable[Refusal]:
        """Refuse slots that no minute can hold, those from the future, and histories in slots that are not ours."""
        for position, record, stamp_s in _stamped(heard):
            match record:
                case Demand() if record.slot_s > MINUTE_S:
                    reason = "is longer than the minute it is summed over"
                    yield Refusal(position, "slot_s", shown(record.slot_s), reason)
                case Demand() if record.at_s > stamp_s + MINUTE_S:
                    reason = "is more than a minute ahead of its own message"
                    yield Refusal(position, "at_s", shown(record.at_s), reason)
                case DemandHistory() if record.first_at_s % record.slot_s:
                    yield Refusal(position, "first_at_s", shown(record.first_at_s), "is no whole multiple of slot_s")

    def fold(self, state: Expected, heard: Heard[Any]) -> Expected:
        """Take slots and histories in; nothing is learnt from them yet."""
        for _, record, stamp_s in _stamped(heard):
            if isinstance(record, Demand):
                state.minutes.hear(record, stamp_s, self.grace_s)
            else:
                _remember(state.histories, record)
        return state

    def advance(self, state: Expected, now_s: float) -> Expected:
        """Close the minutes that are over; blocks whose turn it is learn them, and speak when they have caught up."""
        state.minutes.close(now_s - self.grace_s)
        if not state.minutes.keys:
            state.blocks.clear()
        if not state.blocks:
            _revive(state)
        self._found(state)
        spoken, left = [], AT_ONCE
        for number, block in enumerate(state.blocks):
            due = min(state.minutes.next or 0, int((now_s - self.grace_s - number * STAGGER_S) // MINUTE_S))
            last = min(due, block.next + left)
            if last > block.next:
                left -= last - block.next
                _learn(state, block, last)
                spoken += [number] if last == due else []
        if spoken:
            state.spoken, state.spoken_at_s = spoken, now_s
        state.minutes.taught(min((block.next for block in state.blocks), default=state.minutes.next or 0))
        return state

    def urgent(self, state: Expected) -> bool:
        """A forecast waits for the tick."""
        return False

    def view(self, state: Expected, now_s: float) -> Iterable[DemandForecast | DemandHistory]:
        """Of the blocks that learned just now: a forecast a series, and once an hour its history.

        `made_at_s` of a forecast is the end of the minute that was learned last.
        """
        if now_s != state.spoken_at_s:
            return
        for number in state.spoken:
            block = state.blocks[number]
            named = sorted((key, row) for row, key in _living(state.minutes, block))
            forecast = block.model.forecast()
            yield from (_said(key, row, block, forecast) for key, row in named)
            if (block.next - 1) % _HOUR == number % _HOUR:
                yield from (_history(key, row, block, now_s) for key, row in named)

    def question(self, state: Expected) -> Question | None:
        """A refit, once a day, when there is enough to learn from."""
        if not self.refits or not state.lessons.due(REFIT, LEAST_LESSONS):
            return None
        than = {name: trees.packed() for name, trees in {**shipped(), **state.trees}.items()}
        return Question(refit, (state.lessons.rows(), than), REFIT_WITHIN_S)

    def answer(self, state: Expected, answer: Any) -> Expected:
        """Listen to the trees that were fitted from now on."""
        state.trees |= {name: unpacked(arrays) for name, arrays in answer.items()}
        state.lessons.learned()
        for block in state.blocks:
            block.model.adopt(state.trees)
        return state

    def _found(self, state: Expected) -> None:
        """Blocks for all places there are."""
        while len(state.blocks) * BLOCK < len(state.minutes.keys):
            begin = len(state.blocks) * BLOCK
            places = np.arange(begin, begin + BLOCK)
            first = min(minute for minute, closed in state.minutes.closed.items() if closed.born)
            state.blocks.append(Block(self.model(), places, first))
            state.blocks[-1].model.adopt(state.trees)


def _revive(state: Expected) -> None:
    """Give series that sleep, and had demand within a day, their place back: from the first minute to learn on."""
    minutes = state.minutes
    if not minutes.closed:
        return
    first = min(minutes.closed)
    for key in sorted(state.histories.keys() - minutes.places.keys()):
        asked = state.histories[key].asked
        if first - asked < IDLE and (place := minutes.settle(key, first, asked)) is not None:
            minutes.closed[first].born.append(place)


def _learn(state: Expected, block: Block, last: int) -> None:
    """Teach `block` the closed minutes up to `last`."""
    share = min(1.0, MOST / (_WORDS * len(state.minutes.keys)))
    for minute in range(block.next, last):
        closed = state.minutes.closed[minute]
        born = [place - int(block.places[0]) for place in closed.born if place in block.places]
        if born:
            block.model.reset(np.array(born, np.intp))
        state.lessons.take(block.model.learn(minute, closed.values(block.places)), block.places, share)
        for row in born:
            _recall(state, block, row)
    block.next = last


def _recall(state: Expected, block: Block, row: int) -> None:
    key = state.minutes.keys[block.places[row]]
    if key is not None and (history := state.histories.pop(key, None)) and history.mean_s == block.model.mean_s:
        block.model.recall(row, history.first, history.means)


def _remember(histories: dict[Key, History], record: DemandHistory) -> None:
    key = (record.service, record.origin, record.class_)
    known = histories.get(key)
    if (known is None and len(histories) < SERIES) or (known is not None and known.made_at_s <= record.made_at_s):
        means = np.array([np.nan if rpm is None else rpm for rpm in record.rpm], np.float32)
        histories[key] = History(record.made_at_s, int(record.first_at_s // record.slot_s), means, record.slot_s)


def _living(minutes: Minutes, block: Block) -> Iterable[tuple[int, Key]]:
    """(row, key) of the series in `block` that were taught something."""
    for row, place in enumerate(block.places.tolist()):
        if place < len(minutes.keys) and (key := minutes.keys[place]) and minutes.since[place] < block.next:
            yield row, key


def _said(key: Key, row: int, block: Block, forecast: Forecast) -> DemandForecast:
    service, origin, class_ = key
    within = HORIZONS_S.index(SPIKE_WITHIN_S)
    pattern: Pattern = "young" if forecast.young[row] else "on_off" if forecast.on_off[row] else "steady"
    return DemandForecast(
        service=service,
        origin=origin,
        class_=class_,
        made_at_s=block.next * MINUTE_S,
        model=block.model.name,
        horizons=tuple(_horizon(ahead_s, at, row, forecast) for at, ahead_s in enumerate(HORIZONS_S)),
        spike=float(forecast.spike[row, within]),
        spike_within_s=SPIKE_WITHIN_S,
        pattern=pattern,
    )


def _horizon(ahead_s: float, at: int, row: int, forecast: Forecast) -> Horizon:
    per_s = (forecast.quantiles[row, at] / MINUTE_S).tolist()
    rps = {str(q): value for q, value in zip(QUANTILES, per_s, strict=True)}
    return Horizon(ahead_s=ahead_s, rps=rps, provide_rps=float(forecast.provide[row, at]) / MINUTE_S)


def _history(key: Key, row: int, block: Block, now_s: float) -> DemandHistory:
    service, origin, class_ = key
    first, means = block.model.remembered(row)
    mean_s = block.model.mean_s
    rpm = tuple(None if mean != mean else round(mean, 3) for mean in means.tolist())
    return DemandHistory(
        service=service,
        origin=origin,
        class_=class_,
        made_at_s=now_s,
        slot_s=mean_s,
        first_at_s=first * mean_s,
        rpm=rpm,
    )


def _stamped(heard: Heard[Any]) -> Iterable[tuple[int, Any, float]]:
    return zip(heard.positions.tolist(), heard.records, heard.stamps_s.tolist(), strict=True)
