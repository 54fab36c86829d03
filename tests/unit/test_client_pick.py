"""Picking: shares, corrections, exclusions, and what happens when everything is open."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence

import msgspec
import pytest

from router_sync.client import Picker
from router_sync.client.shares import Ring, alias
from streams.contract.records import EndpointState, Route, RoutingTable, TableEndpoint


class Time:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def described(name: str, state: EndpointState = "ready", url: str = "http://a:1") -> TableEndpoint:
    return TableEndpoint(
        name=name,
        url=url,
        provider="p",
        region="r",
        zone="z",
        jurisdiction="DE",
        state=state,
        capacity_rps=10,
        concurrency=8,
        cost_usd_per_request=0.0,
        latency_p95_ms=100,
    )


def table(
    shares: dict[str, float],
    fallbacks: Sequence[str] = (),
    *,
    version: int = 1,
    strangers: Sequence[str] = (),
    down: Sequence[str] = (),
) -> RoutingTable:
    names = dict.fromkeys([*shares, *fallbacks, *strangers])
    route = Route(
        origin="eu",
        class_="chat",
        slo_p95_ms=300,
        endpoints=tuple(shares),
        shares=tuple(shares.values()),
        fallbacks=tuple(fallbacks),
    )
    return RoutingTable(
        service="m",
        epoch=1,
        version=version,
        issued_at_s=0,
        expires_at_s=1e9,
        fleet_version=1,
        default_class="chat",
        endpoints=tuple(described(name, "down" if name in down else "ready") for name in names),
        routes=(route,),
    )


def picker(of: RoutingTable, time: Time | None = None, seed: int = 1) -> Picker:
    return Picker(of, rng=random.Random(seed), clock=time or Time())


def drawn(one: Picker, count: int = 20_000, exclude: Sequence[str] = ()) -> Counter[str]:
    picks = (one.pick("eu", "chat", exclude=exclude) for _ in range(count))
    return Counter(pick.endpoint.name for pick in picks if pick is not None)


def opened(one: Picker, *names: str) -> None:
    for name in names:
        local = one.endpoints[name]
        for _ in range(3):
            local.failed(100.0, "connect", local.begin())


def test_draws_follow_the_shares_when_all_goes_to_plan() -> None:
    counts = drawn(picker(table({"a": 0.6, "b": 0.3, "c": 0.1})))
    assert counts["a"] / 20_000 == pytest.approx(0.6, abs=0.015)
    assert counts["b"] / 20_000 == pytest.approx(0.3, abs=0.015)
    assert counts["c"] / 20_000 == pytest.approx(0.1, abs=0.01)


def test_shares_hold_under_load_although_a_slow_endpoint_holds_more_requests() -> None:
    """A small simulation: 400 requests/s for 60 s; b takes four times as long as a and has its share all the same."""
    time, rng = Time(), random.Random(3)
    one = picker(table({"a": 0.5, "b": 0.3, "c": 0.2}), time)
    usual_s = {"a": 0.05, "b": 0.2, "c": 0.1}
    under_way: list[tuple[float, float, str, bool]] = []
    counts: Counter[str] = Counter()
    for step in range(24_000):
        time.now_s = 100 + step / 400
        for done in sorted(entry for entry in under_way if entry[0] <= time.now_s):
            under_way.remove(done)
            one.endpoints[done[2]].ok(done[0], (done[0] - done[1]) * 1000, done[3])
        if step % 2000 == 1999:
            one.adopt(table({"a": 0.5, "b": 0.3, "c": 0.2}, version=step))
        pick = one.pick("eu", "chat")
        assert pick is not None
        name = pick.endpoint.name
        counts[name] += step >= 4000
        under_way.append((time.now_s + usual_s[name] * rng.uniform(0.8, 1.2), time.now_s, name, pick.endpoint.begin()))
    assert {name: count / 20_000 for name, count in counts.items()} == pytest.approx(
        {"a": 0.5, "b": 0.3, "c": 0.2}, abs=0.03
    )


def test_an_endpoint_that_slows_down_loses_share_before_the_table_knows() -> None:
    one = picker(table({"a": 0.5, "b": 0.5}))
    for local in one.endpoints.values():
        for _ in range(20):
            local.observe(99.0, 100)
    one.endpoints["a"].observe(100.0, 2000)
    assert drawn(one)["a"] / 20_000 == pytest.approx(0.25, abs=0.02)


def test_an_endpoint_that_fills_up_loses_share() -> None:
    one = picker(table({"a": 0.5, "b": 0.5}))
    for _ in range(50):
        one.endpoints["a"].begin()
    assert drawn(one)["a"] / 20_000 == pytest.approx(0.25, abs=0.02)


def test_what_is_excluded_is_not_picked_and_the_rest_keeps_its_proportion() -> None:
    counts = drawn(picker(table({"a": 0.5, "b": 0.4, "c": 0.1})), exclude=("a",))
    assert "a" not in counts
    assert counts["b"] / 20_000 == pytest.approx(0.8, abs=0.02)


def test_an_open_breaker_takes_an_endpoint_out() -> None:
    one = picker(table({"a": 0.98, "b": 0.02}))
    opened(one, "a")
    assert set(drawn(one, 500)) == {"b"}


def test_after_its_time_an_open_endpoint_gets_one_trial_and_not_two() -> None:
    time = Time()
    one = picker(table({"a": 0.98, "b": 0.02}), time)
    opened(one, "a")
    time.now_s = 102.0
    first = one.pick("eu", "chat")
    assert first is not None
    assert first.endpoint.name == "a"
    assert first.endpoint.begin()
    assert set(drawn(one, 200)) == {"b"}


def test_fallbacks_come_in_order_when_all_shares_are_gone() -> None:
    one = picker(table({"a": 0.5, "b": 0.5}, ["x", "y"]))
    opened(one, "a", "b")
    assert set(drawn(one, 50)) == {"x"}
    assert set(drawn(one, 50, exclude=("x",))) == {"y"}


def test_when_everything_is_open_the_least_bad_is_tried_and_nothing_foreign() -> None:
    one = picker(table({"a": 0.5, "b": 0.5}, ["x"], strangers=["forbidden"]))
    opened(one, "a", "b", "x")
    assert set(drawn(one, 50)) <= {"a", "b", "x"}
    assert set(drawn(one, 50, exclude=("a", "b"))) == {"x"}
    assert not drawn(one, 50, exclude=("a", "b", "x"))


def test_what_the_table_calls_down_is_the_very_last_resort() -> None:
    one = picker(table({"a": 1.0, "b": 0.0}, ["x"], down=["x"]))
    opened(one, "a")
    assert set(drawn(one, 20)) == {"b"}
    opened(one, "b")
    assert "x" not in drawn(one, 20)
    assert set(drawn(one, 20, exclude=("a", "b"))) == {"x"}


def test_the_law_is_closed_for_origins_and_classes_without_a_route() -> None:
    one = picker(table({"a": 1.0}))
    assert one.pick("us", "chat") is None
    assert one.pick("eu", "batch") is None
    assert not one.serves("eu", "batch")
    assert one.serves("eu", "chat")


def test_of_a_route_that_is_empty_nothing_is_picked_until_it_is_filled_again() -> None:
    picker = Picker(table({}, strangers=("a",)), rng=random.Random(1), clock=Time())
    assert picker.pick("eu", "chat") is None
    picker.adopt(table({"a": 1.0}, version=2))
    assert picker.pick("eu", "chat") is not None
    picker.adopt(table({}, strangers=("a",), version=3))
    assert picker.pick("eu", "chat") is None
    assert picker.pick("eu", "chat", key="session") is None


def test_a_key_finds_the_same_endpoint_and_turns_away_only_when_it_must() -> None:
    one = picker(table({"a": 0.4, "b": 0.3, "c": 0.3}))
    keys = [f"session-{i}" for i in range(2000)]
    homes = {key: one.pick("eu", "chat", key).endpoint.name for key in keys}  # type: ignore[union-attr]
    assert homes == {key: one.pick("eu", "chat", key).endpoint.name for key in keys}  # type: ignore[union-attr]
    assert Counter(homes.values())["a"] / 2000 == pytest.approx(0.4, abs=0.06)
    opened(one, "a")
    after = {key: one.pick("eu", "chat", key).endpoint.name for key in keys}  # type: ignore[union-attr]
    assert "a" not in after.values()
    assert all(after[key] == home for key, home in homes.items() if home != "a")


def test_few_keys_move_when_shares_change_a_little() -> None:
    before = Ring(["a", "b", "c"], [0.4, 0.3, 0.3])
    after = Ring(["a", "b", "c"], [0.38, 0.31, 0.31])
    keys = [f"session-{i}" for i in range(2000)]
    moved = sum(next(before.walk(key)) != next(after.walk(key)) for key in keys)
    assert moved / 2000 < 0.06


def test_what_is_known_of_an_endpoint_survives_a_new_table_but_not_a_new_address() -> None:
    one = picker(table({"a": 0.5, "b": 0.5}))
    one.endpoints["a"].begin()
    kept = one.endpoints["a"]
    one.adopt(table({"a": 0.9, "b": 0.1}, version=2))
    assert one.endpoints["a"] is kept
    assert one.endpoints["a"].in_flight == 1
    other = table({"a": 1.0}, version=3)
    one.adopt(RoutingTable(**{**_fields(other), "endpoints": (described("a", url="http://elsewhere:1"),)}))
    assert one.endpoints["a"].in_flight == 0


def _fields(of: RoutingTable) -> dict[str, object]:
    return {name: getattr(of, name) for name in of.__struct_fields__}


def test_left_counts_what_was_not_tried_and_is_not_down() -> None:
    one = picker(table({"a": 0.5, "b": 0.5}, ["x", "y"], down=["y"]))
    assert one.left("eu", "chat", ["a"]) == 2
    assert one.left("eu", "chat", ["a", "b", "x"]) == 0
    assert one.left("us", "chat", []) == 0


def test_an_alias_table_holds_exactly_the_shares() -> None:
    shares = [0.5, 0.25, 0.125, 0.1, 0.025]
    keep, other = alias(shares)
    held = [0.0] * 5
    for i in range(5):
        held[i] += (keep[i] - i) / 5
        held[other[i]] += (1 - (keep[i] - i)) / 5
    assert held == pytest.approx(shares)


def test_who_is_to_be_left_is_the_last_of_the_fallbacks_but_one_that_is_down() -> None:
    of = table({"a": 1.0}, ["x", "y", "z"], down=["x"])
    leaving = tuple(msgspec.structs.replace(e, state="drain") if e.name == "y" else e for e in of.endpoints)
    one = picker(msgspec.structs.replace(of, endpoints=leaving))
    opened(one, "a")
    assert drawn(one, 10) == {"z": 10}
    assert drawn(one, 10, exclude=["z"]) == {"y": 10}
