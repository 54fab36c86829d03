"""What trees are fitted on: rows of features, and what came of them; a bounded sample of the newest."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields
from typing import Final

import numpy as np
from numpy.typing import NDArray

from forecasting.models.features import FEATURES
from forecasting.protocol import Examples, Judged

MOST: Final = 60_000
_PARTS: Final = 4000
_HORIZONS: Final = 64
_SPREAD: Final = np.uint64(0x9E3779B97F4A7C15)
_ARRAYS: Final = fields(Examples)


def none() -> Examples:
    """No rows."""
    zero = np.zeros(0, np.float32)
    return Examples(
        features=np.zeros((0, len(FEATURES)), np.float32),
        truth=zero,
        median=zero,
        floor=zero,
        spike=np.zeros(0, np.bool_),
        cell=np.zeros(0, np.int64),
    )


def joined(parts: list[Examples]) -> Examples:
    """All rows of `parts`, in their order."""
    return Examples(**{each.name: np.concatenate([getattr(part, each.name) for part in parts]) for each in _ARRAYS})


def newest(examples: Examples, most: int) -> Examples:
    """The last `most` rows."""
    return Examples(**{each.name: getattr(examples, each.name)[-most:] for each in _ARRAYS})


def lot(slot: int, cells: NDArray[np.int64]) -> NDArray[np.float64]:
    """A number in [0, 1) for each of `cells` at `slot`: like chance, and the same on every run."""
    mixed = (cells.astype(np.uint64) << np.uint64(32) | np.uint64(slot & 0xFFFFFFFF)) * _SPREAD
    mixed = (mixed ^ (mixed >> np.uint64(29))) * _SPREAD
    return (mixed >> np.uint64(11)).astype(np.float64) / 2.0**53


class Lessons:
    """A sample of rows, the newest `most` of them."""

    def __init__(self, most: int = MOST) -> None:
        self.most = most
        self._parts: list[Examples] = []
        self._count = 0
        self.newest: int | None = None
        self.fitted: int | None = None
        """The last slot that taught something; the one a fit was last made at, or the first."""

    def __len__(self) -> int:
        return self._count

    def take(self, judged: Iterable[Judged], places: NDArray[np.intp], share: float) -> None:
        """Keep about `share` of what was `judged`; `places` says which series rows are."""
        for each in judged:
            cells = places[each.known].astype(np.int64) * _HORIZONS + each.horizon
            lucky = lot(each.slot, cells) < share
            self.newest = each.slot
            if self.fitted is None:
                self.fitted = each.slot
            if lucky.any():
                self._keep(each.examples(each.known[lucky], cells[lucky]))

    def rows(self) -> Examples:
        """All of them."""
        return joined(self._parts) if self._parts else none()

    def due(self, slots: int, least: int) -> bool:
        """Whether the last fit was `slots` ago, and there are at least so many rows."""
        return (
            self._count >= least
            and self.newest is not None
            and self.fitted is not None
            and self.newest - self.fitted >= slots
        )

    def learned(self) -> None:
        """A fit was made from the rows of now."""
        self.fitted = self.newest

    def _keep(self, part: Examples) -> None:
        self._parts.append(part)
        self._count += len(part)
        if self._count > self.most + self.most // 8 or len(self._parts) > _PARTS:
            whole = newest(joined(self._parts), self.most)
            self._parts, self._count = [whole], len(whole)
