"""The pretend fleet as processes: one real HTTP server an endpoint, on free ports, killed and revived by region."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import aiohttp
import msgspec

from streams.contract.records import Endpoint, Fleet
from tradewind.ports import Reserved
from tradewind.pretend.ledger import Received, read
from tradewind.processes import Child, Processes, wait_ready

HEALTH_DEADLINE_S = 20.0
ADMIN_ABOVE = 100
"""Ports of our own choice where they are free: one that the system gives may be a connection's until it is used."""
USUAL_OF_P95 = 0.8
"""A fleet file declares a p95; the pretend engine wants what is usual when idle."""


@dataclass(frozen=True, slots=True)
class Seat:
    """Where one endpoint listens."""

    endpoint: Endpoint
    port: int
    admin_port: int


def placed(fleet: Fleet, ports: Reserved) -> tuple[Fleet, tuple[Seat, ...]]:
    """The fleet with urls on loopback ports taken from `ports`, and where each endpoint is to listen."""
    seats = []
    for endpoint in fleet.endpoints:
        wanted = int(endpoint.url.rsplit(":", 1)[1])
        port, admin_port = ports.take(wanted), ports.take(wanted + ADMIN_ABOVE)
        moved = msgspec.structs.replace(endpoint, url=f"http://127.0.0.1:{port}")
        seats.append(Seat(moved, port, admin_port))
    return msgspec.structs.replace(fleet, endpoints=tuple(s.endpoint for s in seats)), tuple(seats)


def moved(wanted: Fleet, seats: Sequence[Seat]) -> list[str]:
    """One sentence for each endpoint whose port of the fleet file was taken."""
    ports = {e.name: int(e.url.rsplit(":", 1)[1]) for e in wanted.endpoints}
    return [
        f"port {ports[s.endpoint.name]} is taken; the endpoint {s.endpoint.name} listens on {s.port}"
        for s in seats
        if s.port != ports[s.endpoint.name]
    ]


class PretendFleet:
    """The endpoint processes of a fleet."""

    def __init__(
        self,
        fleet: Fleet,
        seats: tuple[Seat, ...],
        processes: Processes,
        seed: int,
        ledgers: Path | None = None,
        token_ms: float | None = None,
    ) -> None:
        self.fleet, self.seats, self.seed = fleet, seats, seed
        self.ledgers, self.token_ms = ledgers, token_ms
        """Folder where endpoints write down whom they received; None: they do not."""
        self._processes = processes
        self._children: dict[str, Child] = {}

    async def start(self) -> None:
        """Comes back when all endpoints answer; raises Stop when one does not."""
        await asyncio.gather(*(self._start(seat, number) for number, seat in enumerate(self.seats)))

    async def _start(self, seat: Seat, number: int) -> None:
        endpoint = seat.endpoint
        self._children[endpoint.name] = await self._processes.start(
            f"endpoint-{endpoint.name}",
            "tradewind.pretend",
            *("--name", endpoint.name, "--port", str(seat.port), "--admin-port", str(seat.admin_port)),
            *("--model", endpoint.services[0], "--capacity-rps", str(endpoint.capacity_rps * endpoint.replicas)),
            *("--base-ttft-ms", str(endpoint.latency_ms * USUAL_OF_P95), "--seed", str(self.seed + number)),
            *(word for o in self.fleet.origins for word in ("--rtt", f"{o.name}={o.rtt_ms[endpoint.region]}")),
            *(("--ledger", str(self._ledger(endpoint.name))) if self.ledgers is not None else ()),
            *(("--base-between-ms", str(self.token_ms), "--chunk-ms", "0") if self.token_ms is not None else ()),
            ready=f"{endpoint.url}/health",
            deadline_s=HEALTH_DEADLINE_S,
            may_die=True,
        )

    def received(self, since_s: float) -> dict[str, list[Received]]:
        """What endpoints wrote down since then, unix seconds; nothing where they write nothing."""
        if self.ledgers is None:
            return {}
        return {e.name: [r for r in read(self._ledger(e.name)) if r.at_s >= since_s] for e in self.fleet.endpoints}

    def _ledger(self, name: str) -> Path:
        assert self.ledgers is not None
        return self.ledgers / f"{name}.jsonl"

    def kill(self, where: str) -> None:
        """`kill -9` for every endpoint of a region, or for the one of that name."""
        for seat in self._of(where):
            self._children[seat.endpoint.name].kill()

    async def revive(self, where: str) -> None:
        """Start the endpoints of a region again, or the one of that name, on their ports."""
        for seat in self._of(where):
            child = self._children[seat.endpoint.name]
            if not child.running:
                child.start()
        for seat in self._of(where):
            await wait_ready(self._children[seat.endpoint.name], f"{seat.endpoint.url}/health", HEALTH_DEADLINE_S)

    def whole(self, region: str) -> bool:
        """Whether every endpoint of the region runs."""
        return all(self._children[s.endpoint.name].running for s in self._of(region))

    def _of(self, where: str) -> list[Seat]:
        return [s for s in self.seats if where in (s.endpoint.region, s.endpoint.name)]


STATE = "demo.json"


def note(folder: Path, seats: tuple[Seat, ...], extra: Mapping[str, object]) -> None:
    """Write down who listens where, for `tradewind fault` in another terminal."""
    doors = [{"endpoint": s.endpoint.name, "region": s.endpoint.region, "admin_port": s.admin_port} for s in seats]
    (folder / STATE).write_bytes(msgspec.json.encode({"endpoints": doors, **extra}))


class Told(NamedTuple):
    """Names of the endpoints that took an order, and of those that gave no answer."""

    took: list[str]
    silent: list[str]


async def break_region(folder: Path, region: str, order: Mapping[str, object]) -> Told:
    """Give `order` to every endpoint of `region` of the demo that runs in `folder`; who took it, and who is silent.

    Raises FileNotFoundError when no demo runs there, and LookupError for a region it does not have.
    """
    doors = msgspec.json.decode((folder / STATE).read_bytes())["endpoints"]
    chosen = [d for d in doors if region in (d["region"], d["endpoint"], "all")]
    if not chosen:
        raise LookupError(", ".join(sorted({d["region"] for d in doors})))
    told = Told([], [])
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=3)) as http:
        for door in chosen:
            taken = await _ordered(http, f"http://127.0.0.1:{door['admin_port']}/fault", order)
            (told.took if taken else told.silent).append(door["endpoint"])
    return told


async def _ordered(http: aiohttp.ClientSession, url: str, order: Mapping[str, object]) -> bool:
    """Whether the endpoint took it."""
    try:
        async with http.post(url, json=dict(order)) as answer:
            answer.raise_for_status()
            return True
    except aiohttp.ClientConnectorError:
        return False  # nobody is there
    except (aiohttp.ClientConnectionError, TimeoutError):
        return order.get("kind") == "dead"  # it died before it could say so, as told
    except aiohttp.ClientError:
        return False
