"""Cases: what a policy is meant to say, written by whoever reviews it, and tried.

    cases:                                     # in the policy's own file; or in one with `policies:` or `fleet:`
      - name: personal data from Germany does not go to the United States
        request: {data_class: personal, origin_country: DE}
        target: {country: US}
        expect: deny
        by: [transfers]                        # exactly these rules; left out: whichever

Facts that a case leaves out are unknown, but for `place`, which is cloud. With `fleet: ./tradewind.yaml` they are those
of the class, origin and endpoint that it names. Of wishes a case expects `limit_p95_ms`, `weigh` or `extra_usd`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Final, Literal, NamedTuple, get_args

import msgspec
from msgspec import UNSET, Meta, UnsetType
from ruamel.yaml.comments import CommentedMap, CommentedSeq

from router_sync.policy import file
from router_sync.policy.facts import CERTIFICATE, Facts, flows_of, of_target, requests_of
from router_sync.policy.law import policies_of
from router_sync.policy.preference import wishes_of
from router_sync.policy.rules import Denial, Judge, Statute, words
from router_sync.reading import BadFleet, Reader, plain, text_of, tree_of
from streams.contract.records import Fleet, Label, Part, Policy, RequestFact, Text

BEGIN: Final = "cases, and policies or fleet that they are of"
_ONE: Final = frozenset(get_args(RequestFact))
_Usd = Annotated[float, Meta(ge=0)]


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is expected."""

    name: Text
    request: dict[RequestFact, Label]
    target: dict[str, Label | tuple[Label, ...]] | None = None
    expect: Literal["allow", "deny"] | None = None
    by: tuple[Label, ...] | None = None
    limit_p95_ms: _Usd | UnsetType | None = UNSET
    """None: no rule asks for one."""
    weigh: dict[Part, _Usd] = {}
    extra_usd: _Usd | None = None
    """That the target costs more because rules would prefer another."""


class Outcome(NamedTuple):
    """How a case came out; `said` is empty when it is as expected."""

    name: str
    where: str
    """FILE:LINE"""
    said: str


class Told(NamedTuple):
    """A case with its place."""

    case: Case
    where: str


class Docket(NamedTuple):
    """Cases and what they are tried by."""

    policies: tuple[Policy, ...]
    cases: tuple[Told, ...]
    fleet: Fleet | None = None


def load(path: Path) -> Docket:
    """The cases in the file `path`. Raises BadFleet with all that is wrong with it."""
    reader = Reader(str(path))
    tree = tree_of(text_of(path), reader.name, BEGIN)
    if "rules" in tree:
        policy = file.policy_in(tree, reader, name=path.stem)
        policies: tuple[Policy, ...] = (policy,) if policy else ()
        fleet = None
    else:
        reader.known(tree, "", ("policies", "fleet", "cases"))
        policies, fleet = file.section(tree, reader), _fleet(tree, reader)
        if not reader.problems and bool(policies) == (fleet is not None):
            reader.wrong("policies", None, "Name the policies, or the `fleet` whose they are: one of the two.")
    cases = tuple(_cases(tree, reader))
    if reader.problems:
        raise BadFleet(reader.name, reader.problems)
    return Docket(policies_of(fleet) if fleet else policies, cases, fleet)


def _fleet(tree: CommentedMap, reader: Reader) -> Fleet | None:
    from router_sync.fleet import load as load_fleet

    if "fleet" not in tree:
        return None
    if not isinstance(tree["fleet"], str):
        reader.wrong("fleet", plain(tree["fleet"]), "Name a file, like ./tradewind.yaml.")
        return None
    try:
        return load_fleet(Path(reader.name).parent / tree["fleet"])
    except BadFleet as bad:
        reader.problems.extend(bad.problems)
        return None


def _cases(tree: CommentedMap, reader: Reader) -> Iterator[Told]:
    given = tree.get("cases")
    if not isinstance(given, CommentedSeq) or not given:
        reader.wrong("cases", plain(given), "List at least one case, each with name, request and what is expected.")
        return
    for n, item in enumerate(given):
        case = reader.item(item, f"cases[{n}]", Case, given.lc.data[n][0] + 1)
        if case is not None and not reader.problems:
            _check(case, f"cases[{n}]", reader)
            yield Told(case, reader.place(f"cases[{n}]"))


