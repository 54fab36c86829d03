"""What would have to change for an endpoint to get a share of a route, or more of one: from a decision's own numbers.

One more request of the route costs at an endpoint its objective, what it adds by crowding, and the move. The dearest
request that is served now is the bar: whoever would serve it for less gets it.

      usd                          bar
      ├── a, in use ───┤            │        needs = objective + crowding + move - bar
      ├── b, in use ────────────────┤
      ├── c ────────────────────────┼─────┤  c gets a share when it is so much cheaper, or nearer
      ├── d, full ────┤             │        d gets no more however cheap it is: more replicas

It is the reduced cost where shares are an optimum and no other flow moves: near, not exact.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Literal

import msgspec
import numpy as np

from router_sync.problem import MOVE
from router_sync.score import felt_s
from streams.contract.records import Candidate, Considered

FULL: Final = 0.999
BALANCED: Final = 0.005
"""Of the bar: nearer than this nothing is gained by a move."""
PARTS: Final = ("price", "egress", "carbon", "latency", "risk", "rule")
"""Of the objective, each `…_usd` of a candidate."""
State = Literal["all", "balanced", "full", "cheaper", "law", "order", "notice", "health", "capacity", "unnamed"]
"""What keeps it from a share, or from more: nothing, as it has all; nothing, as it costs as much as the others; it is
full; it is too dear; a rule; an operator; it is about to go; its health; no replica; the decision does not name it."""


class Weighed(msgspec.Struct, frozen=True, kw_only=True):
    """An endpoint as a route saw it. Dollars are per request; what is None is not known, or has no part in it."""

    endpoint: str
    share: float
    state: State
    why_not: str = ""
    parts: dict[str, float] = {}
    total_usd: float | None = None
    crowd_usd: float | None = None
    load: float | None = None
    p95_ms: float | None = None
    cheaper_usd: float | None = None
    """So much cheaper it would get a share, or more."""
    price_part: float | None = None
    """`cheaper_usd` as a part of its price; None: its price alone cannot do it."""
    faster_ms: float | None = None
    """So much lower its p95 would do the same; None: latency alone cannot do it."""
    grows: bool = False
    """It gets a share, or more, as soon as demand grows: nobody in use takes one more request for less."""


class Weighing(msgspec.Struct, frozen=True, kw_only=True):
    """A route, and every endpoint that was considered for it: those in use first, the nearest to a share next."""

    origin: str
    class_: str = msgspec.field(name="class")
    slo_p95_ms: float
    demand_rps: float
    unserved_rps: float
    usd_per_request: float
    """Where it goes now, crowding left aside."""
    bar_usd: float | None
    endpoints: tuple[Weighed, ...]
    left_out: int
    """Endpoints that the decision does not name."""


def weighing(one: Considered, slo_p95_ms: float) -> Weighing:
    """What `one` says of each endpoint of its route."""
    each = sum(c.share * total_usd(c) for c in one.candidates)
    used = [c for c in one.candidates if c.share > 0]
    candidates = [_weighed(c, used, MOVE * each, slo_p95_ms) for c in one.candidates]
    candidates.sort(key=lambda w: (-w.share, w.cheaper_usd or 0.0, w.endpoint))
    return Weighing(
        origin=one.origin, class_=one.class_, slo_p95_ms=slo_p95_ms, demand_rps=one.demand_rps,
        unserved_rps=one.unserved_rps, usd_per_request=each, bar_usd=max(map(last_usd, used), default=None),
        endpoints=(*candidates, *_excluded(one)), left_out=one.left_out,
    )  # fmt: skip


def _excluded(one: Considered) -> Iterator[Weighed]:
    for excluded in one.excluded:
        yield Weighed(endpoint=excluded.endpoint, share=0.0, state=excluded.kind or "health", why_not=excluded.reason)


def parts(candidate: Candidate) -> dict[str, float]:
    """The objective by its parts, dollars per request."""
    return {name: getattr(candidate, f"{name}_usd") for name in PARTS}


def total_usd(candidate: Candidate) -> float:
    """The objective: all parts together."""
    return sum(parts(candidate).values())


def next_usd(candidate: Candidate) -> float:
    """What one more request costs there, crowding included."""
    return total_usd(candidate) + candidate.crowd_usd


def full(candidate: Candidate) -> bool:
    """Whether all its capacity is used."""
    return candidate.load is not None and candidate.load >= FULL


def last_usd(candidate: Candidate) -> float:
    """What the last of the requests there costs: where a segment of utilisation is just full, less than the next."""
    crowd_usd = candidate.crowd_usd if candidate.last_crowd_usd is None else candidate.last_crowd_usd
    return total_usd(candidate) + crowd_usd


def _weighed(c: Candidate, used: list[Candidate], move_usd: float, slo_ms: float) -> Weighed:
    """`c` beside those `used`; `move_usd`: of serving a request elsewhere than now."""
    base = Weighed(
        endpoint=c.endpoint, share=c.share, state="balanced", parts=parts(c), total_usd=total_usd(c),
        crowd_usd=c.crowd_usd, load=c.load, p95_ms=c.p95_ms,
    )  # fmt: skip
    if c.share >= 1.0 - 1e-4:
        return msgspec.structs.replace(base, state="all")
    if full(c):
        return msgspec.structs.replace(base, state="full")
    others = [other for other in used if other is not c]
    costs = next_usd(c) + move_usd
    bar_usd = max(map(last_usd, others), default=costs)
    grows = next_usd(c) <= min((next_usd(other) for other in others if not full(other)), default=costs)
    needs = costs - bar_usd
    if needs <= BALANCED * bar_usd:
        return msgspec.structs.replace(base, grows=grows)
    return msgspec.structs.replace(
        base, state="cheaper", cheaper_usd=needs, grows=grows, faster_ms=_faster_ms(c, needs, slo_ms),
        price_part=needs / c.price_usd if needs <= c.price_usd else None,
    )  # fmt: skip


def _faster_ms(c: Candidate, needs_usd: float, slo_ms: float) -> float | None:
    """How much lower its p95 would save `needs_usd`; None: no latency would.

    What a felt second costs the route follows from the candidate's own p95 and price of latency.
    """
    if not c.p95_ms or needs_usd >= c.latency_usd:
        return None
    steps = np.linspace(0.0, c.p95_ms, 4001)
    felt = felt_s(steps, np.array(slo_ms))
    wanted = felt[-1] * (1.0 - needs_usd / c.latency_usd)
    return float(c.p95_ms - steps[np.searchsorted(felt, wanted, side="right") - 1])
