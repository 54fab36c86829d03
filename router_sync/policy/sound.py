"""What is wrong with a policy by itself, whatever fleet it is for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final, get_args

from router_sync.policy.rules import DEFAULT, EFFECTS, OWN, effects
from router_sync.reading import no_country
from streams.contract.records import Complexity, Market, Policy, Rule, Tier

Misfit = tuple[str, object, str]
"""(path, value, remedy)"""
_COUNTRIES: Final = frozenset({"country", "parent_country", "origin_country"})
_CHOICES: Final[Mapping[str, tuple[str, ...]]] = {
    "market": get_args(Market),
    "tier": get_args(Tier),
    "complexity": tuple(filter(None, get_args(Complexity))),
    "place": ("edge", "cloud"),
}


def unsound(policy: Policy) -> Iterator[Misfit]:
    """All that is wrong with `policy`, whatever fleet it is for; paths begin in the policy."""
    ids = [rule.id for rule in policy.rules]
    if policy.name == OWN:
        yield "name", policy.name, f"Take another: {OWN}/jurisdictions is what classes say themselves."
    if not ids:
        yield "rules", [], "List at least one rule."
    elif policy.default == "deny" and not any(rule.allow for rule in policy.rules):
        yield "default", "deny", "Nothing would be allowed: add a rule with `allow`, or take `default` away."
    for n, rule in enumerate(policy.rules):
        if rule.id == DEFAULT:
            yield f"rules[{n}].id", rule.id, f"Take another: {policy.name}/{DEFAULT} is the policy's default."
        if rule.id in ids[:n]:
            yield f"rules[{n}].id", rule.id, f"rules[{ids.index(rule.id)}] is called so already: ids are unique."
        for field, value, remedy in _unsound(rule, policy.default):
            yield f"rules[{n}].{field}" if field else f"rules[{n}]", value, remedy


def _unsound(rule: Rule, default: str) -> Iterator[Misfit]:
    has = effects(rule)
    if not has:
        yield "", rule.id, f"It does nothing: give it one of {', '.join(EFFECTS)}."
    if len(has) > 1:
        yield "", rule.id, f"It has the effects {' and '.join(has)}: make a rule of each."
    if rule.allow and default == "allow":
        yield "allow", rule.id, "It allows what is allowed anyway: set the policy's default to deny, or use `require`."
    if rule.prefer and not rule.worth_usd:
        yield "worth_usd", rule.worth_usd, "Say what it is worth that it is met, in dollars per request."
    if rule.worth_usd and not rule.prefer:
        yield "worth_usd", rule.worth_usd, "Only `prefer` has a worth: add it, or take this away."
    for field, fact, values in asked(rule):
        for value in values:
            if (remedy := no_value(fact, value)) is not None:
                yield f"{field}.{fact}", value, remedy


def no_value(fact: str, value: str) -> str | None:
    """What to write instead of `value`; None when a fact may have it."""
    if not value:
        return "What is empty is unknown, and meets nothing: name a value."
    if fact in _COUNTRIES:
        return no_country(value)
    choices = _CHOICES.get(fact, (value,))
    return None if value in choices else f"Choose one of {', '.join(choices)}."


def asked(rule: Rule) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """(field, fact, values) of all that a rule asks for."""
    for field in ("when", "unless", "require", "deny", "allow", "prefer"):
        for fact, values in getattr(rule, field).items():
            yield field, fact, values
