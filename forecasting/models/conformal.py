"""Adaptive conformal: the spread above the median is widened when too much comes above it, narrowed when too little.

Gibbs and Candès, "Adaptive conformal inference under distribution shift" (NeurIPS 2021), with the width as what moves:

    log width += rate · (missed - (1 - q))

Long-run coverage is then q whatever the series does, as long as the width can follow.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from forecasting.models.past import Bools, Floats, Rows

RATE: Final = np.float32(0.02)
WIDEST: Final = 1.5
"""Of the logarithm, either way."""


class Conformal:
    """Widths of `rows` series by horizon and quantile; the first quantile is the median, and stays."""

    def __init__(self, rows: int, horizons: int, quantiles: Floats) -> None:
        self.quantiles = quantiles
        self.width = np.zeros((rows, horizons, len(quantiles)), np.float32)

    def reset(self, rows: Rows) -> None:
        """Other series live in `rows` from now on."""
        self.width[rows] = 0

    def widened(self, said: Floats) -> Floats:
        """`said` [series, horizon, quantile] with the widths of now."""
        median = said[..., :1]
        return np.maximum.accumulate(median + (said - median) * np.exp(self.width), axis=-1)

    def learn(self, horizon: int, said: Floats, truth: Floats, known: Bools) -> None:
        """`truth` [series] came to what was `said` [series, quantile], widened, where it is known."""
        missed = truth[:, None] > said
        moved = self.width[:, horizon] + RATE * (missed - (1 - self.quantiles))
        moved[:, 0] = 0
        self.width[:, horizon] = np.where(known[:, None], np.clip(moved, -WIDEST, WIDEST), self.width[:, horizon])
