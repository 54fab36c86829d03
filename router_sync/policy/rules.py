"""Rules of law on one pair of request and target, and why a pair is denied. The same answers as `law`, one by one.

Each fact that a rule asks for is met, is not met, or is unknown, because nobody has declared it. What is unknown never
helps:

    a rule that restricts (require, deny)     binds unless its `when` is surely not met or its `unless` surely is
      require                                 denies unless all it requires is surely met
      deny                                    denies unless one thing it names is surely not met
    a rule that allows                        speaks if its `when` surely is met and its `unless` surely is not,
                                              and allows if all it names is surely met

Deny wins: a pair is permitted if no rule that binds denies it and, where a policy's default is deny, one of its rules
allows it. Of several policies each has to permit. What a class itself says of jurisdictions is one policy more.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple

from router_sync.policy.facts import CERTIFICATE, Facts
from streams.contract.records import Policy, Rule

Asked = Mapping[Any, tuple[str, ...]]
"""Facts with the values that meet them."""
Effect = Literal["require", "deny", "allow", "limit_p95_ms", "weigh", "prefer"]
EFFECTS: Final[tuple[Effect, ...]] = ("require", "deny", "allow", "limit_p95_ms", "weigh", "prefer")
RESTRICTS: Final[frozenset[Effect]] = frozenset({"require", "deny"})
LAW: Final[frozenset[Effect]] = RESTRICTS | {"allow"}
DEFAULT: Final = "default"
OWN: Final = "class"
"""The policy, by name, that is made of what classes say themselves."""
_ASKS_TARGETS: Final[frozenset[Effect]] = LAW | {"prefer"}
_SHOWN: Final = 6


def effects(rule: Rule) -> tuple[Effect, ...]:
    """The effects of `rule`; a good rule has one."""
    return tuple(effect for effect in EFFECTS if getattr(rule, effect))


def own(jurisdictions: Sequence[str], of: Mapping[str, str] | None = None) -> Rule:
    """The rule that a class makes by its `jurisdictions`; `of` says whose it is (service and class; None: of all)."""
    when = {fact: (name,) for fact, name in (of or {}).items()}
    return Rule(id="jurisdictions", when=when, require={"country": tuple(jurisdictions)})  # type: ignore[arg-type]


def only_law(policies: Iterable[Policy]) -> tuple[Policy, ...]:
    """`policies` without their preferences; those that have no law are left out."""
    kept = (
        Policy(name=p.name, default=p.default, rules=tuple(rule for rule in p.rules if LAW.intersection(effects(rule))))
        for p in policies
    )
    return tuple(policy for policy in kept if policy.rules or policy.default == "deny")


class Clause:
    """Facts that are asked for together, each with the values that meet it."""

    __slots__ = ("asked",)

    def __init__(self, asked: Asked) -> None:
        self.asked = tuple((fact, frozenset(values)) for fact, values in asked.items())

    def met(self, known: Facts) -> bool | None:
        """Whether all are met; None when that depends on a fact that is unknown.

        >>> rule = Clause({"country": ("DE", "FR"), "parent_country": ("DE",)})
        >>> [rule.met({"country": (code,)}) for code in ("DE", "US")]
        [None, False]
        """
        unknown = False
        for fact, values in self.asked:
            has = known.get(fact)
            if not has and fact != CERTIFICATE:
                unknown = True
            elif not has or values.isdisjoint(has):
                return False
        return None if unknown else True


class Statute:
    """One rule of a policy, made ready for one of its effects."""

    __slots__ = ("_target", "_unless", "_when", "effect", "policy", "rule")

    def __init__(self, policy: str, rule: Rule, effect: Effect) -> None:
        self.policy, self.rule, self.effect = policy, rule, effect
        self._when, self._unless = Clause(rule.when), Clause(rule.unless) if rule.unless else None
        self._target = Clause(self.wanted)

    @property
    def wanted(self) -> Asked:
        """What it asks of targets."""
        return getattr(self.rule, self.effect) if self.effect in _ASKS_TARGETS else {}

    @property
    def ref(self) -> str:
        """policy/rule"""
        return f"{self.policy}/{self.rule.id}"

    def is_for(self, request: Facts) -> bool:
        """Whether it speaks of this request: of a rule that restricts, whether it might."""
        if self.effect in RESTRICTS:
            return self._when.met(request) is not False and not (self._unless and self._unless.met(request))
        return self.surely_for(request)

    def surely_for(self, request: Facts) -> bool:
        """Whether it speaks of this request whatever is not declared of it."""
        exempt = self._unless is not None and self._unless.met(request) is not False
        return bool(self._when.met(request)) and not exempt

    def doubts(self, request: Facts) -> list[str]:
        """What is not declared of `request`, if only that leaves open whether it is for it."""
        unsure = [clause for clause in (self._when, self._unless) if clause and clause.met(request) is None]
        return [fact for clause in unsure for fact, _ in clause.asked if not request.get(fact)]

    def bars(self, target: Facts) -> bool:
        """Whether a rule that restricts denies `target` to those it is for."""
        met = self._target.met(target)
        return met is not True if self.effect == "require" else met is not False

    def meets(self, target: Facts) -> bool:
        """Whether `target` surely has all that the rule names: it is allowed, or preferred."""
        return self._target.met(target) is True


def statutes(policy: Policy) -> tuple[Statute, ...]:
    """The rules of `policy`, each once per effect."""
    return tuple(Statute(policy.name, rule, effect) for rule in policy.rules for effect in effects(rule))


class Denial(NamedTuple):
    """Why a pair is denied: by one rule, or by a policy whose default is deny and that no rule allows."""

    policy: str
    rule: str
    """DEFAULT: none of the policy's rules allows it."""
    says: str
    """What the rule asks for, and what the target is instead."""
    reason: str = ""
    source: str = ""

    @property
    def ref(self) -> str:
        """policy/rule"""
        return f"{self.policy}/{self.rule}"

    def __str__(self) -> str:
        """
        >>> str(Denial("gdpr", "transfers", "requires country in DE, FR, not US", "personal data stays", "Art. 44"))
        'gdpr/transfers requires country in DE, FR, not US: personal data stays (Art. 44)'
        """
        return self.ref + f" {self.says}" + self._cited()

    def cites(self) -> str:
        """The rule with its reason and source, and no word of the target: for callers.

        >>> Denial("gdpr", "transfers", "requires country in DE, FR, not US", "personal data stays", "Art. 44").cites()
        'gdpr/transfers: personal data stays (Art. 44)'
        """
        return self.ref + self._cited()

    def _cited(self) -> str:
        source = f" ({self.source})" if self.source else ""
        return f": {self.reason}{source}" if self.reason else source


