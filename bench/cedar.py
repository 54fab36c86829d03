"""An independent oracle for law: policies as Cedar's `forbid`, judged by Cedar's own engine (cedarpy).

A request is the context, an endpoint the resource; a fact that nobody has declared is an attribute that is not there:

    surely    context has tenant && ["acme"].contains(context["tenant"])
    possibly  !(context has tenant) || ["acme"].contains(context["tenant"])

    require   forbid when possibly the rule's, unless surely all it requires
    deny      forbid when possibly the rule's and possibly all it denies
    default   of a policy that denies: forbid unless a rule that allows surely is for it and surely met

It shares no line with `router_sync.policy`: it reads the records alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence

import cedarpy

from streams.contract.records import Endpoint, Origin, Policy, RequestClass, Rule

Asked = Mapping[str, tuple[str, ...]]
Attributes = dict[str, object]


class Cedar:
    """`policies` and what classes say of jurisdictions, ready to be asked of many pairs."""

    def __init__(self, policies: Iterable[Policy], ends: Sequence[Endpoint]) -> None:
        said = [statement for policy in policies for statement in _statements(policy)]
        said.append(("class/jurisdictions", _OWN))
        self._refs = {f"policy{n + 1}": ref for n, (ref, _) in enumerate(said)}
        text = "permit (principal, action, resource);\n" + "\n".join(statement for _, statement in said)
        self._policies = cedarpy.PolicySet.from_str(text)
        entities = [{"uid": _uid(end.name), "attrs": _of_endpoint(end), "parents": []} for end in ends]
        self._entities = cedarpy.Entities.from_json_str(json.dumps(entities))

    def denied_by(self, pairs: Iterable[tuple[Attributes, str]]) -> list[frozenset[str]]:
        """policy/rule of what forbids each (request, endpoint's name); nothing: Cedar allows it."""
        requests = [
            {"principal": 'User::"u"', "action": 'Action::"a"', "resource": _uid(name), "context": request}
            for request, name in pairs
        ]
        answers = cedarpy.is_authorized_batch(requests, self._policies, self._entities)
        return [self._said(answer) for answer in answers]

    def _said(self, answer: cedarpy.AuthzResult) -> frozenset[str]:
        assert not answer.diagnostics.errors, answer.diagnostics.errors
        if answer.allowed:
            return frozenset()
        return frozenset(self._refs[reason] for reason in answer.diagnostics.reasons)


def of_request(service: str, origin: Origin, said: RequestClass) -> Attributes:
    """A flow as a context."""
    facts = {
        "service": service, "class": said.name, "origin": origin.name, "origin_country": origin.jurisdiction,
        "tenant": said.tenant, "data_class": said.data_class, "purpose": said.purpose, "tier": said.tier,
        "complexity": said.complexity,
    }  # fmt: skip
    known: Attributes = {fact: value for fact, value in facts.items() if value}
    return known | ({"jurisdictions": list(said.jurisdictions)} if said.jurisdictions else {})


def _of_endpoint(end: Endpoint) -> Attributes:
    facts = {
        "endpoint": end.name, "country": end.jurisdiction, "region": end.region, "zone": end.zone,
        "provider": end.provider, "parent": end.parent, "parent_country": end.parent_country, "market": end.market,
        "place": "edge" if end.edge else "cloud", "instance": end.instance.replace("unknown", ""),
    }  # fmt: skip
    return {**{fact: value for fact, value in facts.items() if value}, "certificate": list(end.certificates)}


def _uid(name: str) -> dict[str, str]:
    return {"type": "Endpoint", "id": name}


_OWN = (
    "forbid (principal, action, resource) when { context has jurisdictions && !(resource has country && "
    "context.jurisdictions.contains(resource.country)) };"
)


def _statements(policy: Policy) -> Iterator[tuple[str, str]]:
    allowed = []
    for rule in policy.rules:
        bound = f"{_possibly('context', rule.when)} && !({_surely('context', rule.unless) if rule.unless else 'false'})"
        if rule.require:
            condition = f"{bound} && !({_surely('resource', rule.require)})"
            yield f"{policy.name}/{rule.id}", f"forbid (principal, action, resource) when {{ {condition} }};"
        if rule.deny:
            condition = f"{bound} && {_possibly('resource', rule.deny)}"
            yield f"{policy.name}/{rule.id}", f"forbid (principal, action, resource) when {{ {condition} }};"
        if rule.allow:
            allowed.append(_allowing(rule))
    if policy.default == "deny":
        either = " || ".join(allowed) or "false"
        yield f"{policy.name}/default", f"forbid (principal, action, resource) unless {{ {either} }};"


def _allowing(rule: Rule) -> str:
    exempt = _possibly("context", rule.unless) if rule.unless else "false"
    return f"({_surely('context', rule.when)} && !({exempt}) && {_surely('resource', rule.allow)})"


def _surely(whose: str, asked: Asked) -> str:
    parts = [f'{whose} has "{fact}" && {_met(whose, fact, values)}' for fact, values in asked.items()]
    return f"({' && '.join(parts) or 'true'})"


def _possibly(whose: str, asked: Asked) -> str:
    parts = [f'(!({whose} has "{fact}") || {_met(whose, fact, values)})' for fact, values in asked.items()]
    return f"({' && '.join(parts) or 'true'})"


def _met(whose: str, fact: str, values: tuple[str, ...]) -> str:
    listed = json.dumps(list(values))
    attribute = f'{whose}["{fact}"]'
    return f"{attribute}.containsAny({listed})" if fact == "certificate" else f"{listed}.contains({attribute})"
