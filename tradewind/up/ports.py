"""Where gateways and workers listen: a port that was asked for is kept to; a usual one that is taken gives way."""

from __future__ import annotations

from collections.abc import Callable, Container
from pathlib import Path

from streams.contract.errors import BadSetting
from streams.contract.records import Fleet
from tradewind.config.gateway import GatewaySection
from tradewind.ports import free_port, is_free

_FURTHER = 100


def gateway_ports(fleet: Fleet, section: GatewaySection, file: Path, say: Callable[[str], None]) -> dict[str, int]:
    """Origin to port; `say` hears of usual ports that are taken.

    Raises BadSetting for a port of `gateway.ports` that is taken.
    """
    ports: dict[str, int] = {}
    wanted_by_others = set(section.ports.values())
    for number, origin in enumerate(fleet.origins):
        wanted = section.port(origin.name, number)
        if origin.name in section.ports:
            if not is_free(wanted):
                remedy = "Another process listens there: end it, or write another port."
                raise BadSetting(str(file), f"gateway.ports.{origin.name}", wanted, remedy)
            ports[origin.name] = wanted
            continue
        port = _next_free(wanted, wanted_by_others | set(ports.values()))
        if port != wanted:
            say(f"port {wanted} is taken; the gateway of {origin.name} listens on {port}")
        ports[origin.name] = port
    return ports


def _next_free(wanted: int, avoid: Container[int]) -> int:
    further = (port for port in range(wanted, min(65536, wanted + _FURTHER)) if port not in avoid and is_free(port))
    return next(further, None) or free_port(avoid=avoid)
