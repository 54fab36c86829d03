"""Policies as files: what is read, and that all that is wrong is said at once, with file and line."""

from __future__ import annotations

from pathlib import Path

import pytest

from router_sync.fleet import BadFleet, Reading, load, parse, read, read_file, tree_of
from router_sync.policy.file import load as load_policy
from router_sync.policy.file import shipped
from tests.unit.test_router_fleet import SMALL

OURS = """\
name: ours
lists:
  north: [NO, SE]
  home: [$north, DE]
rules:
  - id: stays-home
    when: {data_class: [personal]}
    unless: {tenant: acme}
    require: {country: $home}
    reason: contract
    source: "4.2"
  - id: quick
    limit_p95_ms: 200
"""


def problems(text: str, folder: Path, **files: str) -> list[tuple[str, str, str]]:
    """(file:line, field, remedy) of each problem of the small fleet with `policies:` as in `text`."""
    return [(p.where.rpartition("/")[2], p.field, p.remedy) for p in reading(text, folder, **files).problems]


def reading(text: str, folder: Path, **files: str) -> Reading:
    for name, content in files.items():
        (folder / f"{name}.yaml").write_text(content)
    name = str(folder / "tradewind.yaml")
    return read(tree_of(SMALL + text, name), name)


def test_a_policy_is_named_given_by_its_path_or_written_in_place(tmp_path: Path) -> None:
    text = "policies:\n  - gdpr\n  - ./ours.yaml\n  - name: here\n    rules: [{id: a, deny: {market: [spot]}}]\n"
    said = reading(text, tmp_path, ours=OURS)
    assert said.fleet is not None, said.problems
    assert [policy.name for policy in said.fleet.policies] == ["gdpr", "ours", "here"]
    assert [path.name for path in said.files] == ["gdpr.yaml", "ours.yaml"]


def test_lists_of_the_same_file_are_expanded_and_one_text_is_a_list_of_one(tmp_path: Path) -> None:
    (tmp_path / "ours.yaml").write_text(OURS)
    policy = load_policy("./ours.yaml", tmp_path)
    first = policy.rules[0]
    assert first.require == {"country": ("NO", "SE", "DE")}
    assert first.unless == {"tenant": ("acme",)}
    assert (first.reason, first.source, policy.rules[1].limit_p95_ms) == ("contract", "4.2", 200)


def test_a_policy_is_called_like_its_file_unless_it_says_otherwise(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("rules: [{id: a, deny: {country: [US]}}]\n")
    assert load_policy("mine.yaml", tmp_path).name == "mine"


def test_norway_stays_a_country_in_rules_too(tmp_path: Path) -> None:
    (tmp_path / "n.yaml").write_text("rules: [{id: a, require: {country: [NO, IS]}}]\n")
    assert load_policy("n.yaml", tmp_path).rules[0].require["country"] == ("NO", "IS")


WRONG = {
    "an unknown fact": ("when: {data_clas: [x]}, deny: {country: [US]}", "rules[0].when.data_clas", "data_class"),
    "a fact of the other side": ("require: {tenant: [acme]}", "rules[0].require.tenant", "Known are endpoint, country"),
    "an unknown field": ("denies: {country: [US]}", "rules[0].denies", "Did you mean deny?"),
    "a country that is none": ("deny: {country: [UK]}", "rules[0].deny.country", "GB"),
    "another country that is none": ("when: {origin_country: [EU]}, deny: {zone: [a]}", "rules[0].when.origin_country",
                                     "Name each country"),
    "a market that is none": ("deny: {market: [on-demand]}", "rules[0].deny.market", "on_demand, spot"),
    "a boolean": ("deny: {parent: [true]}", "rules[0].deny.parent", "in quotes"),
    "a number": ("deny: {zone: [1]}", "rules[0].deny.zone", "in quotes"),
    "nothing in a list": ("deny: {zone: []}", "rules[0].deny.zone", "length >= 1"),
    "an empty text": ("deny: {zone: ['']}", "rules[0].deny.zone", "none that is empty"),
    "an effect that asks nothing": ("deny: {}", "rules[0].deny", "mapping of facts"),
    "no effect": ("when: {tier: [premium]}", "rules[0]", "give it one of require, deny"),
    "two effects": ("deny: {zone: [a]}, require: {zone: [b]}", "rules[0]", "make a rule of each"),
    "a preference that is worth nothing": ("prefer: {place: [edge]}", "rules[0].worth_usd", "dollars per request"),
    "a worth of nothing preferred": ("deny: {zone: [a]}, worth_usd: 1", "rules[0].worth_usd", "Only `prefer`"),
    "to allow what is allowed": ("allow: {zone: [a]}", "rules[0].allow", "default to deny"),
    "a list that is not declared": ("deny: {zone: [$zones]}", "rules[0].deny.zone", "`lists` of this policy"),
    "a limit of nothing": ("limit_p95_ms: 0", "rules[0].limit_p95_ms", "> 0"),
    "a weight of nothing known": ("weigh: {speed: 2}", "rules[0].weigh", "price, egress, carbon"),
}  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG)
def test_one_wrong_thing_is_told_with_file_line_field_and_remedy(wrong: str, tmp_path: Path) -> None:
    rule, field, remedy = WRONG[wrong]
    said = problems("policies: [./p.yaml]\n", tmp_path, p=f"# a comment\nrules:\n  - {{id: a, {rule}}}\n")
    assert len(said) == 1, said
    assert said[0][0] == "p.yaml:3"
    assert said[0][1] == f"policies[0].{field}"
    assert remedy in said[0][2]


