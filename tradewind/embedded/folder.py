"""What a broker's data folder says of itself: its format, and which Kafka wrote it last.

Kafka reads folders of earlier versions and takes them over; afterwards the earlier version cannot, and dies with a
stack trace. So a folder of a newer Kafka is refused before the broker sees it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

import msgspec

from streams.contract import formats
from streams.contract.errors import Missing, Stop

MARK: Final = "tradewind-kafka.json"
FORMAT: Final = 1
_REMEDY: Final = "Update Tradewind, or name another folder: the new one begins empty."


class Mark(msgspec.Struct, frozen=True):
    """The file `tradewind-kafka.json` in a broker's data folder."""

    kafka: str = ""
    """Version of the Kafka that used the folder last; empty: before there was this file."""
    format: int = formats.FIRST


def claim(data: Path, kafka: str) -> None:
    """Write into the folder `data` that the Kafka of version `kafka` uses it from now on.

    Raises TooNew when a newer Tradewind made the folder, Stop when a newer Kafka used it.
    """
    path = data / MARK
    mark = _read(path)
    if _numbers(mark.kafka) > _numbers(kafka):
        raise Stop(f"{data} was used by Kafka {mark.kafka} last; this version brings Kafka {kafka}", _REMEDY)
    if mark.kafka != kafka:
        draft = path.with_suffix(".draft")
        draft.write_text(json.dumps({"format": FORMAT, "kafka": kafka}) + "\n")
        draft.replace(path)


def _read(path: Path) -> Mark:
    try:
        content = path.read_bytes()
        formats.require(path, formats.number_of(content), FORMAT, _REMEDY)
        return msgspec.json.decode(content, type=Mark)
    except FileNotFoundError:
        return Mark()
    except ValueError as error:
        raise Missing(
            f"{path} says nothing of its folder ({error})", "Remove this file if the folder is yours."
        ) from None


def _numbers(version: str) -> tuple[int, ...]:
    """Its numbers, to compare.

    >>> _numbers("4.10.1") > _numbers("4.9.2-rc1")
    True
    """
    return tuple(int(part) for part in version.partition("-")[0].split(".") if part.isdigit())
