"""Who goes on with a stream: after a break, or before one, where its endpoint is about to go.

Both ask another endpoint of the route for the rest (see `resume`). After a break nobody else speaks, and whoever is
left is asked. Before one the old attempt goes on until the new one has answered (see `turn`), so only an endpoint that
is well is asked: a move must not be worse than to stay.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Coroutine, Mapping
from typing import Any, Literal

import msgspec
from aiohttp import web

from router_sync.client import LocalEndpoint, Pick, Picker
from router_sync.gateway.trip import Trip
from streams import signals

Attempt = Callable[[Trip, Pick], Coroutine[Any, Any, web.StreamResponse]]
Outcome = Literal["moved", "refused", "nowhere", "stateful"]


class Onward:
    """`pickers` is the live mapping of services in force; `attempt` asks one endpoint."""

    def __init__(self, origin: str, pickers: Mapping[str, Picker], attempt: Attempt) -> None:
        self._origin, self._pickers, self._attempt = origin, pickers, attempt

    @staticmethod
    def fit(trip: Trip) -> bool:
        """Whether the rest of its answer can be asked for at all."""
        return _rest(trip) is not None

    def after_break(self, trip: Trip, picker: Picker) -> Pick | None:
        """The endpoint that is asked for the rest of the answer that broke off; None when it cannot be asked for."""
        pick, rest = self._pick(trip, picker, lambda local: local.continues), _rest(trip)
        if pick is None or rest is None:
            return None
        trip.ask = msgspec.structs.replace(trip.ask, body=rest)
        signals.CONTINUED.inc()
        signals.event("answer_goes_on", endpoint=pick.endpoint.name, broke_off_at=trip.turn.at)
        return pick

    async def before_break(self, trip: Trip, refused: set[str]) -> Outcome:
        """Move a stream under way to another endpoint, if one takes it; else it stays where it is.

        None of `refused` is asked; who refuses now is one of them afterwards.
        """
        old, picker = trip.turn.at, self._pickers[trip.service]
        if (rest := _rest(trip)) is None:
            return "stateful"
        if (pick := self._pick(trip, picker, _refuge, refused)) is None:
            return "nowhere"
        trip.ask, new = msgspec.structs.replace(trip.ask, body=rest), pick.endpoint.name
        trip.tried.append(new)
        moved = await trip.turn.moves_to(asyncio.create_task(self._attempt(trip, pick)))
        # a move is no attempt that failed: a stream may be moved as often as need be, and break off all the same
        over = old if moved else new
        if over in trip.tried:
            trip.tried.remove(over)
        if not moved:
            refused.add(new)
        signals.event("stream_moved" if moved else "move_refused", "debug", endpoint=new, left=old)
        return "moved" if moved else "refused"

    def _pick(
        self, trip: Trip, picker: Picker, fit: Callable[[LocalEndpoint], bool], refused: Collection[str] = ()
    ) -> Pick | None:
        unfit = {name for name, local in picker.endpoints.items() if not fit(local)}
        return picker.pick(self._origin, trip.class_, trip.ask.key, unfit.union(trip.tried, refused))


def _refuge(local: LocalEndpoint) -> bool:
    return local.continues and local.state == "ready" and local.leave_by_s is None and not local.breaker.shut


def _rest(trip: Trip) -> bytes | None:
    return trip.journal.rest() if trip.journal is not None else None
