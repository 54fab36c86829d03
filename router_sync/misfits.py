"""What must fit together in a fleet, whoever made it: a file or a program."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from router_sync.policy import fit
from router_sync.policy.law import law_of
from streams.contract.records import Fleet, RequestClass, Service

Misfit = tuple[str, object, str]


def misfits(fleet: Fleet) -> Iterator[Misfit]:
    """(path, value, remedy) of everything in `fleet` that does not fit together; nothing: it can be routed over."""
    for part in ("services", "origins", "endpoints", "policies", "budgets"):
        yield from _twice(part, [item.name for item in getattr(fleet, part)])
    yield from _of_services(fleet)
    yield from _of_sizes(fleet)
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


def _of_sizes(fleet: Fleet) -> Iterator[Misfit]:
    """Classes for simple requests: what a caller sends as of one class is never under a wider law for being small."""
    for n, service in enumerate(fleet.services):
        named = {class_.name: class_ for class_ in service.classes}
        for m, class_ in enumerate(service.classes):
            at = f"services[{n}].classes[{m}]"
            if not class_.simple_class:
                if class_.simple_tokens:
                    yield f"{at}.simple_tokens", class_.simple_tokens, "Name the simple_class too, or leave it out."
                continue
            wrong = list(_unfit_simple(class_, named.get(class_.simple_class), named))
            wrong = wrong or list(_wider_law(fleet, service.name, class_))
            for field_, remedy in wrong:
                yield f"{at}.{field_}", getattr(class_, field_), remedy


def _wider_law(fleet: Fleet, service: str, class_: RequestClass) -> Iterator[tuple[str, str]]:
    """The same of what policies say: rules may name classes."""
    law = law_of(fleet)
    for origin in fleet.origins:
        mine, simple = ((service, origin.name, name) for name in (class_.name, class_.simple_class))
        if wider := sorted(law.allowed(simple) - law.allowed(mine)):
            why = law.why_not(mine, wider[0])
            yield "simple_class", f"From {origin.name} it may go to {wider[0]}, and {class_.name} may not ({why})."
            return


def _unfit_simple(
    class_: RequestClass, simple: RequestClass | None, named: Mapping[str, RequestClass]
) -> Iterator[tuple[str, str]]:
    """(field of `class_`, remedy) of why `simple` cannot be its simple class."""
    if simple is None or simple is class_:
        others = ", ".join(name for name in named if name != class_.name) or "add one"
        yield "simple_class", f"Name another class of this service: {others}."
        return
    if not class_.simple_tokens:
        yield "simple_tokens", "Say up to how many tokens a request is simple."
    if simple.simple_class:
        yield "simple_class", f"{simple.name} has a simple_class itself: name {simple.simple_class}, or leave it out."
    if class_.jurisdictions and not (simple.jurisdictions and set(simple.jurisdictions) <= set(class_.jurisdictions)):
        allowed = ", ".join(class_.jurisdictions)
        yield "simple_class", f"{simple.name} is under a wider law: let its jurisdictions be among {allowed}."
    for fact in ("data_class", "tenant", "purpose"):
        if (mine := getattr(class_, fact)) != getattr(simple, fact):
            yield "simple_class", f"{simple.name} has another {fact}: give it {mine or 'none'!r}, as {class_.name} has."


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
