"""What rules may ask of a request (its flow) and of a target (its endpoint): each fact by name, as texts.

A fact that nobody has declared is left out: it is unknown. Certificates are never unknown: what is not on an endpoint's
list it does not have.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from streams.contract.records import Endpoint, Fleet, RequestClass, RequestFact, Route, TableEndpoint, TargetFact

Facts = Mapping[str, tuple[str, ...]]
"""Fact to its values: one, but for certificates."""
Key = tuple[str, str, str]
"""(service, origin, class)"""
CERTIFICATE: Final[TargetFact] = "certificate"
_UNSAID: Final = "unknown"
"""What an instance is called that nobody has named."""


class Flow(NamedTuple):
    """Requests of one service, origin and class: what is shared out as one."""

    service: str
    origin: str
    class_: RequestClass

    @property
    def key(self) -> Key:
        """What demand is counted by."""
        return self.service, self.origin, self.class_.name


def flows_of(fleet: Fleet) -> tuple[Flow, ...]:
    """The flows of `fleet` in the order in which all arrays have them."""
    return tuple(Flow(s.name, o.name, c) for s in fleet.services for o in fleet.origins for c in s.classes)


def requests_of(fleet: Fleet) -> list[Facts]:
    """The facts of each flow, in the order of `flows_of`."""
    country = {origin.name: origin.jurisdiction for origin in fleet.origins}
    return [of_flow(flow, country[flow.origin]) for flow in flows_of(fleet)]


def of_flow(flow: Flow, origin_country: str) -> Facts:
    """What is known of the requests of a flow."""
    return _of(flow.service, flow.class_.name, flow.origin, origin_country, flow.class_)


def of_route(service: str, route: Route) -> Facts:
    """The same, from a routing table."""
    return _of(service, route.class_, route.origin, route.origin_country, route)


def _of(service: str, name: str, origin: str, country: str, said: RequestClass | Route) -> Facts:
    known: dict[RequestFact, str] = {
        "service": service,
        "class": name,
        "tenant": said.tenant,
        "data_class": said.data_class,
        "purpose": said.purpose,
        "tier": said.tier,
        "complexity": said.complexity,
        "origin": origin,
        "origin_country": country,
    }
    return declared(known)


def of_target(endpoint: Endpoint | TableEndpoint) -> Facts:
    """What is known of an endpoint, as the fleet or a routing table says it."""
    known: dict[TargetFact, str] = {
        "endpoint": endpoint.name,
        "country": endpoint.jurisdiction,
        "region": endpoint.region,
        "zone": endpoint.zone,
        "provider": endpoint.provider,
        "parent": endpoint.parent,
        "parent_country": endpoint.parent_country,
        "market": endpoint.market,
        "place": "edge" if endpoint.edge else "cloud",
        "instance": "" if endpoint.instance == _UNSAID else endpoint.instance,
    }
    return {**declared(known), CERTIFICATE: endpoint.certificates}


def declared(known: Mapping[RequestFact, str] | Mapping[TargetFact, str]) -> dict[str, tuple[str, ...]]:
    """Facts of one value each, without those that nobody has declared.

    >>> declared({"tenant": "acme", "purpose": ""})
    {'tenant': ('acme',)}
    """
    return {fact: (value,) for fact, value in known.items() if value}
