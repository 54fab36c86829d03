"""Our producers: what becomes of messages when one of them is worth nothing any more. Kafka is a fake in here."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiokafka.errors import (
    KafkaConnectionError,
    KafkaError,
    KafkaTimeoutError,
    MessageSizeTooLargeError,
    NotLeaderForPartitionError,
    OutOfOrderSequenceNumber,
)

from streams import settings, signals
from streams.contract import topics
from streams.runtime import sender as sender_module
from streams.runtime.sender import Sender
from streams.runtime.step import Out
from tests.contract.on_kafka import until


class Producer:
    """Takes what it is sent; `refuses` is raised by `send`, `answers` comes back in the future."""

    def __init__(self, made: list[Producer], linger_ms: int) -> None:
        self.linger_ms, self.sent, self.stopped = linger_ms, [], False  # type: ignore[var-annotated]
        self.pending: list[asyncio.Future[Any]] = []
        self.refuses: BaseException | None = None
        self.answers: KafkaError | None = None
        self.holds = False
        self.fails_to_start = False
        made.append(self)

    async def start(self) -> None:
        if self.fails_to_start:
            raise KafkaConnectionError

    async def stop(self) -> None:
        self.stopped = True

    async def send(self, topic: str, value: bytes | None, *, key: bytes, headers: list[Any]) -> asyncio.Future[Any]:
        if self.refuses:
            raise self.refuses
        self.sent.append((topic, value))
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        if self.holds:
            self.pending.append(answer)
        elif self.answers:
            answer.set_exception(self.answers)
        else:
            answer.set_result(None)
        return answer


class Desk:
    """A sender and the producers it has made: at first one a lane, views' first."""

    def __init__(self) -> None:
        self.made: list[Producer] = []
        self.sender = Sender(settings.Settings(), lambda _, linger_ms: Producer(self.made, linger_ms))

    @property
    def views(self) -> list[Producer]:
        return [p for p in self.made if p.linger_ms == 0]

    def say(self, value: bytes, topic: topics.Topic = topics.DEMAND) -> None:
        self.sender.send([Out(topic.name, b"k", value)])

    async def failed(self) -> float:
        return signals.REGISTRY.get_sample_value("tradewind_send_failed_total", {"topic": topics.DEMAND.name}) or 0.0


@pytest.fixture
async def desk(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Desk]:
    monkeypatch.setattr(sender_module, "_AGAIN_S", 0.01)
    made = Desk()
    await made.sender.start()
    yield made
    await made.sender.stop()


async def test_views_and_dead_letters_have_a_producer_each(desk: Desk) -> None:
    desk.say(b"view")
    desk.say(b"letter", topics.DEAD_LETTERS)
    assert await desk.sender.acknowledged(1.0)
    assert [p.sent for p in desk.made] == [
        [("tradewind.demand.v1", b"view")],
        [("tradewind.dead-letters.v1", b"letter")],
    ]
    assert [p.linger_ms for p in desk.made] == [0, 5]


async def test_a_producer_the_broker_does_not_follow_any_more_is_replaced(desk: Desk) -> None:
    desk.views[0].answers = OutOfOrderSequenceNumber()
    before = await desk.failed()
    desk.say(b"refused")
    await until(lambda: len(desk.views) == 2)
    assert desk.views[0].stopped
    desk.say(b"taken")
    assert await desk.sender.acknowledged(1.0)
    assert desk.views[1].sent == [("tradewind.demand.v1", b"taken")]
    assert await desk.failed() == before + 1


async def test_a_producer_whose_own_task_has_died_is_replaced(desk: Desk) -> None:
    desk.views[0].refuses = KafkaError("Unexpected error during batch delivery")
    desk.say(b"refused")
    await until(lambda: len(desk.views) == 2)
    desk.say(b"taken")
    assert await desk.sender.acknowledged(1.0)
    assert desk.views[1].sent == [("tradewind.demand.v1", b"taken")]


@pytest.mark.parametrize(
    "error", [MessageSizeTooLargeError("large"), KafkaTimeoutError(), NotLeaderForPartitionError()], ids=repr
)
async def test_what_is_refused_before_it_is_numbered_or_may_be_tried_again_costs_no_producer(
    desk: Desk, error: KafkaError
) -> None:
    desk.views[0].refuses = error
    desk.say(b"refused")
    assert await desk.sender.acknowledged(1.0)
    desk.views[0].refuses = None
    desk.say(b"taken")
    assert await desk.sender.acknowledged(1.0)
    assert len(desk.views) == 1
    assert desk.views[0].sent == [("tradewind.demand.v1", b"taken")]


async def test_what_a_replaced_producer_never_answered_for_holds_up_no_commit(desk: Desk) -> None:
    first = desk.views[0]
    first.holds = True
    desk.say(b"hangs")
    await until(lambda: first.pending)
    first.holds, first.answers = False, OutOfOrderSequenceNumber()
    desk.say(b"refused")
    assert await desk.sender.acknowledged(2.0)
    first.pending[0].set_result(None)  # an answer after all: it is not counted twice
    desk.say(b"taken")
    assert await desk.sender.acknowledged(1.0)


async def test_a_new_producer_is_tried_for_until_it_can_start(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    starts = Producer.start
    left = [2]

    async def start(self: Producer) -> None:
        left[0] -= 1
        self.fails_to_start = left[0] >= 0
        await starts(self)

    monkeypatch.setattr(Producer, "start", start)
    desk.views[0].answers = OutOfOrderSequenceNumber()
    desk.say(b"refused")
    desk.say(b"waits")
    await until(lambda: len(desk.views) == 4)
    desk.say(b"taken")
    assert await desk.sender.acknowledged(2.0)
    assert ("tradewind.demand.v1", b"taken") in desk.views[3].sent
    assert all(p.stopped for p in desk.views[:3])


async def test_an_error_nobody_expected_in_a_lane_is_raised_to_whoever_watches(desk: Desk) -> None:
    watching = asyncio.create_task(desk.sender.watch())
    desk.say(b"fine")
    assert await desk.sender.acknowledged(1.0)
    assert not watching.done()
    desk.views[0].refuses = ValueError("a bug")
    desk.say(b"lost")
    with pytest.raises(ValueError, match="a bug"):
        await asyncio.wait_for(watching, 5.0)


async def test_watching_ends_with_the_watcher_and_not_with_the_lanes(desk: Desk) -> None:
    watching = asyncio.create_task(desk.sender.watch())
    await asyncio.sleep(0)
    watching.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await watching
    desk.say(b"still")
    assert await desk.sender.acknowledged(1.0)
