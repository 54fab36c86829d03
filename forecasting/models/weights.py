"""Who is listened to: each teller's share, for each quantile, from what its word has cost lately."""

from __future__ import annotations

from typing import Final

import numpy as np

from forecasting.models.past import Bools, Floats, Rows

_TINY: Final = np.float32(1e-12)


def pinball(truth: Floats, said: Floats, quantiles: Floats) -> Floats:
    """What `said` [..., quantile] costs when `truth` [...] comes: 0 at best, in its unit."""
    short = truth[..., None] - said
    return np.maximum(quantiles * short, (quantiles - 1) * short)


def mixed(said: Floats, shares: Floats) -> Floats:
    """[..., quantile] of what tellers said [..., teller, quantile]; higher quantiles never below lower ones."""
    return np.maximum.accumulate((said * shares).sum(axis=-2), axis=-1)


class Weights:
    """Shares of tellers for each series, horizon and quantile: what they cost lately, to the power of `-power`.

    Costs are averaged with a half-life. `prior` [teller] is what each is expected to cost beside the first before
    anything was heard, and weighs as much as `trust` (of 1: a full memory) of what was.
    """

    def __init__(
        self, shape: tuple[int, int, int, int], *, keeps: float, power: int, prior: Floats, trust: float
    ) -> None:
        """`shape`: series, horizons, tellers, quantiles. `keeps`: what is left of a cost when the next one comes."""
        self.keeps, self.power, self.prior, self.trust = np.float32(keeps), power, prior, np.float32(trust)
        self.cost = np.zeros(shape, np.float32)
        self.heard = np.zeros(shape[:2], np.float32)
        """How full the memory is: nears 1."""

    def reset(self, rows: Rows) -> None:
        """Other series live in `rows` from now on."""
        self.cost[rows] = self.heard[rows] = 0

    def learn(self, horizon: int, cost: Floats, known: Bools) -> None:
        """What tellers cost [series, teller, quantile] at this horizon, where that is known [series]."""
        new = np.where(known, 1 - self.keeps, np.float32(0))
        self.cost[:, horizon] += new[:, None, None] * (cost - self.cost[:, horizon])
        self.heard[:, horizon] += new * (1 - self.heard[:, horizon])

    def shares(self, able: Bools) -> Floats:
        """[series, horizon, teller, quantile], adding up to 1 over those tellers that are `able` [teller]."""
        heard = self.heard[..., None, None]
        usual = np.where(heard > 0, self.cost[:, :, :1] / np.maximum(heard, _TINY), 1)
        cost = (self.cost + self.trust * self.prior[:, None] * usual)[:, :, able] + _TINY
        best = (cost.min(axis=2, keepdims=True) / cost) ** self.power
        shares = np.zeros_like(self.cost)
        shares[:, :, able] = best / best.sum(axis=2, keepdims=True)
        return shares
