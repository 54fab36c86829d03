"""What is wrong with policies in a fleet: each by itself, and the classes to which they leave nothing.

Paths are those of the fleet file: policies[1].rules[0].deny.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from router_sync.policy.facts import Key, of_target
from router_sync.policy.law import Law, law_of
from router_sync.policy.rules import OWN, Denial, listed, statutes
from router_sync.policy.sound import Misfit, unsound
from streams.contract.records import Endpoint, Fleet


class Nothing(NamedTuple):
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
    for nothing in left_nothing(fleet, law_of(fleet)):
        if not nothing.declared:
            yield _stranded(fleet, nothing)


def left_nothing(fleet: Fleet, law: Law) -> Iterator[Nothing]:
    """The classes of `fleet` that are served and may be sent nowhere; those that somebody means, apart."""
    for s, service in enumerate(fleet.services):
        serving = [end for end in fleet.endpoints if service.name in end.services]
        for c, class_ in enumerate(service.classes) if serving else ():
            keys = [(service.name, origin.name, class_.name) for origin in fleet.origins]
            empty = [key for key in keys if not law.may[law.rows[key]].any()]
            meant = [key for key in empty if all(_surely(law, key, end) for end in serving)]
            for closed, declared in ((meant, True), ([key for key in empty if key not in meant], False)):
                if closed:
                    denials = {end.name: law.denials(closed[0], end.name) for end in serving}
                    yield Nothing((s, c), [key[1] for key in closed], denials, declared)


def _surely(law: Law, key: Key, end: Endpoint) -> bool:
    """Whether a rule denies the pair whatever is not declared."""
    request, target = law.requests[law.rows[key]], of_target(end)
    rules = (rule for policy in law.fleet.policies for rule in statutes(policy) if rule.effect == "deny")
    return any(rule.surely_for(request) and rule.meets(target) for rule in rules)


def _stranded(fleet: Fleet, nothing: Nothing) -> Misfit:
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
    return path_of(fleet, nothing.denials), f"{service.name}/{class_.name} from {listed(nothing.origins)}", remedy


def _refs(denials: Mapping[str, Sequence[Denial]]) -> str:
    """ "a, b: gdpr/transfers; c: acme/default" """
    of: defaultdict[str, list[str]] = defaultdict(list)
    for endpoint, each in denials.items():
        of[", ".join(denial.ref for denial in each)].append(endpoint)
    return "; ".join(f"{listed(endpoints)}: {refs}" for refs, endpoints in of.items())


def path_of(fleet: Fleet, denials: Mapping[str, Sequence[Denial]]) -> str:
    """Of the rule that denies most."""
    counts = Counter((denial.policy, denial.rule) for each in denials.values() for denial in each)
    for (policy, rule), _ in counts.most_common():
        for n, known in enumerate(fleet.policies):
            ids = [one.id for one in known.rules]
            if known.name == policy:
                return f"policies[{n}].rules[{ids.index(rule)}]" if rule in ids else f"policies[{n}].default"
    return "policies"
