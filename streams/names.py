"""Names become rows: small whole numbers that columns can be indexed with."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, KeysView, Sequence
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.intp]
K = TypeVar("K", bound=Hashable)
D = TypeVar("D", bound=np.generic)


class Names(Generic[K]):
    """Rows by name, growing on demand. Released rows are given to the next new names."""

    __slots__ = ("_free", "_row", "names")

    def __init__(self) -> None:
        self._row: dict[K, int] = {}
        self._free: list[int] = []
        self.names: list[K | None] = []
        """Name by row; None where the row is free."""

    def __len__(self) -> int:
        return len(self.names)

    @property
    def known(self) -> KeysView[K]:
        """The names in use."""
        return self._row.keys()

    def rows(self, names: Sequence[K]) -> NDArray[np.intp]:
        """The row of each name; new names get rows."""
        if (found := self.find(names)) is not None:
            return found
        # in order of appearance, so that rows do not depend on how a set is laid out
        for name in dict.fromkeys(names):
            self.row(name)
        return np.fromiter(map(self._row.__getitem__, names), np.intp, len(names))

    def find(self, names: Iterable[K]) -> NDArray[np.intp] | None:
        """The row of each name, None when one of them is new."""
        try:
            return np.fromiter(map(self._row.__getitem__, names), np.intp)
        except KeyError:
            return None

    def row(self, name: K) -> int:
        """The row of one name; a new name gets a row."""
        row = self._row.get(name)
        if row is None:
            row = self._free.pop() if self._free else len(self.names)
            if row == len(self.names):
                self.names.append(name)
            self.names[row] = name
            self._row[name] = row
        return row

    def release(self, rows: Iterable[int]) -> None:
        """Free these rows. Columns indexed by them must be cleared by their owner."""
        for row in rows:
            name = self.names[row]
            if name is not None:
                del self._row[name]
                self.names[row] = None
                self._free.append(row)

    def taken(self) -> list[tuple[int, K]]:
        """(row, name) of every row in use."""
        return [(row, name) for row, name in enumerate(self.names) if name is not None]


def grown(column: NDArray[D], rows: int, fill: object = 0) -> NDArray[D]:
    """`column` with at least `rows` rows along its first axis, new ones filled with `fill`; grows by half."""
    if rows <= len(column):
        return column
    room = max(rows, len(column) + len(column) // 2, 16)
    shape = (room, *column.shape[1:])
    # fresh pages of zeros cost nothing until they are written to
    longer = np.zeros(shape, column.dtype) if fill == 0 else np.full(shape, fill, column.dtype)
    longer[: len(column)] = column
    return longer


class Pairs:
    """Places for pairs of rows (left, right), given when a pair is first met: the columns of a sparse matrix.

    Of a fleet of 20,000 endpoints and 500 observers few pairs ever speak; only an index of 4 bytes is kept for each.
    """

    __slots__ = ("_at", "_free", "left", "right", "size")

    def __init__(self) -> None:
        self._at: NDArray[np.int32] = np.zeros((0, 0), np.int32)
        self._free: list[int] = []
        self.size = 0
        """Places given so far; columns have to be this long."""
        self.left: Ints = np.zeros(0, np.intp)
        self.right: Ints = np.zeros(0, np.intp)

    def reserve(self, lefts: int, rights: int) -> None:
        """Have room for pairs of at least this many rows on each side."""
        self._at = grown(self._at, lefts)
        if rights > self._at.shape[1]:
            self._at = np.ascontiguousarray(grown(self._at.T, rights).T)

    def places(self, left: Ints, right: Ints) -> Ints:
        """The place of each pair; new pairs get places, whose columns their owner has kept empty."""
        at = self._at[left, right]
        if not at.all():
            for i in np.flatnonzero(at == 0).tolist():
                self._give(int(left[i]), int(right[i]))
            at = self._at[left, right]
        return np.asarray(at, np.intp) - 1

    def _give(self, left: int, right: int) -> None:
        if self._at[left, right]:
            return
        place = self._free.pop() if self._free else self.size
        if place == self.size:
            self.size += 1
            self.left, self.right = grown(self.left, self.size), grown(self.right, self.size)
        self.left[place], self.right[place] = left, right
        self._at[left, right] = place + 1

    def of(self, lefts: Ints) -> Ints:
        """The places of all pairs of these `lefts`."""
        at = self._at[lefts].ravel()
        return np.asarray(at[at > 0], np.intp) - 1

    def with_any(self, lefts: Sequence[int], rights: Sequence[int]) -> Ints:
        """The places of all pairs with one of `lefts` or one of `rights`."""
        across = self._at[:, list(rights)].ravel() if len(rights) else np.zeros(0, np.int32)
        places = np.concatenate([self.of(np.array(lefts, np.intp)), across[across > 0].astype(np.intp) - 1])
        return np.unique(places)

    def given(self, places: Ints) -> Ints:
        """Those of `places` that belong to a pair."""
        return np.asarray(places[self._at[self.left[places], self.right[places]] == places + 1])

    def release(self, places: Ints) -> None:
        """Free these places, each given. Columns indexed by them must be cleared by their owner."""
        self._at[self.left[places], self.right[places]] = 0
        self._free.extend(places.tolist())
