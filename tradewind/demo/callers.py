"""Who calls in a demo: one caller a class and origin, each with a key of his own."""

from __future__ import annotations

import secrets
from collections.abc import Mapping

from streams.contract.records import Fleet
from tradewind.demo.scenarios import Scenario
from tradewind.load import Target


def api_keys(fleet: Fleet) -> dict[str, str]:
    """A new key for each class."""
    return {c.name: f"demo-{secrets.token_urlsafe(18)}" for s in fleet.services for c in s.classes}


def targets(
    fleet: Fleet, scenario: Scenario, gateways: Mapping[str, str], keys: Mapping[str, str], stream_share: float
) -> list[Target]:
    """Whom to call as whom, by the scenario's mix; `gateways` is url by origin, `stream_share` the usual one."""
    service, rates = fleet.services[0], {origin.name: origin.demand_rps for origin in fleet.origins}
    return [
        Target(
            origin=origin,
            cls=c.name,
            url=url,
            api_key=keys[c.name],
            model=service.name,
            weight=rates[origin] * scenario.mix[origin][c.name],
            stream_share=scenario.streams.get(c.name, stream_share),
        )
        for origin, url in gateways.items()
        for c in service.classes
        if c.name in scenario.mix[origin]
    ]
