"""What happened, when, and why: the world's own events, and each table that moved something, with its reason."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, Literal

import msgspec

from router_sync.table import RouteKey, moves
from streams.contract.records import Decision, RoutingTable

What = Literal["fault", "loss", "surge", "price", "carbon", "capacity", "work", "table"]
MOST: Final = 20_000
"""Kept of one run; more are counted."""
UNASKED_RPS: Final = 0.1
_WEIGHT: Final = {"fault": 5.0, "loss": 5.0, "surge": 4.0, "price": 4.0, "carbon": 4.0, "capacity": 2.0, "work": 1.2}


class Moment(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One thing that happened."""

    at_s: float
    what: What
    says: str
    """What happened; of a table, why it differs from the one before."""
    number: str = ""
    """Of a table: epoch.version."""
    moved: dict[str, float] = {}
    """Of a table: "class@origin" to the share of the route that moved."""
    states: dict[str, str] = {}
    """Of a table: endpoints whose state changed, to their new one."""
    method: str = ""
    """Of a table: who worked out its shares, greedy or lp."""
    unserved_rps: float = 0.0
    """Of a table: demand that no capacity is left for."""

    @property
    def weight(self) -> float:
        """How much it tells."""
        if self.what != "table":
            return _WEIGHT[self.what]
        return max(self.moved.values(), default=0.0) + 2.0 * bool(self.states)


class Timeline:
    """Collects moments."""

    def __init__(self) -> None:
        self.moments: list[Moment] = []
        self.left_out = 0
        self.tables = 0
        self._last: dict[str, RoutingTable] = {}

    def happened(self, at_s: float, what: What, says: str) -> None:
        """Something of the world."""
        self._add(Moment(at_s=at_s, what=what, says=says))

    def table(self, table: RoutingTable, decisions: Iterable[Decision]) -> Moment | None:
        """A table that gateways follow from now on; the moment, None when it only says the last one again."""
        self.tables += 1
        old, self._last[table.service] = self._last.get(table.service), table
        if old is not None and _told(old) == _told(table):
            return None
        mine = next((d for d in decisions if (d.epoch, d.version) == (table.epoch, table.version)), None)
        was = _states(old) if old is not None else {}
        moment = Moment(
            at_s=table.issued_at_s,
            what="table",
            says=table.reason,
            number=f"{table.epoch}.{table.version}",
            moved=_moved(old, table, _unasked(mine)),
            states={name: state for name, state in _states(table).items() if was and was[name] != state},
            method=mine.method if mine is not None else "",
            unserved_rps=round(sum(c.unserved_rps for c in mine.considered), 2) if mine is not None else 0.0,
        )
        self._add(moment)
        return moment

    def _add(self, moment: Moment) -> None:
        if len(self.moments) < MOST:
            self.moments.append(moment)
        else:
            self.left_out += 1


def telling(moments: Sequence[Moment], most: int) -> list[Moment]:
    """The `most` telling of `moments`, in their order."""
    ranked = sorted(range(len(moments)), key=lambda n: (-moments[n].weight, n))
    return [moments[n] for n in sorted(ranked[:most])]


def _told(table: RoutingTable) -> tuple[object, ...]:
    """What gateways do by a table: latencies and the order of fallbacks are no news."""
    routes = [(r.origin, r.class_, r.endpoints, r.shares, r.admit, r.reason) for r in table.routes]
    return routes, _states(table), table.held


def _states(table: RoutingTable) -> dict[str, str]:
    return {end.name: end.state for end in table.endpoints}


def _unasked(decision: Decision | None) -> set[RouteKey]:
    """Routes that nobody asks anything of: where they lead is no news."""
    considered = decision.considered if decision is not None else ()
    return {(c.origin, c.class_) for c in considered if c.demand_rps <= UNASKED_RPS}


def _moved(old: RoutingTable | None, new: RoutingTable, unasked: set[RouteKey]) -> dict[str, float]:
    """The routes that moved by half a percent or more."""
    by = moves(old, new) if old is not None else {}
    return {
        f"{class_}@{origin}": round(share, 4)
        for (origin, class_), share in by.items()
        if share >= 0.005 and (origin, class_) not in unasked
    }
