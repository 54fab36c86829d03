"""The forecaster of many series at once: an online ensemble, trees on what it leaves, and a vote among them.

```
 slot ─► past ─► classical ─┬─ lv_add ────────────────────┐
                            ├─ the ensemble ──────────────┤  vote: weights by     conformal      quantiles
                            └─► features ─┬─ trees shipped ┼─ recent pinball, for ─► widths ─┬─► margin ─► provide
                                          ├─ trees refitted┘  each quantile                 │
                                          └─ trees of spikes ───────────────────────────────┴─► spike
```

Every five minutes words are kept, and judged when the truth has come: from that all weights, widths and margins are
learnt. All state is per series and bounded; nothing but series' own past and the trees goes into a word.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import as_file, files
from typing import Final

import numpy as np
from numpy.typing import NDArray

from forecasting.models.classical import RESIDUALS, Classical, Told
from forecasting.models.conformal import Conformal
from forecasting.models.features import FEATURES, features
from forecasting.models.margin import Margin
from forecasting.models.past import DAY_S, SPIKE, Floats, Level, Past, Rows, decay
from forecasting.models.trees import Trees, load
from forecasting.models.weights import Weights, mixed, pinball
from forecasting.protocol import QUANTILES, Examples, Forecast, Judged

__all__ = ["RESIDUALS", "TELLERS", "Many", "Word", "shipped"]
JUDGED_S: Final = 300.0
TELLERS: Final = ("lv_add", "classical", "shipped", "refitted")
EXPECTED_COST: Final = np.array([2.0, 0.85, 0.72, 0.66], np.float32)
"""Beside lv_add's, which is doubled here: it is an insurance, and has to earn its say."""
TRUST: Final = 0.3
POWER: Final = 8
HALF_LIFE_S: Final = 6 * 3600.0
ON_OFF_IDLE: Final = 0.5
"""A series that rests for more than this share of a day comes in bursts."""


@cache
def shipped() -> Mapping[str, Trees]:
    """The trees that came with the program. Raises ValueError where they are of another."""
    with as_file(files("forecasting.models") / "shipped.npz") as path:
        trees = load(path)
    if any(each.features != FEATURES for each in trees.values()):
        raise ValueError(
            "the trees shipped ask for other features: train them anew with python -m forecasting.pretrain"
        )
    return trees


@dataclass(slots=True)
class Word:
    """What was said at one moment, and why."""

    told: Told
    level: Level
    features: Floats
    """[series, horizon, feature]"""
    tellers: Floats
    """[series, horizon, teller, quantile]"""
    quantiles: Floats
    """[series, horizon, quantile]"""
    provide: Floats
    """[series, horizon]"""


@dataclass(frozen=True, slots=True)
class Outcome:
    """A word of slot `slot`, and what came at one of its horizons."""

    slot: int
    horizon: int
    word: Word
    truth: Floats
    most: Floats
    """The largest value up to then."""
    known: NDArray[np.intp]

    def examples(self, series: Rows, cells: NDArray[np.int64]) -> Examples:
        """See `Judged`."""
        scale, at = self.word.level.scale[series], self.horizon
        lv_add = pinball(self.truth[series], self.word.tellers[series, at, 0], np.array(QUANTILES, np.float32))
        return Examples(
            features=self.word.features[series, at],
            truth=self.truth[series] / scale,
            median=self.word.told.quantiles[series, at, 0] / scale,
            floor=lv_add.mean(axis=-1) / scale,
            spike=self.most[series] > SPIKE * self.word.level.hour[series],
            cell=cells,
        )


