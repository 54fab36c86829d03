"""The processes of a demo that production has too: workers and gateways, each on a port that is free."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from tradewind.ports import Reserved
from tradewind.processes import Processes

GATEWAY_PORT = 18080
WORKER_PORTS = {"streams": 18091, "router": 18092, "forecasting": 18093, "actuators": 18094}
READY_S = 30.0


class Children:
    """Starts them in `processes`, with keys and trust from `folder`; `say` hears which ports were taken."""

    def __init__(self, processes: Processes, folder: Path, ports: Reserved, say: Callable[[str], None]) -> None:
        self.gateways: dict[str, str] = {}
        """Origin to its gateway's url."""
        self._processes, self._folder, self._ports, self._say = processes, folder, ports, say

    async def worker(self, room: str, *more: str) -> None:
        """Comes back when a worker of `room`, told `more`, is ready; raises Stop when it is not in time."""
        port = self._ports.take(WORKER_PORTS.get(room))
        url = f"http://127.0.0.1:{port}/readyz"
        words = ("worker", room, "--port", str(port), *more)
        await self._processes.start(f"worker-{room}", "tradewind", *words, ready=url, deadline_s=READY_S)

    async def gateway(self, number: int, origin: str) -> None:
        """Comes back when the gateway of `origin` is ready; raises Stop when it is not in time."""
        wanted = GATEWAY_PORT + number
        port = self._ports.take(wanted)
        if port != wanted:
            self._say(f"port {wanted} is taken; the gateway of {origin} listens on {port}")
        self.gateways[origin] = f"http://127.0.0.1:{port}"
        await self._processes.start(
            f"gateway-{origin}",
            "tradewind",
            *("gateway", "--name", f"gw-{origin}", "--origin", origin, "--port", str(port)),
            *("--keys", str(self._folder / "api-keys.yaml"), "--trust", str(self._folder / "router.key.pub")),
            ready=f"{self.gateways[origin]}/readyz",
            deadline_s=READY_S,
        )


def write_api_keys(folder: Path, keys: Mapping[str, str]) -> None:
    """Write who may call as what: `keys` is one API key a class. The file holds their hashes, and no log shows them."""
    callers = [
        {"sha256": hashlib.sha256(key.encode()).hexdigest(), "tenant": "demo", "classes": [name]}
        for name, key in keys.items()
    ]
    (folder / "api-keys.yaml").write_bytes(msgspec.json.encode({"keys": callers}))
