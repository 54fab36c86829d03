"""How many requests were served farther away than the nearest region that the law allows them.

Near is the nearest cloud that law allows, and edge sites no farther than that.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping

from streams.contract.records import Fleet, Origin, RequestClass
from tradewind.demo.parts.law import why_not
from tradewind.demo.parts.run import PHASES, Found, Run, class_of

Flow = tuple[str, str]
"""(origin, class)"""


def measure(run: Run) -> Found:
    """`spill`: by origin, class and phase, the share of what was served."""
    near, found = _near(run.fleet), defaultdict[str, dict[str, dict[str, float]]](lambda: defaultdict(dict))
    for phase, outcomes in run.phases():
        served, beyond = Counter[Flow](), Counter[Flow]()
        for outcome in outcomes:
            if outcome.ok and outcome.region is not None:
                flow = outcome.origin, class_of(outcome)
                served[flow] += 1
                beyond[flow] += outcome.region not in near[flow]
        for (origin, class_), count in sorted(served.items()):
            found[origin][class_][phase] = round(beyond[origin, class_] / count, 3)
    return {"spill": {origin: dict(classes) for origin, classes in found.items()}}


def _near(fleet: Fleet) -> dict[Flow, frozenset[str]]:
    return {
        (origin.name, class_.name): _regions(fleet, service.name, class_, origin)
        for origin in fleet.origins
        for service in fleet.services
        for class_ in service.classes
    }


def _regions(fleet: Fleet, service: str, class_: RequestClass, origin: Origin) -> frozenset[str]:
    offered = [e for e in fleet.endpoints if service in e.services]
    lawful = [e for e in offered if why_not(fleet, service, class_, origin, e) is None]
    nearest_ms = min((origin.rtt_ms[e.region] for e in [e for e in lawful if not e.edge] or lawful), default=0.0)
    return frozenset(e.region for e in lawful if origin.rtt_ms[e.region] <= nearest_ms)


def told(found: Found) -> Iterator[str]:
    """For people."""
    for origin, classes in found["spill"].items():
        each = (f"{class_} {_shares(phases)}" for class_, phases in classes.items())
        yield f"served beyond the nearest lawful region, from {origin}: {', '.join(each)}"


def _shares(phases: Mapping[str, float]) -> str:
    """Before the surge, and in it where there was one."""
    return " -> ".join(f"{phases[phase]:.0%}" for phase in PHASES[:2] if phase in phases)
