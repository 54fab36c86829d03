"""One tradewind.yaml as a whole: the fleet and the other sections, or a list of all that is wrong with them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from router_sync import fleet as fleets
from router_sync.actuators.section import Actuators
from router_sync.fleet import BadFleet, Caution, Misfit, Problem
from router_sync.gateway.upstream import DEFAULT
from streams.contract.records import Fleet
from streams.settings import Layer
from tradewind.config import actuators as acting
from tradewind.config.fields import Reader, meant
from tradewind.config.gateway import GatewaySection, read_gateway
from tradewind.config.settings import read_settings, text_of

_SECTIONS: Final = frozenset({"services", "origins", "endpoints", "settings", "gateway", "actuators"})
_HERE: Final = frozenset({"127.0.0.1", "localhost", "::1"})


@dataclass(frozen=True, slots=True)
class Whole:
    """A file that can be used. `lines`: path of a field to its line."""

    path: Path
    text: str
    fleet: Fleet
    settings: Layer
    gateway: GatewaySection
    lines: dict[str, int]
    cautions: tuple[Caution, ...] = ()
    """What can be used, and is likely not meant."""
    files: tuple[Path, ...] = ()
    """The other files the fleet is made of: its policies."""
    actuators: Actuators | None = None
    """None: the file does not speak of them, and nobody is started to carry plans out."""


def read(path: Path) -> Whole:
    """The file `path`. Raises BadFleet with everything that is wrong with it, in the order of its lines."""
    return parse(text_of(path), path)


def parse(text: str, path: Path) -> Whole:
    """`text` as the file at `path` would say it. Raises BadFleet with everything that is wrong."""
    name = str(path)
    tree = fleets.tree_of(text, name)
    reading = fleets.read(tree, name)
    fleet = reading.fleet
    reader = Reader(name, path.absolute().parent, list(reading.problems), reading.lines)
    settings = read_settings(tree, reader)
    gateway = read_gateway(tree, reader, fleet)
    section = acting.read_actuators(tree, reader)
    if fleet is not None:
        for at, value, remedy in (*_unfit(fleet, gateway), *(acting.unfit(fleet, section) if section else ())):
            reader.wrong(at, value, remedy)
    if reader.problems or fleet is None:
        raise BadFleet(name, sorted(reader.problems, key=lambda problem: _line(problem, name)))
    return Whole(path, text, fleet, settings, gateway, reader.lines, tuple(reading.cautions), reading.files, section)


def is_whole(keys: Iterable[str]) -> bool:
    """Whether a file with these `keys` at its top is a tradewind.yaml, and not the settings of one gateway alone."""
    return bool(_SECTIONS & set(keys))


def _line(problem: Problem, name: str) -> tuple[str, int]:
    """Where it stands: what is in this file goes before what is in others."""
    file, _, line = problem.where.rpartition(":")
    return ("" if file == name else file), int(line) if line.isdecimal() else 0


# ---------------------------------------------------------------- what a router could live with, and nobody means


def _unfit(fleet: Fleet, gateway: GatewaySection) -> Iterator[Misfit]:
    yield from _same_url(fleet)
    yield from _nobody_ready(fleet)
    yield from _own_caller(fleet, gateway)
    yield from _nobodys_upstream(fleet, gateway)


def _same_url(fleet: Fleet) -> Iterator[Misfit]:
    first: dict[str, str] = {}
    for n, endpoint in enumerate(fleet.endpoints):
        url = endpoint.url.rstrip("/")
        if url in first:
            remedy = f"{first[url]} has this address: its capacity would count twice. Give several services to one."
            yield f"endpoints[{n}].url", endpoint.url, remedy
        first.setdefault(url, endpoint.name)


def _nobody_ready(fleet: Fleet) -> Iterator[Misfit]:
    for n, service in enumerate(fleet.services):
        serving = [e for e in fleet.endpoints if service.name in e.services]
        if serving and not any(e.replicas for e in serving):
            names = ", ".join(e.name for e in serving)
            yield f"services[{n}].name", service.name, f"Nobody could serve it: give {names} at least one replica."


def _own_caller(fleet: Fleet, gateway: GatewaySection) -> Iterator[Misfit]:
    """Endpoints at the port of one of our gateways: it would call itself."""
    ports = {gateway.port(o.name, n): o.name for n, o in enumerate(fleet.origins) if o.name in gateway.ports}
    for n, endpoint in enumerate(fleet.endpoints):
        parts = urlsplit(endpoint.url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        if parts.hostname in _HERE and port in ports:
            yield f"endpoints[{n}].url", endpoint.url, f"The gateway of {ports[port]} listens there: move one of them."


def _nobodys_upstream(fleet: Fleet, gateway: GatewaySection) -> Iterator[Misfit]:
    """Credentials that no endpoint would get: a name that is misspelt."""
    known = list(dict.fromkeys([*(e.name for e in fleet.endpoints), *(e.provider for e in fleet.endpoints), DEFAULT]))
    for name in gateway.fields.get("upstreams") or ():
        if name not in known:
            yield f"gateway.upstreams.{name}", name, f"Name an endpoint, a provider or {DEFAULT}. {meant(name, known)}"
