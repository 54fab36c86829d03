"""The section `gateway:` of a tradewind.yaml: what all its gateways have in common, and `ports` by origin."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from ruamel.yaml.comments import CommentedMap

from router_sync.gateway.access import load_access
from router_sync.gateway.config import GatewayConfig, checked
from router_sync.gateway.tls import server_context
from router_sync.gateway.watch import Watch
from streams.contract.errors import BadSetting, Stop
from streams.contract.records import Fleet
from tradewind.config.fields import Reader

FIRST_PORT: Final = 8080
"""Of the first origin's gateway, where `ports` says nothing; the next origin's is one higher."""
OWN: Final[Mapping[str, str]] = {
    "name": "Each gateway has its own: `tradewind up` takes the origin's, `tradewind gateway` has --name.",
    "origin": "Each gateway has its own: `tradewind up` runs one per origin, `tradewind gateway` has --origin.",
    "port": "Say which origin's: `ports: {ORIGIN: PORT}`.",
    "reuse_port": "It is a flag of `tradewind gateway`: --reuse-port.",
    "admin_port": "It is a flag of `tradewind gateway`: --admin-port.",
    "bootstrap_servers": "Write it under `settings:`, where all roles find it.",
    "prefix": "Write `topic_prefix` under `settings:`, where all roles find it.",
    "kafka": "Write security_protocol and the like under `settings:`, where all roles find them.",
    "state_dir": "Write it under `settings:`, where all roles find it.",
}
"""Fields that are one gateway's, or everybody's, and what to write instead."""


@dataclass(frozen=True, slots=True)
class GatewaySection:
    """Plain values for `router_sync.gateway.checked`, without those in OWN; `ports`: origin to port."""

    fields: Mapping[str, Any]
    ports: Mapping[str, int]

    def port(self, origin: str, number: int) -> int:
        """Of the gateway of `origin`, the `number`th of the fleet's."""
        return self.ports.get(origin, FIRST_PORT + number)


def common() -> dict[str, msgspec.structs.FieldInfo]:
    """What may stand in the section, besides `ports`."""
    return {f.encode_name: f for f in msgspec.structs.fields(GatewayConfig) if f.encode_name not in OWN}


def read_gateway(tree: CommentedMap, reader: Reader, fleet: Fleet | None) -> GatewaySection:
    """The section; what is wrong is noted in `reader`. Without a `fleet` origins cannot be judged."""
    section = reader.section(tree, "gateway")
    if section is None:
        return GatewaySection({}, {})
    before, kinds = len(reader.problems), common()
    _refuse_own(section, reader)
    rest = [*kinds, "ports", *OWN]
    given = {key: (value, at) for key, at, value in reader.known(section, "gateway", rest) if key not in OWN}
    ports = _ports(given.pop("ports", None), reader, fleet)
    fields = {key: reader.value(kinds[key].type, value, at) for key, (value, at) in given.items()}
    if len(reader.problems) == before:
        _together(fields, reader)
    return GatewaySection(fields, ports)


def _refuse_own(section: CommentedMap, reader: Reader) -> None:
    for key in section:
        if key in OWN:
            reader.lines[f"gateway.{key}"] = int(section.lc.data[key][0]) + 1
            reader.wrong(f"gateway.{key}", section[key], OWN[key])


def _ports(given: tuple[Any, str] | None, reader: Reader, fleet: Fleet | None) -> dict[str, int]:
    if given is None:
        return {}
    ports, path = given
    if not isinstance(ports, CommentedMap):
        reader.wrong(path, ports, "Write a mapping of origins to ports, like {eu: 8080}.")
        return {}
    origins = [origin.name for origin in fleet.origins] if fleet else [str(key) for key in ports]
    taken: dict[int, str] = {}
    for origin, at, port in reader.known(ports, path, origins):
        if isinstance(port, bool) or not isinstance(port, int) or not 0 < port < 65536:
            reader.wrong(at, port, "Write a port, 1 to 65535.")
        elif port in taken:
            reader.wrong(at, port, f"The gateway of {taken[port]} has it already: give each its own.")
        else:
            taken[int(port)] = origin
    return {origin: port for port, origin in taken.items()}


def _together(fields: Mapping[str, Any], reader: Reader) -> None:
    """What a gateway would say of these fields together; what each gateway gets of its own is made up."""
    own = {"origin": "any", "trust": ["any"], **({} if fields.get("keys") else {"anonymous": True})}
    try:
        config = checked(reader.place("gateway"), {**own, **fields})
    except BadSetting as bad:
        reader.wrong(f"gateway.{bad.field}", bad.value, bad.remedy)
        return
    for field, load in _FILES.items():
        try:
            load(config)
        except Stop as stop:
            at, value = _meant(field, fields[field], stop)
            reader.wrong(f"gateway.{at}", value, stop.remedy)


def _meant(field: str, value: object, stop: Stop) -> tuple[str, object]:
    """Which field `stop` is about, and its value: of `tls` it may be one below, of `keys` it is within the file."""
    if isinstance(stop, BadSetting) and stop.field.startswith(f"{field}."):
        return stop.field, stop.value
    return field, value


def _listener(config: GatewayConfig) -> None:
    if config.tls is not None:
        server_context(config.tls, Watch(config.watch_every_s))


_FILES: Final[Mapping[str, Callable[[GatewayConfig], object]]] = {
    "keys": lambda config: load_access(config.keys, anonymous=config.anonymous),
    "tls": _listener,
}
"""What a gateway would say of files it reads at its start."""
