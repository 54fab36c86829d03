"""Files that outlive a process say which format they have: older ones are read, newer ones are refused in a sentence.

A file without a number was written before there were numbers, and is of format 1.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec

from streams.contract.errors import BadSetting, Stop

FIRST: Final = 1
"""What a file has that does not say."""


class _Numbered(msgspec.Struct, frozen=True):
    """All that is certain of a file of a format to come."""

    format: int = FIRST


_number = msgspec.json.Decoder(_Numbered)


class TooNew(BadSetting):
    """A newer Tradewind wrote this file. Says the file, its format, what this version reads, and the way out."""

    def __init__(self, path: Path, found: int, reads: int, remedy: str) -> None:
        super().__init__(str(path), "format", found, remedy)
        Stop.__init__(self, f"{path} {too_new(found, reads)}", remedy)


def number_of(content: bytes) -> int:
    """The field `format` of a JSON object, FIRST where there is none. Raises ValueError for anything else.

    >>> number_of(b'{"format": 2, "what": ["comes", "then"]}'), number_of(b"{}")
    (2, 1)
    """
    return _number.decode(content).format


def number_in(said: object) -> int:
    """The field `format` of what a YAML file says, FIRST where there is none.

    >>> number_in({"format": 2}), number_in(["nothing", "of", "ours"])
    (2, 1)
    """
    found = said.get("format", FIRST) if isinstance(said, dict) else FIRST
    return found if isinstance(found, int) else FIRST


def too_new(found: int, reads: int) -> str:
    """What is wrong, as the end of a sentence that begins with the file.

    >>> too_new(3, 1)
    'is of format 3, written by a newer Tradewind; this version reads up to format 1'
    """
    return f"is of format {found}, written by a newer Tradewind; this version reads up to format {reads}"


def require(path: Path, found: int, reads: int, remedy: str) -> None:
    """Raises TooNew when `found` is beyond what this version `reads`."""
    if found > reads:
        raise TooNew(path, found, reads, remedy)
