"""Boosted trees as plain arrays: told by numpy alone, kept in an .npz that holds no program.

A tree has at most 16 leaves, so the leaves a row may still reach are one 16-bit word. Each split whose condition
`x <= threshold` is false rules out the leaves to its left; what is left over in the end begins with the leaf:

```
            x0 <= 3                 words of the splits      x = (5, 1):
           /       \\                x0 <= 3   1100           1100  (5 > 3)
       x1 <= 2      c               x1 <= 2   1101         & 1111  (1 <= 2 is true)
      /      \\                      leaf      cba         -> lowest bit: c
     a        b
```

Words are and-ed for every threshold of a feature beforehand, so a row costs one look-up a feature, for all trees at
once, and no branch. (Lucchese et al., "QuickScorer", SIGIR 2015.)
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Packed = dict[str, NDArray[Any]]
"""Trees as arrays by name."""
LEAVES: Final = 16
SPLITS: Final = LEAVES - 1
MOST_TREES: Final = 2000
_CHUNK: Final = 2048
"""Rows told at once: their words stay in the cache."""
_WORDS: Final = np.arange(2**LEAVES)
_LOWEST: Final = np.log2(np.maximum(_WORDS & -_WORDS, 1)).astype(np.uint8)
"""Number of the lowest bit of a word."""


@dataclass(frozen=True)
class Trees:
    """Sums of trees, one for each output. Arrays are [tree, split] or [tree, leaf]; unused splits name feature -1."""

    features: tuple[str, ...]
    """What columns mean, in their order."""
    feature: NDArray[np.int16]
    threshold: Floats
    word: NDArray[np.uint16]
    """Leaves that are left when `x <= threshold` is false."""
    value: Floats
    output: NDArray[np.int16]
    """Which sum a tree belongs to; ascending."""
    start: Floats
    """What each sum begins with: one for each output."""

    _tables: tuple[tuple[int, Floats, NDArray[np.uint16]], ...] = field(init=False, repr=False, compare=False)
    """(column, its thresholds ascending, words of all trees by how many of those lie below a row's number)."""

    def __post_init__(self) -> None:
        """Refuse what cannot be told from: files are made elsewhere."""
        for wrong in self._wrongs():
            raise ValueError(
                f"these trees cannot be used: {wrong}; train them anew with python -m forecasting.pretrain"
            )
        object.__setattr__(self, "_tables", tuple(self._tabled()))

    def __reduce__(self) -> tuple[Any, ...]:
        """Without the tables, which are ten times as large."""
        return unpacked, (self.packed(),)

    def __call__(self, rows: Floats) -> Floats:
        """[row, output] of `rows` [row, feature]; finite numbers only."""
        told = np.empty((len(rows), len(self.start)), np.float32)
        for at in range(0, len(rows), _CHUNK):
            told[at : at + _CHUNK] = self._tell(rows[at : at + _CHUNK])
        return told

    def _tell(self, rows: Floats) -> Floats:
        words = np.full((len(rows), len(self.output)), 0xFFFF, np.uint16)
        for column, thresholds, left in self._tables:
            words &= left[np.searchsorted(thresholds, rows[:, column])]
        first_leaf = np.arange(len(self.output), dtype=np.int32) * LEAVES
        values = self.value.ravel()[_LOWEST[words] + first_leaf]
        first_tree = np.searchsorted(self.output, np.arange(len(self.start)))
        return np.add.reduceat(values, first_tree, axis=1, dtype=np.float32) + self.start

    def _tabled(self) -> Iterable[tuple[int, Floats, NDArray[np.uint16]]]:
        for column in np.unique(self.feature[self.feature >= 0]).tolist():
            tree, split = np.nonzero(self.feature == column)
            at, place = np.unique(self.threshold[tree, split], return_inverse=True)
            left = np.full((len(at) + 1, len(self.output)), 0xFFFF, np.uint16)
            np.bitwise_and.at(left, (place + 1, tree), self.word[tree, split])
            yield column, at, np.bitwise_and.accumulate(left, axis=0)

    def _wrongs(self) -> list[str]:
        trees, width = len(self.output), len(self.features)
        shapes = {self.feature.shape, self.threshold.shape, self.word.shape} - {(trees, SPLITS)}
        checks = {
            f"there are {trees}, and not 1 to {MOST_TREES}": 0 < trees <= MOST_TREES,
            "arrays have other shapes than they should": not shapes and self.value.shape == (trees, LEAVES),
            "a number is not finite": all(np.isfinite(a).all() for a in (self.threshold, self.value, self.start)),
            f"a split asks for a feature beyond the {width}": bool((self.feature < width).all()),
            "outputs are not each told by some tree, in order": bool(
                np.array_equal(np.unique(self.output), np.arange(len(self.start))) and (np.diff(self.output) >= 0).all()
            ),
        }
        return [what for what, right in checks.items() if not right]

    def packed(self) -> Packed:
        """Arrays that `unpacked` takes."""
        return {each.name: np.asarray(getattr(self, each.name)) for each in fields(self) if each.init}


def unpacked(arrays: Packed) -> Trees:
    """The trees of `packed`. Raises ValueError where they cannot be used."""
    types = {"feature": np.int16, "threshold": np.float32, "word": np.uint16, "value": np.float32,
             "output": np.int16, "start": np.float32}  # fmt: skip
    if missing := (types.keys() | {"features"}) - arrays.keys():
        raise ValueError(f"these trees cannot be used: no {', '.join(sorted(missing))}")
    names = tuple(str(name) for name in arrays["features"])
    return Trees(names, **{name: arrays[name].astype(kind) for name, kind in types.items()})


def load(path: Path) -> dict[str, Trees]:
    """Trees by name, from a file of `save`. Nothing in it is ever run. Raises ValueError where they cannot be used."""
    with np.load(path, allow_pickle=False) as held:
        names = sorted({key.partition(".")[0] for key in held.files})
        return {n: unpacked({k.partition(".")[2]: held[k] for k in held.files if k.startswith(f"{n}.")}) for n in names}


def save(path: Path, trees: dict[str, Trees]) -> None:
    """Write trees by name; equal trees give equal bytes."""
    arrays = {f"{name}.{key}": array for name, each in trees.items() for key, array in each.packed().items()}
    np.savez_compressed(path, allow_pickle=False, **arrays)
