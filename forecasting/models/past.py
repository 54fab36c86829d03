"""What many series of equal slots held: the newest slots one by one, and a week in means of five minutes.

All series share one clock, so a slot is a column of a ring and learning one is a few operations for all of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]
Rows = NDArray[np.intp]
MEAN_S: Final = 300.0
KEPT_S: Final = 7 * 86400.0 + 2 * 3600.0
"""A week back, and room for what stands around it."""
SPIKE: Final = 2.0
"""Times the trailing hour's mean: more is a spike."""
DAY_S: Final = 86400.0
HOUR_S: Final = 3600.0
LEAST: Final = np.float32(1e-9)
"""So that nothing is divided by zero."""
_NOT_SO_LONG: Final = 48.0
"""Hours: how long ago something was is told apart up to here."""


def decay(step_s: float, half_life_s: float) -> float:
    """What is left of a weight after `step_s`."""
    return float(0.5 ** (step_s / half_life_s))


@dataclass(slots=True)
class Level:
    """How high series stand, each [series]; means of what was measured since the series began."""

    minutes30: Floats
    hour: Floats
    hour_most: Floats
    hour_least: Floats
    hour_deviation: Floats
    hours6: Floats
    day: Floats
    all: Floats
    scale: Floats
    """What a series' numbers are told in: its day's mean, or a tenth of all its past's where that is more."""


