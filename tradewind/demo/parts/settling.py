"""From the surge until tables stay as they are: the settling time, as of any controller. Shares are of regions."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from typing import Final

from streams.contract.records import RoutingTable
from tradewind.demo.parts.run import Found, Run, class_of

SETTLED: Final = 0.05
"""Of all requests in the surge: tables that send no more of them to another region count as alike."""
Shares = defaultdict[tuple[str, str], defaultdict[str, float]]
"""(origin, class) to region to share."""


def measure(run: Run) -> Found:
    """`converged_s`: until every later table is like the surge's last; None without a surge, or a table in it.

    A table that goes on moving to the end shows: then it is as long as the surge was seen.
    """
    from_s, to_s = run.surge
    to_s = min(to_s, max((o.at_s for o in run.outcomes), default=0.0))  # what comes after the load is no answer to it
    there = [(at_s, table) for at_s, table in run.tables if from_s <= at_s < to_s]
    if not there:
        return {"converged_s": None}
    before = [table for at_s, table in run.tables if at_s < from_s]
    tables = [(from_s, table) for table in before[-1:]] + there
    demand = Counter((o.origin, class_of(o)) for o in run.outcomes if from_s <= o.at_s < to_s)
    last_of = {table.service: _shares(table) for _, table in tables}
    unlike = [at_s for at_s, table in tables if _moved(_shares(table), last_of[table.service], demand) > SETTLED]
    settled_s = min((at_s for at_s, _ in tables if at_s > unlike[-1]), default=to_s) if unlike else from_s
    return {"converged_s": round(settled_s - from_s, 1)}


def _shares(table: RoutingTable) -> Shares:
    region = {endpoint.name: endpoint.region for endpoint in table.endpoints}
    shares: Shares = defaultdict(lambda: defaultdict(float))
    for route in table.routes:
        for name, share in zip(route.endpoints, route.shares, strict=True):
            shares[route.origin, route.class_][region[name]] += share
    return shares


def _moved(one: Shares, other: Shares, demand: Mapping[tuple[str, str], int]) -> float:
    """Of all requests, how many go elsewhere by `one` than by `other`."""
    moved = 0.0
    for flow, count in demand.items():
        moved += count * sum(max(0.0, share - other[flow][region]) for region, share in one[flow].items())
    return moved / max(1, sum(demand.values()))


def told(found: Found) -> Iterator[str]:
    """For people."""
    if found["converged_s"] is not None:
        yield f"tables stayed as they are from {found['converged_s']:g} s after the surge began"
