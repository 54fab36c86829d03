"""Wishes as arrays: limits, weights and preferences, of the flows they are surely for."""

from __future__ import annotations

import msgspec
import numpy as np

from router_sync.layout import layout
from router_sync.policy.preference import PARTS, preferences
from streams.contract.records import Fleet, Policy, Rule
from tests.unit.router_fleet import endpoint, fleet, request_class

CHAT = request_class("chat", tier="premium", complexity="simple")
BATCH = request_class("batch", tier="sheddable")
ENDS = [endpoint("far", "us-east"), endpoint("near"), endpoint("site", edge=True)]


def wishing(*rules: Rule) -> Fleet:
    return msgspec.structs.replace(fleet([CHAT, BATCH], ENDS), policies=(Policy(name="p", rules=rules),))


def test_without_rules_nothing_is_wished_for() -> None:
    none = preferences(fleet([CHAT, BATCH], ENDS))
    assert np.isinf(none.limit_ms).all()
    assert (none.weigh == 1.0).all()
    assert (none.prefer_usd == 0.0).all()
    assert none.weigh.shape == (4, len(PARTS))


def test_the_least_limit_holds() -> None:
    of = wishing(
        Rule(id="a", limit_p95_ms=300), Rule(id="b", when={"class": ("chat",), "origin": ("eu",)}, limit_p95_ms=200)
    )
    rows = layout(of).flow_at
    limit_ms = preferences(of).limit_ms
    assert limit_ms[rows["chat", "eu", "chat"]] == 200
    assert limit_ms[rows["chat", "us", "chat"]] == limit_ms[rows["chat", "eu", "batch"]] == 300


def test_factors_multiply_by_part() -> None:
    of = wishing(
        Rule(id="a", when={"tier": ("sheddable",)}, weigh={"latency": 0, "carbon": 2}),
        Rule(id="b", weigh={"carbon": 3}),
    )
    weigh, rows = preferences(of).weigh, layout(of).flow_at
    assert dict(zip(PARTS, weigh[rows["chat", "eu", "batch"]], strict=True)) == {
        "price": 1, "egress": 1, "carbon": 6, "latency": 0, "risk": 1,
    }  # fmt: skip
    assert weigh[rows["chat", "eu", "chat"]].tolist() == [1, 1, 3, 1, 1]


def test_who_is_not_preferred_costs_what_it_is_worth() -> None:
    of = wishing(
        Rule(id="a", when={"complexity": ("simple",)}, prefer={"place": ("edge",)}, worth_usd=0.5),
        Rule(id="b", prefer={"country": ("IE",)}, worth_usd=0.25),
        Rule(id="c", prefer={"parent": ("us",)}, worth_usd=1.0),
    )
    prefer_usd, rows = preferences(of).prefer_usd, layout(of).flow_at
    assert prefer_usd[rows["chat", "eu", "chat"]].tolist() == [1.75, 1.5, 1.0]
    assert prefer_usd[rows["chat", "eu", "batch"]].tolist() == [1.25, 1.0, 1.0], (
        "of unknown complexity nothing is wished"
    )


def test_the_plan_has_them_beside_the_law() -> None:
    of = wishing(Rule(id="a", limit_p95_ms=300), Rule(id="b", deny={"place": ("edge",)}))
    plan = layout(of)
    assert plan.wishes.limit_ms.tolist() == [300.0] * 4
    assert plan.may.tolist() == [[True, True, False]] * 4
