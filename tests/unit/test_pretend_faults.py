"""Orders of faults: what is accepted, and what the switch does with them."""

import asyncio
import time

import pytest

from tradewind.pretend.faults import FaultOrder, FaultSwitch, parse_order


@pytest.mark.parametrize(
    ("body", "named"),
    [
        (b'{"kind": "asleep"}', r"\$\.kind"),
        (b'{"kind": "slow", "factor": 0.5}', r"\$\.factor"),
        (b'{"kind": "slow", "for_s": 0}', r"\$\.for_s"),
        (b'{"kind": "slow", "speed": 2}', "speed"),
        (b"{", "truncated"),
    ],
)
def test_a_wrong_order_is_refused_with_what_is_accepted(body: bytes, named: str) -> None:
    with pytest.raises(ValueError, match=rf"{named}.*; send .*dead, refusing, slow, hanging, breaking"):
        parse_order(body)


async def test_a_fault_with_an_end_runs_out_by_itself() -> None:
    turns: list[tuple[str, str]] = []

    async def turn(before: FaultOrder, after: FaultOrder) -> None:
        turns.append((before.kind, after.kind))

    switch = FaultSwitch(turn, time.monotonic)
    await switch.set(FaultOrder("slow", for_s=0.2, factor=3.0))
    assert switch.factor == 3.0
    left_s = switch.state().left_s
    assert left_s is not None
    assert 0.0 < left_s <= 0.2
    await asyncio.wait_for(switch.changed(), 5.0)
    assert switch.factor == 1.0
    assert switch.state().left_s is None
    assert turns == [("none", "slow"), ("slow", "none")]
    await switch.close()


async def test_a_turn_that_fails_leaves_the_old_order_in_force_and_is_tried_again_when_it_runs_out() -> None:
    fails = 2

    async def turn(before: FaultOrder, _: FaultOrder) -> None:
        nonlocal fails
        if before.kind == "refusing" and fails:
            fails -= 1
            raise OSError("taken")

    switch = FaultSwitch(turn, time.monotonic)
    await switch.set(FaultOrder("refusing"))
    with pytest.raises(OSError, match="taken"):
        await switch.set(FaultOrder("none"))
    assert switch.order.kind == "refusing"
    fails = 0
    await switch.set(FaultOrder("refusing", for_s=0.01))
    fails = 1
    await asyncio.wait_for(switch.changed(), 5.0)
    assert switch.state().kind == "none"
    await switch.close()
