"""Notices that an endpoint is about to go: given by a person or a script, and waited for until a table shows them."""

from __future__ import annotations

from collections.abc import Callable

from router_sync.notices import ADVICE, leave_by_s
from router_sync.sign import Trust
from streams.contract.records import Interruption
from streams.settings import Settings
from tradewind.hands import kafka
from tradewind.hands.orders import Shown, known, shown
from tradewind.hands.saying import seen
from tradewind.hands.tables import Held


def drains(said: Interruption) -> bool:
    """Whether tables show it: advice, and the loss of some replicas, drain nobody."""
    return said.kind not in ADVICE and said.replicas is None


async def give(
    settings: Settings, said: Interruption, clock: Callable[[], float], trust: Trust | None, wait: bool
) -> list[Shown]:
    """Send `said`; with `wait` the tables that show it, one per service of the endpoint, where tables do at all.

    Raises BadSetting for an endpoint that the fleet does not have; Missing when Kafka does not take it, or no table
    shows it in time: then it stands all the same.
    """
    async with kafka.reader(settings) as consumer:
        _, endpoint = await known(consumer, settings, said.endpoint)
    wait = wait and drains(said)
    found = await seen(settings, said, endpoint.services, lambda one: _is_so(one, said), clock, trust, wait)
    return [shown(one, said.endpoint) for one in found]


def _is_so(held: Held, said: Interruption) -> bool:
    """Whether the table has the endpoint to be left by then, or before."""
    by_s = next((e.leave_by_s for e in held.table.endpoints if e.name == said.endpoint), None)
    return by_s is not None and by_s <= leave_by_s(said)
