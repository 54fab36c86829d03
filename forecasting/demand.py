"""Demand some horizons ahead, by quantile, for every (service, origin, class) that was heard.

```
 slots ─► minute open ─── end + grace ──► closed: one value per series ─► models ─► spoken once
```

A minute in which nobody at all was heard is a gap: the last minute is carried forward and nothing is learnt from it.
In any other minute a series that was not heard had no demand. Gateways say nothing of seconds without a request, so a
dead gateway among living ones cannot be told from a quiet one here: endpoint health is where to look for that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from math import floor
from typing import Final

from forecasting.models.last_value import RESIDUALS, LastValue
from forecasting.protocol import Forecaster
from streams import signals
from streams.contract.errors import shown
from streams.contract.records import Demand, DemandForecast, Horizon
from streams.runtime.step import Heard, Refusal

Key = tuple[str, str, str]
MINUTE_S: Final = 60.0
HORIZONS_S: Final = (300.0, 600.0, 1800.0, 3600.0)
QUANTILES: Final = (0.5, 0.9, 0.95, 0.99)
GRACE_S: Final = 10.0
"""A minute is closed this long after its end: slots may grow for some seconds, and have to come here."""
MEMORY_S: Final = (RESIDUALS + 1) * MINUTE_S + HORIZONS_S[-1]
"""What the longest horizon looks back on. A series without demand for so long is forgotten; a restart reads as much."""
SERIES: Final = 5000
"""Series kept apart; new ones beyond them are left out, and said to be."""
_MEMORY: Final = round(MEMORY_S / MINUTE_S)
_COUNT: Final = 2**53


def lv_add() -> Forecaster:
    """The model of a new series."""
    return LastValue(HORIZONS_S, step_s=MINUTE_S)


@dataclass(slots=True)
class Series:
    """A model, and the number of the last minute with demand."""

    model: Forecaster
    asked: int


@dataclass(slots=True)
class Expected:
    """Series by key, and the minutes that are not closed yet. A minute's number is its start over 60."""

    series: dict[Key, Series] = field(default_factory=dict)
    open: dict[int, dict[tuple[str, float, float], Demand]] = field(default_factory=dict)
    """Minute to the last word of each source on each slot (start, length)."""
    next: int | None = None
    """The first minute that is not closed; None before anything was heard."""
    spoken: int | None = None
    """`next` when a view spoke last, and when that was."""
    spoken_at_s: float = float("-inf")


class ExpectDemand:
    """The stage: demand in, forecasts out, once for each closed minute (the newest, when several closed at once)."""

    def __init__(self, *, model: Callable[[], Forecaster] = lv_add, grace_s: float = GRACE_S) -> None:
        self.model, self.grace_s = model, grace_s

    def empty(self) -> Expected:
        """Nothing was heard."""
        return Expected()

    def screen(self, state: Expected, heard: Heard[Demand]) -> Iterable[Refusal]:
        """Refuse slots that no minute can hold, and those from the future."""
        for position, record, stamp_s in _stamped(heard):
            if record.slot_s > MINUTE_S:
                yield Refusal(position, "slot_s", shown(record.slot_s), "is longer than the minute it is summed over")
            elif record.at_s > stamp_s + MINUTE_S:
                yield Refusal(position, "at_s", shown(record.at_s), "is more than a minute ahead of its own message")

    def fold(self, state: Expected, heard: Heard[Demand]) -> Expected:
        """Take slots in by their start; the last word on a slot holds, and a closed minute is closed.

        Minutes are closed by the messages' own times too, so that a restore holds no more of them open than a day does.
        """
        for _, record, stamp_s in _stamped(heard):
            if state.next is None:
                # the minute under way was heard in part only
                state.next = floor(stamp_s / MINUTE_S) + 1
            self._close(state, stamp_s)
            minute = floor(record.at_s / MINUTE_S)
            if minute >= state.next:
                state.open.setdefault(minute, {})[record.source, record.at_s, record.slot_s] = record
        return state

    def advance(self, state: Expected, now_s: float) -> Expected:
        """Close the minutes that are over."""
        self._close(state, now_s)
        if state.next != state.spoken:
            state.spoken, state.spoken_at_s = state.next, now_s
        return state

    def urgent(self, state: Expected) -> bool:
        """A forecast waits for the tick."""
        return False

    def view(self, state: Expected, now_s: float) -> Iterable[DemandForecast]:
        """One record a series at the moment a minute was closed, none at others; horizons that can be told already.

        `made_at_s` is the end of that minute.
        """
        if state.next is None or now_s != state.spoken_at_s:
            return
        for (service, origin, class_), series in sorted(state.series.items()):
            if horizons := tuple(_horizons(series.model)):
                yield DemandForecast(
                    service=service,
                    origin=origin,
                    class_=class_,
                    made_at_s=state.next * MINUTE_S,
                    model=series.model.name,
                    horizons=horizons,
                )

    def _close(self, state: Expected, now_s: float) -> None:
        due = floor((now_s - self.grace_s) / MINUTE_S)
        while state.next is not None and state.next < due:
            if not state.series and not state.open:
                state.next = due
                return
            self._learn(state, state.next, state.open.pop(state.next, None))
            state.next += 1

    def _learn(self, state: Expected, minute: int, slots: dict[tuple[str, float, float], Demand] | None) -> None:
        sums = _sums(slots.values()) if slots else {}
        self._meet(state, minute, sums)
        for key, series in list(state.series.items()):
            series.model.learn(minute * MINUTE_S, float(sums.get(key, 0)) if slots else None)
            if sums.get(key):
                series.asked = minute
            elif minute - series.asked >= _MEMORY:
                del state.series[key]

    def _meet(self, state: Expected, minute: int, sums: dict[Key, int]) -> None:
        """Give each new key a series while there is room."""
        new = sorted(key for key, count in sums.items() if count and key not in state.series)
        room = SERIES - len(state.series)
        for key in new[:room]:
            state.series[key] = Series(self.model(), minute)
        if new[room:]:
            signals.event(
                "series_left_out", "warning", left_out=len(new[room:]), first="/".join(new[room]), most=SERIES
            )


def _stamped(heard: Heard[Demand]) -> Iterable[tuple[int, Demand, float]]:
    return zip(heard.positions.tolist(), heard.records, heard.stamps_s.tolist(), strict=True)


def _sums(slots: Iterable[Demand]) -> dict[Key, int]:
    """Arrivals by key."""
    sums: dict[Key, int] = {}
    for slot in slots:
        for *key, arrived in zip(slot.service, slot.origin, slot.class_, slot.arrived, strict=True):
            at = (key[0], key[1], key[2])
            sums[at] = min(_COUNT, sums.get(at, 0) + arrived)
    return sums


def _horizons(model: Forecaster) -> Iterable[Horizon]:
    for ahead_s in HORIZONS_S:
        values = model.forecast(ahead_s, QUANTILES)
        if values is not None:
            rps = {str(q): value / MINUTE_S for q, value in zip(QUANTILES, values, strict=True)}
            yield Horizon(ahead_s=ahead_s, rps=rps)
