"""Laws that only show in time, in a closed loop: what is decided is followed, and what comes of it is what is heard."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import msgspec
import pytest

from router_sync.heard import FORGET_S, SILENT_S
from router_sync.situation import RAMP_S
from router_sync.table import MOST_MOVED, moves
from streams.contract import topics
from streams.contract.records import EndpointMetrics, Record
from tests.replay.small_world import (
    CLASSES,
    RPS,
    RTT_MS,
    START_S,
    Between,
    after,
    endpoint,
    fleet,
    lived,
    share_of,
    shares,
    tables,
    world,
)
from tradewind.world import House, World
from tradewind.world.ledger import FATES


def reversals(of: World, since_s: float, least: float = 0.1) -> dict[tuple[str, str], int]:
    """How often the share of an endpoint turned back by `least` or more, by flow that asks; the worst endpoint."""
    held = list(after(of, since_s))
    found = {}
    for origin, class_ in RPS:
        ends = {end for table in held for end in shares(table, origin, class_)}
        found[origin, class_] = max(
            _turns([shares(table, origin, class_).get(end, 0.0) for table in held], least) for end in ends
        )
    return found


def _turns(values: list[float], least: float) -> int:
    """Reversals of a zigzag with legs of `least` or more.

    >>> _turns([0.0, 0.5, 0.6, 0.1, 0.12, 0.1, 0.9], 0.05)
    2
    """
    found, way, far = 0, 0.0, values[0]
    for value in values:
        if (value - far) * way > 0 or (way == 0 and abs(value - far) >= least):
            way, far = value - far if way == 0 else way, value
        elif way and abs(value - far) >= least:
            found, way, far = found + 1, value - far, value
    return found


# ---------------------------------------------------------------- conservation, law, numbers, bytes


@pytest.fixture(scope="module")
def outage() -> World:
    """A region lost for 40 s, and half of the requests of another endpoint."""
    return lived(120.0, faults=[("us-east", 30.0, 70.0, "dead"), ("eu-west-b", 80.0, 95.0, "partial")], noise=0.05)


def test_all_that_is_asked_is_served_late_shed_or_failed(outage: World) -> None:
    asked = outage.arrivals.between(START_S, START_S + 120.0)
    assert outage.ledger.conserved
    assert outage.ledger.demand.sum(axis=0).tolist() == asked.tolist()
    assert sum(int(outage.ledger.fates[fate].sum()) for fate in FATES) == asked.sum() > 12_000


def test_nothing_goes_where_law_does_not_let_it_not_even_while_its_region_is_lost() -> None:
    of = lived(90.0, faults=[("eu-west", 20.0, 60.0, "dead")])
    private = of.ground.flow_at["chat", "europe", "private"]
    assert of.ledger.breaches == {}
    assert of.ledger.checked > of.ledger.demand.sum()
    assert of.ledger.fates["failed"][:, private].sum() > 300, "it fails rather than go elsewhere"
    assert of.ledger.fates["served"].sum() > 0.9 * (of.ledger.demand.sum() - of.ledger.demand[:, private].sum())


def test_table_numbers_only_grow_and_gateways_refuse_none(outage: World) -> None:
    numbers = [(table.epoch, table.version) for table in tables(outage)]
    assert len(numbers) > 30
    assert all(before < later for before, later in pairwise(numbers))
    assert isinstance(outage.brain, House)
    assert outage.brain.follower.refusals() == {}
    assert outage.brain.dead_letters == 0


def test_equal_seeds_give_equal_bytes_and_others_do_not() -> None:
    def day(seed: int) -> list[object]:
        of = lived(45.0, faults=[("us-east", 15.0, 30.0, "dead")], noise=0.05, seed=seed)
        assert isinstance(of.brain, House)
        return [*of.brain.carrier.said(topics.ROUTING_TABLE), *of.brain.carrier.said(topics.DECISIONS)]

    assert day(3) == day(3)
    assert day(3) != day(4)


# ---------------------------------------------------------------- moving, and standing still


def test_a_table_converges_when_the_world_stands_still() -> None:
    of = lived(180.0)
    settled = list(after(of, 120.0))
    assert len(settled) >= 10
    assert max(max(moves(old, new).values()) for old, new in pairwise(settled)) < 0.02
    assert of.ledger.fates["served"].sum() > 0.99 * of.ledger.demand.sum()


ASKED = {"a third": 1.0, "half": 1.5, "two thirds": 2.1}
"""Of all capacity, to the factor on RPS."""


@pytest.mark.parametrize(
    ("of_capacity", "delay_s"),
    [
        ("a third", 0.0),
        ("a third", 5.0),
        ("half", 0.0),
        ("half", 5.0),
        ("two thirds", 0.0),
        ("two thirds", 5.0),
    ],
)
def test_shares_do_not_ring_however_late_measurements_come(of_capacity: str, delay_s: float) -> None:
    asked = {key: ASKED[of_capacity] * rps for key, rps in RPS.items()}
    said = sum(asked.values()) / len(RTT_MS)
    of = lived(200.0, of=fleet(demand_rps=said), report_delay_s=delay_s, noise=0.05, rps=asked)
    assert max(reversals(of, 60.0).values()) <= 1
    assert of.ledger.fates["served"].sum() > 0.98 * of.ledger.demand.sum(), "there is room for all of it"


def test_evacuation_beats_hysteresis_and_the_limit_of_a_move() -> None:
    of = lived(40.0, faults=[("us-east", 30.2, 40.0, "dead")])
    before = next(table for table in reversed(tables(of)) if table.issued_at_s < START_S + 30.0)
    gone = next(table for table in after(of, 30.2) if share_of(table, "us-east", "america") == 0.0)
    assert share_of(before, "us-east", "america") > MOST_MOVED
    assert gone.issued_at_s <= START_S + 32.0
    later = [share_of(table, "us-east", "america") for table in after(of, gone.issued_at_s - START_S)]
    assert max(later) == 0.0


def test_a_recovering_endpoint_is_let_in_step_by_step() -> None:
    of = lived(110.0, faults=[("us-east", 30.0, 60.0, "dead")])
    back = next(t for t in after(of, 60.0) if all(e.state == "ready" for e in t.endpoints))
    for table in after(of, back.issued_at_s - START_S):
        since_s = table.issued_at_s - back.issued_at_s
        most = max(shares(table, "america").get(name, 0.0) for name in ("us-east-a", "us-east-b"))
        assert most <= max(0.1, min(1.0, since_s / RAMP_S + 0.1)) + 1e-6
    assert share_of(list(after(of, 100.0))[-1], "us-east", "america") > 0.5, "and all the way"


def test_who_was_slow_and_is_well_again_is_used_again() -> None:
    of = lived(180.0, faults=[("us-east-b", 60.0, 90.0, "slow")], rps=RPS)
    before = next(table for table in reversed(tables(of)) if table.issued_at_s < START_S + 60.0)
    assert share_of(before, "us-east-b", "america") > 0.3
    assert share_of(tables(of)[-1], "us-east-b", "america") > 0.1


# ---------------------------------------------------------------- silence


def _deaf(since_s: float, to: str) -> Callable[[House], Between]:
    """The house hears no report of endpoints called `to`… from `since_s` on."""

    def passes(record: Record, at_s: float) -> bool:
        return not (isinstance(record, EndpointMetrics) and record.endpoint.startswith(to) and at_s >= since_s)

    return lambda house: Between(house, passes)


@pytest.mark.parametrize("to", ["eu-west", ""])
def test_silence_of_a_region_or_of_all_evacuates_nobody(to: str) -> None:
    of = lived(60.0 + SILENT_S + 30.0, brain=_deaf(60.0, to))
    before = next(table for table in reversed(tables(of)) if table.issued_at_s < START_S + 60.0)
    silent = list(after(of, 62.0 + SILENT_S))
    assert len(silent) >= 4
    assert min(share_of(table, "eu-west") for table in silent) > 0.9 * share_of(before, "eu-west") > 0.3
    assert {e.state for table in silent for e in table.endpoints} == {"ready"}
    assert any("silent, kept as they were" in table.reason for table in silent)


def test_the_dead_of_whom_nobody_speaks_any_more_age_out_and_are_tried_again() -> None:
    of = lived(45.0 + FORGET_S + 10.0, brain=_deaf(40.0, "eu-west"), faults=[("eu-west", 20.0, 60.0, "dead")])
    states = {round(t.issued_at_s - START_S): {e.name: e.state for e in t.endpoints}["eu-west-a"] for t in tables(of)}
    assert {state for at, state in states.items() if 25 <= at <= 40 + FORGET_S - 5} == {"down"}
    assert states[max(states)] == "ready", "unheard for so long, it may be well again"


# ---------------------------------------------------------------- load


def test_demand_beyond_all_capacity_is_accounted_for_and_what_is_there_serves_on() -> None:
    small = fleet([endpoint("eu-west", "a", replicas=1), endpoint("us-east", "a", replicas=1)])
    of = lived(60.0, of=small, rps={("europe", "interactive"): 80.0, ("america", "interactive"): 40.0})
    assert of.ledger.conserved
    answered = of.ledger.fates["served"].sum() + of.ledger.fates["late"].sum()
    assert 0.7 * 3600 < answered <= 3600 + 100, "sixty a second is what two replicas can"


def test_the_tier_that_is_declared_to_give_way_gives_way_first() -> None:
    chat = fleet().services[0]
    classes = (chat.classes[0], msgspec.structs.replace(chat.classes[0], name="bulk", tier="sheddable"))
    of = lived(
        90.0,
        of=msgspec.structs.replace(
            fleet([endpoint("eu-west", "a"), endpoint("us-east", "a")]),
            services=(msgspec.structs.replace(chat, classes=classes),),
        ),
        rps={("europe", "interactive"): 60.0, ("america", "bulk"): 120.0},
    )
    at = of.ground.flow_at
    premium, bulk = at["chat", "europe", "interactive"], at["chat", "america", "bulk"]
    assert of.ledger.fates["served"][:, premium].sum() > 0.9 * of.ledger.demand[:, premium].sum()
    assert of.ledger.fates["shed"][:, bulk].sum() > 0.3 * of.ledger.demand[:, bulk].sum()


def test_the_world_of_the_laws_has_room_and_classes_enough() -> None:
    assert sum(RPS.values()) < 0.6 * sum(e.capacity_rps * e.replicas for e in fleet().endpoints)
    assert {class_ for _, class_ in RPS} == {c.name for c in CLASSES}
    assert world(1.0).ground.forbidden
