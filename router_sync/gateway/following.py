"""Tables in force at a gateway: the source feeds the follower, pickers follow, and the fleet is told."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

from router_sync.client import Follower, Found, Picker, Source
from router_sync.gateway.sink import Sink
from streams import signals
from streams.contract.records import GatewayStatus, RoutingTable
from streams.runtime.clock import Clock


class Following:
    """`pickers` by service, as of the last good tables. `now_s` is unix seconds, `clock` never goes back."""

    def __init__(
        self,
        name: str,
        origin: str,
        source: Source,
        follower: Follower,
        sink: Sink,
        *,
        rng: random.Random,
        now_s: Callable[[], float],
        clock: Clock,
    ) -> None:
        self.pickers: dict[str, Picker] = {}
        self.heeded_by: list[Callable[[RoutingTable], None]] = []
        """Told of each table that is adopted."""
        self.follower = follower
        self._name, self._origin, self._source, self._sink = name, origin, source, sink
        self._unserved: set[str] = set()
        self._rng, self._now_s, self._clock = rng, now_s, clock

    def restore(self) -> None:
        """Serve from what is on disk until the source says more."""
        for table in self.follower.restore(self._now_s()):
            signals.event("table_restored", service=table.service, epoch=table.epoch, version=table.version)
            self._adopt(table)

    async def run(self) -> None:
        """Follow until cancelled."""
        async for found in self._source.records():
            try:
                self._hear(found)
            except Exception as error:  # noqa: BLE001 - one record that upsets us must not hide those behind it
                signals.event("table_mistake", "error", key=repr(found.key[:128]), error=repr(error))

    async def complain(self, after_s: float = 10.0) -> None:
        """Say so when there is still no table `after_s` from now, and why."""
        await asyncio.sleep(after_s)
        if not self.pickers:
            signals.event("no_table", "warning", after_s=after_s, reason=self.why_not())

    def why_not(self) -> str | None:
        """Why no request can be served, as far as tables go; None when some can."""
        if any(self._origin in picker.origins() for picker in self.pickers.values()):
            return None
        if self.pickers:
            named = sorted({origin for picker in self.pickers.values() for origin in picker.origins()})
            return f"no table has a route from the origin {self._origin}, only from {', '.join(named) or 'none'}"
        if self._source.why is not None:
            return f"no table: {self._source.why}"
        refused = ", ".join(f"{reason} {count}" for reason, count in self.follower.refusals().items())
        return f"no table was accepted; refused: {refused}" if refused else "no table has been published yet"

    def _hear(self, found: Found) -> None:
        refused = sum(map(len, self.follower.refused.values()))
        table = self.follower.offer(found, self._now_s())
        if table is not None:
            self._adopt(table)
        elif sum(map(len, self.follower.refused.values())) != refused:  # for a reason not told yet
            self._tell_of(self.follower.counted_as(found.key))

    def tell(self) -> None:
        """Publish a status for each service that has a table or a refusal."""
        for service in {**self.follower.held, **self.follower.refused}:
            self._tell_of(service)

    def gauge(self) -> None:
        """Set the gauges that change with time."""
        now_s = self._now_s()
        for service, held in self.follower.held.items():
            signals.TABLE_AGE.labels(service).set(held.age_s(now_s))

    def ages(self) -> dict[str, dict[str, object]]:
        """Per service: epoch, version, age_s, expired."""
        now_s = self._now_s()
        return {
            service: {
                "epoch": held.table.epoch,
                "version": held.table.version,
                "age_s": round(held.age_s(now_s), 3),
                "expired": held.expired(now_s),
            }
            for service, held in self.follower.held.items()
        }

    def _adopt(self, table: RoutingTable) -> None:
        picker = self.pickers.get(table.service)
        if picker is None:
            self.pickers[table.service] = Picker(table, rng=self._rng, clock=self._clock)
        else:
            picker.adopt(table)
        for heed in self.heeded_by:
            heed(table)
        self._check_origin(table.service)
        self._tell_of(table.service)

    def _check_origin(self, service: str) -> None:
        """Warn once when a service has no route from here; an origin may be misspelt."""
        origins = self.pickers[service].origins()
        if self._origin in origins:
            self._unserved.discard(service)
        elif service not in self._unserved:
            self._unserved.add(service)
            signals.event("origin_not_served", "warning", service=service, origin=self._origin, table_has=origins)

    def _tell_of(self, service: str) -> None:
        held, now_s = self.follower.held.get(service), self._now_s()
        status = GatewayStatus(
            gateway=self._name,
            service=service,
            at_s=now_s,
            epoch=held.table.epoch if held else None,
            version=held.table.version if held else None,
            applied_at_s=held.applied_at_s if held else None,
            age_s=held.age_s(now_s) if held else None,
            expired=held is not None and held.expired(now_s),
            refused=dict(self.follower.refused.get(service, {})),
            dropped=dict(self._sink.dropped),
        )
        self._sink.emit(status, now_s)
