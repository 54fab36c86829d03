"""Whose fault a 5xx answer is: the endpoint's, or the request's that makes every endpoint stumble.

    A answers 5xx ─► A was well a moment ago? ── no ──► A is accused at once
                            │ yes
                            ▼ held, and A's /health is asked at once
    B answers well, or a second has passed, or nobody else refused ──► A is accused
    B refuses it too (5xx, 4xx) and nobody answers it well ──────────► the request is to blame: it counts as client_4xx

The request goes on to its next endpoint meanwhile, as it would have: whoever can serve it settles the matter. A real
outage stays visible: an endpoint that has answered nothing well for `WELL_S` is accused by each 5xx at once, and any
request that is served elsewhere accuses those that failed it before. Connections refused or reset and time-outs are
never held: only an answer can be about the request.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

HELD_S: Final = 1.0
"""The longest that an accusation waits for the word of another endpoint."""
_REFUSALS: Final = 2


class Blame:
    """The 5xx answers to one request. `accuse` and `forgive` get each held endpoint's case exactly once, one of them.

    `settle` ends it, however the request ended.
    """

    __slots__ = ("_held", "refusals", "served")

    def __init__(self) -> None:
        self.refusals = 0
        """Endpoints that answered this request with 4xx or 5xx."""
        self.served = False
        """One answered it well."""
        self._held: list[_Case] = []

    def hold(self, accuse: Callable[[], None], forgive: Callable[[], None]) -> None:
        """Wait with an accusation for what the other endpoints say."""
        self._held.append(_Case(accuse, forgive))

    def settle(self) -> None:
        """Accuse or forgive whoever is still held."""
        the_request = not self.served and self.refusals >= _REFUSALS
        for case in self._held:
            case.close(forgiven=the_request)
        self._held.clear()


class _Case:
    """One endpoint's 5xx; accused by itself when its time is over."""

    __slots__ = ("_accuse", "_forgive", "_timer")

    def __init__(self, accuse: Callable[[], None], forgive: Callable[[], None]) -> None:
        self._accuse, self._forgive = accuse, forgive
        self._timer: asyncio.TimerHandle | None = asyncio.get_running_loop().call_later(HELD_S, self.close)

    def close(self, *, forgiven: bool = False) -> None:
        if self._timer is None:
            return
        self._timer.cancel()
        self._timer = None
        (self._forgive if forgiven else self._accuse)()
