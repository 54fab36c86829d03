"""Why a table moved, in words; and what was considered, in numbers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

import msgspec
import numpy as np

from router_sync import notices
from router_sync.ladder import Standing
from router_sync.layout import Floats, Ints
from router_sync.orders import words
from router_sync.problem import Problem, next_usd
from router_sync.table import DRAINED, Draft, moves
from streams.contract.records import Candidate, Considered, Exclusion, Interruption, Order, Route, RoutingTable
from streams.contract.topics import MAX_VALUE_BYTES

ROUTES: Final = 3
"""Named in a reason; the others are counted."""
NAMED: Final = 2000
"""Candidates in all of a decision, and as many exclusions."""
MOST_NAMED: Final = 64
"""Of each route."""
JUST: Final = 1e-3
"""A segment of utilisation is full to here."""
REASON: Final = 300
"""Of why an endpoint is excluded so many characters are kept."""
_encode = msgspec.json.Encoder().encode


def explain_change(
    old: RoutingTable | None,
    new: RoutingTable,
    standings: Mapping[str, Standing],
    orders: Mapping[str, Order] | None = None,
    leaving: Mapping[str, Interruption] | None = None,
) -> str:
    """Why `new` differs from `old`, as one line.

    "eu-west-a down: 5 connect errors in a row; interactive@eu: eu-west 100 % -> us-east 62 %, ap-south 38 %"
    """
    if old is None:
        return "first table"
    parts = list(_states(old, new, standings, orders or {}, leaving or {}))
    if old.fleet_version != new.fleet_version:
        parts.insert(0, f"fleet version {new.fleet_version}")
    parts.extend(_shifts(old, new))
    return "; ".join(parts)[:2000] or "unchanged"


def _states(
    old: RoutingTable,
    new: RoutingTable,
    standings: Mapping[str, Standing],
    orders: Mapping[str, Order],
    leaving: Mapping[str, Interruption],
) -> Iterator[str]:
    was = {e.name: e.state for e in old.endpoints}
    said: set[str] = set()
    for endpoint in new.endpoints:
        before = was.get(endpoint.name, "ready")
        if before == endpoint.state:
            continue
        standing = standings.get(endpoint.name, Standing())
        if endpoint.state == "drain" and endpoint.name in orders:
            yield words(endpoint.name, orders[endpoint.name])
        elif endpoint.state == "drain" and endpoint.name in leaving:
            yield notices.words(leaving[endpoint.name], new.issued_at_s)
        elif endpoint.state != "down":
            yield f"{endpoint.name} {'is back' if endpoint.state == 'ready' else 'has no ready replica'}"
        elif standing.reason not in said:
            # a region's fall is one reason, said once
            said.add(standing.reason)
            shared = standing.own != "down"
            yield standing.reason if shared else f"{endpoint.name} down: {standing.reason or 'no reason given'}"


def unserved(draft: Draft, service: str, demand_rps: Floats) -> Iterator[str]:
    """The routes of `service` to which orders leave nothing, with what they lose. `demand_rps` is [F].

    "interactive@eu: every allowed endpoint is drained, 20 requests/s unserved"
    """
    for row in draft.plan.rows_of[service].tolist():
        allowed = np.flatnonzero(draft.plan.may[row])
        if allowed.size and all(draft.plan.names[column] in draft.orders for column in allowed):
            flow = draft.plan.flows[row]
            yield f"{flow.class_.name}@{flow.origin}: {DRAINED}, {demand_rps[row]:.3g} requests/s unserved"


def _shifts(old: RoutingTable, new: RoutingTable) -> Iterator[str]:
    """The routes that moved most, by region."""
    before = {(r.origin, r.class_): r for r in old.routes}
    after = {(r.origin, r.class_): r for r in new.routes}
    region = {e.name: e.region for table in (old, new) for e in table.endpoints}
    moved = sorted(((share, key) for key, share in moves(old, new).items() if share >= 0.005), reverse=True)
    for _, key in moved[:ROUTES]:
        was, now = _by_region(before[key], region), _by_region(after[key], region)
        if was == now:
            was, now = _by_region(before[key], {}), _by_region(after[key], {})
        yield f"{key[1]}@{key[0]}: {was} -> {now}"
    if len(moved) > ROUTES:
        yield f"and {len(moved) - ROUTES} more"


def _by_region(route: Route, region: Mapping[str, str]) -> str:
    """Shares by region, largest first; by endpoint where no region is known."""
    shares: defaultdict[str, float] = defaultdict(float)
    for name, share in zip(route.endpoints, route.shares, strict=True):
        shares[region.get(name, name)] += share
    ranked = sorted(shares.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{place} {share:.0%}".replace("%", " %") for place, share in ranked) or "nowhere"


class Crowd(NamedTuple):
    """How full endpoints are [E], and what crowding adds to the next request and added to the last one."""

    use: Floats
    next_usd: Floats
    last_usd: Floats


def considered(draft: Draft, service: str, problem: Problem, unserved: Floats) -> tuple[Considered, ...]:
    """What was considered for each route of `service`, those in use first; what is not named is counted.

    `unserved` [F] is a share. Of few routes much is named, of many little: the whole fits into a record.
    """
    rows = draft.plan.rows_of[service].tolist()
    most = max(1, min(MOST_NAMED, NAMED // max(1, len(rows))))
    load = draft.shares.T @ problem.demand_rps
    use = np.minimum(load / np.maximum(problem.capacity_rps, 1e-12), 1e6)
    crowd = Crowd(use, next_usd(problem, load), next_usd(problem, (1.0 - JUST) * load))
    while True:
        out = tuple(_one(draft, row, problem, unserved, crowd, most) for row in rows)
        if most == 1 or len(_encode(out)) < 0.9 * MAX_VALUE_BYTES:
            return out
        most //= 2


def _one(draft: Draft, row: int, problem: Problem, unserved: Floats, crowd: Crowd, most: int) -> Considered:
    plan, flow = draft.plan, draft.plan.flows[row]
    usable = np.flatnonzero(draft.usable[row])
    ranked = usable[np.lexsort((draft.scores.total_usd[row, usable], -draft.shares[row, usable]))][:most]
    served = plan.served[flow.service]
    closed = served[~draft.usable[row, served]]
    # the down first, they are news; then the forbidden
    named = closed[np.argsort(~plan.may[row, closed], kind="stable")][:most]
    return Considered(
        origin=flow.origin,
        class_=flow.class_.name,
        demand_rps=round(float(problem.demand_rps[row]), 3),
        candidates=tuple(_candidates(draft, row, ranked, crowd)),
        excluded=tuple(_excluded(draft, row, named)),
        left_out=len(usable) + len(closed) - len(ranked) - len(named),
        unserved_rps=round(float(unserved[row] * problem.demand_rps[row]), 3),
    )


def _candidates(draft: Draft, row: int, columns: Ints, crowd: Crowd) -> Iterator[Candidate]:
    plan, scores = draft.plan, draft.scores
    facts: dict[str, Floats] = {f"{part}_usd": usd[row, columns] for part, usd in scores.parts.items()}
    facts |= {
        "rule_usd": scores.rule_usd[row, columns],
        "crowd_usd": crowd.next_usd[columns],
        "last_crowd_usd": crowd.last_usd[columns],
        "share": np.round(draft.shares[row, columns], 4),
        "load": np.round(crowd.use[columns], 4),
        "p95_ms": np.round(plan.rtt_ms[row, columns] + draft.p95_ms[row, columns], 1),
    }
    rows = zip(*(np.round(fact, 12).tolist() for fact in facts.values()), strict=True)
    for column, values in zip(columns.tolist(), rows, strict=True):
        told = dict(zip(facts, values, strict=True))
        if told["last_crowd_usd"] == told["crowd_usd"]:
            del told["last_crowd_usd"]
        yield Candidate(endpoint=plan.names[column], **told)


def _excluded(draft: Draft, row: int, columns: Ints) -> Iterator[Exclusion]:
    """Why each of `columns`, endpoints of the service, is not usable: the law first, then orders, then health."""
    plan, flow = draft.plan, draft.plan.flows[row]
    for column in columns.tolist():
        name = plan.names[column]
        if law := plan.law.why_not(flow.key, name):
            yield Exclusion(endpoint=name, reason=law[:REASON], kind="law")
        elif (order := draft.orders.get(name)) is not None:
            yield Exclusion(endpoint=name, reason=words(name, order)[:REASON], kind="order")
        elif not (standing := draft.standings.get(name, Standing())).usable:
            yield Exclusion(endpoint=name, reason=standing.reason[:REASON] or "down, no reason given", kind="health")
        elif (notice := draft.leaving.get(name)) is not None:
            yield Exclusion(endpoint=name, reason=f"{name} leaves: {notice.kind} notice", kind="notice")
        else:
            yield Exclusion(endpoint=name, reason="no ready replica", kind="capacity")
