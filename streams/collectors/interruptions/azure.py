"""Azure: evictions of spot machines, thirty seconds ahead, and other scheduled events, from the metadata service.

    GET /metadata/instance/compute/name?…                     this machine's name
    GET /metadata/scheduledevents?api-version=2020-07-01      {"Events": [{"EventType": "Preempt", "NotBefore": …}]}

Events name the machines they are about, others of the same set too. The first answer may take two minutes: so long it
takes to switch the service on.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final, Literal

import aiohttp
import msgspec

from streams.collectors.interruptions.agent import Coming, Unreadable, body_of

_EVENTS: Final = "/metadata/scheduledevents?api-version=2020-07-01"
_NAME: Final = "/metadata/instance/compute/name?api-version=2021-02-01&format=text"
_HEADERS: Final = {"Metadata": "true"}
_FIRST: Final = aiohttp.ClientTimeout(total=150.0)
_Kind = Literal["preempt", "terminate", "maintenance"]
_KIND: Final[dict[str, _Kind]] = {
    "Preempt": "preempt",
    "Terminate": "terminate",
    "Reboot": "maintenance",
    "Redeploy": "maintenance",
}
"""A Freeze is left out: the machine pauses for some seconds."""


class _Event(msgspec.Struct, frozen=True, rename="pascal"):
    event_id: str
    event_type: str
    resources: tuple[str, ...] = ()
    not_before: str = ""
    description: str = ""


class _Events(msgspec.Struct, frozen=True, rename="pascal"):
    events: tuple[_Event, ...]


class Azure:
    """The metadata service of a virtual machine. `name`: whose events count; else it is asked for."""

    def __init__(self, url: str = "http://169.254.169.254", *, name: str = "") -> None:
        self.url, self.every_s = url.rstrip("/"), 1.0
        self._name, self._timeout = name, _FIRST

    async def fetch(self, http: aiohttp.ClientSession, now_s: float) -> Sequence[Coming]:
        if not self._name:
            async with http.get(self.url + _NAME, headers=_HEADERS) as answer:
                self._name = (await body_of(answer)).decode("utf-8", "replace").strip()
        async with http.get(self.url + _EVENTS, headers=_HEADERS, timeout=self._timeout) as answer:
            found = parse(await body_of(answer), self._name)
        self._timeout = http.timeout
        return found


def parse(body: bytes, name: str) -> list[Coming]:
    """What is coming to the machine `name`."""
    try:
        events = msgspec.json.decode(body, type=_Events).events
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Unreadable(str(error)) from None
    return [
        Coming(
            id=event.event_id,
            kind=_KIND[event.event_type],
            deadline_at_s=_deadline(event.not_before),
            reason=f"Azure {event.event_type}: {event.description}"[:2000].rstrip(": "),
        )
        for event in events
        if event.event_type in _KIND and name.lower() in map(str.lower, event.resources)
    ]


def _deadline(not_before: str) -> float | None:
    """Unix seconds of an RFC 1123 or ISO date; None where it has begun.

    >>> _deadline("Mon, 19 Sep 2016 18:29:47 GMT"), _deadline("")
    (1474309787.0, None)
    """
    if not not_before:
        return None
    try:
        at = parsedate_to_datetime(not_before) if "," in not_before else datetime.fromisoformat(not_before)
    except ValueError:
        raise Unreadable(f"NotBefore = {not_before[:64]!r} is no date") from None
    return (at if at.tzinfo is not None else at.replace(tzinfo=UTC)).timestamp()
