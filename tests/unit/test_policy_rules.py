"""Rules on one pair: what is met, what is unknown, who wins, and why a pair is denied."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from router_sync.policy.facts import Facts, of_route, of_target
from router_sync.policy.rules import Judge, only_law, statutes, words
from streams.contract.records import Policy, Route, Rule
from tests.unit.router_fleet import endpoint

ACME = {"tenant": ("acme",)}
SOMEBODY: Facts = {}
HERE, THERE, NOWHERE = ({"country": ("DE",)}, {"country": ("US",)}, dict[str, tuple[str, ...]]())


def rule(id_: str = "r", **said: Any) -> Rule:
    return Rule(id=id_, **said)


def allows(*rules: Rule, default: Any = "allow", request: Facts = SOMEBODY, target: Facts = HERE) -> bool:
    return Judge([Policy(name="p", default=default, rules=rules)]).brief(request).allows(target)


@pytest.mark.parametrize(
    ("when", "unless", "request_", "restricts", "permits"),
    [
        ({}, {}, SOMEBODY, True, True),
        (ACME, {}, {"tenant": ("acme",)}, True, True),
        (ACME, {}, {"tenant": ("globex",)}, False, False),
        (ACME, {}, SOMEBODY, True, False),
        ({}, ACME, {"tenant": ("acme",)}, False, False),
        ({}, ACME, {"tenant": ("globex",)}, True, True),
        ({}, ACME, SOMEBODY, True, False),
        (ACME, {"purpose": ("ads",)}, {"tenant": ("acme",)}, True, False),
        (ACME, {"purpose": ("ads",)}, {"tenant": ("acme",), "purpose": ("ads",)}, False, False),
        (ACME, {"purpose": ("ads",)}, {"tenant": ("acme",), "purpose": ("support",)}, True, True),
        ({**ACME, "purpose": ("ads",)}, {}, {"purpose": ("ads",)}, True, False),
        ({**ACME, "purpose": ("ads",)}, {}, {"purpose": ("support",)}, False, False),
    ],
)
def test_a_rule_that_restricts_is_for_whom_it_might_be_and_one_that_permits_for_whom_it_surely_is(
    when: Any, unless: Any, request_: Facts, restricts: bool, permits: bool
) -> None:
    asked: Any = {"when": when, "unless": unless}
    assert allows(rule(**asked, deny={"country": ("DE",)}), request=request_) is not restricts
    assert allows(rule(**asked, require={"country": ("US",)}), request=request_) is not restricts
    assert allows(rule(**asked, allow={"country": ("DE",)}), default="deny", request=request_) is permits


@pytest.mark.parametrize(
    ("target", "require", "deny", "allow"),
    [(HERE, True, False, True), (THERE, False, True, False), (NOWHERE, False, False, False)],
)
def test_what_is_not_declared_of_a_target_neither_satisfies_nor_escapes(
    target: Facts, require: bool, deny: bool, allow: bool
) -> None:
    germany: Any = {"country": ("DE",)}
    assert allows(rule(require=germany), target=target) is require
    assert allows(rule(deny=germany), target=target) is deny
    assert allows(rule(allow=germany), target=target, default="deny") is allow


def test_of_several_facts_a_rule_denies_those_with_all_and_requires_all() -> None:
    spot_abroad: Any = {"country": ("US",), "market": ("spot",)}
    assert not allows(rule(deny=spot_abroad), target={"country": ("US",), "market": ("spot",)})
    assert allows(rule(deny=spot_abroad), target={"country": ("US",), "market": ("owned",)})
    assert not allows(rule(deny=spot_abroad), target={"market": ("spot",)}), "its country may be US"
    assert allows(rule(deny=spot_abroad), target={"market": ("owned",)})
    assert not allows(rule(require=spot_abroad), target={"country": ("US",)})


def test_a_certificate_that_is_not_listed_is_not_there_and_one_of_several_is_enough() -> None:
    wanted: Any = {"certificate": ("hds", "pci-dss")}
    for target, has in ((NOWHERE, False), ({"certificate": ("iso-27001", "hds")}, True), ({"certificate": ()}, False)):
        assert allows(rule(require=wanted), target=target) is has
        assert allows(rule(deny=wanted), target=target) is not has


def test_deny_wins_over_allow_and_every_policy_has_to_permit() -> None:
    open_, shut = rule("open", allow={"country": ("DE",)}), rule("shut", deny={"country": ("DE",)})
    assert not allows(open_, shut, default="deny")
    assert not allows(shut, open_, default="deny")
    one = Policy(name="one", default="deny", rules=(open_,))
    two = Policy(name="two", default="deny", rules=(rule("away", allow={"country": ("US",)}),))
    assert Judge([one]).brief(SOMEBODY).allows(HERE)
    assert [d.ref for d in Judge([one, two]).brief(SOMEBODY).denials(HERE)] == ["two/default"]


def test_a_class_that_names_jurisdictions_is_bound_by_them_too() -> None:
    brief = Judge([]).brief(SOMEBODY, ("DE", "FR"))
    assert brief.allows(HERE)
    assert not brief.allows(NOWHERE)
    assert words(brief.denials(THERE)) == "class/jurisdictions requires country in DE, FR, not US"


def test_a_rule_with_two_effects_that_a_program_made_has_both() -> None:
    both = rule(require={"country": ("DE",)}, deny={"market": ("spot",)})
    assert not allows(both, target={"country": ("US",), "market": ("owned",)})
    assert not allows(both, target={"country": ("DE",), "market": ("spot",)})
    assert allows(both, target={"country": ("DE",), "market": ("owned",)})
    assert not statutes(Policy(name="p", rules=(rule(),)))


def test_reasons_name_every_rule_with_what_it_asks_and_its_source() -> None:
    rules = (
        rule("home", require={"country": ("DE",), "parent_country": ("DE",)}, reason="contract", source="4.2"),
        rule("spot", when=ACME, deny={"market": ("spot",), "parent": ("x",)}),
        rule("hds", require={"certificate": ("hds",)}),
    )
    judge = Judge([Policy(name="p", rules=rules)])
    denials = judge.brief(SOMEBODY).denials({"country": ("US",), "market": ("spot",)})
    assert [str(denial) for denial in denials] == [
        "p/home requires country in DE, not US and parent_country in DE, which is not declared: contract (4.2)",
        "p/spot denies market spot and parent that is not declared (tenant of the request is not declared: it may be "
        "for it)",
        "p/hds requires certificate in hds, of which it has none",
    ]
    assert denials[0].cites() == "p/home: contract (4.2)"
    assert "and p/r6, p/r7" in words(
        Judge([Policy(name="p", rules=tuple(rule(f"r{n}", deny={"country": ("US",)}) for n in range(8)))])
        .brief(SOMEBODY)
        .denials(THERE)
    )


def test_what_tables_carry_is_law_alone() -> None:
    wish, law = rule("w", limit_p95_ms=200), rule("l", deny={"market": ("spot",)})
    made = only_law([Policy(name="a", rules=(wish,)), Policy(name="b", rules=(wish, law))])
    assert [(policy.name, [one.id for one in policy.rules]) for policy in made] == [("b", ["l"])]


def test_facts_that_nobody_has_declared_are_left_out() -> None:
    route = Route(origin="eu", class_="chat", slo_p95_ms=1, endpoints=(), shares=())
    assert set(of_route("m", route)) == {"service", "class", "origin", "tier", "data_class"}
    assert set(of_route("m", msgspec.structs.replace(route, tenant="a", origin_country="DE"))) >= {
        "tenant",
        "origin_country",
    }
    bare = of_target(endpoint("a"))
    assert not {"parent", "parent_country", "instance"} & set(bare)
    assert (bare["place"], bare["certificate"]) == (("cloud",), ())
    more = of_target(endpoint("a", edge=True, instance="h100", parent="x", parent_country="US", certificates=("hds",)))
    assert (more["place"], more["instance"], more["certificate"]) == (("edge",), ("h100",), ("hds",))
