"""When which region breaks, as words: "eu-west@45" breaks at 45 s for 20 s, "eu-west@45-60" until 60 s."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

from streams.contract.errors import BadSetting

LASTS_S = 20.0
_WORDS = re.compile(r"(?P<region>[A-Za-z0-9_.-]+)@(?P<at>\d+(?:\.\d+)?)(?:-(?P<until>\d+(?:\.\d+)?))?")


@dataclass(frozen=True, slots=True)
class Outage:
    """All endpoints of `region` are gone from `at_s` to `until_s`, in seconds after the load began."""

    region: str
    at_s: float
    until_s: float


def parse_outage(words: str, regions: Collection[str], seconds: float | None = None) -> Outage:
    """The outage that `words` mean, in a run of `seconds` (None: without end).

    Raises BadSetting for another form, an unknown region, an end before its start, or a start after the run's end.

    >>> parse_outage("eu-west@45", ["eu-west"])
    Outage(region='eu-west', at_s=45.0, until_s=65.0)
    """
    found = _WORDS.fullmatch(words)
    if not found:
        raise BadSetting("flag", "--outage", words, "Write REGION@SECOND or REGION@SECOND-SECOND, as in eu-west@45")
    if found["region"] not in regions:
        raise BadSetting("flag", "--outage", words, f"Name one of the regions {', '.join(sorted(regions))}")
    at_s = float(found["at"])
    refuse_beyond("--outage", words, at_s, seconds)
    until_s = float(found["until"]) if found["until"] else at_s + LASTS_S
    if until_s <= at_s:
        raise BadSetting("flag", "--outage", words, f"Let it end after {at_s:g} s")
    return Outage(found["region"], at_s, until_s)


def refuse_beyond(flag: str, given: object, at_s: float, seconds: float | None) -> None:
    """Raises BadSetting for what would begin at `at_s`, when the run of `seconds` is over."""
    if seconds is not None and at_s >= seconds:
        raise BadSetting("flag", flag, given, f"Let it begin before the run ends: --seconds is {seconds:g}")