class Many:
    """See `Forecasters`. Horizons are `lags` slots after the last one learnt."""

    name = "ensemble"

    def __init__(self, rows: int, step_s: float, lags: Sequence[int], trees: Mapping[str, Trees] | None = None) -> None:
        """`trees`: those to begin with; None: those that came with the program."""
        horizons, quantiles = len(lags), np.array(QUANTILES, np.float32)
        self.lags, self.step_s, self.quantiles = tuple(lags), step_s, quantiles
        self.every = max(1, round(JUDGED_S / step_s))
        """Slots from one word that is judged to the next."""
        self.trees = shipped() if trees is None else trees
        self.refitted: Mapping[str, Trees] = {}
        self.classical = Classical(rows, step_s, lags, quantiles, self.every)
        self.past = Past(rows, step_s, self.classical.reach)
        self.weights = Weights(
            (rows, horizons, len(TELLERS), len(QUANTILES)),
            keeps=decay(self.every * step_s, HALF_LIFE_S),
            power=POWER,
            prior=EXPECTED_COST,
            trust=TRUST,
        )
        self.conformal = Conformal(rows, horizons, quantiles)
        self.margin = Margin(rows, horizons)
        self.words: dict[int, Word] = {}
        """Slot to what was said there, until its last horizon has come."""
        self._now: tuple[Level, Floats, Floats] | None = None

    @property
    def mean_s(self) -> float:
        """See `Forecasters`."""
        return self.past.mean_s

    def learn(self, slot: int, values: Floats) -> Sequence[Judged]:
        """See `Forecasters`."""
        self.past.learn(slot, values)
        judged = [self._judge(at, word) for at, lag in enumerate(self.lags) if (word := self.words.get(slot - lag))]
        self.words.pop(slot - max(self.lags), None)
        level = self.past.level()
        self._now = (level, *self.classical.learn(self.past, level))
        if slot % self.every == 0:
            self.words[slot] = self._say()
        return judged

    def word(self) -> Word:
        """What is to be said as of the last slot learnt."""
        return self.words.get(self.past.slot) or self._say()

    def forecast(self) -> Forecast:
        """See `Forecasters`."""
        word, past = self.word(), self.past
        return Forecast(
            quantiles=word.quantiles,
            provide=word.provide,
            spike=self._spike(word),
            on_off=past.idle_day > ON_OFF_IDLE,
            young=past.age * self.step_s < DAY_S,
        )

    def adopt(self, trees: Mapping[str, Trees]) -> None:
        """Listen to these trees too; the first ones are believed as much as those that were shipped."""
        if not trees:
            return
        if not self.refitted:
            self.weights.cost[:, :, 3] = self.weights.cost[:, :, 2]
        self.refitted = trees

    def reset(self, rows: Rows) -> None:
        """See `Forecasters`."""
        for part in (self.past, self.classical, self.weights, self.conformal, self.margin):
            part.reset(rows)

    def recall(self, row: int, first: int, means: Floats) -> None:
        """See `Forecasters`."""
        self.past.recall(row, first, means)

    def remembered(self, row: int) -> tuple[int, Floats]:
        """See `Forecasters`."""
        return self.past.remembered(row)

    def _say(self) -> Word:
        assert self._now is not None
        level, points, linear = self._now
        told = self.classical.tell(self.past, points, linear)
        asked = features(self.past, level, told, self.lags)
        tellers = np.stack(
            [
                told.tellers[:, :, 0],
                told.quantiles,
                *(self._stacked(each, told, level, asked) for each in self._grown()),
            ],
            axis=2,
        )
        able = np.array([True, True, *("quantiles" in trees for trees in self._grown())])
        said = self.conformal.widened(mixed(tellers, self.weights.shares(able)))
        return Word(told, level, asked, tellers, said, self.margin.provide(said))

    def _grown(self) -> Iterable[Mapping[str, Trees]]:
        return self.trees, self.refitted

    def _stacked(self, trees: Mapping[str, Trees], told: Told, level: Level, asked: Floats) -> Floats:
        """[series, horizon, quantile]: the ensemble's median and what trees say that it leaves."""
        if "quantiles" not in trees:
            return told.quantiles
        left = trees["quantiles"](asked.reshape(-1, asked.shape[-1])).reshape(told.quantiles.shape)
        said = told.quantiles[..., :1] + left * level.scale[:, None, None]
        return np.maximum.accumulate(np.maximum(said, 0), axis=-1)

    def _spike(self, word: Word) -> Floats:
        trees = self.refitted.get("spikes") or self.trees.get("spikes")
        if trees is None:
            return np.zeros(word.provide.shape, np.float32)
        odds = trees(word.features.reshape(-1, word.features.shape[-1])).reshape(word.provide.shape)
        chance = 1 / (1 + np.exp(-odds))
        return np.maximum.accumulate(chance, axis=1)

    def _judge(self, horizon: int, word: Word) -> Outcome:
        past, lag = self.past, self.lags[horizon]
        truth, known = past.back(0), past.measured(1)[:, 0] & (past.taught > lag)
        self.classical.judge(horizon, word.told, truth, known)
        self.weights.learn(horizon, pinball(truth[:, None], word.tellers[:, horizon], self.quantiles), known)
        self.conformal.learn(horizon, word.quantiles[:, horizon], truth, known)
        self.margin.learn(horizon, word.provide[:, horizon], truth, word.level.scale, known)
        most = past.newest(lag).max(axis=1)
        return Outcome(past.slot - lag, horizon, word, truth, most, np.flatnonzero(known))
