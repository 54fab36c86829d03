"""What deferred work may use: endpoints in groups that cost the same and are open to the same, with what is spare."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np

from router_sync.hours import HeardCosts, Source, ahead
from router_sync.layout import Floats, Layout
from router_sync.release import Wish, latest_safe_s, need_s
from streams.contract.records import Deferred

FILL: Final = 0.85
"""Of capacity may be used, what is expected of all classes included: the rest is headroom."""
LEAST_SPARE: Final = 0.05
"""Of capacity counts as spare, however much demand is declared."""
GB_PER_KB: Final = 1e-6
_BY: Final[Mapping[Source, str]] = {
    "forecast": "by forecast", "usual": "as in the same hour of the last days", "last": "as it was last",
    "unknown": "of some grids unknown", "measured": "as measured",
}  # fmt: skip


class Market(NamedTuple):
    """Shapes: T hours, G groups."""

    plan: Layout
    usd: Floats
    """[T, G] of one request, without its egress"""
    spare_rps: Floats
    """[G]"""
    first: list[int]
    """[G] the column of an endpoint of each"""
    by: str
    """By what carbon is expected, in words; empty: it has no price anywhere."""

    def may(self, row: int) -> Floats:
        """[G] 1 where law lets the flow `row`, else 0."""
        out: Floats = self.plan.may[row, self.first].astype(np.float64)
        return out

    def alone_s(self, job: Deferred, may: Floats) -> float:
        """How long `job` takes with all that is spare to itself."""
        return need_s(job.requests, float(self.spare_rps @ may))

    def wish(self, job: Deferred, row: int, held_s: float | None) -> Wish:
        """What `job` of the flow `row` asks for; `held_s`: the start it was planned for."""
        class_, may = self.plan.flows[row].class_, self.may(row)
        per_gb = np.array([self.plan.fleet.endpoints[column].egress_usd_per_gb for column in self.first])
        latest_s = latest_safe_s(job, self.alone_s(job, may), class_.defer_s)
        return Wish(job, may, class_.response_kb * GB_PER_KB * per_gb, latest_s, held_s)


def servable(plan: Layout, job: Deferred) -> int | None:
    """The row of the job's flow; None when there is none, or no endpoint that it may use has a replica."""
    row = plan.flow_at.get((job.service, job.origin, job.class_))
    return row if row is not None and (plan.may[row] & (plan.capacity_rps > 0)).any() else None


def market_of(plan: Layout, costs: HeardCosts, hours: Sequence[int], rows: Iterable[int], usd_per_kg: float) -> Market:
    """The market of the flows `rows` in `hours` (unix hours, the first is the present one)."""
    expected = ahead(plan, costs, hours, usd_per_kg)
    may = plan.may[sorted(rows)]
    groups: dict[tuple[bytes, bytes, float], list[int]] = {}
    for column in np.flatnonzero(may.any(axis=0) & (plan.capacity_rps > 0)).tolist():
        egress = plan.fleet.endpoints[column].egress_usd_per_gb
        key = expected.usd[:, column].tobytes(), may[:, column].tobytes(), egress
        groups.setdefault(key, []).append(column)
    spare = spare_rps(plan)
    first = [members[0] for members in groups.values()]
    sources = {source for column in first for source in expected.sources[column]} - {"measured"}
    return Market(
        plan=plan,
        usd=expected.usd[:, first],
        spare_rps=np.array([spare[members].sum() for members in groups.values()]),
        first=first,
        by=" or ".join(_BY[source] for source in sorted(sources)),
    )


def spare_rps(plan: Layout) -> Floats:
    """[E] of declared capacity what declared demand leaves, headroom aside. Demand is taken to spread by capacity."""
    room = plan.may * plan.capacity_rps
    part = room / np.maximum(room.sum(axis=1, keepdims=True), 1e-12)
    spare: Floats = np.maximum(FILL * plan.capacity_rps - plan.expected_rps @ part, LEAST_SPARE * plan.capacity_rps)
    return spare
