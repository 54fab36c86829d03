"""What endpoints are told of each request, so that a guard there can check the law: as headers, made once per route."""

from __future__ import annotations

from collections.abc import Mapping

from router_sync.policy import headers
from streams.contract.records import Route

_NOTHING: Mapping[str, str] = {}


class RouteFacts:
    """Headers by service and class, as long as the route is the same."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], tuple[Route, Mapping[str, str]]] = {}

    def of(self, service: str, route: Route | None, tenant: str) -> Mapping[str, str]:
        """The headers for a request on `route` by a caller of `tenant`, which the class may leave open."""
        if route is None:
            return _NOTHING
        known = self._known.get((service, route.class_))
        if known is None or known[0] is not route:
            known = self._known[service, route.class_] = (route, headers.of(service, route))
        return known[1] if route.tenant else {**known[1], headers.TENANT: headers.encoded(tenant)}
