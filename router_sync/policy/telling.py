"""What law and wishes come to for the flows of a fleet, told endpoint by endpoint, with reasons and sources."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import msgspec

from router_sync.policy.cases import extra_usd
from router_sync.policy.facts import Facts, Key, of_target
from router_sync.policy.law import Law, law_of
from router_sync.policy.preference import PARTS, wishes_of
from router_sync.policy.rules import Denial, Statute, listed
from streams.contract.records import Endpoint, Fleet


class Reason(msgspec.Struct, frozen=True):
    """A rule that denies, or wishes."""

    rule: str
    """policy/rule"""
    says: str
    reason: str
    source: str


class Verdict(msgspec.Struct, frozen=True):
    """One endpoint for one flow."""

    endpoint: str
    allowed: bool
    serves: bool
    denied_by: tuple[Reason, ...]
    extra_usd: float
    """Per request, because rules would prefer another."""


class Told(msgspec.Struct, frozen=True):
    """One flow: what is known of it, where it may go, and what is wished for."""

    service: str
    class_: str = msgspec.field(name="class")
    origin: str
    facts: dict[str, str]
    unknown: tuple[str, ...]
    """Facts that nobody has declared: they never help."""
    endpoints: tuple[Verdict, ...]
    wishes: tuple[Reason, ...]


class Which(NamedTuple):
    """The flows and endpoints to tell of; None: all."""

    service: str | None = None
    class_: str | None = None
    origin: str | None = None
    endpoint: str | None = None

    def takes(self, key: Key) -> bool:
        """Whether a flow is meant."""
        wanted = (self.service, self.origin, self.class_)
        return all(want is None or want == have for want, have in zip(wanted, key, strict=True))


def told(fleet: Fleet, which: Which) -> Iterator[Told]:
    """The flows of `fleet` that are meant."""
    law = law_of(fleet)
    ends = [end for end in fleet.endpoints if which.endpoint in (None, end.name)]
    for key, row in law.rows.items():
        if which.takes(key):
            yield _told(law, key, law.requests[row], ends)


def _told(law: Law, key: Key, request: Facts, ends: Sequence[Endpoint]) -> Told:
    wishes = wishes_of(law.fleet.policies, request)
    return Told(
        service=key[0],
        origin=key[1],
        class_=key[2],
        facts={fact: ", ".join(values) for fact, values in request.items()},
        unknown=tuple(fact for fact in ("tenant", "purpose", "complexity") if fact not in request),
        endpoints=tuple(_verdict(law, key, end, wishes) for end in ends),
        wishes=tuple(Reason(rule.ref, _wish(rule), rule.rule.reason, rule.rule.source) for rule in wishes),
    )


def _verdict(law: Law, key: Key, end: Endpoint, wishes: tuple[Statute, ...]) -> Verdict:
    return Verdict(
        endpoint=end.name,
        allowed=law.allows(key, end.name),
        serves=key[0] in end.services,
        denied_by=tuple(_reason(denial) for denial in law.denials(key, end.name)),
        extra_usd=extra_usd(wishes, of_target(end)),
    )


def _reason(denial: Denial) -> Reason:
    return Reason(denial.ref, denial.says, denial.reason, denial.source)


def _wish(rule: Statute) -> str:
    if rule.effect == "limit_p95_ms":
        return f"wants p95 at the caller under {rule.rule.limit_p95_ms:g} ms"
    if rule.effect == "weigh":
        return "weighs " + ", ".join(f"{part} {rule.rule.weigh[part]:g}" for part in PARTS if part in rule.rule.weigh)
    wanted = " and ".join(f"{fact} {listed(values)}" for fact, values in rule.wanted.items())
    return f"prefers {wanted}, worth ${rule.rule.worth_usd:g} a request"


# ---------------------------------------------------------------- as text


def as_text(flow: Told) -> str:
    """One flow, for people."""
    return "\n".join(_lines(flow))


def _lines(flow: Told) -> Iterator[str]:
    facts = {fact: value for fact, value in flow.facts.items() if fact not in ("service", "class", "origin")}
    said = [*(f"{fact} {value}" for fact, value in facts.items()), *(f"{fact} not declared" for fact in flow.unknown)]
    yield f"{flow.service}/{flow.class_} from {flow.origin}: {', '.join(said)}"
    wide = max((len(verdict.endpoint) for verdict in flow.endpoints), default=0)
    for verdict in flow.endpoints:
        extra = f", ${verdict.extra_usd:g} a request dearer by preference" if verdict.extra_usd else ""
        why = "allowed" if verdict.allowed else "denied" if verdict.denied_by else f"does not serve {flow.service}"
        yield f"  {verdict.endpoint:{wide}}  {why}{extra if verdict.allowed else ''}"
        yield from (f"  {'':{wide}}    {_words(reason)}" for reason in verdict.denied_by)
    for wish in flow.wishes:
        yield f"  wish: {_words(wish)}"


def _words(why: Reason) -> str:
    source = f" ({why.source})" if why.source else ""
    return f"{why.rule} {why.says}" + (f": {why.reason}{source}" if why.reason else source)


def as_object(flows: Sequence[Told]) -> dict[str, Any]:
    """For programs."""
    return {"flows": list(flows)}