@pytest.mark.parametrize(
    ("entry", "remedy"),
    [
        ("gpdr", "Shipped are"),
        ("./not-here.yaml", "There is no"),
        ("7", "a path like ./ours.yaml"),
        ("{rules: [{id: a, deny: {zone: [a]}}]}", "a name"),
        ("{name: a, rules: []}", "at least one rule"),
        ("{name: a, default: no, rules: [{id: a, deny: {zone: [a]}}]}", "default"),
        ("{name: a, default: deny, rules: [{id: a, deny: {zone: [a]}}]}", "Nothing would be allowed"),
        ("{name: a, rules: [{id: a, deny: {zone: [a]}}, {id: a, deny: {zone: [b]}}]}", "ids are unique"),
        ("{name: a, lists: [b], rules: [{id: a, deny: {zone: [a]}}]}", "mapping of names"),
        ("{name: class, rules: [{id: a, deny: {zone: [a]}}]}", "what classes say themselves"),
        ("{name: a, rules: [{id: default, deny: {zone: [a]}}]}", "the policy's default"),
        ("{name: a, rules: [3]}", "mapping with an id"),
        ("{name: a, rules: [{deny: {zone: [a]}}]}", "decisions refer to"),
    ],
)
def test_an_entry_that_is_no_policy_is_told_at_its_line(entry: str, remedy: str, tmp_path: Path) -> None:
    (told,) = [
        said for said in problems(f"policies:\n  - {entry}\n", tmp_path) if remedy in said[2] or remedy in said[1]
    ]
    assert told[0] == "tradewind.yaml:19"


def test_no_list_of_policies_and_a_file_that_is_no_yaml_are_told(tmp_path: Path) -> None:
    assert problems("policies: gdpr\n", tmp_path)[0][:2] == ("tradewind.yaml:18", "policies")
    assert problems("policies: [./p.yaml]\n", tmp_path, p="rules: [\n")[0][:2] == ("p.yaml:2", "YAML")


def test_a_class_to_which_rules_leave_nothing_is_told_at_the_rule(tmp_path: Path) -> None:
    strict = "rules:\n  - id: a\n    require: {certificate: [hds], parent_country: [NO]}\n"
    (told,) = problems("policies: [./p.yaml]\n", tmp_path, p=strict)
    assert told[:2] == ("p.yaml:2", "policies[0].rules[0]")
    assert "oslo-a: p/a" in told[2]


def test_a_class_that_is_closed_on_purpose_is_a_warning(tmp_path: Path) -> None:
    said = reading("policies: [./p.yaml]\n", tmp_path, p="rules:\n  - id: a\n    deny: {country: [NO]}\n")
    assert said.fleet is not None
    assert [(c.where.rpartition("/")[2], c.field) for c in said.cautions] == [
        ("p.yaml:2", "policies[0].rules[0]"),
        ("tradewind.yaml:9", "endpoints[0].name"),
    ]
    assert "451" in said.cautions[0].remedy


def test_what_one_rule_closes_on_purpose_excuses_no_other(tmp_path: Path) -> None:
    text = SMALL.replace(
        "rtt_ms: {oslo: 5}}", "rtt_ms: {oslo: 5}}\n  - {name: south, jurisdiction: IT, rtt_ms: {oslo: 40}}"
    )
    rules = """\
rules:
  - {id: shut, when: {origin: [north]}, deny: {country: [NO]}}
  - {id: hds, when: {origin: [south]}, require: {certificate: [hds]}}
"""
    (tmp_path / "p.yaml").write_text(rules)
    with pytest.raises(BadFleet) as caught:
        parse(f"{text}policies: [./p.yaml]\n", str(tmp_path / "tradewind.yaml"))
    assert [(p.field, p.value) for p in caught.value.problems] == [
        ("policies[0].rules[1]", "chat/interactive from south")
    ]


