"""Facts of many requests or targets as columns of small numbers, so that a rule looks at each distinct value once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from router_sync.policy.facts import CERTIFICATE, Facts
from router_sync.policy.rules import RESTRICTS, Asked, Statute

Bools = NDArray[np.bool_]
_UNKNOWN: tuple[str, ...] = ()


class Met(NamedTuple):
    """Whether something is met, row by row: surely, and possibly. Unknown is possibly and not surely."""

    surely: Bools
    possibly: Bools


class _Column(NamedTuple):
    """One fact: `values[codes[row]]`."""

    values: list[tuple[str, ...]]
    codes: NDArray[np.intp]


class Columns:
    """The facts of N requests or targets."""

    def __init__(self, rows: Sequence[Facts]) -> None:
        self._rows = rows
        self._columns: dict[str, _Column] = {}

    def __len__(self) -> int:
        return len(self._rows)

    def met(self, asked: Asked) -> Met:
        """Whether all facts that are asked for are met, as `rules.Clause.met` says it of each row."""
        surely = np.ones(len(self), np.bool_)
        possibly = surely.copy()
        for fact, values in asked.items():
            column, wanted = self._column(fact), frozenset(values)
            has = np.array([not wanted.isdisjoint(value) for value in column.values], np.bool_)
            may = has if fact == CERTIFICATE else has | [not value for value in column.values]
            surely &= has[column.codes]
            possibly &= may[column.codes]
        return Met(surely, possibly)

    def _column(self, fact: str) -> _Column:
        column = self._columns.get(fact)
        if column is None:
            said = [row.get(fact, _UNKNOWN) for row in self._rows]
            numbers = {value: number for number, value in enumerate(dict.fromkeys(said))}
            codes = np.fromiter(map(numbers.__getitem__, said), np.intp, len(said))
            column = self._columns[fact] = _Column(list(numbers), codes)
        return column


def spoken_of(rule: Statute, requests: Columns) -> Bools:
    """[F] `rule.is_for` each request."""
    when, unless = requests.met(rule.rule.when), requests.met(rule.rule.unless) if rule.rule.unless else None
    if rule.effect in RESTRICTS:
        return when.possibly if unless is None else when.possibly & ~unless.surely
    return when.surely if unless is None else when.surely & ~unless.possibly


def hit(rule: Statute, targets: Columns) -> Bools:
    """[E] of a rule that restricts, `rule.bars` each target; of another, `rule.meets`."""
    met = targets.met(rule.wanted)
    if rule.effect == "require":
        return ~met.surely
    return met.possibly if rule.effect == "deny" else met.surely
