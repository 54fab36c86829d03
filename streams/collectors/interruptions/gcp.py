"""Google Cloud: preemption, thirty seconds ahead, and maintenance that ends the machine, from its metadata server.

    GET /computeMetadata/v1/instance/preempted              FALSE, or TRUE
    GET /computeMetadata/v1/instance/maintenance-event      NONE, MIGRATE_ON_HOST_MAINTENANCE, TERMINATE_ON_…

Neither says when: a preempted machine has thirty seconds from then on, one that is to be ended sixty, or an hour where
it has GPUs. A migration does not interrupt.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import aiohttp

from streams.collectors.interruptions.agent import Coming, Unreadable, body_of

_FLAVOR: Final = {"Metadata-Flavor": "Google"}
_INSTANCE: Final = "/computeMetadata/v1/instance/"
_PREEMPTED: Final = {"TRUE": True, "FALSE": False}
_MAINTENANCE: Final = {
    "NONE": False,
    "MIGRATE_ON_HOST_MAINTENANCE": False,
    "TERMINATE_ON_HOST_MAINTENANCE": True,
}


class Gcp:
    """The metadata server of a Compute Engine instance."""

    def __init__(
        self, url: str = "http://metadata.google.internal", *, preempt_s: float = 30.0, maintenance_s: float = 60.0
    ) -> None:
        self.url, self.every_s = url.rstrip("/"), 1.0
        self.preempt_s, self.maintenance_s = preempt_s, maintenance_s

    async def fetch(self, http: aiohttp.ClientSession, now_s: float) -> Sequence[Coming]:
        preempted, maintenance = await self._get(http, "preempted"), await self._get(http, "maintenance-event")
        return parse(preempted, maintenance, now_s + self.preempt_s, now_s + self.maintenance_s)

    async def _get(self, http: aiohttp.ClientSession, what: str) -> bytes:
        async with http.get(self.url + _INSTANCE + what, headers=_FLAVOR) as answer:
            if answer.headers.get("Metadata-Flavor") != "Google":
                raise Unreadable("whoever answers is not Google's metadata server")
            return await body_of(answer)


def parse(preempted: bytes, maintenance: bytes, preempt_at_s: float, maintenance_at_s: float) -> list[Coming]:
    """What the two say, with the deadlines that hold if they began to say so just now.

    >>> [c.kind for c in parse(b"TRUE", b"NONE", 30.0, 60.0)]
    ['preempt']
    """
    found = []
    if _known(preempted, _PREEMPTED):
        found.append(Coming(id="preempted", kind="preempt", deadline_at_s=preempt_at_s, reason="Google Cloud preempts"))
    if _known(maintenance, _MAINTENANCE):
        why = "Google Cloud host maintenance"
        found.append(Coming(id="maintenance", kind="maintenance", deadline_at_s=maintenance_at_s, reason=why))
    return found


def _known(said: bytes, meanings: dict[str, bool]) -> bool:
    word = said.decode("ascii", "replace").strip()
    if word not in meanings:
        raise Unreadable(f"{word[:64]!r} is none of {', '.join(meanings)}")
    return meanings[word]
