"""Room 2 as it runs: three steps in one worker, two of them reading the same demand; plans as in memory."""

from __future__ import annotations

import time
from typing import Any

import msgspec
import pytest

from forecasting.flow import steps
from streams.contract import records as r
from streams.contract import topics as t
from streams.runtime.memory import MemoryCarrier
from streams.runtime.worker import carried
from tests.contract.on_kafka import encode, fresh, latest_by_key, read_all, send, until
from tests.replay.pools import endpoint, fleet

pytestmark = pytest.mark.kafka
SPOT, OD = endpoint("a", market="spot"), endpoint("od")


def facts(now_s: float) -> list[tuple[t.Topic, bytes, bytes | None]]:
    slots = [
        r.Demand(
            source="0", at_s=float(int(now_s) - 200 + n), service=("chat",), origin=("eu",), class_=("interactive",),
            arrived=(60,), admitted=(60,), shed=(0,), failed=(0,),
        )
        for n in range(200)
    ]  # fmt: skip
    saw = [r.Capacity(pool=e.pool, at_s=now_s - 100, ready=2) for e in (SPOT, OD)]
    said: list[tuple[t.Topic, msgspec.Struct]] = [(t.FLEET, fleet([SPOT, OD]))]
    said += [(t.CAPACITY, one) for one in saw] + [(t.DEMAND, one) for one in slots]
    return [(topic, topic.key_of(one).encode(), encode(one)) for topic, one in said]


def wants(records: list[Any]) -> dict[bytes, int]:
    return {key: plan["want"] for key, plan in latest_by_key(records).items()}


async def test_plans_and_risks_are_said_on_kafka_as_in_memory(kafka: str) -> None:
    mine = await fresh(kafka)
    now_s = time.time()
    carrier = MemoryCarrier(steps(mine), now_s=now_s)
    for topic, key, value in facts(now_s):
        carrier.send(topic, key, value)
    carrier.run_until(now_s + 15)

    async def said() -> bool:
        plans, risks = await read_all(mine, t.CAPACITY_PLAN), await read_all(mine, t.SPOT_RISK)
        return len(latest_by_key(plans)) == 2 and bool(risks)

    async with carried(steps(mine), mine, "forecasting") as room:
        await send(mine, facts(now_s))
        await until(lambda: room.ready)
        await until(said, 40.0)
        # the programme's answer comes from a process beside the loop
        await until(lambda: any(line.name == "plan" and line.runner.partitions[0].state.asked for line in room.lines))
    plans = await read_all(mine, t.CAPACITY_PLAN)
    assert wants(plans) == wants(carrier.said(t.CAPACITY_PLAN))
    assert {r_.key for r_ in await read_all(mine, t.SPOT_RISK)} == {SPOT.pool.encode()}
    assert await read_all(mine, t.DEAD_LETTERS) == []


async def test_a_worker_that_takes_over_makes_no_new_plan_of_the_same(kafka: str) -> None:
    mine = await fresh(kafka)
    now_s = time.time()
    await send(mine, facts(now_s))
    counts = []
    for _ in range(2):
        async with carried(steps(mine), mine, "forecasting") as room:
            await until(lambda room=room: room.ready)
            await until(lambda room=room: any(
                line.name == "plan" and line.runner.partitions[0].state.asked for line in room.lines
            ), 40.0)  # fmt: skip
        counts.append(len(await read_all(mine, t.CAPACITY_PLAN)))
    assert counts[0] >= 2
    assert counts[1] == counts[0]
