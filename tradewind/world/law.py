"""The law of a fleet, read a second time: the world counts breaches by it, and asks neither router nor gateway.

It is written from what the contract says of rules, one pair at a time, without compiling anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeVar

from streams.contract.records import Endpoint, Origin, Policy, RequestClass, Rule

Fact = TypeVar("Fact", bound=str)
Facts = Mapping[str, tuple[str, ...]]
"""What is the case of a request or a target, by the name of the fact; a target may have several certificates."""


def forbidden(
    policies: Iterable[Policy], service: str, origin: Origin, class_: RequestClass, end: Endpoint
) -> str | None:
    """Why requests of `class_` from `origin` must not be processed at `end`; None: they may."""
    if service not in end.services:
        return f"{end.name} does not serve {service}"
    if class_.jurisdictions and end.jurisdiction not in class_.jurisdictions:
        return f"{class_.name} may be processed in {', '.join(class_.jurisdictions)} only, not in {end.jurisdiction}"
    request, target = _of_request(service, origin, class_), _of_target(end)
    return next((why for policy in policies if (why := _denied(policy, request, target)) is not None), None)


def _denied(policy: Policy, request: Facts, target: Facts) -> str | None:
    """Why one policy denies the pair: a denial wins, then any rule that speaks for it, then the default."""
    spoken = False
    for rule in policy.rules:
        if not _concerns(rule, request):
            continue
        if rule.deny and _all(rule.deny, target):
            return f"{policy.name}/{rule.id} denies it"
        if rule.require and not _all(rule.require, target):
            return f"{policy.name}/{rule.id} requires other targets"
        spoken |= bool(rule.require) or bool(rule.allow and _all(rule.allow, target))
    return None if spoken or policy.default == "allow" else f"{policy.name} allows it by no rule"


def _concerns(rule: Rule, request: Facts) -> bool:
    return _all(rule.when, request) and not (rule.unless and _all(rule.unless, request))


def _all(asked: Mapping[Fact, tuple[str, ...]], facts: Facts) -> bool:
    """Whether each fact that is asked for has one of the values listed for it."""
    return all(not set(values).isdisjoint(facts[fact]) for fact, values in asked.items())


def _of_request(service: str, origin: Origin, class_: RequestClass) -> Facts:
    return {
        "service": (service,), "class": (class_.name,), "tenant": (class_.tenant,), "data_class": (class_.data_class,),
        "purpose": (class_.purpose,), "tier": (class_.tier,), "complexity": (class_.complexity,),
        "origin": (origin.name,), "origin_country": (origin.jurisdiction,),
    }  # fmt: skip


def _of_target(end: Endpoint) -> Facts:
    return {
        "endpoint": (end.name,), "country": (end.jurisdiction,), "region": (end.region,), "zone": (end.zone,),
        "provider": (end.provider,), "parent": (end.parent,), "parent_country": (end.parent_country,),
        "certificate": end.certificates, "market": (end.market,), "place": ("edge" if end.edge else "cloud",),
        "instance": (end.instance,),
    }  # fmt: skip