def test_closed_by_what_is_not_declared_is_nobodys_purpose(tmp_path: Path) -> None:
    said = problems("policies: [./p.yaml]\n", tmp_path, p="rules:\n  - id: a\n    deny: {parent_country: [US]}\n")
    assert [where for where, _, _ in said] == ["p.yaml:2"]


CAUTIONS = {
    "a rule for no request": ("when: {tier: [sheddable]}, deny: {market: [spot]}", "when", "for no request"),
    "a rule that denies nothing": ("deny: {market: [spot]}", "deny", "it denies nothing"),
    "a name that is not there": ("when: {service: [chart]}, limit_p95_ms: 9", "when.service", "Not in this fleet"),
    "a name in other letters": ("when: {data_class: [Public]}, limit_p95_ms: 9", "when.data_class", "calls it public"),
    "a fact no class declares": (
        "when: {tenant: [acme]}, deny: {country: [US]}",
        "when.tenant",
        "Not declared of chat/",
    ),
    "a fact no endpoint declares": ("when: {tier: [premium]}, deny: {parent: [x]}", "when", "for no request"),
}


@pytest.mark.parametrize("likely", CAUTIONS)
def test_what_is_likely_not_meant_is_a_warning_with_its_line(likely: str, tmp_path: Path) -> None:
    rule, field, remedy = CAUTIONS[likely]
    said = reading("policies: [./p.yaml]\n", tmp_path, p=f"rules:\n  - {{id: a, {rule}}}\n")
    assert said.fleet is not None, said.problems
    (told,) = [caution for caution in said.cautions if remedy in caution.remedy]
    assert told.where.endswith("p.yaml:2")
    assert told.field == f"policies[0].rules[0].{field}"


def test_a_class_that_does_not_say_what_its_data_is_is_a_warning_where_rules_ask(tmp_path: Path) -> None:
    said = reading("policies: [gdpr]\n", tmp_path)
    assert [c.field for c in said.cautions if "say it" in c.remedy] == ["services[0].classes[0].data_class"]
    assert not reading("policies: [chat-under-200ms]\n", tmp_path).cautions


def test_warnings_come_with_the_fleet_and_stop_nothing(tmp_path: Path) -> None:
    (tmp_path / "t.yaml").write_text(SMALL + "policies: [gdpr]\n")
    fleet, cautions = read_file(tmp_path / "t.yaml")
    assert fleet == load(tmp_path / "t.yaml")
    assert cautions


def test_every_shipped_policy_can_be_named(tmp_path: Path) -> None:
    assert {"gdpr", "uk", "ccpa", "pci-on-prem", "batch-cheapest", "chat-under-200ms", "edge-first"} <= set(shipped())
    for name in shipped():
        for rule in load_policy(name).rules:
            assert rule.reason, f"{name}/{rule.id}"
            assert rule.source or not (rule.require or rule.deny or rule.allow), f"{name}/{rule.id}"


# ---------------------------------------------------------------- budgets


def test_budgets_are_read_with_their_scope() -> None:
    of = parse(SMALL + "budgets:\n  - {name: day, unit: usd, per_day: 50, service: chat, class: interactive}\n")
    assert (of.budgets[0].name, of.budgets[0].class_, of.budgets[0].per_day) == ("day", "interactive", 50)


@pytest.mark.parametrize(
    ("budget", "field"),
    [
        ("{name: a, unit: eur, per_day: 1}", "budgets[0].unit"),
        ("{name: a, unit: usd, per_day: 0}", "budgets[0].per_day"),
        ("{name: a, unit: usd}", "budgets[0].per_day"),
        ("{name: a, unit: usd, per_day: 1, service: chart}", "budgets[0].service"),
        ("{name: a, unit: usd, per_day: 1, class: batch}", "budgets[0].class"),
        ("{name: a, unit: usd, per_day: 1}\n  - {name: a, unit: usd, per_day: 1}", "budgets[1].name"),
    ],
)
def test_a_budget_that_cannot_be_kept_is_told(budget: str, field: str) -> None:
    with pytest.raises(BadFleet) as caught:
        parse(f"{SMALL}budgets:\n  - {budget}\n")
    assert [problem.field for problem in caught.value.problems] == [field]
