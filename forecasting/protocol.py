"""What a model is: two verbs, `learn` and `forecast`, and answers in quantiles; of one series, or of many at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from forecasting.models.trees import Trees

Floats = NDArray[np.float32]
Rows = NDArray[np.intp]
QUANTILES: Final = (0.5, 0.9, 0.95, 0.99)


class Forecaster(Protocol):
    """A model of one series of equal slots. It knows no clock: what it was taught last is its present."""

    name: str
    """As it stands in records and reports."""

    def learn(self, at_s: float, value: float | None) -> None:
        """The slot that begins at `at_s` (unix seconds) is over, and held `value` (0 or more).

        None: nobody measured it. Slots come in order; those left out count as None.
        Raises ValueError when `value` is negative or not finite, or the slot is not after the last.
        """
        ...

    def forecast(self, ahead_s: float, quantiles: Sequence[float]) -> tuple[float, ...] | None:
        """One value for each of `quantiles` (in (0, 1)), in the unit of `learn`, each finite and 0 or more.

        Of the slot that begins `ahead_s` after the end of the last slot learnt. Higher quantiles are never below lower
        ones. None while too little was learnt to say. Raises ValueError for an `ahead_s` the model was not made for.
        """
        ...


@dataclass(frozen=True, slots=True)
class Forecast:
    """What is expected of many series, from one moment on; in the unit of `Forecasters.learn`, per slot."""

    quantiles: Floats
    """[series, horizon, quantile] for `QUANTILES`: finite, 0 or more, higher ones never below lower ones."""
    provide: Floats
    """[series, horizon] what to provide for, so that about 1 % of demand goes unmet."""
    spike: Floats
    """[series, horizon] probability of a slot above twice the trailing hour's mean, up to the horizon."""
    on_off: NDArray[np.bool_]
    """[series] whether it rests and bursts: no quantile helps such a series."""
    young: NDArray[np.bool_]
    """[series] whether it is known for less than a day."""


@dataclass(frozen=True, slots=True)
class Examples:
    """Words said, and what came: arrays [row], numbers over the series' scale when the word was said."""

    features: Floats
    """[row, feature]"""
    truth: Floats
    median: Floats
    """What the classical ensemble's median was."""
    floor: Floats
    """What lv_add's word cost: rows of series that are hard to tell weigh less."""
    spike: NDArray[np.bool_]
    """Whether a slot up to the horizon exceeded twice the hour before."""
    cell: NDArray[np.int64]
    """Which series and horizon."""

    def __len__(self) -> int:
        return len(self.truth)

    def picked(self, which: NDArray[np.bool_]) -> Examples:
        """Those rows alone."""
        return Examples(**{each.name: getattr(self, each.name)[which] for each in fields(self)})


class Judged(Protocol):
    """Words said of all series at one slot, and what came at one horizon."""

    @property
    def slot(self) -> int:
        """When they were said."""
        ...

    @property
    def horizon(self) -> int:
        """Which of the model's horizons has come."""
        ...

    @property
    def known(self) -> Rows:
        """The series whose truth is known."""
        ...

    def examples(self, series: Rows, cells: NDArray[np.int64]) -> Examples:
        """Those of `series`, which are `cells`."""
        ...


class Forecasters(Protocol):
    """A model of many series that share one clock: row by row one series each, in arrays [series].

    The horizons are whole slots ahead and belong to the model; an hour's work is to be done in milliseconds a series.
    """

    name: str

    def learn(self, slot: int, values: Floats) -> Sequence[Judged]:
        """Slot number `slot` (its begin over its length) is over, and held `values` [series], each 0 or more.

        NaN: nobody measured it; a row begins with its first number. Slots come one after the other, none left out.
        Comes back: of what was said before, that which this slot is the truth of.
        """
        ...

    def forecast(self) -> Forecast:
        """What is expected as of the last slot learnt; only reads."""
        ...

    def adopt(self, trees: Mapping[str, Trees]) -> None:
        """Listen from now on to trees that were fitted to examples; whoever is right more often is heard more."""
        ...

    def reset(self, rows: Rows) -> None:
        """Forget `rows`: other series live there from now on."""
        ...

    def recall(self, row: int, first: int, means: Floats) -> None:
        """What a row held before it was taught here: means of `mean_s`, from number `first` (begin over `mean_s`) on.

        NaN: not known. What was taught here stands.
        """
        ...

    def remembered(self, row: int) -> tuple[int, Floats]:
        """(`first`, `means`) as `recall` takes them."""
        ...

    @property
    def mean_s(self) -> float:
        """Length of what is recalled and remembered."""
        ...
