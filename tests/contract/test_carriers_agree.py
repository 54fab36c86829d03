"""The same steps over the same messages say the same in memory and on a real Kafka."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from streams import flow
from streams.contract import topics
from streams.contract.records import Arrivals, Endpoint, Fleet, Origin, RequestClass, Service
from streams.contract.topics import Topic
from streams.runtime.memory import MemoryCarrier
from streams.runtime.step import Step
from streams.runtime.worker import carried
from streams.settings import Settings
from tests.contract.counting import Pondering, metric, steps
from tests.contract.on_kafka import encode, fresh, latest_by_key, read_all, send, until

pytestmark = pytest.mark.kafka
Messages = Sequence[tuple[Topic, bytes, bytes | None]]
METRICS, ARRIVALS = topics.ENDPOINT_METRICS, topics.ARRIVALS
TOLD = (topics.DEAD_TOPIC, topics.DEAD_PARTITION, topics.DEAD_OFFSET, topics.DEAD_FIELD, topics.DEAD_REASON)


def some_metrics(first: int, count: int, **more: Any) -> Messages:
    now_s = time.time()
    return [
        (METRICS, f"e{i % 17}".encode(), encode(metric(f"e{i % 17}", i, now_s, **more)))
        for i in range(first, first + count)
    ]


def bad_ones() -> Messages:
    now_s = time.time()
    return [
        (METRICS, b"e1", b"{not json"),
        (METRICS, b"e2", b"[]"),
        (METRICS, b"e3", encode(metric("e3", 1, now_s)).replace(b'"vantage":"gateway"', b'"vantage":"moon"')[:-1]),
        (METRICS, b"e4", encode(metric("e4", 2, now_s + 10_000))),
        (METRICS, b"e5", encode(metric("nobody", 3, now_s))),
        (METRICS, b"e6", None),
        (METRICS, b"e7", b'{"endpoint": "' + b"x" * 200 + b'"}'),
    ]


def fleet(version: int) -> Fleet:
    classes = (RequestClass(name="default", slo_p95_ms=300),)
    return Fleet(
        version=version,
        services=(Service(name="s", classes=classes, default_class="default"),),
        origins=(Origin(name="o", jurisdiction="DE", rtt_ms={"r": 5}),),
        endpoints=tuple(
            Endpoint(
                name=f"e{i}",
                url="http://127.0.0.1:1",
                services=("s",),
                provider="p",
                region="r",
                zone="z",
                jurisdiction="DE",
                capacity_rps=10,
                price_usd_per_h=1,
            )
            for i in range(17)
        ),
    )


def facts(version: int) -> Messages:
    return [(topics.FLEET, b"default", encode(fleet(version)))]


def in_memory(these: Sequence[Step], *phases: Messages) -> MemoryCarrier:
    carrier = MemoryCarrier(these, now_s=time.time(), wide=4)
    for messages in phases:
        for topic, key, value in messages:
            carrier.send(topic, key, value)
        carrier.run_until(carrier.now_s + 1.0)
    return carrier


async def on_kafka(mine: Settings, these: Sequence[Step], phases: Sequence[Messages], done: Callable[[], Any]) -> None:
    """Each phase meets a worker of its own: what it knows of earlier phases it has restored."""
    for number, messages in enumerate(phases):
        async with carried(these, mine, "streams") as room:
            await send(mine, messages)
            await until(lambda room=room: room.ready)
            if number == len(phases) - 1:
                await until(done)
            else:
                await until(lambda room=room: not room.committable() and all(line.at for line in room.lines))


def dead_letters(records: Sequence[Any]) -> list[tuple[Any, ...]]:
    """Value and place of each; seconds in a reason depend on when it was asked."""
    return sorted((record.key, record.value or b"", *_place(dict(record.headers))) for record in records)


def _place(headers: dict[str, bytes]) -> list[bytes]:
    headers[topics.DEAD_REASON] = re.sub(rb"[\d.]+", b"#", headers[topics.DEAD_REASON])
    return [headers[name] for name in TOLD]


def normal(by_key: dict[bytes, Any], *leave_out: str) -> dict[bytes, Any]:
    return {key: {n: v for n, v in said.items() if n not in leave_out} for key, said in by_key.items()}


async def counted(mine: Settings, arrived: int, version: int) -> bool:
    said = latest_by_key(await read_all(mine, topics.DEMAND)).values()
    return sum(s["arrived"][0] for s in said) == arrived and all(s["shed"] == [version] for s in said)


async def test_counts_dead_letters_and_facts_agree(kafka: str) -> None:
    mine = await fresh(kafka)
    sent = [*facts(3), *some_metrics(0, 3000), *bad_ones(), *some_metrics(3000, 500)]
    memory = in_memory(steps(), sent)
    await on_kafka(mine, steps(), [sent], lambda: counted(mine, 3500, 3))
    assert normal(latest_by_key(await read_all(mine, topics.DEMAND)), "at_s") == normal(
        latest_by_key(memory.said(topics.DEMAND)), "at_s"
    )
    on_topic = await read_all(mine, topics.DEAD_LETTERS)
    assert dead_letters(on_topic) == dead_letters(memory.said(topics.DEAD_LETTERS))
    assert len(on_topic) == 6
    place = dict(on_topic[0].headers)
    lies = [r for r in await read_all(mine, METRICS) if r.partition == int(place[topics.DEAD_PARTITION])]
    assert lies[int(place[topics.DEAD_OFFSET])].value == on_topic[0].value


async def test_a_worker_that_starts_anew_knows_what_was_said_and_repeats_no_dead_letter(kafka: str) -> None:
    mine = await fresh(kafka)
    phases = [
        [*facts(1), *some_metrics(0, 1000), *bad_ones()],
        [*facts(2), *some_metrics(1000, 700)],
        some_metrics(0, 20),
    ]
    memory = in_memory(steps(), *phases)
    await on_kafka(mine, steps(), phases, lambda: _folded(mine, 1720))
    assert normal(latest_by_key(await read_all(mine, topics.DEMAND)), "at_s") == normal(
        latest_by_key(memory.said(topics.DEMAND)), "at_s"
    )
    assert dead_letters(await read_all(mine, topics.DEAD_LETTERS)) == dead_letters(memory.said(topics.DEAD_LETTERS))


async def _folded(mine: Settings, count: int) -> bool:
    said = latest_by_key(await read_all(mine, topics.DEMAND)).values()
    return sum(s["admitted"][0] for s in said) == count


async def test_an_answer_worked_out_beside_the_loop_is_the_same(kafka: str) -> None:
    mine = await fresh(kafka)
    sent = [(METRICS, b"one", encode(metric("e1", i, time.time()))) for i in range(12)]
    memory = in_memory(steps(Pondering()), sent)
    await on_kafka(mine, steps(Pondering()), [sent], lambda: _pondered(mine))
    said, expected = latest_by_key(await read_all(mine, topics.DEMAND)), latest_by_key(memory.said(topics.DEMAND))
    assert normal(said, "at_s") == normal(expected, "at_s")


async def _pondered(mine: Settings) -> bool:
    said = latest_by_key(await read_all(mine, topics.DEMAND)).values()
    return [s["failed"] for s in said] == [[144]]


async def test_evidence_is_spoken_of_at_once_while_the_tick_is_far(kafka: str) -> None:
    mine = await fresh(kafka)
    async with carried(steps(every_s=60.0), mine, "streams") as room:
        await until(lambda: room.ready)
        await send(mine, some_metrics(0, 10))
        await until(lambda: sum(at for line in room.lines for at in line.at.values()) == 10)
        assert await read_all(mine, topics.DEMAND) == []
        before_s = time.time()
        await send(mine, some_metrics(10, 1, errors={"connect": 1}))
        said = await until(lambda: read_all(mine, topics.DEMAND))
        took_s = said[0].timestamp / 1000 - before_s
        print(f"evidence to view {took_s * 1000:.0f} ms")
        assert took_s < 30.0  # the tick is after sixty


def arrivals(count: int) -> Messages:
    slot_s = float(int(time.time()) - 1)
    return [
        (
            ARRIVALS,
            f"g{i % 5}".encode(),
            encode(
                Arrivals(
                    gateway=f"g{i % 5}",
                    origin="o",
                    boot=1,
                    seq=i,
                    at_s=slot_s,
                    service=("s",),
                    class_=("default",),
                    arrived=(i,),
                    admitted=(i,),
                    shed=(0,),
                    failed=(0,),
                )
            ),
        )
        for i in range(count)
    ]


async def test_the_real_steps_of_the_room_agree(kafka: str) -> None:
    mine = await fresh(kafka, tick_s=0.3)
    sent = [
        *facts(1),
        *some_metrics(0, 800, requests=3, latency_ms=(100.0, 120.0, 150.0)),
        *some_metrics(800, 200, latency_ms=(700.0,)),
        *arrivals(100),
        *bad_ones()[:3],
    ]
    memory = in_memory(flow.steps(mine), sent)
    await on_kafka(mine, flow.steps(mine), [sent], lambda: _health_heard(mine, 2600))
    timely = ("made_at_s", "age_s", "rps", "reason", "verdict", "first_error_at_s", "last_ok_at_s")
    for topic in (topics.ENDPOINT_HEALTH, topics.DEMAND):
        said, expected = latest_by_key(await read_all(mine, topic)), latest_by_key(memory.said(topic))
        assert normal(said, *timely) == normal(expected, *timely)
        assert said
    assert dead_letters(await read_all(mine, topics.DEAD_LETTERS)) == dead_letters(memory.said(topics.DEAD_LETTERS))


async def _health_heard(mine: Settings, observations: int) -> bool:
    health = latest_by_key(await read_all(mine, topics.ENDPOINT_HEALTH)).values()
    demand = latest_by_key(await read_all(mine, topics.DEMAND)).values()
    return sum(sum(h["observations"]) for h in health) == observations and (
        sum(sum(d["arrived"]) for d in demand) == sum(range(100))
    )
