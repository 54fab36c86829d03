"""Laws of law, for any fleet and any policies hypothesis finds."""

from __future__ import annotations

import random

import msgspec
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from bench import policy as bench
from bench.cedar import Cedar, of_request
from router_sync.client.law import TableLaw
from router_sync.policy.facts import of_target, requests_of
from router_sync.policy.law import law_of
from router_sync.policy.preference import preferences
from router_sync.policy.rules import Judge
from streams.contract.records import Fleet, Policy, Rule

Seed = st.integers(0, 2**32)


def fleet(seed: int) -> Fleet:
    """A fleet, facts that nobody has declared among its own, with one to three policies."""
    rng = random.Random(seed)
    return bench.fleet(rng, rng.randint(1, 3), rng.randint(1, 4), rng.randint(1, 6), bench.policies(rng))


def rule(*effects: str) -> st.SearchStrategy[Rule]:
    made = st.tuples(Seed, st.sampled_from(effects))
    return made.map(lambda said: bench.rule(random.Random(said[0]), "another", said[1]))


fleets = st.builds(fleet, Seed)


def under(of: Fleet, *laws: Policy) -> Fleet:
    return msgspec.structs.replace(of, policies=laws)


@settings(max_examples=60, deadline=None)
@given(fleets)
def test_the_mask_the_rules_one_by_one_a_table_and_cedar_say_the_same(of: Fleet) -> None:
    law, judge = law_of(of), Judge(of.policies)
    origins = {origin.name: origin for origin in of.origins}
    classes = {(service.name, kind.name): kind for service in of.services for kind in service.classes}
    shown = bench.table(of)
    routes = {(route.origin, route.class_): route for route in shown.routes}
    cedar = Cedar(of.policies, of.endpoints)
    for key, request in zip(law.rows, requests_of(of), strict=True):
        kind = classes[key[0], key[2]]
        brief = judge.brief(request, kind.jurisdictions)
        one_by_one = [end.name for end in of.endpoints if brief.allows(of_target(end))]
        assert sorted(law.allowed(key)) == sorted(one_by_one)
        theirs = cedar.denied_by([(of_request(key[0], origins[key[1]], kind), end.name) for end in of.endpoints])
        for end, refs in zip(of.endpoints, theirs, strict=True):
            assert {denial.ref for denial in law.denials(key, end.name)} == refs
            assert (law.why_not(key, end.name) is None) == (not refs)
        if key[0] == shown.service:
            forbidden = TableLaw(shown).forbidden(routes[key[1], key[2]])
            assert {end.name for end in of.endpoints} - forbidden == set(one_by_one)


@settings(max_examples=60, deadline=None)
@given(fleets, rule("deny", "require"), st.integers(0, 2))
def test_another_rule_that_restricts_never_allows_more(of: Fleet, more: Rule, at: int) -> None:
    chosen = of.policies[at % len(of.policies)]
    stricter = msgspec.structs.replace(chosen, rules=(more, *chosen.rules))
    after = under(of, *(stricter if policy is chosen else policy for policy in of.policies))
    assert not (law_of(after).may & ~law_of(of).may).any()


@settings(max_examples=60, deadline=None)
@given(fleets, rule("allow"))
def test_deny_wins_over_any_rule_that_allows(of: Fleet, more: Rule) -> None:
    denied = {pair for pair, restricted in _restricted(of).items() if restricted}
    wider = under(of, *(msgspec.structs.replace(policy, rules=(more, *policy.rules)) for policy in of.policies))
    law = law_of(wider)
    assert not any(law.allows(key, name) for key, name in denied)


def _restricted(of: Fleet) -> dict[tuple[tuple[str, str, str], str], bool]:
    """Pairs that a rule denies, whatever the defaults are."""
    law = law_of(of)
    return {
        (key, end.name): any(not denial.ref.endswith("/default") for denial in law.denials(key, end.name))
        for key in law.rows
        for end in of.endpoints
    }


@settings(max_examples=60, deadline=None)
@given(fleets, st.randoms(use_true_random=False))
def test_the_order_of_rules_and_of_policies_does_not_matter(of: Fleet, chance: random.Random) -> None:
    shuffled = [
        msgspec.structs.replace(policy, rules=tuple(chance.sample(policy.rules, len(policy.rules))))
        for policy in of.policies
    ]
    chance.shuffle(shuffled)
    assert np.array_equal(law_of(of).may, law_of(under(of, *shuffled)).may)


@settings(max_examples=60, deadline=None)
@given(fleets, st.sampled_from(("tenant", "purpose", "complexity")), st.sampled_from(("parent", "parent_country")))
def test_what_is_not_declared_never_allows_more(of: Fleet, fact: str, of_target_: str) -> None:
    silent = msgspec.structs.replace(
        of,
        services=tuple(
            msgspec.structs.replace(
                service, classes=tuple(msgspec.structs.replace(kind, **{fact: ""}) for kind in service.classes)
            )
            for service in of.services
        ),
        endpoints=tuple(msgspec.structs.replace(end, **{of_target_: ""}) for end in of.endpoints),
    )
    assert not (law_of(silent).may & ~law_of(of).may).any()


@settings(max_examples=30, deadline=None)
@given(fleets)
def test_wishes_forbid_nothing_and_law_wishes_for_nothing(of: Fleet) -> None:
    wishes = Policy(
        name="w", rules=(Rule(id="a", limit_p95_ms=1), Rule(id="b", prefer={"place": ("edge",)}, worth_usd=9))
    )
    assert np.array_equal(law_of(of).may, law_of(under(of, *of.policies, wishes)).may)
    found = preferences(of)
    assert np.isinf(found.limit_ms).all()
    assert not found.prefer_usd.any()
