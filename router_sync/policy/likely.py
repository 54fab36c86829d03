"""What can be used and is likely not meant: rules that reach nothing, endpoints that nothing reaches, slips of the pen.

Paths are those of the fleet file: policies[1].rules[0].deny.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from router_sync.policy.columns import Columns, hit, spoken_of
from router_sync.policy.facts import CERTIFICATE, Facts, of_target, requests_of
from router_sync.policy.fit import left_nothing, path_of
from router_sync.policy.law import Law, law_of
from router_sync.policy.rules import RESTRICTS, Statute, listed, statutes
from router_sync.policy.sound import Misfit, asked
from streams.contract.records import Fleet, Policy, Rule

_LOOKED_AT: Final = 20
"""Flows of an endpoint that none may reach: enough to name the rules."""
_CLOSED: Final = frozenset({"service", "class", "origin", "endpoint"})
"""Facts whose values are names of this very fleet."""
_VERB: Final[Mapping[str, str]] = {"deny": "denies", "allow": "allows", "prefer": "prefers"}


def cautions(fleet: Fleet) -> Iterator[Misfit]:
    """What can be used and is likely not meant: rules that reach nothing, endpoints that nothing reaches, slips.

    `fleet` has no misfits.
    """
    requests = requests_of(fleet)
    targets = {endpoint.name: of_target(endpoint) for endpoint in fleet.endpoints}
    sides = Columns(requests), Columns(list(targets.values()))
    for n, policy in enumerate(fleet.policies):
        for m, rule in enumerate(policy.rules):
            at = f"policies[{n}].rules[{m}]"
            yield from ((f"{at}.{field}", value, remedy) for field, value, remedy in _slips(rule, requests, targets))
            for statute in statutes(Policy(name=policy.name, rules=(rule,))):
                for field, value, remedy in _reach(statute, *sides):
                    yield f"{at}.{field}", value, remedy
                if statute.effect in RESTRICTS:
                    yield from ((f"{at}.{f}", v, r) for f, v, r in _undeclared(statute, requests, targets))
    yield from _closed(fleet, law_of(fleet))


def _reach(rule: Statute, requests: Columns, targets: Columns) -> Iterator[Misfit]:
    if not spoken_of(rule, requests).any():
        field = "when" if rule.rule.when else "unless"
        yield field, rule.ref, "It is for no request of this fleet: no class and origin is what it asks for."
    elif rule.effect in _VERB and not hit(rule, targets).any():
        yield rule.effect, rule.ref, f"No endpoint of this fleet has all of that: it {_VERB[rule.effect]} nothing."


def _undeclared(rule: Statute, requests: Sequence[Facts], targets: Mapping[str, Facts]) -> Iterator[Misfit]:
    """Whom a rule restricts only because something is not declared of them."""
    for fact in dict.fromkeys(fact for request in requests if rule.is_for(request) for fact in rule.doubts(request)):
        bound = [request for request in requests if rule.is_for(request) and fact in rule.doubts(request)]
        names = list(dict.fromkeys(f"{request['service'][0]}/{request['class'][0]}" for request in bound))
        field = "when" if fact in rule.rule.when else "unless"
        yield (
            f"{field}.{fact}",
            rule.ref,
            f"Not declared of {listed(names)}: it binds them for that. Say it there.",
        )
    for fact in rule.wanted:
        names = [name for name, target in targets.items() if not target.get(fact) and rule.bars(target)]
        if names and fact != CERTIFICATE and any(map(rule.is_for, requests)):
            yield (
                f"{rule.effect}.{fact}",
                rule.ref,
                f"Not declared of {listed(names)}: denied for that. Say it there.",
            )


def _slips(rule: Rule, requests: Sequence[Facts], targets: Mapping[str, Facts]) -> Iterator[Misfit]:
    """Values that no class, origin or endpoint has, and one has nearly; and names of what is not there."""
    for field, fact, values in asked(rule):
        side = requests if field in ("when", "unless") else targets.values()
        known = {value for facts in side for value in facts.get(fact, ())}
        near = {_bare(value): value for value in known}
        for value in [value for value in values if value not in known]:
            if fact in _CLOSED:
                yield f"{field}.{fact}", value, f"Not in this fleet; it has {listed(sorted(known)) or 'none'}."
            elif (meant := near.get(_bare(value))) is not None:
                yield f"{field}.{fact}", value, f"The fleet calls it {meant}: as it stands here, it meets nothing."


def _bare(value: str) -> str:
    return re.sub(r"[^a-z0-9]", "", value.lower()) or value


def _closed(fleet: Fleet, law: Law) -> Iterator[Misfit]:
    """Classes that rules close on purpose, and endpoints that no request may reach."""
    for nothing in left_nothing(fleet, law):
        s, c = nothing.at
        name = f"{fleet.services[s].name}/{fleet.services[s].classes[c].name} from {listed(nothing.origins)}"
        yield path_of(fleet, nothing.denials), name, "Law closes it: these requests are answered with 451."
    for n, endpoint in enumerate(fleet.endpoints):
        if not law.may[:, law.columns[endpoint.name]].any():
            keys = [key for key in law.rows if key[0] in endpoint.services][:_LOOKED_AT]
            refs = dict.fromkeys(denial.ref for key in keys for denial in law.denials(key, endpoint.name))
            yield f"endpoints[{n}].name", endpoint.name, f"No request may be sent there: denied by {listed([*refs])}."
