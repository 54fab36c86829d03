"""Laws of picking, for any table, any past and any exclusion hypothesis finds."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router_sync.client import Picker
from router_sync.client.shares import alias
from streams.contract.records import Route, RoutingTable, TableEndpoint

NAMES = [f"e{i}" for i in range(8)]
KINDS = ["connect", "reset", "stall", "http_5xx", "http_429", "client_4xx"]


def described(name: str, state: str) -> TableEndpoint:
    return TableEndpoint(
        name=name,
        url="http://a:1",
        provider="p",
        region="r",
        zone="z",
        jurisdiction="DE",
        state=state,  # type: ignore[arg-type]
        capacity_rps=10,
        concurrency=8,
        cost_usd_per_request=0.0,
        latency_p95_ms=100,
    )


@st.composite
def tables(draw: st.DrawFn) -> RoutingTable:
    allowed = draw(st.lists(st.sampled_from(NAMES), unique=True, max_size=6))
    weights = [draw(st.sampled_from([0.0, 0.001, 1.0, 5.0])) for _ in allowed]
    total = sum(weights) or 1.0
    states = [draw(st.sampled_from(["ready", "drain", "down"])) for _ in NAMES]
    route = Route(
        origin="eu",
        class_="chat",
        slo_p95_ms=300,
        endpoints=tuple(allowed),
        shares=tuple(weight / total for weight in weights),
        fallbacks=tuple(draw(st.lists(st.sampled_from(NAMES), unique=True, max_size=3))),
    )
    return RoutingTable(
        service="m",
        epoch=1,
        version=1,
        issued_at_s=0,
        expires_at_s=1e9,
        fleet_version=1,
        default_class="chat",
        endpoints=tuple(map(described, NAMES, states)),
        routes=(route,),
    )


happenings = st.lists(
    st.tuples(st.sampled_from(NAMES), st.sampled_from([*KINDS, "ok", "hang", "gone"]), st.floats(0, 20)), max_size=60
)


def lived(of: RoutingTable, past: list[tuple[str, str, float]]) -> tuple[Picker, list[float]]:
    clock = [100.0]
    picker = Picker(of, rng=random.Random(1), clock=lambda: clock[0])
    for name, what, after_s in past:
        clock[0] += after_s
        local = picker.endpoints[name]
        trial = local.begin()
        if what == "ok":
            local.ok(clock[0], 100.0, trial)
        elif what == "gone":
            local.dropped(trial)
        elif what != "hang":
            local.failed(clock[0], what, trial)  # type: ignore[arg-type]
    return picker, clock


@settings(deadline=None)
@given(tables(), happenings, st.sets(st.sampled_from(NAMES)), st.none() | st.text(max_size=5))
def test_a_pick_is_always_in_the_route_and_never_excluded_and_there_is_one_while_one_is_left(
    of: RoutingTable, past: list[tuple[str, str, float]], exclude: set[str], key: str | None
) -> None:
    picker, _ = lived(of, past)
    allowed = {*of.routes[0].endpoints, *of.routes[0].fallbacks}
    for _ in range(10):
        pick = picker.pick("eu", "chat", key, exclude)
        if pick is None:
            assert allowed <= exclude
        else:
            assert pick.endpoint.name in allowed - exclude


@settings(deadline=None)
@given(tables(), happenings)
def test_an_endpoint_that_does_not_admit_is_picked_only_when_none_in_the_route_does(
    of: RoutingTable, past: list[tuple[str, str, float]]
) -> None:
    picker, clock = lived(of, past)
    route = of.routes[0]
    names = {*route.endpoints, *route.fallbacks}
    usable = {n for n in names if picker.endpoints[n].breaker.admits(clock[0]) and picker.endpoints[n].state != "down"}
    for _ in range(10):
        pick = picker.pick("eu", "chat")
        if pick is not None and usable:
            assert pick.endpoint.breaker.admits(clock[0])


@settings(deadline=None)
@given(tables(), happenings)
def test_in_flight_never_goes_below_zero_and_a_quiet_endpoint_is_admitted_again(
    of: RoutingTable, past: list[tuple[str, str, float]]
) -> None:
    picker, clock = lived(of, past)
    clock[0] += 40.0
    for local in picker.endpoints.values():
        assert local.in_flight >= 0
        assert local.breaker.admits(clock[0]) or local.breaker.trial


@given(st.lists(st.floats(1e-6, 1.0), min_size=1, max_size=50))
def test_an_alias_table_holds_any_shares(shares: list[float]) -> None:
    keep, other = alias(shares)
    count, held = len(shares), [0.0] * len(shares)
    for i in range(count):
        held[i] += keep[i] - i
        held[other[i]] += 1 - (keep[i] - i)
    expected: list[Any] = [share / sum(shares) * count for share in shares]
    assert held == pytest.approx(expected, abs=1e-9)


@given(st.lists(st.tuples(st.floats(0.01, 1.0), st.floats(1.0, 5000.0)), min_size=2, max_size=8), st.integers(1, 100))
def test_strain_is_the_same_for_all_while_each_holds_its_share_whatever_its_size_and_distance(
    of: list[tuple[float, float]], load: int
) -> None:
    total = sum(share for share, _ in of)
    names = tuple(NAMES[: len(of)])
    shares = tuple(share / total for share, _ in of)
    route = Route(origin="eu", class_="chat", slo_p95_ms=300, endpoints=names, shares=shares)
    table = RoutingTable(
        service="m",
        epoch=1,
        version=1,
        issued_at_s=0,
        expires_at_s=1e9,
        fleet_version=1,
        default_class="chat",
        endpoints=tuple(described(name, "ready") for name in names),
        routes=(route,),
    )
    picker = Picker(table, rng=random.Random(1), clock=lambda: 100.0)
    for name, (_, latency_ms) in zip(names, of, strict=True):
        local = picker.endpoints[name]
        local.ok(100.0, latency_ms, local.begin())
    picker.adopt(table)  # takes over what is usual
    strains = []
    for name, (share, latency_ms) in zip(names, of, strict=True):
        picker.endpoints[name].in_flight = load * share * latency_ms  # type: ignore[assignment]  # Little's law
        pick = picker.pick("eu", "chat", exclude=set(names) - {name})
        assert pick is not None
        strains.append(pick.strain(100.0))
    assert strains == pytest.approx([strains[0]] * len(strains))
