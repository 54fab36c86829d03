"""Why a table moved, in words; and what was considered, in numbers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Final

import numpy as np

from router_sync import notices
from router_sync.ladder import Standing
from router_sync.layout import Floats
from router_sync.orders import words
from router_sync.table import DRAINED, Draft, moves
from streams.contract.records import Candidate, Considered, Exclusion, Interruption, Order, Route, RoutingTable

ROUTES: Final = 3
"""Named in a reason; the others are counted."""
CANDIDATES: Final = 8
EXCLUDED: Final = 8


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
            yield f"{endpoint.name} is {'back' if endpoint.state == 'ready' else 'drained'}"
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


def considered(draft: Draft, service: str, demand_rps: Floats, unserved: Floats) -> tuple[Considered, ...]:
    """What was considered for each route of `service`: of each at most CANDIDATES and EXCLUDED, those in use first.

    `demand_rps` and `unserved` (a share) are [F].
    """
    plan = draft.plan
    rows = plan.rows_of[service].tolist()
    return tuple(
        Considered(
            origin=plan.flows[row].origin,
            class_=plan.flows[row].class_.name,
            demand_rps=round(float(demand_rps[row]), 3),
            candidates=tuple(_candidates(draft, row)),
            excluded=tuple(_excluded(draft, row)),
            unserved_rps=round(float(unserved[row] * demand_rps[row]), 3),
        )
        for row in rows
    )


def _candidates(draft: Draft, row: int) -> Iterator[Candidate]:
    usable = np.flatnonzero(draft.usable[row])
    ranked = usable[np.lexsort((draft.scores.total_usd[row, usable], -draft.shares[row, usable]))]
    for column in ranked[:CANDIDATES].tolist():
        parts = {f"{part}_usd": float(usd[row, column]) for part, usd in draft.scores.parts.items()}
        yield Candidate(
            endpoint=draft.plan.names[column],
            share=round(float(draft.shares[row, column]), 4),
            rule_usd=float(draft.scores.rule_usd[row, column]),
            p95_ms=round(float(draft.plan.rtt_ms[row, column] + draft.p95_ms[row, column]), 3),
            **parts,
        )


def _excluded(draft: Draft, row: int) -> Iterator[Exclusion]:
    """Endpoints of the service that are not usable: the down first, they are news; then the forbidden."""
    plan, flow = draft.plan, draft.plan.flows[row]
    served = plan.served[flow.service]
    closed = served[~draft.usable[row, served]]
    for column in closed[np.argsort(~plan.may[row, closed], kind="stable")][:EXCLUDED].tolist():
        name = plan.names[column]
        law = plan.law.why_not(flow.key, name)
        order, standing, notice = draft.orders.get(name), draft.standings.get(name, Standing()), draft.leaving.get(name)
        ordered = words(name, order) if order is not None else ""
        noticed = f"{name} leaves: {notice.kind} notice" if notice is not None and standing.usable else ""
        reason = law or ordered or noticed or standing.reason or "no ready replica"
        yield Exclusion(endpoint=name, reason=reason[:2000])
