"""A model of many series that remembers what it was taught, and forecasts it: for tests of the stage around it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from forecasting.demand import BLOCK, HORIZONS_S
from forecasting.models.trees import Trees
from forecasting.protocol import QUANTILES, Floats, Forecast, Judged, Rows

MEAN_S = 300.0


class Spy:
    """Forecasts q times the last value at quantile q, and ten times it to provide."""

    name = "spy"
    mean_s = MEAN_S

    def __init__(self) -> None:
        self.taught: list[list[tuple[int, float]]] = [[] for _ in range(BLOCK)]
        """By row: (minute, value) since it was forgotten last."""
        self.recalled: dict[int, tuple[int, list[float]]] = {}
        self.adopted: list[str] = []

    def learn(self, slot: int, values: Floats) -> Sequence[Judged]:
        for row, value in enumerate(values.tolist()):
            self.taught[row].append((slot, value))
        return []

    def forecast(self) -> Forecast:
        last = np.nan_to_num(np.array([row[-1][1] for row in self.taught], np.float32))
        ahead = np.repeat(last[:, None], len(HORIZONS_S), axis=1)
        return Forecast(
            quantiles=ahead[..., None] * np.array(QUANTILES, np.float32),
            provide=10 * ahead,
            spike=np.full(ahead.shape, 0.25, np.float32),
            on_off=last > 100,
            young=last < 5,
        )

    def adopt(self, trees: Mapping[str, Trees]) -> None:
        self.adopted += trees

    def reset(self, rows: Rows) -> None:
        for row in rows.tolist():
            self.taught[row] = []

    def recall(self, row: int, first: int, means: Floats) -> None:
        self.recalled[row] = (first, means.tolist())

    def remembered(self, row: int) -> tuple[int, Floats]:
        first = round(self.taught[row][0][0] * 60 // MEAN_S)
        return first, np.array([value for _, value in self.taught[row]], np.float32)