def _check(case: Case, at: str, reader: Reader) -> None:
    wished = case.limit_p95_ms is not UNSET or case.weigh or case.extra_usd is not None
    if case.expect is None and not wished:
        reader.wrong(f"{at}.expect", None, "Say what is expected: allow or deny, or a wish: limit_p95_ms, weigh, ...")
    if case.target is None and (case.expect is not None or case.extra_usd is not None):
        reader.wrong(f"{at}.target", None, "Add it: facts of the endpoint, like {country: US}.")
    if case.by is not None and case.expect != "deny":
        reader.wrong(f"{at}.by", list(case.by), "Only what is denied is denied by rules: expect deny.")
    for fact, values in (case.target or {}).items():
        if fact not in file.TARGET_FACTS:
            reader.wrong(f"{at}.target.{fact}", plain(values), f"Known are {', '.join(file.TARGET_FACTS)}.")
        elif not isinstance(values, str) and fact != CERTIFICATE:
            reader.wrong(f"{at}.target.{fact}", list(values), "Write one text: only certificates are a list.")


# ---------------------------------------------------------------- tried


def tried(docket: Docket) -> Iterator[Outcome]:
    """How each case comes out."""
    judge = Judge(docket.policies)
    for case, where in docket.cases:
        try:
            request = _request(case, docket.fleet)
            target = _target(case, docket.fleet)
        except LookupError as error:
            yield Outcome(case.name, where, str(error.args[0]))
            continue
        of_law = _of_law(case, judge.brief(request).denials(target))
        yield Outcome(case.name, where, "; ".join([*of_law, *_of_wishes(case, docket.policies, request, target)]))


def _of_law(case: Case, denials: tuple[Denial, ...]) -> Iterator[str]:
    if case.expect == "allow" and denials:
        yield f"expected to be allowed, and denied: {words(denials)}"
    elif case.expect == "deny" and not denials:
        yield f"expected to be denied{f' by {_list(case.by)}' if case.by else ''}, and allowed"
    elif case.expect == "deny" and case.by is not None:
        refs = {denial.ref for denial in denials}
        wanted = {_ref(rule, denials) for rule in case.by}
        if refs != wanted:
            yield f"expected to be denied by {_list(case.by)}, and denied by {_list(sorted(refs))}"


def _ref(rule: str, denials: tuple[Denial, ...]) -> str:
    """policy/rule of a rule that may be said without its policy."""
    return next((denial.ref for denial in denials if rule in (denial.ref, denial.ref.partition("/")[2])), rule)


def _list(names: tuple[str, ...] | list[str] | None) -> str:
    return ", ".join(names or ()) or "nothing"


def _of_wishes(case: Case, policies: tuple[Policy, ...], request: Facts, target: Facts) -> Iterator[str]:
    rules = wishes_of(policies, request)
    if case.limit_p95_ms is not UNSET:
        limit = min((rule.rule.limit_p95_ms for rule in rules if rule.rule.limit_p95_ms), default=None)
        if limit != case.limit_p95_ms:
            yield f"expected limit_p95_ms {_number(case.limit_p95_ms)}, and it is {_number(limit)}"
    for part, factor in case.weigh.items():
        found = math.prod(rule.rule.weigh.get(part, 1.0) for rule in rules)
        if not math.isclose(found, factor):
            yield f"expected {part} to weigh {factor:g}, and it weighs {found:g}"
    if case.extra_usd is not None:
        found = extra_usd(rules, target)
        if not math.isclose(found, case.extra_usd, abs_tol=1e-12):
            yield f"expected extra_usd {case.extra_usd:g}, and it is {found:g}"


def extra_usd(rules: tuple[Statute, ...], target: Facts) -> float:
    """What `target` costs more per request because these rules of preference would have another."""
    return sum(rule.rule.worth_usd for rule in rules if rule.effect == "prefer" and not rule.meets(target))


def _number(value: float | UnsetType | None) -> str:
    return "none" if value is None else f"{value:g}"


def _request(case: Case, fleet: Fleet | None) -> Facts:
    said: dict[str, tuple[str, ...]] = {fact: (value,) for fact, value in case.request.items()}
    if fleet is None:
        return said
    named = tuple(case.request.get(fact, "") for fact in ("service", "origin", "class"))
    for flow, facts in zip(flows_of(fleet), requests_of(fleet), strict=True):
        if flow.key == named:
            return {**facts, **said}
    wanted = ", ".join(name or "(none)" for name in named)
    raise LookupError(f"service, origin and class have to be of the fleet, not {wanted}")


def _target(case: Case, fleet: Fleet | None) -> Facts:
    given = (case.target or {}).items()
    said = {fact: (values,) if isinstance(values, str) else values for fact, values in given}
    if fleet is None or case.target is None:
        return {"place": ("cloud",), **said}
    name = case.target.get("endpoint", "")
    for endpoint in fleet.endpoints:
        if endpoint.name == name:
            return {**of_target(endpoint), **said}
    raise LookupError(f"the endpoint {name or '(none)'} is not of the fleet")
