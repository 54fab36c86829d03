"""Words for people: aligned columns, ages, shares, times, and the durations they type."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Final

from streams.contract.errors import BadSetting

_UNIT_S: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_MOST_D: Final = 11_574
"""A length of time in days, about 1e9 seconds."""
_DURATION: Final = re.compile(r"(?:\d+(?:\.\d+)?[smhd])+")
_PART: Final = re.compile(r"(\d+(?:\.\d+)?)([smhd])")


def columns(rows: Iterable[Sequence[object]], indent: str = "") -> list[str]:
    """Lines of `rows` with columns as wide as their widest cell; the last is as long as it is.

    >>> columns([("a", 1), ("bcd", 22)])
    ['a    1', 'bcd  22']
    """
    cells = [[str(cell) for cell in row] for row in rows]
    if not cells:
        return []
    widths = [max(len(row[n]) for row in cells) for n in range(len(cells[0]))]
    return [indent + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in cells]  # fmt: skip


def ago(seconds: float | None) -> str:
    """A length of time in its largest fitting unit.

    >>> [ago(s) for s in (0.4, 59.0, 200.0, 7300.0, 200_000.0, None)]
    ['0.4 s', '59 s', '3 min', '2 h', '2 d', 'never']
    """
    if seconds is None:
        return "never"
    if seconds < 10:
        return f"{max(0.0, seconds):.1f} s"
    for most, unit_s, unit in ((120, 1, "s"), (7200, 60, "min"), (172_800, 3600, "h")):
        if seconds < most:
            return f"{seconds / unit_s:.0f} {unit}"
    return f"{seconds / 86400:.0f} d"


def percent(share: float) -> str:
    """A share as people say it.

    >>> percent(0.625), percent(0.001)
    ('62.5 %', '0.1 %')
    """
    return f"{100 * share:.3g} %"


def at(unix_s: float) -> str:
    """A moment, UTC, to the second.

    >>> at(0)
    '1970-01-01 00:00:00Z'
    """
    return datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def duration_s(flag: str, text: str) -> float:
    """Seconds of "90s", "30m", "1h30m" or "2d". Raises BadSetting that names `flag`.

    >>> duration_s("--for", "1h30m")
    5400.0
    """
    if not _DURATION.fullmatch(text):
        raise BadSetting("flag", flag, text, "Write a length of time as in 90s, 30m, 1h30m or 2d")
    total = sum(float(number) * _UNIT_S[unit] for number, unit in _PART.findall(text))
    if not 0 < total <= _MOST_D * _UNIT_S["d"]:
        raise BadSetting("flag", flag, text, f"It has to be longer than nothing, and at most {_MOST_D} days")
    return total
