"""Requests that were where the law forbids it, by what endpoints themselves noted down when they received them.

Neither a table nor a gateway has a say: class and origin are the caller's own words, the place is the endpoint's, the
law is the fleet file's, read by `law` alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from streams.contract.records import Endpoint
from tradewind.demo.parts.law import why_not
from tradewind.demo.parts.run import Found, Run

_TOLD = 10


def measure(run: Run) -> Found:
    """`breaches` of the `judged` requests, and `breached`: which, in words."""
    found: Counter[str] = Counter()
    judged = 0
    for endpoint in run.fleet.endpoints:
        kinds = Counter((one.cls, one.origin) for one in run.received.get(endpoint.name, ()))
        for (class_, origin), count in kinds.items():
            judged += count
            if (why := _breach(run, endpoint, class_, origin)) is not None:
                found[f"{class_}@{origin} at {endpoint.name} ({why})"] += count
    words = [f"{count} of {what}" for what, count in sorted(found.items())]
    return {"breaches": found.total(), "judged": judged, "breached": words}


def _breach(run: Run, endpoint: Endpoint, class_: str, origin: str) -> str | None:
    at = next((o for o in run.fleet.origins if o.name == origin), None)
    for service in run.fleet.services:
        named = next((c for c in service.classes if c.name == class_), None)
        if at is not None and named is not None and service.name in endpoint.services:
            return why_not(run.fleet, service.name, named, at, endpoint)
    return "of no class and origin of the fleet"


def told(found: Found) -> Iterator[str]:
    """For people."""
    yield f"{found['breaches']} of {found['judged']} requests were where law forbids it, by the endpoints' own notes"
    yield from found["breached"][:_TOLD]
