"""Finding out how everything is: each question by itself, so that one that fails hides no other's answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import Any, Final

import aiohttp
import msgspec

from router_sync.sign import Trust
from streams.contract import topics
from streams.contract.errors import Stop
from streams.contract.records import EndpointHealth, Fleet, GatewayStatus, Order, Verdict
from streams.settings import Settings
from tradewind import __version__, running
from tradewind.hands import facts, groups, kafka
from tradewind.hands.state import (
    BEATS,
    LATE_S,
    EndpointHealthState,
    GatewayState,
    ProcessState,
    Status,
    TableState,
    judged,
)
from tradewind.hands.tables import Tables, tables

DOOR_S: Final = 2.0
_WORSE: Final[Mapping[Verdict, int]] = {"unknown": 0, "silent": 1, "up": 2, "degraded": 3, "down": 4}


async def status(settings: Settings, trust: Trust | None, clock: Callable[[], float]) -> Status:
    """How everything is now; what could not be asked is said in `wrong`. `clock`: unix seconds."""
    found: dict[str, Any] = {"processes": await _processes(settings)}
    failed: list[str] = []
    try:
        async with kafka.reader(settings) as consumer:
            failed += await _ask(consumer, settings, trust, clock, found)
    except Stop as error:
        failed.append(str(error))
    now_s = clock()
    at = Status(at_s=now_s, tradewind=__version__, kafka=settings.bootstrap_servers, topic_prefix=settings.topic_prefix)
    return judged(_told(at, found, failed, settings.table_heartbeat_s), settings.table_heartbeat_s)


async def _ask(
    consumer: Any, settings: Settings, trust: Trust | None, clock: Callable[[], float], found: dict[str, Any]
) -> list[str]:
    """Put answers into `found`; what failed comes back."""
    failed: list[str] = []
    missing: list[str] = []

    async def ask(name: str, question: Coroutine[Any, Any, Any]) -> None:
        try:
            found[name] = await question
        except kafka.NoTopic as error:
            missing.extend(error.names)
        except Stop as error:
            failed.append(str(error))

    await ask("fleet", facts.fleet(consumer, settings))
    await ask("tables", tables(consumer, settings, trust))
    found["seen_s"] = clock()
    await ask("gateways", facts.gateways(consumer, settings))
    await ask("health", facts.health(consumer, settings, clock()))
    await ask("dead", _dead_letters(consumer, settings, clock() - 3600.0))
    if "fleet" in found:
        await ask("orders", facts.orders(consumer, settings, found["fleet"], clock()))
    await ask("groups", groups.groups(consumer, settings))
    if missing:
        failed.insert(0, str(kafka.NoTopic(settings, *missing)))
    return list(dict.fromkeys(failed))


async def _dead_letters(consumer: Any, settings: Settings, since_s: float) -> int:
    place = await kafka.place_of(consumer, settings, topics.DEAD_LETTERS)
    end = await kafka.begin(consumer, settings, place, since_s)
    return end - int(await consumer.position(place))


# ---------------------------------------------------------------- processes


async def _processes(settings: Settings) -> tuple[ProcessState, ...]:
    """What `tradewind up` has noted, each asked at its door."""
    noted = running.read(settings.state_dir)
    if noted is None:
        return ()
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=DOOR_S)) as http:
        return tuple(await asyncio.gather(*(_process(http, process) for process in noted.processes)))


async def _process(http: aiohttp.ClientSession, process: running.Process) -> ProcessState:
    state: Any = "runs"
    if process.admin_url is not None:
        try:
            async with http.get(f"{process.admin_url.rstrip('/')}/readyz") as answer:
                state = "ready" if answer.status == 200 else "not ready"
        except (aiohttp.ClientError, OSError, TimeoutError):
            state = "no answer"
    return ProcessState(name=process.name, role=process.role, pid=process.pid, state=state)


# ---------------------------------------------------------------- put together


def _told(at: Status, found: Mapping[str, Any], failed: Iterable[str], beat_s: float) -> Status:
    fleet: Fleet | None = found.get("fleet")
    held: Tables = found.get("tables", Tables({}))
    orders: dict[str, Order] = found.get("orders", {})
    return msgspec.structs.replace(
        at,
        fleet=fleet.fleet if fleet else None,
        fleet_version=fleet.version if fleet else None,
        services=tuple(s.name for s in fleet.services) if fleet and "tables" in found else (),
        processes=found["processes"],
        tables=tuple(_tables(held, fleet, found.get("seen_s", at.at_s))),
        gateways=tuple(_gateway(one, held, found.get("seen_s", at.at_s), beat_s) for one in found.get("gateways", ())),
        endpoints=tuple(_endpoints(fleet, found.get("health", ()), orders)) if fleet and "health" in found else (),
        groups=found.get("groups", ()),
        dead_letters_1h=found.get("dead"),
        orders=tuple(orders[name] for name in sorted(orders)),
        wrong=tuple(failed),
        noted=tuple(f"a table for {name} is not followed: {why}" for name, why in held.refused.items()),
    )


def _tables(held: Tables, fleet: Fleet | None, now_s: float) -> Iterable[TableState]:
    """Those of services that the fleet still has."""
    known = {s.name for s in fleet.services} if fleet else held.held.keys()
    for name in sorted(held.held.keys() & known):
        one = held.held[name]
        yield TableState(
            service=name, epoch=one.table.epoch, version=one.table.version, fleet_version=one.table.fleet_version,
            issued_at_s=one.table.issued_at_s, expires_at_s=one.table.expires_at_s,
            age_s=round(now_s - one.table.issued_at_s, 3), signature=one.signature, reason=one.table.reason,
            held=one.table.held,
            stranded=tuple(f"{r.class_}@{r.origin}" for r in one.table.routes if not r.endpoints and not r.fallbacks),
        )  # fmt: skip


def _gateway(said: GatewayStatus, held: Tables, now_s: float, beat_s: float) -> GatewayState:
    current = held.held.get(said.service)
    number = None if said.epoch is None or said.version is None else (said.epoch, said.version)
    # tables come all the time: one that follows them has a young one, whatever came since it spoke
    old = (said.age_s or 0.0) > BEATS * beat_s + LATE_S
    behind = old and number is not None and current is not None and number < current.number
    return GatewayState(
        gateway=said.gateway, service=said.service, epoch=said.epoch, version=said.version,
        heard_s=round(max(0.0, now_s - said.at_s), 3), table_age_s=said.age_s, expired=said.expired,
        refused=said.refused, dropped=said.dropped, behind=behind,
    )  # fmt: skip


def _endpoints(
    fleet: Fleet, health: Iterable[EndpointHealth], orders: Mapping[str, Order]
) -> Iterable[EndpointHealthState]:
    """Of each endpoint the worst that was said, its requests added up, its slowest p95."""
    verdict: dict[str, Verdict] = {}
    reason: dict[str, str] = {}
    rps: dict[str, float] = {}
    p95_ms: dict[str, float] = {}
    for said in health:
        for n, name in enumerate(said.endpoint):
            rps[name] = rps.get(name, 0.0) + said.rps[n]
            p95_ms[name] = max(p95_ms.get(name, 0.0), said.p95_ms[n] or 0.0)
            if _WORSE[said.verdict[n]] >= _WORSE[verdict.get(name, "unknown")]:
                verdict[name], reason[name] = said.verdict[n], said.reason[n] or reason.get(name, "")
    for endpoint in fleet.endpoints:
        name = endpoint.name
        yield EndpointHealthState(
            endpoint=name, verdict=verdict.get(name, "unknown"), rps=round(rps.get(name, 0.0), 2),
            p95_ms=p95_ms.get(name) or None, reason=reason.get(name, ""), order=orders.get(name),
        )  # fmt: skip
