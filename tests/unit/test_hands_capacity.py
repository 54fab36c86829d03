"""What `tradewind capacity` tells people, and which plans it does not send."""

from __future__ import annotations

from typing import Any

import pytest

from router_sync.actuators.bounds import Bounds
from streams.contract.errors import BadSetting
from streams.contract.records import Capacity, CapacityPlan
from tradewind.hands.capacity import PoolState, _is_about, _said, _state, check, has, lines, pool_of

POOL = "aws/eu/eu-a/g6/spot"
PLAN = CapacityPlan(pool=POOL, plan_id="p-1", made_at_s=100.0, want=5, have=2, not_before_s=100.0, reason="noon")
SAID = Capacity(
    pool=POOL, at_s=170.0, ready=4, starting=1, failed=2, cold_start_s=61.2, plan_id="p-1", note="p-1: set to 5"
)


def state(plan: CapacityPlan | None = PLAN, said: Capacity | None = SAID) -> PoolState:
    return _state(POOL, Bounds(least=1, most=8, replicas=2), plan, said, 175.0)


def test_a_pool_is_a_line_and_its_note_another() -> None:
    head, row, note = lines([state()])
    assert head.split() == ["POOL", "WANT", "READY", "STARTING", "FAILED", "COLD", "START", "SEEN", "PLAN"]
    assert row.split()[:6] == [POOL, "5", "4", "1", "2", "61"]
    assert row.endswith("5.0 s ago  p-1, carried out, 75 s old: noon")
    assert note == f"{POOL}: p-1: set to 5"


def test_what_nobody_has_said_is_not_made_up() -> None:
    (_, row) = lines([state(None, None)])
    assert row.split() == [POOL, "-", "(2)", "-", "-", "-", "never", "none"]
    assert has(state(None, None)) == 2
    assert has(state()) == 5


def test_a_plan_that_is_not_the_last_one_carried_out_and_an_operators_are_said_to_be() -> None:
    operators = CapacityPlan(
        pool=POOL, plan_id="op-1", made_at_s=100.0, want=7, have=2, not_before_s=100.0, reason="", by="ann",
        until_s=3600.0,
    )  # fmt: skip
    (_, row, _) = lines([state(operators)])
    assert "op-1 by ann until 1970-01-01 01:00:00Z, not carried out" in row
    assert not state(operators).carried_out


def test_a_pool_that_is_not_there_is_answered_with_the_one_that_was_meant() -> None:
    assert pool_of([state()], POOL).most == 8
    with pytest.raises(BadSetting, match="Did you mean aws/eu/eu-a/g6/spot"):
        pool_of([state()], POOL.replace("spot", "spto"))
    with pytest.raises(BadSetting, match="The fleet has aws/eu/eu-a/g6/spot"):
        pool_of([state()], "x")


@pytest.mark.parametrize(("want", "asked"), [(9, "raise most_replicas"), (0, "lower least_replicas")])
def test_a_number_that_the_fleet_does_not_let_plan_is_not_sent(want: int, asked: str) -> None:
    with pytest.raises(BadSetting, match=asked):
        check(state(), want)
    check(state(), 8)


def test_an_answer_is_about_a_plan_by_its_receipt_or_its_note() -> None:
    class Got:
        def __init__(self, **more: Any) -> None:
            self.key, self.value = POOL.encode(), b'{"pool":"p","at_s":1,"ready":1}'
            self.__dict__ |= more

    assert _said(Got(), POOL) is not None
    assert _said(Got(key=b"another"), POOL) is None
    assert _said(Got(value=b"{"), POOL) is None
    assert _said(Got(value=None), POOL) is None
    assert _is_about(SAID, PLAN)
    assert _is_about(Capacity(pool=POOL, at_s=1.0, ready=1, note="dry run; p-1: would"), PLAN)
    assert not _is_about(Capacity(pool=POOL, at_s=1.0, ready=1, note="p-11: set"), PLAN)
