"""A judge of his own: may a request of this class and origin be processed at this endpoint, by the fleet file's words?

He shares no line with the router's compiler of law nor with the gateway's check: he is there to catch them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from streams.contract.records import Endpoint, Fleet, Origin, Policy, RequestClass, Rule

Facts = Mapping[str, tuple[str, ...]]


def why_not(fleet: Fleet, service: str, class_: RequestClass, origin: Origin, endpoint: Endpoint) -> str | None:
    """Why the law forbids it; None: it does not."""
    if class_.jurisdictions and endpoint.jurisdiction not in class_.jurisdictions:
        return f"not in {endpoint.jurisdiction}"
    asked, target = _asked(service, class_, origin), _target(endpoint)
    return next((why for policy in fleet.policies if (why := _by(policy, asked, target)) is not None), None)


def _by(policy: Policy, asked: Facts, target: Facts) -> str | None:
    spoken = policy.default == "allow"
    for rule in policy.rules:
        if not _all(rule.when, asked) or (rule.unless and _all(rule.unless, asked)):
            continue
        if (rule.require and not _all(rule.require, target)) or (rule.deny and _all(rule.deny, target)):
            return _named(policy, rule)
        spoken = spoken or bool(rule.require) or bool(rule.allow and _all(rule.allow, target))
    return None if spoken else f"{policy.name}: no rule allows it"


def _named(policy: Policy, rule: Rule) -> str:
    return f"{policy.name}/{rule.id}"


def _all(wanted: Mapping[Any, Sequence[str]], facts: Facts) -> bool:
    return all(set(values) & set(facts[fact]) for fact, values in wanted.items())


def _asked(service: str, class_: RequestClass, origin: Origin) -> Facts:
    return {
        "service": (service,),
        "class": (class_.name,),
        "tenant": (class_.tenant,),
        "data_class": (class_.data_class,),
        "purpose": (class_.purpose,),
        "tier": (class_.tier,),
        "complexity": (class_.complexity,),
        "origin": (origin.name,),
        "origin_country": (origin.jurisdiction,),
    }


def _target(endpoint: Endpoint) -> Facts:
    return {
        "endpoint": (endpoint.name,),
        "country": (endpoint.jurisdiction,),
        "region": (endpoint.region,),
        "zone": (endpoint.zone,),
        "provider": (endpoint.provider,),
        "parent": (endpoint.parent,),
        "parent_country": (endpoint.parent_country,),
        "certificate": endpoint.certificates,
        "market": (endpoint.market,),
        "place": ("edge" if endpoint.edge else "cloud",),
        "instance": (endpoint.instance,),
    }
