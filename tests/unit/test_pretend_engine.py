"""The engine behind an endpoint: slots, queue and times, on a clock the test holds."""

import asyncio
import random

import pytest

from tradewind.pretend.engine import Engine, QueueFull
from tradewind.pretend.settings import EndpointSettings


def engine(seed: int = 1, **fields: float) -> Engine:
    settings = EndpointSettings(name="a", **{"slots": 1, "queue_limit": 1, **fields})  # type: ignore[arg-type]
    return Engine(settings, random.Random(seed), lambda: 0.0)


async def test_the_queue_is_served_in_order_of_arrival_and_one_beyond_its_limit_is_refused() -> None:
    tried = engine(queue_limit=2)
    order: list[str] = []

    async def wait(name: str) -> None:
        run = await tried.enter(10, 5)
        order.append(name)
        tried.leave(run)

    first = await tried.enter(10, 5)
    waiting = [asyncio.ensure_future(wait(name)) for name in ("b", "c")]
    await asyncio.sleep(0)
    assert (tried.running, tried.waiting) == (1, 2)
    with pytest.raises(QueueFull):
        await tried.enter(10, 5)
    tried.leave(first)
    await asyncio.gather(*waiting)
    assert order == ["b", "c"]
    assert (tried.running, tried.waiting, tried.kv_cache_usage) == (0, 0, 0.0)


async def test_who_gives_up_waiting_takes_no_slot() -> None:
    tried = engine()
    first = await tried.enter(10, 5)
    waiting = asyncio.ensure_future(tried.enter(10, 5))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait([waiting])
    tried.leave(first)
    assert (await asyncio.wait_for(tried.enter(10, 5), 1.0)).output_tokens == 5
    assert tried.waiting == 0


async def test_times_repeat_with_the_seed_and_differ_with_another() -> None:
    async def times(seed: int) -> list[float]:
        tried = engine(seed, slots=9)
        return [(await tried.enter(10, None)).ttft_s for _ in range(5)]

    assert await times(3) == await times(3)
    assert await times(3) != await times(4)


async def test_a_run_not_done_counts_as_aborted_and_one_done_under_its_reason() -> None:
    tried = engine(slots=3)
    runs = [await tried.enter(10, limit) for limit in (5, None, 5)]
    for run in runs[:2]:
        run.done = True
    for run in runs:
        tried.leave(run)
    assert tried.counts.finished == {"stop": 1, "length": 1, "abort": 1}
    assert tried.counts.generation_tokens == 5 + runs[1].output_tokens


@pytest.mark.parametrize(
    ("field", "value"), [("capacity_rps", 0.0), ("port", 70_000), ("slots", 0), ("noise_sigma", -1.0)]
)
def test_a_setting_out_of_range_is_refused_by_name_value_and_range(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=rf"{field}: {value!r} is out of range; give a number from "):
        EndpointSettings(name="a", **{field: value})  # type: ignore[arg-type]


async def test_replicas_that_come_add_slots_at_once_and_those_that_go_let_their_requests_finish() -> None:
    tried = engine(replicas=1, slots=2, queue_limit=9)
    runs = [await tried.enter(10, 5) for _ in range(2)]
    waiting = [asyncio.ensure_future(tried.enter(10, 5)) for _ in range(3)]
    await asyncio.sleep(0)
    assert (tried.running, tried.waiting) == (2, 3)
    await tried.scale(2)
    await asyncio.sleep(0)
    assert (tried.running, tried.waiting, tried.running_limit) == (4, 1, 4)
    await tried.scale(1)
    for run in runs:
        tried.leave(run)
        await asyncio.sleep(0)
    assert (tried.running, tried.waiting) == (2, 1), "their slots went with them"
    tried.leave(waiting[0].result())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert (tried.running, tried.waiting) == (2, 0)


async def test_free_slots_of_replicas_that_go_are_gone_at_once() -> None:
    tried = engine(replicas=3, slots=1)
    await tried.scale(1)
    await tried.enter(10, 5)
    waiting = asyncio.ensure_future(tried.enter(10, 5))
    await asyncio.sleep(0)
    assert (tried.running, tried.waiting) == (1, 1)
    await tried.scale(3)
    assert (await asyncio.wait_for(waiting, 1.0)).output_tokens == 5


async def test_load_is_shared_by_replicas() -> None:
    async def ttft_s(replicas: int) -> float:
        tried = engine(replicas=replicas, slots=99, capacity_rps=10.0, noise_sigma=0.0)
        return [await tried.enter(10, 5) for _ in range(10)][-1].ttft_s

    assert await ttft_s(4) < await ttft_s(1)
