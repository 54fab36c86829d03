"""Facts of a request as headers: said by a gateway to an endpoint, heard there by a guard.

    x-tradewind-class: interactive          x-tradewind-origin-country: DE          x-tradewind-jurisdictions: IE, NO

What callers send under these names goes no further than the gateway. What was sent twice is not known.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple, get_args
from urllib.parse import quote, unquote

from router_sync.policy.facts import Facts, of_route
from streams.contract.records import RequestFact, Route

_NAMES: Final[Mapping[str, str]] = {
    f"x-tradewind-{fact.replace('_', '-')}": fact for fact in (*get_args(RequestFact), "jurisdictions")
}
_HEADER: Final[Mapping[str, str]] = {fact: name for name, fact in _NAMES.items()}
TENANT: Final = _HEADER["tenant"]
ANYWHERE: Final = "*"
GUARD: Final = "x-tradewind-guard"
"""In the answer of a guard that refuses: by which rules."""
_PLAIN: Final = " _.:/@+-"


class Said(NamedTuple):
    """What headers say of a request."""

    facts: Facts
    jurisdictions: tuple[str, ...] | None
    """Where its class may be processed, () for anywhere; None: no gateway has said so."""


def encoded(value: str) -> str:
    """`value` as a header can carry it.

    >>> encoded("acme"), encoded("Müller")
    ('acme', 'M%C3%BCller')
    """
    return quote(value, safe=_PLAIN)


def of(service: str, route: Route) -> dict[str, str]:
    """What is known of the requests of a route."""
    said = {_HEADER[fact]: encoded(value) for fact, (value,) in of_route(service, route).items()}
    return {**said, _HEADER["jurisdictions"]: ", ".join(route.jurisdictions) or ANYWHERE}


def heard(headers: Iterable[tuple[str, str]]) -> Said:
    """What the headers of one request say; names in any case."""
    said: dict[str, str | None] = {}
    for name, value in headers:
        fact = _NAMES.get(name.lower())
        if fact is not None:
            said[fact] = None if fact in said else unquote(value.strip())
    places = said.pop("jurisdictions", None)
    facts = {fact: (value,) for fact, value in said.items() if value}
    if not places:
        return Said(facts, None)
    return Said(facts, () if places == ANYWHERE else tuple(place.strip() for place in places.split(",")))
