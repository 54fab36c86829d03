"""Whether decisions are the chain that the router made: nothing altered, dropped or put in, as far as can be seen.

    what a decision says of itself   its digest fits its bytes
    what links it                    the one before it is there, and has no other behind it by the same router
    what vouches for it              it lies on the way to the decision that a signed table names

Whoever may write on the topic can add to it; he cannot make a signed table vouch for what he added.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

import msgspec

from router_sync.chain import fits
from streams.contract.records import Decision

_decode: Final = msgspec.json.Decoder(Decision).decode


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """Something at one decision: its place on the topic, its number where it has one, and what is the matter."""

    place: str
    number: str
    says: str


class ChainState(msgspec.Struct, frozen=True, kw_only=True):
    """The chain of one service. `vouched`: decisions that a signed table vouches for; None: no table was there."""

    service: str
    decisions: int
    first: str
    last: str
    begins: bool
    """The first that is there is the first that was made; else older ones were let go."""
    vouched: int | None
    breaks: tuple[Finding, ...]
    noted: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing is broken."""
        return not self.breaks


@dataclass(frozen=True, slots=True)
class _Link:
    place: str
    number: str
    epoch: int
    previous: str
    digest: str


@dataclass(slots=True)
class _Chain:
    """What was read of one service."""

    links: dict[str, _Link] = field(default_factory=dict)
    """By digest, in the topic's order."""
    next: dict[str, list[_Link]] = field(default_factory=lambda: defaultdict(list))
    """Digest to the decisions that come behind it."""
    count: int = 0
    numbers: list[str] = field(default_factory=list)
    """Of the first and the last."""
    begins: bool = True
    unchained: int = 0
    """Of a time before there was a chain."""
    breaks: list[Finding] = field(default_factory=list)
    noted: list[Finding] = field(default_factory=list)


class Audit:
    """Reads decisions in the topic's order, keeping of each what links it, and judges them."""

    def __init__(self) -> None:
        self._chains: dict[str, _Chain] = {}

    def take(self, place: str, key: bytes, value: bytes) -> None:
        """Read one decision's bytes; `place`: where they stand, for people."""
        service = key.decode("utf-8", "replace")
        try:
            decision = _decode(value)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            self._of(service).breaks.append(Finding(place=place, number="?", says=f"cannot be read: {error}"))
            return
        chain = self._of(decision.service)
        number = f"{decision.epoch}.{decision.version}"
        chain.breaks += [Finding(place=place, number=number, says=says) for says in _broken(chain, decision, value)]
        if service != decision.service:
            chain.breaks.append(Finding(place=place, number=number, says=f"stands under the key {service}"))
        _link(chain, _Link(place, number, decision.epoch, decision.previous, decision.digest))

    def _of(self, service: str) -> _Chain:
        return self._chains.setdefault(service, _Chain())

    def judged(self, anchors: Mapping[str, str]) -> list[ChainState]:
        """How the chain of each service is. `anchors`: service to the digest that its signed table names."""
        return [_judged(name, self._of(name), anchors) for name in sorted(self._chains.keys() | anchors.keys())]


def _broken(chain: _Chain, decision: Decision, value: bytes) -> Iterator[str]:
    """What is wrong with a decision behind what was read before it."""
    if not decision.digest:
        if chain.links:
            yield "has no digest, and those before it have"
        return
    if not fits(value, decision.digest):
        yield "was altered: its digest does not fit its bytes"
    if decision.digest in chain.links:
        yield f"is there twice, as at {chain.links[decision.digest].place}"
    elif chain.links and not decision.previous:
        yield "says it is the first, and is not"
    elif chain.links and decision.previous not in chain.links:
        yield f"the one before it is missing: no decision here has the digest {decision.previous[:12]}…"


def _link(chain: _Chain, link: _Link) -> None:
    if not chain.count:
        chain.begins = not link.previous
    chain.count += 1
    chain.numbers[1:] = [link.number]
    if not link.digest:
        chain.unchained += 1
        return
    chain.links.setdefault(link.digest, link)
    beside = chain.next[link.previous] if link.previous else []
    for other in beside:
        says = f"comes behind the same decision as {other.number} at {other.place}"
        found = Finding(place=link.place, number=link.number, says=says)
        # two routers may follow the same table for a moment; one router never does twice
        (chain.breaks if other.epoch == link.epoch else chain.noted).append(found)
    beside.append(link)


def _judged(service: str, chain: _Chain, anchors: Mapping[str, str]) -> ChainState:
    vouched, breaks, noted = _vouched(chain, anchors.get(service))
    if chain.unchained:
        says = f"{chain.unchained} decisions are of a time before there was a chain"
        noted = [Finding(place="begin", number=chain.numbers[0], says=says), *noted]
    return ChainState(
        service=service, decisions=chain.count, begins=chain.begins, vouched=vouched,
        first=chain.numbers[0] if chain.numbers else "", last=chain.numbers[-1] if chain.numbers else "",
        breaks=(*chain.breaks, *breaks), noted=(*chain.noted, *noted),
    )  # fmt: skip


def _vouched(chain: _Chain, anchor: str | None) -> tuple[int | None, list[Finding], list[Finding]]:
    """How many decisions the table that names `anchor` vouches for; what that breaks, and what it leaves open."""
    if not anchor:
        return None, [], []
    path = set(way_back({digest: link.previous for digest, link in chain.links.items()}, anchor))
    if not path:
        says = f"the table in force names a decision that is not here, {anchor[:12]}…"
        return 0, [Finding(place="end", number="?", says=says)], []
    since = _behind(chain, anchor)
    return len(path), [], [
        Finding(place=link.place, number=link.number, says="no signed table vouches for it")
        for digest, link in chain.links.items()
        if digest not in path and digest not in since
    ]  # fmt: skip


def way_back(previous: Mapping[str, str], digest: str) -> Iterator[str]:
    """`digest` and all before it that are there, the last first. `previous`: digest to the one before it.

    >>> list(way_back({"c": "b", "b": "a"}, "c"))
    ['c', 'b']
    """
    seen: set[str] = set()
    while digest in previous and digest not in seen:
        seen.add(digest)
        yield digest
        digest = previous[digest]


def _behind(chain: _Chain, digest: str) -> set[str]:
    """All that come behind `digest`: made since the table was read."""
    found: set[str] = set()
    ahead = [digest]
    while ahead:
        following = {link.digest for link in chain.next.get(ahead.pop(), ())} - found
        found |= following
        ahead += following
    return found
