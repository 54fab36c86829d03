"""What is said to be enough for a share is enough: made so much cheaper, the optimiser gives it one."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from router_sync.margin import PARTS, weighing
from router_sync.optimise import solve
from router_sync.problem import Problem, next_usd
from router_sync.score import CROWDING
from streams.contract.records import Candidate, Considered


@st.composite
def settled(draw: st.DrawFn) -> Problem:
    """A few flows over endpoints that are no twins, with the optimum's shares in force: nobody moves any more."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    flows, ends = draw(st.integers(1, 4)), draw(st.integers(2, 6))
    capacity = rng.uniform(20, 200, ends)
    demand = rng.gamma(2, 1, flows)
    price = rng.uniform(1e-6, 1e-4, ends)
    problem = Problem(
        demand_rps=demand * draw(st.sampled_from([0.2, 0.6, 0.9])) * capacity.sum() / demand.sum(),
        cost_usd=price + rng.uniform(0, draw(st.sampled_from([1e-6, 1e-4])), (flows, ends)),
        may=np.ones((flows, ends), bool),
        capacity_rps=capacity,
        crowd_usd=np.outer(price * 2, CROWDING),
        most_share=np.ones(ends),
        weight=np.ones(flows),
        kin=np.arange(ends),
    )
    shares = solve(problem).shares
    assume((shares.sum(axis=1) > 1 - 1e-6).all())
    return replace(problem, held=shares)


def considered(problem: Problem, flow: int) -> Considered:
    """What a decision would say of `flow`, every number as it is."""
    shares = problem.in_force
    load = shares.T @ problem.demand_rps
    use, crowd, last = load / problem.capacity_rps, next_usd(problem, load), next_usd(problem, 0.999 * load)
    return Considered(
        origin="o", class_="c", demand_rps=float(problem.demand_rps[flow]),
        candidates=tuple(
            Candidate(
                endpoint=str(n), latency_usd=0.0,
                **{name: float(column[n]) for name, column in (
                    ("price_usd", problem.cost_usd[flow]), ("share", shares[flow]), ("crowd_usd", crowd),
                    ("last_crowd_usd", last), ("load", use),
                )},
            )
            for n in range(len(use))
        ),
    )  # fmt: skip


@settings(max_examples=120, deadline=None)
@given(settled())
def test_an_endpoint_made_as_much_cheaper_as_is_said_gets_a_share_or_more(problem: Problem) -> None:
    for flow in range(len(problem.demand_rps)):
        for one in weighing(considered(problem, flow), 400.0).endpoints:
            if one.state != "cheaper" or one.price_part is None:
                continue
            cost = problem.cost_usd.copy()
            assert one.cheaper_usd is not None
            cost[flow, int(one.endpoint)] -= one.cheaper_usd * 1.01
            assume(cost.min() > 0)
            after = solve(replace(problem, cost_usd=cost)).shares
            assert after[flow, int(one.endpoint)] > problem.in_force[flow, int(one.endpoint)] + 1e-9


@settings(max_examples=120, deadline=None)
@given(settled())
def test_shares_parts_and_sums_are_those_of_the_decision(problem: Problem) -> None:
    told = considered(problem, 0)
    found = weighing(told, 400.0)
    assert {e.endpoint: e.share for e in found.endpoints} == {c.endpoint: c.share for c in told.candidates}
    for e in found.endpoints:
        assert e.total_usd == sum(e.parts.values())
        assert tuple(e.parts) == PARTS
        assert (e.cheaper_usd or 1.0) > 0
    assert msgspec.json.decode(msgspec.json.encode(found), type=type(found)) == found
