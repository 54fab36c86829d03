"""Tables in force at a gateway: the source feeds the follower, pickers follow, and the fleet is told."""

from __future__ import annotations

import random
from collections.abc import Callable

from router_sync.client import Follower, Picker, Source
from router_sync.gateway.sink import Sink
from streams import signals
from streams.contract.records import GatewayStatus, RoutingTable
from streams.runtime.clock import Clock


class Following:
    """`pickers` by service, as of the last good tables. `now_s` is unix seconds, `clock` never goes back."""

    def __init__(
        self,
        name: str,
        source: Source,
        follower: Follower,
        sink: Sink,
        *,
        rng: random.Random,
        now_s: Callable[[], float],
        clock: Clock,
    ) -> None:
        self.pickers: dict[str, Picker] = {}
        self.follower = follower
        self._name, self._source, self._sink = name, source, sink
        self._rng, self._now_s, self._clock = rng, now_s, clock

    def restore(self) -> None:
        """Serve from what is on disk until the source says more."""
        for table in self.follower.restore(self._now_s()):
            signals.event("table_restored", service=table.service, epoch=table.epoch, version=table.version)
            self._adopt(table)

    async def run(self) -> None:
        """Follow until cancelled."""
        async for found in self._source.records():
            refused = sum(map(len, self.follower.refused.values()))
            table = self.follower.offer(found, self._now_s())
            if table is not None:
                self._adopt(table)
            elif sum(map(len, self.follower.refused.values())) != refused:
                self._tell_of(found.key.decode("utf-8", "replace"))

    def tell(self) -> None:
        """Publish a status for each service."""
        for service in self.follower.held:
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
        self._tell_of(table.service)

    def _tell_of(self, service: str) -> None:
        held = self.follower.held.get(service)
        if held is None:
            return
        now_s = self._now_s()
        status = GatewayStatus(
            gateway=self._name,
            service=service,
            at_s=now_s,
            epoch=held.table.epoch,
            version=held.table.version,
            applied_at_s=held.applied_at_s,
            age_s=held.age_s(now_s),
            expired=held.expired(now_s),
            refused=dict(self.follower.refused.get(service, {})),
            dropped=dict(self._sink.dropped),
        )
        self._sink.emit(status, now_s)
