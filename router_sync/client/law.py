"""The law of one table, checked again where it is followed: a correctly signed mistake must not breach.

Compiled when a table is taken over, not per request: for each rule the endpoints it hits, once; for each route the
union of those of the rules that are for it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from router_sync.policy.facts import Facts, of_route, of_target
from router_sync.policy.rules import Denial, Judge, Statute
from streams.contract.records import Route, RoutingTable

_NONE: frozenset[str] = frozenset()


class TableLaw:
    """What a table's own policies and jurisdictions forbid of its routes."""

    def __init__(self, table: RoutingTable) -> None:
        self._service, self._policies = table.service, table.policies
        self._judge = Judge(table.policies)
        self._targets = {endpoint.name: of_target(endpoint) for endpoint in table.endpoints}
        self._hits: dict[Statute, frozenset[str]] = {}
        self._lacking: dict[tuple[str, ...], frozenset[str]] = {}

    def is_of(self, table: RoutingTable) -> bool:
        """Whether `table` has the same policies, and the same facts of the same endpoints."""
        return table.policies == self._policies and self._targets == {e.name: of_target(e) for e in table.endpoints}

    def denials(self, route: Route, endpoint: str) -> tuple[Denial, ...]:
        """All that denies `route` one endpoint of the table."""
        brief = self._judge.brief(of_route(self._service, route), route.jurisdictions)
        return brief.denials(self._targets[endpoint])

    def forbidden(self, route: Route) -> frozenset[str]:
        """The endpoints of the table that `route` must not use."""
        denied = set[str]()
        for code in self._judge.brief(of_route(self._service, route)).codes:
            denied.update(*(self._hit(rule, rule.bars) for rule in code.restricting))
            if code.closed:
                denied |= self._targets.keys() - _NONE.union(*(self._hit(rule, rule.meets) for rule in code.allowing))
        if route.jurisdictions:
            denied |= self._outside(route.jurisdictions)
        return frozenset(denied)

    def why(self, route: Route) -> tuple[Denial, ...]:
        """All that denies `route` endpoints of the table, each rule once, what denies most first."""
        each = [denial for name in self._targets for denial in self.denials(route, name)]
        said = {denial.ref: denial for denial in each}
        return tuple(said[ref] for ref, _ in Counter(denial.ref for denial in each).most_common())

    def _hit(self, rule: Statute, hits: Callable[[Facts], bool]) -> frozenset[str]:
        found = self._hits.get(rule)
        if found is None:
            found = frozenset(name for name, target in self._targets.items() if hits(target))
            self._hits[rule] = found
        return found

    def _outside(self, jurisdictions: tuple[str, ...]) -> frozenset[str]:
        found = self._lacking.get(jurisdictions)
        if found is None:
            inside, targets = frozenset(jurisdictions), self._targets.items()
            found = frozenset(name for name, target in targets if inside.isdisjoint(target["country"]))
            self._lacking[jurisdictions] = found
        return found
