"""How much to provide for, so that about 1 % of demand goes unmet: learnt from what would have gone unmet lately.

    provide = median + margin · (q99 - median)        log margin += rate · (unmet share - target)

The unmet share is what lacked, over the mean demand: so a burst weighs as much as the demand it left unmet, and the
margin settles where the long-run share is the target. A pinball loss would settle where 1 % of *slots* are short.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from forecasting.models.past import Bools, Floats, Rows

TARGET: Final = 0.01
RATE: Final = 0.3
LEAST, MOST = np.log(0.05), np.log(10.0)


class Margin:
    """Margins of `rows` series by horizon."""

    def __init__(self, rows: int, horizons: int) -> None:
        self.margin = np.zeros((rows, horizons), np.float32)
        """Its logarithm."""

    def reset(self, rows: Rows) -> None:
        """Other series live in `rows` from now on."""
        self.margin[rows] = 0

    def provide(self, said: Floats) -> Floats:
        """[series, horizon] for `said` [series, horizon, quantile]: the first quantile is the median, the last q99."""
        provided: Floats = said[..., 0] + np.exp(self.margin) * (said[..., -1] - said[..., 0])
        return provided

    def learn(self, horizon: int, provided: Floats, truth: Floats, mean: Floats, known: Bools) -> None:
        """`truth` [series] came where so much was `provided`, the series' mean being `mean`; where it is known."""
        unmet = np.minimum(np.maximum(0, truth - provided) / np.maximum(mean, 1e-9), 1)
        moved = np.clip(self.margin[:, horizon] + np.float32(RATE) * (unmet - TARGET), LEAST, MOST)
        self.margin[:, horizon] = np.where(known, moved, self.margin[:, horizon])
