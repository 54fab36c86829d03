"""Blast radius: what is down at endpoints becomes what is down in zones, regions and at providers.

    endpoint ─► zone ─► region ─► provider        trips when half of its endpoints are down by their own evidence

* Two are the least: one endpoint's death says nothing of its neighbours. A provider of several regions needs two.
* Own evidence always counts. What goes only because its neighbours went is capped: it must leave half of the next
  level up usable, unless that has tripped too.
* Silence is no evidence: what nobody speaks of any more stays as it was, and the reason says so.

What routes do when all they may use is down is settled where routes are made: they fail open to the least bad.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from streams.contract.records import Endpoint, Verdict

HALF: Final = 0.5
LEAST: Final = 2
Place = tuple[str, ...]
"""(provider,), (provider, region) or (provider, region, zone); () is everything."""
_LEVEL: Final = {1: "provider", 2: "region", 3: "zone"}


@dataclass(frozen=True, slots=True)
class Standing:
    """What is to be made of an endpoint. `own` is what was said of itself, `verdict` what holds."""

    verdict: Verdict = "unknown"
    reason: str = ""
    own: Verdict = "unknown"

    @property
    def usable(self) -> bool:
        """Everything but down: silence and ignorance evacuate nobody."""
        return self.verdict != "down"


UNHEARD: Final = Standing(reason="nothing was heard of it yet")


def ladder(endpoints: Sequence[Endpoint], said: Mapping[str, Standing]) -> dict[str, Standing]:
    """The standing of every endpoint, given what was said of each by itself."""
    own = {e.name: said.get(e.name, UNHEARD) for e in endpoints}
    gone = {name for name, standing in own.items() if not standing.usable}
    if len(gone) < LEAST:
        return own
    fallen = _fallen(endpoints, gone)
    usable = Counter(place for e in endpoints if e.name not in gone for place in _places(e))
    return {e.name: _standing(e, own[e.name], fallen, usable) for e in endpoints}


@dataclass(frozen=True, slots=True)
class _Fall:
    """A place that tripped: so many of its endpoints are down by their own evidence."""

    down: int
    of: int

    def reason(self, place: Place) -> str:
        return f"{_LEVEL[len(place)]} {place[-1]} down: {self.down} of {self.of} endpoints down"


def _places(endpoint: Endpoint) -> Iterator[Place]:
    """From everything to its zone."""
    path = (endpoint.provider, endpoint.region, endpoint.zone)
    return (path[:depth] for depth in range(4))


def _fallen(endpoints: Sequence[Endpoint], gone: set[str]) -> dict[Place, _Fall]:
    of = Counter(place for e in endpoints for place in _places(e))
    down = Counter(place for e in endpoints if e.name in gone for place in _places(e))
    fallen = {
        place: _Fall(down[place], of[place])
        for place in of
        if place and down[place] >= LEAST and down[place] >= HALF * of[place]
    }
    for place in [place for place in fallen if len(place) == 1 and not _spread(endpoints, gone, place)]:
        del fallen[place]
    return fallen


def _spread(endpoints: Sequence[Endpoint], gone: set[str], provider: Place) -> bool:
    """Whether a provider's losses are more than the loss of one of its regions."""
    regions = {e.region for e in endpoints if e.provider == provider[0]}
    hit = {e.region for e in endpoints if e.provider == provider[0] and e.name in gone}
    return len(hit) >= min(LEAST, len(regions))


def _standing(endpoint: Endpoint, own: Standing, fallen: Mapping[Place, _Fall], usable: Counter[Place]) -> Standing:
    """The endpoint's own standing under the widest fallen place it lies in."""
    places = list(_places(endpoint))
    widest = next((place for place in places if place in fallen), None)
    if widest is None:
        return own
    # a provider of one region is its region: name the nearer of the two
    nearer = places[2] if len(widest) == 1 and fallen.get(places[2]) == fallen[widest] else widest
    reason = fallen[nearer].reason(nearer)
    if not own.usable:
        return Standing("down", f"{own.reason}; {reason}" if own.reason else reason, own.verdict)
    above = widest[:-1]
    if above not in fallen and usable[above] - usable[widest] < HALF * usable[above]:
        return Standing(own.verdict, f"{reason}; kept, too little would be left", own.verdict)
    return Standing("down", reason, own.verdict)
