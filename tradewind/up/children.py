"""The processes of an `up`: workers and gateways, told everything by environment and one file each."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import msgspec

from streams.settings import Settings
from tradewind.config.sources import VARIABLE
from tradewind.ports import LOOPBACK, free_port
from tradewind.processes import Kept, News, Patience, Processes
from tradewind.running import Process

READY_S = 60.0
ROOMS = ("streams", "router")
WORKER_PORTS = {"streams": 9464, "router": 9465, "actuators": 9466}
_DRAIN_S = 10.0
_LONG_LOG_BYTES = 10_000_000
_LEAVES_S = 8.0
"""For a gateway to send its last reports, and a worker to leave its group."""
_FOR_EVER = Patience(most=1_000_000)
"""An `up` never gives up; within a minute the pauses grow up to half a minute."""


class Children:
    """Starts workers, actuators and gateways, keeps them there, and ends them in order: gateways first.

    Of `environ` each gets what is not others' alone: variables `of_gateways` hold credentials of endpoints, those
    `of_actuators` secrets of whoever changes capacity.
    """

    def __init__(
        self,
        settings: Settings,
        environ: Mapping[str, str],
        *,
        of_gateways: Collection[str] = (),
        of_actuators: Collection[str] = (),
    ) -> None:
        state_dir = settings.state_dir.absolute()
        _put_aside(state_dir / "log")
        self._settings, self._run = settings, state_dir / "run"

        def processes(*theirs: str) -> Processes:
            hidden = ({*of_gateways} | {*of_actuators}) - {*theirs}
            seen = {name: value for name, value in environ.items() if name not in hidden}
            return Processes(state_dir / "log", environ=environment_for(settings, seen))

        self._workers = processes()
        self._actuators, self._gateways = processes(*of_actuators), processes(*of_gateways)
        self._admin: dict[str, tuple[str, str]] = {}
        """Name to role and where it tells of itself."""
        self._ports: set[int] = set()
        self._drain_s = _DRAIN_S
        self.urls: dict[str, str] = {}
        """Origin to its gateway's url."""

    async def start(
        self, gateways: Mapping[str, Mapping[str, Any]], actuators: Mapping[str, Any] | None = None
    ) -> None:
        """Comes back when all are ready; `gateways` is origin to the fields of its config, `actuators` a file's section
        as a file of its own (None: nobody carries plans out). Raises Stop."""
        self._ports |= {int(fields["port"]) for fields in gateways.values()}
        works = [self._worker(room) for room in ROOMS]
        works += [self._carrying_out(actuators)] if actuators is not None else []
        works += [self._gateway(origin, fields) for origin, fields in gateways.items()]
        await together(*works)

    async def _worker(self, room: str) -> None:
        port, name = self._take(WORKER_PORTS[room]), f"worker-{room}"
        self._admin[name] = (room, f"http://{_asked_at(self._settings.host)}:{port}")
        words = ["worker", room, "--port", str(port)]
        await self._workers.start(name, "tradewind", *words, ready=self._ready(name), deadline_s=READY_S)

    async def _carrying_out(self, section: Mapping[str, Any]) -> None:
        port, name = self._take(WORKER_PORTS["actuators"]), "worker-actuators"
        self._admin[name] = ("actuators", f"http://{_asked_at(self._settings.host)}:{port}")
        words = ["worker", "actuators", "--port", str(port), "--config", str(self._written(name, section))]
        await self._actuators.start(name, "tradewind", *words, ready=self._ready(name), deadline_s=READY_S)

    async def _gateway(self, origin: str, fields: Mapping[str, Any]) -> None:
        name, host = f"gateway-{origin}", str(fields.get("host", LOOPBACK))
        admin = self._take(None)
        self._drain_s = float(fields.get("drain_s", _DRAIN_S))
        self._admin[name] = ("gateway", f"http://{_asked_at(host)}:{admin}")
        scheme = "https" if fields.get("tls") else "http"
        self.urls[origin] = f"{scheme}://{_asked_at(host)}:{fields['port']}"
        file = self._written(name, {**fields, "admin_port": admin})
        words = ["gateway", "--config", str(file)]
        await self._gateways.start(name, "tradewind", *words, ready=self._ready(name), deadline_s=READY_S)

    def _ready(self, name: str) -> str:
        return f"{self._admin[name][1]}/readyz"

    def _written(self, name: str, fields: Mapping[str, Any]) -> Path:
        self._run.mkdir(parents=True, exist_ok=True)
        file = self._run / f"{name.replace('/', '_')}.json"
        file.touch(mode=0o600)
        file.write_bytes(msgspec.json.format(msgspec.json.encode(fields), indent=2))
        return file

    def _take(self, preferred: int | None) -> int:
        port = free_port(preferred, avoid=self._ports)
        self._ports.add(port)
        return port

    async def keep(self, told: Callable[[News], None], also: tuple[Kept, ...]) -> None:
        """Never comes back: what dies is started again, and `told` hears of it."""
        await together(
            self._workers.keep(told, also=also, patience=_FOR_EVER),
            self._actuators.keep(told, patience=_FOR_EVER),
            self._gateways.keep(told, patience=_FOR_EVER),
        )

    def listed(self) -> tuple[Process, ...]:
        """Those that were started, with their process ids now."""
        children = (*self._workers.children, *self._actuators.children, *self._gateways.children)
        return tuple(
            Process(name=c.name, role=self._admin[c.name][0], pid=c.pid or 0, admin_url=self._admin[c.name][1])
            for c in children
        )

    async def stop(self) -> None:
        """Ends gateways when their requests are done, then workers; when cancelled, all at once."""
        try:
            await self._gateways.stop(self._drain_s + _LEAVES_S)
            await asyncio.gather(self._workers.stop(_LEAVES_S), self._actuators.stop(_LEAVES_S))
        finally:
            for processes in (self._gateways, self._actuators, self._workers):
                processes.kill()


async def together(*works: Awaitable[object]) -> None:
    """Comes back when all are done; raises the first error of any, and then none of them goes on."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _put_aside(folder: Path) -> None:
    """Logs of earlier runs do not grow for ever: one that is long becomes NAME.log.1, in place of the one before it."""
    for log in folder.glob("*.log"):
        if log.stat().st_size > _LONG_LOG_BYTES:
            log.replace(log.with_suffix(".log.1"))


def referenced(upstreams: Mapping[str, Mapping[str, Any]]) -> frozenset[str]:
    """The environment variables that `upstreams`, as a gateway's section has them, keep secrets in."""
    said = [one.get("credential") for one in upstreams.values()]
    said += [value for one in upstreams.values() for value in (one.get("headers") or {}).values()]
    return frozenset(value["env"] for value in said if isinstance(value, Mapping) and value.get("env"))


def environment_for(settings: Settings, environ: Mapping[str, str]) -> dict[str, str]:
    """`environ` with these settings and no others: children read no file, wherever they are started."""
    names = {f"TRADEWIND_{field.upper()}" for field in Settings.model_fields}
    rest = {name: value for name, value in environ.items() if name.upper() not in names}
    values = {field: value for field, value in settings.model_dump().items() if value is not None}
    told = {f"TRADEWIND_{field.upper()}": _word(value) for field, value in values.items()}
    return {**rest, **told, VARIABLE: ""}


def _word(value: object) -> str:
    return str(value.absolute()) if isinstance(value, Path) else str(value)


def _asked_at(host: str) -> str:
    """Where this machine reaches a server that listens on `host`."""
    if host in ("0.0.0.0", ""):  # noqa: S104 - compared, not bound
        return LOOPBACK
    return f"[{'::1' if host == '::' else host}]" if ":" in host else host
