"""The forecast as it runs: whoever takes over reads demand and histories back from Kafka, and says what memory says."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import msgspec
import pytest

from forecasting.flow import steps
from streams.contract import records as r
from streams.contract import topics as t
from streams.runtime.memory import MemoryCarrier
from streams.runtime.runner import Runner
from streams.runtime.worker import carried
from streams.settings import Settings
from tests.contract.on_kafka import encode, fresh, read_all, send, until

pytestmark = pytest.mark.kafka
SLEEPER = ("image", "us", "batch")


def facts(minute_s: float) -> list[tuple[t.Topic, bytes, bytes | None]]:
    """A whole minute of one flow, and the day of another that has been quiet for an hour."""
    demand = r.Demand(
        source="0", at_s=minute_s + 5, service=("chat",), origin=("eu",), class_=("interactive",),
        arrived=(600,), admitted=(600,), shed=(0,), failed=(0,),
    )  # fmt: skip
    service, origin, class_ = SLEEPER
    day_ago_s = minute_s // 300 * 300 - 288 * 300
    history = r.DemandHistory(
        service=service, origin=origin, class_=class_, made_at_s=minute_s - 60, first_at_s=day_ago_s,
        rpm=(60.0,) * 276 + (0.0,) * 12,
    )  # fmt: skip
    said: list[tuple[t.Topic, msgspec.Struct]] = [(t.DEMAND, demand), (t.DEMAND_HISTORY, history)]
    return [(topic, topic.key_of(one).encode(), encode(one)) for topic, one in said]


def spoken(runner: Runner, now_s: float) -> dict[bytes, bytes | None]:
    return {out.key: out.value for out in runner.tick(now_s) if out.topic == t.DEMAND_FORECAST.name}


async def taken_over(mine: Settings, now_s: float) -> dict[bytes, bytes | None]:
    """What a worker that starts anew says at `now_s`, its clock being put forward."""
    async with carried(steps(mine), mine, "forecasting") as room:
        await until(lambda: room.ready, 40.0)
        runner = next(line.runner for line in room.lines if line.name == "forecast")
        state: Any = runner.partitions[0]
        await until(lambda: state.state.histories and state.state.minutes.open)
        return spoken(runner, now_s)


async def test_whoever_takes_over_says_on_kafka_what_is_said_in_memory(kafka: str) -> None:
    mine = await fresh(kafka)
    if not 7 < (past_s := time.time() % 60) < 20:
        # stamps are the broker's: slots of the next minute are not to be more than a minute ahead of them, and both
        # workers have to be done before that minute is over by their own clocks
        await asyncio.sleep((8 - past_s) % 60)
    minute_s = time.time() // 60 * 60 + 60
    carrier = MemoryCarrier(steps(mine), now_s=minute_s - 1)
    for topic, key, value in facts(minute_s):
        carrier.send(topic, key, value)
    carrier.run_until(minute_s + 75)
    expected = {message.key: message.value for message in carrier.said(t.DEMAND_FORECAST)}
    assert expected.keys() == {b"chat/eu/interactive", "/".join(SLEEPER).encode()}
    await send(mine, facts(minute_s))
    for _ in range(2):
        assert await taken_over(mine, minute_s + 75) == expected
    assert await read_all(mine, t.DEAD_LETTERS) == []