class Past:
    """The past of `rows` series in slots of `step_s`; `reach` slots are kept one by one."""

    def __init__(self, rows: int, step_s: float, reach: int) -> None:
        self.step_s, self.reach = step_s, max(reach, round(HOUR_S / step_s))
        self.slot = -1
        """Number of the newest slot: its begin over `step_s`; -1 before the first."""
        self.held = np.zeros((rows, self.reach), np.float32)
        """Slot by slot, gaps filled with what was before them."""
        self.seen = np.zeros((rows, self.reach), np.bool_)
        """Where somebody measured."""
        self.mean_s = max(step_s, MEAN_S)
        self.day_means = round(DAY_S / self.mean_s)
        self.means = np.full((rows, round(KEPT_S / self.mean_s)), np.nan, np.float32)
        self._sum, self._count = np.zeros((2, rows), np.float32)
        self.age = np.zeros(rows, np.int32)
        """Slots since the first measured one, that one included; recalled ones too."""
        self.taught = np.zeros(rows, np.int32)
        """The same without those recalled: so many of the newest slots are held one by one."""
        self._total, self._measured = np.zeros((2, rows), np.float64)
        self.jump, self.idle_hours6, self.idle_day = np.zeros((3, rows), np.float32)
        """Mean step from slot to slot (half-life 6 h); share of idle slots (half-life 3 h and 12 h)."""
        self.hours_busy, self.hours_idle, self.hours_calm, self.spikes = np.zeros((4, rows), np.float32)
        """Since the last slot that was idle, that was not, that was a spike; share of spikes (half-life 12 h)."""
        self._shrinks = tuple(np.float32(decay(step_s, hours * HOUR_S)) for hours in (6, 3, 12))

    def reset(self, rows: Rows) -> None:
        """Other series live in `rows` from now on."""
        self.seen[rows] = False
        self.means[rows] = np.nan
        for array in (self.held, self._sum, self._count, self.age, self.taught, self._total, self._measured, self.jump,
                      self.idle_hours6, self.idle_day, self.hours_busy, self.hours_idle, self.hours_calm,
                      self.spikes):  # fmt: skip
            array[rows] = 0

    def learn(self, slot: int, values: Floats) -> None:
        """The next slot held `values` [series]; NaN: nobody measured."""
        self.slot = slot
        seen, last = ~np.isnan(values), self.back(1)
        now = np.where(seen, values, last).astype(np.float32)
        spike = now > SPIKE * self._hour()
        at = slot % self.reach
        self.held[:, at], self.seen[:, at] = now, seen
        self._total += np.where(seen, now, 0)
        self._measured += seen
        begun = (self.age > 0) | seen
        self.age, self.taught = (np.where(begun, n + 1, 0).astype(np.int32) for n in (self.age, self.taught))
        self._note_mean(now, seen)
        self._note_idle(now, np.where(self.taught > 1, np.abs(now - last), 0), spike & (self.taught > 1))

    def back(self, slots: int) -> Floats:
        """[series] as of `slots` before the newest."""
        return self.held[:, (self.slot - slots) % self.reach]

    def newest(self, slots: int) -> Floats:
        """[series, slot] of the newest `slots`, oldest first."""
        return self.held[:, np.arange(self.slot - slots + 1, self.slot + 1) % self.reach]

    def measured(self, slots: int) -> Bools:
        """[series, slot] beside `newest`: where somebody measured."""
        return self.seen[:, np.arange(self.slot - slots + 1, self.slot + 1) % self.reach]

    def mean_at(self, slots_ahead: int, back_s: float, smooth: int = 1) -> Floats:
        """[series] mean around the slot `slots_ahead` of the newest, `back_s` earlier; NaN where nothing is known."""
        slot_s = (self.slot + slots_ahead + 0.5) * self.step_s - back_s
        at = int(slot_s // self.mean_s) + np.arange(-(smooth // 2), smooth // 2 + 1)
        return _mean(self.means[:, at % self.means.shape[1]])

    def most_ahead(self, slots_ahead: int, back_s: float) -> Floats:
        """[series] the largest mean from the next slot to `slots_ahead`, `back_s` earlier; NaN: nothing is known."""
        first, last = (int(((self.slot + n + 0.5) * self.step_s - back_s) // self.mean_s) for n in (1, slots_ahead))
        most = np.nan_to_num(self.means[:, np.arange(first, last + 1) % self.means.shape[1]], nan=-np.inf).max(axis=1)
        return np.where(np.isinf(most), np.nan, most)

    def means_before(self, back_s: float, count: int) -> Floats:
        """[series, mean] the `count` means that ended last, as of `back_s` ago; oldest first, NaN: not known."""
        end = self._mean_end() - round(back_s / self.mean_s)
        return self.means[:, np.arange(end - count, end) % self.means.shape[1]]

    def level(self) -> Level:
        """How high series stand now."""
        hour = self.newest(round(HOUR_S / self.step_s))
        known = np.arange(hour.shape[1], 0, -1) <= np.maximum(self.taught, 1)[:, None]
        half = round(HOUR_S / self.step_s / 2) or 1
        everything = (self._total / np.maximum(self._measured, 1)).astype(np.float32)
        hour_mean = np.mean(hour, axis=1, where=known)
        days = self.means_before(0.0, self.day_means)
        day = _or(_mean(days), hour_mean)
        return Level(
            minutes30=np.mean(hour[:, -half:], axis=1, where=known[:, -half:]),
            hour=hour_mean,
            hour_most=np.max(hour, axis=1, where=known, initial=0),
            hour_least=np.min(hour, axis=1, where=known, initial=np.float32(np.inf)),
            hour_deviation=np.std(hour, axis=1, where=known),
            hours6=_or(_mean(days[:, -max(1, self.day_means // 4) :]), hour_mean),
            day=day,
            all=everything,
            scale=np.maximum(day, everything / 10) + LEAST,
        )

    def recall(self, row: int, first: int, means: Floats) -> None:
        """What `row` held before: means from number `first` (begin over `mean_s`) on; NaN: unknown."""
        numbers = np.arange(first, first + len(means))
        fits = (numbers < self._mean_end()) & (numbers >= self._mean_end() - self.means.shape[1]) & ~np.isnan(means)
        places, means = numbers[fits] % self.means.shape[1], means[fits]
        unknown = np.isnan(self.means[row, places])
        self.means[row, places[unknown]] = means[unknown]
        if unknown.any():
            slots = round(self.mean_s / self.step_s)
            oldest = int(numbers[fits][0] * self.mean_s // self.step_s)
            self.age[row] = max(self.age[row], self.slot - oldest + 1)
            self._total[row] += means[unknown].sum() * slots
            self._measured[row] += unknown.sum() * slots

    def remembered(self, row: int) -> tuple[int, Floats]:
        """(`first`, `means`) as `recall` takes them."""
        count = self.means.shape[1]
        first = self._mean_end() - count
        return first, self.means[row, np.arange(first, first + count) % count]

    def _mean_end(self) -> int:
        """Number of the mean under way, or of the next."""
        return int((self.slot + 1) * self.step_s // self.mean_s)

    def _note_mean(self, now: Floats, seen: Bools) -> None:
        self._sum += np.where(seen, now, 0)
        self._count += seen
        begins, ends = int(self.slot * self.step_s // self.mean_s), self._mean_end()
        if ends > begins:
            known = self._count > 0
            mean = np.where(known, self._sum / np.maximum(self._count, 1), np.nan)
            self.means[:, begins % self.means.shape[1]] = mean
            self._sum, self._count = np.zeros((2, len(mean)), np.float32)

    def _hour(self) -> Floats:
        """Mean of the last hour, or of what there was of it."""
        hour = self.newest(round(HOUR_S / self.step_s))
        known = np.arange(hour.shape[1], 0, -1) <= np.maximum(self.taught, 1)[:, None]
        mean: Floats = np.mean(hour, axis=1, where=known)
        return mean

    def _note_idle(self, now: Floats, jump: Floats, spike: Bools) -> None:
        idle, hours = now <= 0, np.float32(self.step_s / HOUR_S)
        old, short, long = self._shrinks
        self.jump += (1 - old) * (jump - self.jump)
        self.idle_hours6 += (1 - short) * (idle - self.idle_hours6)
        self.idle_day += (1 - long) * (idle - self.idle_day)
        self.spikes += (1 - long) * (spike - self.spikes)
        self.hours_calm = np.where(spike, 0, np.minimum(self.hours_calm + hours, _NOT_SO_LONG))
        self.hours_busy = np.where(idle, 0, np.minimum(self.hours_busy + hours, _NOT_SO_LONG))
        self.hours_idle = np.where(idle, np.minimum(self.hours_idle + hours, _NOT_SO_LONG), 0)
        for array in (self.idle_hours6, self.idle_day, self.hours_calm, self.hours_busy, self.hours_idle):
            array[self.taught == 0] = 0  # it has not begun


def _mean(values: Floats) -> Floats:
    """Mean over the last axis of what is known; NaN where nothing is."""
    known = ~np.isnan(values)
    count = known.sum(axis=-1)
    total = np.where(known, values, 0).sum(axis=-1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan).astype(np.float32)


def _or(values: Floats, other: Floats) -> Floats:
    """`values`, and `other` where they are NaN."""
    return np.where(np.isnan(values), other, values)
