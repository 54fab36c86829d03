"""Names become rows: small whole numbers that columns can be indexed with."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, KeysView, Sequence
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

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
        try:
            return np.fromiter(map(self._row.__getitem__, names), np.intp, len(names))
        except KeyError:
            # in order of appearance, so that rows do not depend on how a set is laid out
            for name in dict.fromkeys(names):
                self.row(name)
            return np.fromiter(map(self._row.__getitem__, names), np.intp, len(names))

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
    longer = np.full((room, *column.shape[1:]), fill, column.dtype)
    longer[: len(column)] = column
    return longer
