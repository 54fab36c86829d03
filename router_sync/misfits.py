"""What must fit together in a fleet, whoever made it: a file or a program."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from router_sync.policy import fit
from streams.contract.records import Fleet, Service

Misfit = tuple[str, object, str]


def misfits(fleet: Fleet) -> Iterator[Misfit]:
    """(path, value, remedy) of everything in `fleet` that does not fit together; nothing: it can be routed over."""
    for part in ("services", "origins", "endpoints", "policies", "budgets"):
        yield from _twice(part, [item.name for item in getattr(fleet, part)])
    yield from _of_services(fleet)
    yield from _of_origins(fleet)
    yield from _of_endpoints(fleet)
    yield from _of_budgets(fleet)
    yield from fit.misfits(fleet)


def _twice(part: str, names: Sequence[str]) -> Iterator[Misfit]:
    for n, name in enumerate(names):
        if name in names[:n]:
            yield f"{part}[{n}].name", name, f"{part}[{names.index(name)}] is called so already: names are unique."


def _of_services(fleet: Fleet) -> Iterator[Misfit]:
    served = {service for endpoint in fleet.endpoints for service in endpoint.services}
    for n, service in enumerate(fleet.services):
        names = [c.name for c in service.classes]
        yield from _twice(f"services[{n}].classes", names)
        if service.default_class not in names:
            yield f"services[{n}].default_class", service.default_class, f"Name one of its classes: {', '.join(names)}."
        if service.name not in served:
            yield f"services[{n}].name", service.name, "No endpoint serves it: add it to an endpoint's services."


def _of_origins(fleet: Fleet) -> Iterator[Misfit]:
    regions = sorted({endpoint.region for endpoint in fleet.endpoints})
    for n, origin in enumerate(fleet.origins):
        if missing := [region for region in regions if region not in origin.rtt_ms]:
            remedy = f"Add the round trip in milliseconds to {', '.join(missing)}."
            yield f"origins[{n}].rtt_ms", dict(origin.rtt_ms), remedy


def _of_endpoints(fleet: Fleet) -> Iterator[Misfit]:
    known = [service.name for service in fleet.services]
    for n, endpoint in enumerate(fleet.endpoints):
        yield from _twice(f"endpoints[{n}].services", endpoint.services)
        for service in endpoint.services:
            if service not in known:
                yield f"endpoints[{n}].services", service, f"Name a service of this file: {', '.join(known)}."
        for service in endpoint.models:
            if service not in endpoint.services:
                yield f"endpoints[{n}].models", service, f"Name one of its services: {', '.join(endpoint.services)}."
    yield from _of_apis(fleet)


def _of_apis(fleet: Fleet) -> Iterator[Misfit]:
    """A service is asked for in one way, whoever serves it."""
    api_of: dict[str, str] = {}
    for n, endpoint in enumerate(fleet.endpoints):
        for service in endpoint.services:
            if (first := api_of.setdefault(service, endpoint.api)) != endpoint.api:
                remedy = f"Another endpoint serves {service} as {first}: give all endpoints of a service the same api."
                yield f"endpoints[{n}].api", endpoint.api, remedy


def _of_budgets(fleet: Fleet) -> Iterator[Misfit]:
    services = {service.name: service for service in fleet.services}
    for n, budget in enumerate(fleet.budgets):
        if budget.service and budget.service not in services:
            yield f"budgets[{n}].service", budget.service, f"Name a service of this file: {', '.join(services)}."
            continue
        classes = _classes([services[budget.service]] if budget.service else fleet.services)
        if budget.class_ and budget.class_ not in classes:
            yield f"budgets[{n}].class", budget.class_, f"Name a class it has: {', '.join(classes)}."


def _classes(services: Sequence[Service]) -> list[str]:
    return list(dict.fromkeys(class_.name for service in services for class_ in service.classes))