@dataclass(frozen=True, slots=True)
class Code:
    """The law of one policy, or what of it is for one request."""

    name: str
    closed: bool
    """What no rule allows is denied."""
    restricting: tuple[Statute, ...]
    allowing: tuple[Statute, ...]

    @classmethod
    def of(cls, policy: Policy) -> Code:
        """The whole law of `policy`."""
        rules = statutes(policy)
        restricting = tuple(rule for rule in rules if rule.effect in RESTRICTS)
        allowing = tuple(rule for rule in rules if rule.effect == "allow")
        return cls(policy.name, policy.default == "deny", restricting, allowing)

    def for_(self, request: Facts) -> Code:
        """What of it is for `request`."""
        restricting = tuple(rule for rule in self.restricting if rule.is_for(request))
        allowing = tuple(rule for rule in self.allowing if rule.is_for(request))
        return Code(self.name, self.closed, restricting, allowing)


class Judge:
    """The law of `policies`, ready to be asked about any request."""

    def __init__(self, policies: Iterable[Policy]) -> None:
        self.codes = tuple(map(Code.of, policies))

    def brief(self, request: Facts, jurisdictions: Sequence[str] = ()) -> Brief:
        """What binds `request`, whose class may be processed in `jurisdictions` only (empty: anywhere)."""
        codes = [code.for_(request) for code in self.codes]
        if jurisdictions:
            codes.append(Code.of(Policy(name=OWN, rules=(own(jurisdictions),))))
        return Brief(request, tuple(codes))


@dataclass(frozen=True, slots=True)
class Brief:
    """The law of one request: ask it about targets."""

    request: Facts
    codes: tuple[Code, ...]

    def allows(self, target: Facts) -> bool:
        """Whether each policy permits `target`."""
        for code in self.codes:
            if any(rule.bars(target) for rule in code.restricting):
                return False
            if code.closed and not any(rule.meets(target) for rule in code.allowing):
                return False
        return True

    def denials(self, target: Facts) -> tuple[Denial, ...]:
        """Everything that denies `target`; nothing: it is allowed."""
        found = []
        for code in self.codes:
            found += [_denial(rule, self.request, target) for rule in code.restricting if rule.bars(target)]
            if code.closed and not any(rule.meets(target) for rule in code.allowing):
                found.append(_by_default(code))
        return tuple(found)


def words(denials: Sequence[Denial]) -> str:
    """All that denies a pair, as one line; the first are said in full."""
    said = [str(denial) for denial in denials[:_SHOWN]]
    if len(denials) > _SHOWN:
        said.append(f"and {', '.join(denial.ref for denial in denials[_SHOWN:])}")
    return "; ".join(said)


def _denial(rule: Statute, request: Facts, target: Facts) -> Denial:
    if rule.effect == "require":
        lacks = [fact for fact in rule.wanted if not Clause({fact: rule.wanted[fact]}).met(target)]
        parts = [f"{fact} in {listed(rule.wanted[fact])}, {_instead(fact, target)}" for fact in lacks]
    else:
        parts = [f"{fact} {listed(target.get(fact, ())) or 'that is not declared'}" for fact in rule.wanted]
    verb = "requires" if rule.effect == "require" else "denies"
    doubts = rule.doubts(request)
    unless = f" ({' and '.join(doubts)} of the request is not declared: it may be for it)" if doubts else ""
    says = f"{verb} {' and '.join(parts)}{unless}"
    return Denial(rule.policy, rule.rule.id, says, rule.rule.reason, rule.rule.source)


def _by_default(code: Code) -> Denial:
    tried = listed([rule.rule.id for rule in code.allowing])
    return Denial(code.name, DEFAULT, f"denies what no rule allows{f', and {tried} do not' if tried else ''}")


def _instead(fact: str, target: Facts) -> str:
    if has := target.get(fact):
        return f"not {listed(has)}"
    return "of which it has none" if fact == CERTIFICATE else "which is not declared"


def listed(values: Sequence[str]) -> str:
    """
    >>> listed(["AT", "BE", "BG", "CY", "CZ", "DE", "DK", "EE"])
    'AT, BE, BG, CY, CZ, DE and 2 more'
    """
    more = len(values) - _SHOWN
    return ", ".join(values[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
