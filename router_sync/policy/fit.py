"""What is wrong with policies in a fleet, and what is likely not meant (cautions).

Paths are those of the fleet file: policies[1].rules[0].deny.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from router_sync.policy.columns import Columns, hit, spoken_of
from router_sync.policy.facts import CERTIFICATE, Facts, of_target, requests_of
from router_sync.policy.law import Law, law_of
from router_sync.policy.rules import LAW, OWN, RESTRICTS, Denial, Statute, listed, statutes
from router_sync.policy.sound import Misfit, asked, unsound
from streams.contract.records import Fleet, Policy, Rule

_CLOSED: Final = frozenset({"service", "class", "origin", "endpoint"})
"""Facts whose values are names of this very fleet."""
_NAMED: Final = 4


# ---------------------------------------------------------------- in a fleet


class _Nothing(NamedTuple):
    """A class to which law leaves no endpoint, from these origins."""

    at: tuple[int, int]
    """Of the service and the class in the file."""
    origins: list[str]
    denials: dict[str, tuple[Denial, ...]]
    """Of each endpoint that serves it, from the first origin."""
    declared: bool
    """Surely denied by rules that deny: somebody means it."""


def misfits(fleet: Fleet) -> Iterator[Misfit]:
    """What is wrong with the policies of `fleet`, and the classes to which law leaves nothing, unless that is meant."""
    for n, policy in enumerate(fleet.policies):
        yield from ((f"policies[{n}].{path}", value, remedy) for path, value, remedy in unsound(policy))
    for nothing in _left_nothing(fleet, law_of(fleet)):
        if not nothing.declared:
            yield _stranded(fleet, nothing)


def _left_nothing(fleet: Fleet, law: Law) -> Iterator[_Nothing]:
    for s, service in enumerate(fleet.services):
        serving = [e for e in fleet.endpoints if service.name in e.services]
        for c, class_ in enumerate(service.classes) if serving else ():
            keys = [(service.name, origin.name, class_.name) for origin in fleet.origins]
            empty = [key for key in keys if not law.may[law.rows[key]].any()]
            if empty:
                denials = {e.name: law.denials(empty[0], e.name) for e in serving}
                meant = all(_surely(fleet.policies, law.requests[law.rows[empty[0]]], of_target(e)) for e in serving)
                yield _Nothing((s, c), [key[1] for key in empty], denials, meant)


def _surely(policies: Sequence[Policy], request: Facts, target: Facts) -> bool:
    """Whether a rule denies the pair whatever is not declared."""
    rules = (rule for policy in policies for rule in statutes(policy) if rule.effect == "deny")
    return any(rule.surely_for(request) and rule.meets(target) for rule in rules)


def _stranded(fleet: Fleet, nothing: _Nothing) -> Misfit:
    s, c = nothing.at
    service, class_ = fleet.services[s], fleet.services[s].classes[c]
    if all(any(denial.policy == OWN for denial in each) for each in nothing.denials.values()):
        there = ", ".join(sorted({e.jurisdiction for e in fleet.endpoints if service.name in e.services}))
        remedy = f"{service.name} is served in {there} only: add an endpoint or a country."
        return f"services[{s}].classes[{c}].jurisdictions", list(class_.jurisdictions), remedy
    remedy = (
        f"Law leaves it no endpoint ({_refs(nothing.denials)}). Add an endpoint that law permits, declare what is not "
        "declared, or change a rule."
    )
    return _path(fleet, nothing.denials), f"{service.name}/{class_.name} from {listed(nothing.origins)}", remedy


def _refs(denials: Mapping[str, Sequence[Denial]]) -> str:
    """ "a, b: gdpr/transfers; c: acme/default" """
    of: defaultdict[str, list[str]] = defaultdict(list)
    for endpoint, each in denials.items():
        of[", ".join(denial.ref for denial in each)].append(endpoint)
    return "; ".join(f"{listed(endpoints)}: {refs}" for refs, endpoints in of.items())


def _path(fleet: Fleet, denials: Mapping[str, Sequence[Denial]]) -> str:
    """Of the rule that denies most."""
    counts = Counter((denial.policy, denial.rule) for each in denials.values() for denial in each)
    for (policy, rule), _ in counts.most_common():
        for n, known in enumerate(fleet.policies):
            ids = [one.id for one in known.rules]
            if known.name == policy:
                return f"policies[{n}].rules[{ids.index(rule)}]" if rule in ids else f"policies[{n}].default"
    return "policies"


# ---------------------------------------------------------------- likely not meant


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
    elif rule.effect in LAW | {"prefer"} and rule.effect != "require" and not hit(rule, targets).any():
        yield rule.effect, rule.ref, f"No endpoint of this fleet has all of that: it {_VERB[rule.effect]} nothing."


_VERB: Final = {"deny": "denies", "allow": "allows", "prefer": "prefers"}


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
    for nothing in _left_nothing(fleet, law):
        s, c = nothing.at
        name = f"{fleet.services[s].name}/{fleet.services[s].classes[c].name} from {listed(nothing.origins)}"
        yield _path(fleet, nothing.denials), name, "Law closes it: these requests are answered with 451."
    for n, endpoint in enumerate(fleet.endpoints):
        if not law.may[:, law.columns[endpoint.name]].any():
            keys = [key for key in law.rows if key[0] in endpoint.services]
            refs = dict.fromkeys(denial.ref for key in keys for denial in law.denials(key, endpoint.name))
            yield f"endpoints[{n}].name", endpoint.name, f"No request may be sent there: denied by {listed([*refs])}."
