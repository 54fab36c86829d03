"""The law of a fleet as a mask of flows x endpoints, compiled once; and why a pair is not allowed, when it is asked.

rules x flows      is it for this flow?        ┐  flows that the same rules are for are alike: few kinds,
rules x endpoints  does it deny this endpoint? ┘  each the union of what its rules deny
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from router_sync.policy.columns import Bools, Columns, hit, spoken_of
from router_sync.policy.facts import Facts, Key, flows_of, of_target, requests_of
from router_sync.policy.rules import OWN, Brief, Denial, Judge, Statute, only_law, own, words
from streams.contract.records import Fleet, Policy

UNKNOWN = "not in the fleet"


@dataclass(frozen=True, slots=True)
class Law:
    """`may[row, column]`: whether a flow may use an endpoint. A pair that is not here may not. Shapes: F flows, E ends.

    What is not served there is not allowed there.
    """

    rows: dict[Key, int]
    """(service, origin, class) to its row."""
    columns: dict[str, int]
    may: Bools
    """[F, E]"""
    fleet: Fleet
    requests: Sequence[Facts]
    """[F]"""
    policies: tuple[Policy, ...]
    """Of the fleet, without their preferences: what gateways check each table by."""
    _judge: Judge
    _said: dict[tuple[int, int], str] = field(default_factory=dict)
    _closed_by: dict[Key, tuple[str, ...]] = field(default_factory=dict)

    def allows(self, key: Key, endpoint: str) -> bool:
        """Whether the pair is known and allowed."""
        row, column = self.rows.get(key), self.columns.get(endpoint)
        return row is not None and column is not None and bool(self.may[row, column])

    def allowed(self, key: Key) -> frozenset[str]:
        """The endpoints that a flow may use; none when it is not known."""
        row = self.rows.get(key)
        if row is None:
            return frozenset()
        return frozenset(name for name, may in zip(self.columns, self.may[row].tolist(), strict=True) if may)

    def why_not(self, key: Key, endpoint: str) -> str | None:
        """Why a pair is not allowed, with every rule that denies it; None when it is."""
        row, column = self.rows.get(key), self.columns.get(endpoint)
        if row is None or column is None:
            return UNKNOWN
        if self.may[row, column]:
            return None
        said = self._said.get((row, column))
        if said is None:
            said = words(self.denials(key, endpoint)) or f"does not serve {key[0]}"
            self._said[row, column] = said
        return said

    def denials(self, key: Key, endpoint: str) -> tuple[Denial, ...]:
        """Every rule that denies a pair of the fleet. KeyError for a pair that is not of it."""
        return self._brief(key).denials(of_target(self.fleet.endpoints[self.columns[endpoint]]))

    def closed_by(self, key: Key) -> tuple[str, ...]:
        """policy/rule of all that denies a flow of the fleet the endpoints that serve it, what denies most first."""
        refs = self._closed_by.get(key)
        if refs is None:
            brief, serving = self._brief(key), [of_target(e) for e in self.fleet.endpoints if key[0] in e.services]
            counts = Counter(denial.ref for target in serving for denial in brief.denials(target))
            refs = self._closed_by[key] = tuple(ref for ref, _ in counts.most_common())
        return refs

    def _brief(self, key: Key) -> Brief:
        return self._judge.brief(self.requests[self.rows[key]])


def law_of(fleet: Fleet) -> Law:
    """The law of `fleet`: its policies, and what its classes say of jurisdictions."""
    requests, targets = requests_of(fleet), [of_target(endpoint) for endpoint in fleet.endpoints]
    judge = Judge(policies_of(fleet))
    may = _offered(fleet) & permitted(judge, Columns(requests), Columns(targets))
    return Law(
        rows={flow.key: row for row, flow in enumerate(flows_of(fleet))},
        columns={endpoint.name: column for column, endpoint in enumerate(fleet.endpoints)},
        may=may,
        fleet=fleet,
        requests=requests,
        policies=only_law(fleet.policies),
        _judge=judge,
    )


def policies_of(fleet: Fleet) -> tuple[Policy, ...]:
    """All policies of `fleet`, with one more made of the jurisdictions of its classes."""
    rules = tuple(
        own(class_.jurisdictions, {"service": service.name, "class": class_.name})
        for service in fleet.services
        for class_ in service.classes
        if class_.jurisdictions
    )
    return (*fleet.policies, Policy(name=OWN, rules=rules)) if rules else fleet.policies


def permitted(judge: Judge, requests: Columns, targets: Columns) -> Bools:
    """[F, E] what each policy permits: no rule denies it and, where the default is deny, one allows it."""
    may = ~_union([rule for code in judge.codes for rule in code.restricting], requests, targets)
    for code in judge.codes:
        if code.closed:
            may &= _union(code.allowing, requests, targets)
    return may


def _union(rules: Sequence[Statute], requests: Columns, targets: Columns) -> Bools:
    """[F, E] the pairs that any of `rules` is for and hits."""
    if not rules or not len(requests):
        return np.zeros((len(requests), len(targets)), np.bool_)
    spoken = np.array([spoken_of(rule, requests) for rule in rules]).T
    hits = np.array([hit(rule, targets) for rule in rules])
    kinds, kind_of = np.unique(spoken, axis=0, return_inverse=True)
    union: Bools = np.array([hits[kind].any(axis=0) for kind in kinds])[kind_of.reshape(-1)]
    return union


def _offered(fleet: Fleet) -> Bools:
    """[F, E] whether the flow's service is served there."""
    services = {service.name: row for row, service in enumerate(fleet.services)}
    served = np.zeros((len(services), len(fleet.endpoints)), np.bool_)
    for column, endpoint in enumerate(fleet.endpoints):
        for service in endpoint.services:
            if service in services:
                served[services[service], column] = True
    return served[[services[flow.service] for flow in flows_of(fleet)]]
