"""Which table is in force: what is refused, what is adopted, what is kept.

    size ► signature ► schema ► key = service ► issued <= now + 5 s ► not expired ► (epoch, version) grows ► adopted
    at any step: refused, counted by the step's name, and the last good table stays

A table that expires while it is held stays in force and is flagged: load and freshness fail open. Its routes stay the
only ones: the law stays closed.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from math import isclose
from typing import Final

import msgspec

from router_sync.client.shelf import Found, Shelf
from router_sync.sign import Trust
from streams import signals
from streams.contract.errors import TableRefused
from streams.contract.records import Name, Route, RoutingTable
from streams.contract.topics import MAX_VALUE_BYTES

AHEAD_S: Final = 5.0
"""How far a router's clock may be ahead of ours."""
_SERVICES: Final = 16
"""Names that hold no table and have refusals counted of their own: enough for a fleet that trusts the wrong key."""
_TELL_AGAIN_S: Final = 10.0
_OTHERS: Final = "other"
_decoder: Final = msgspec.json.Decoder(RoutingTable)


@dataclass(frozen=True, slots=True)
class Held:
    """A table in force."""

    table: RoutingTable
    kid: str
    applied_at_s: float
    found: Found

    @property
    def number(self) -> tuple[int, int]:
        """(epoch, version)"""
        return self.table.epoch, self.table.version

    def age_s(self, now_s: float) -> float:
        """Seconds since the router issued it; never negative."""
        return max(0.0, now_s - self.table.issued_at_s)

    def expired(self, now_s: float) -> bool:
        return now_s >= self.table.expires_at_s


class Follower:
    """The tables in force, by service. `offer` it everything that is found; `restore` once before that."""

    def __init__(self, trust: Trust, shelf: Shelf | None = None) -> None:
        self.held: dict[str, Held] = {}
        self.refused: defaultdict[str, dict[str, int]] = defaultdict(dict)
        """Service to reason to count; reasons are the steps in the drawing above."""
        self._told_s: dict[str, float] = {}
        self._trust, self._shelf = trust, shelf

    def restore(self, now_s: float) -> list[RoutingTable]:
        """Tables kept on disk that still verify; expired ones too, since they were held before."""
        return [table for found in self._shelf.all() if (table := self._again(found, now_s))] if self._shelf else []

    def offer(self, found: Found, now_s: float) -> RoutingTable | None:
        """The table when it was adopted; None when it was refused (and counted), or is in force already."""
        service = _service(found.key)
        now_held = self.held.get(service)
        if now_held is not None and now_held.found.value == found.value:
            return None
        try:
            kid, table = self._verified(found)
            _check_times(table, now_s)
            _check_grows(table, now_held)
        except TableRefused as refusal:
            self._refuse(self.counted_as(found.key), refusal, now_s)
            return None
        self._take(Held(table, kid, now_s, found))
        if self._shelf is not None:
            self._shelf.put(table.service, found)
        return table

    def counted_as(self, key: bytes) -> str:
        """The service under which refusals of records with this `key` are counted: its own, or "other" where the key
        is no service's name or too many names have been refused already."""
        service = _service(key)
        if service in self.refused or service in self.held:
            return service
        return service if len(self.refused) < _SERVICES and _is_name(service) else _OTHERS

    def refusals(self) -> dict[str, int]:
        """Refusals by reason, of all services."""
        total: dict[str, int] = {}
        for counts in self.refused.values():
            for reason, count in counts.items():
                total[reason] = total.get(reason, 0) + count
        return total

    def _again(self, found: Found, now_s: float) -> RoutingTable | None:
        try:
            kid, table = self._verified(found)
        except TableRefused as refusal:
            signals.event("kept_table_refused", "warning", field=refusal.field, reason=refusal.reason)
            return None
        self._take(Held(table, kid, now_s, found))
        return table

    def _verified(self, found: Found) -> tuple[str, RoutingTable]:
        if len(found.value) > MAX_VALUE_BYTES:
            raise TableRefused("size", len(found.value), f"must be at most {MAX_VALUE_BYTES} bytes")
        kid = self._trust.verify(found.headers, found.key, found.value)
        table = _decoded(found.value)
        if table.service.encode() != found.key:
            raise TableRefused("key", found.key, f"the table is for {table.service}")
        return kid, table

    def _take(self, held: Held) -> None:
        table = held.table
        self.held[table.service] = held
        signals.TABLE_VERSION.labels(table.service).set(table.version)
        signals.TABLE_EPOCH.labels(table.service).set(table.epoch)

    def _refuse(self, service: str, refusal: TableRefused, now_s: float) -> None:
        reason = refusal.field.partition(".")[0]
        counts = self.refused[service]
        counts[reason] = counts.get(reason, 0) + 1
        signals.TABLES_REFUSED.labels(reason).inc()
        if now_s - self._told_s.get(reason, float("-inf")) >= _TELL_AGAIN_S:  # a flood is counted, not logged
            self._told_s[reason] = now_s
            count = self.refusals()[reason]
            signals.event(
                "table_refused", "warning", service=service[:128], reason=reason, why=str(refusal), count=count
            )


def _service(key: bytes) -> str:
    return key.decode("utf-8", "replace")


def _is_name(service: str) -> bool:
    try:
        msgspec.convert(service, Name)
    except msgspec.ValidationError:
        return False
    return True


def _decoded(value: bytes) -> RoutingTable:
    try:
        table = _decoder.decode(value)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise TableRefused("schema", value[:80], str(error)) from None
    known = {endpoint.name for endpoint in table.endpoints}
    for route in table.routes:
        _check_route(route, known)
    return table


def _check_route(route: Route, known: set[str]) -> None:
    """A correctly signed mistake is likelier than a forgery."""
    where = f"schema.routes[{route.origin}/{route.class_}]"
    if strangers := [name for name in (*route.endpoints, *route.fallbacks) if name not in known]:
        raise TableRefused(where, strangers[0], "is not among the table's endpoints")
    if route.shares and not isclose(sum(route.shares), 1.0, abs_tol=1e-3):
        raise TableRefused(where, sum(route.shares), "shares must add up to 1")


def _check_times(table: RoutingTable, now_s: float) -> None:
    if table.issued_at_s > now_s + AHEAD_S:
        raise TableRefused("issued_at_s", table.issued_at_s, f"lies more than {AHEAD_S:g} s ahead of this clock")
    if now_s >= table.expires_at_s:
        raise TableRefused("expires_at_s", table.expires_at_s, "the table has expired")


def _check_grows(table: RoutingTable, held: Held | None) -> None:
    if held is not None and (table.epoch, table.version) <= held.number:
        raise TableRefused("version", (table.epoch, table.version), f"must be above {held.number}, which is in force")
