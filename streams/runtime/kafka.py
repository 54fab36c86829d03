"""Steps on Faust: the only module that imports it. The app is built in a function from steps and settings.

Faust brings the worker's life cycle, agents, the rebalance and its order of events. Three things of it are ours:
* Bulk. What an agent gets as one event is a whole fetch of one partition (`fetch.Fetched`), since stock Faust costs
  some 64 µs for each message it delivers, whatever is in it.
* Places. A partition is read from where its step says (`room.Room.position`), not from the committed offset, because
  minutes-long state comes back from the topic. So Faust's acks and its gap logic are off.
* Commits. What is committed is what was folded, after all that followed from it is with the broker: below it, an owner
  after us need not keep dead letters again, and others' tools see the lag. It does not hold up folding.
tests/contract/test_faust_private.py pins every private name this leans on.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import faust
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import GroupAuthorizationFailedError, KafkaError, TopicAuthorizationFailedError
from aiokafka.structs import OffsetAndMetadata
from faust.app.base import BootStrategy
from faust.serializers.schemas import Schema
from faust.transport.drivers.aiokafka import AIOKafkaConsumerThread, Consumer, Transport
from faust.types import TP, ConsumerMessage

from streams import signals
from streams.contract.rights import group_of
from streams.runtime.access import client_options
from streams.runtime.assignor import Together
from streams.runtime.fetch import Fetched, Place, fetched, look
from streams.runtime.preflight import Seldom, words
from streams.runtime.room import Room
from streams.runtime.sender import Sender
from streams.runtime.step import Step
from streams.settings import Settings

_FETCH_BYTES = 4 * 1024 * 1024
_FETCH_WAIT_MS = 500
_BUNDLES = 16
"""Bundles an agent may be behind before fetching waits for it."""
_REQUEST_S = 30.0
_REBALANCE_S = 10.0
_COMMIT_S = 5.0
_METADATA_MS = 10_000
"""A topic that was made anew, or grew, is noticed after this long at the latest."""
_SEND_S = 2.0
_AGAIN_S = 0.2


class _Thread(AIOKafkaConsumerThread):
    """Faust's consumer thread, with our consumer in it."""

    app: App

    def _create_worker_consumer(self, transport: Transport) -> AIOKafkaConsumer:
        settings, group = self.app.settings, self.app.conf.id
        return AIOKafkaConsumer(
            **client_options(settings),
            client_id=group,
            group_id=group,
            partition_assignment_strategy=[Together(lambda: self.app.room.held)],
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            session_timeout_ms=int(settings.session_timeout_s * 1000),
            heartbeat_interval_ms=int(settings.heartbeat_s * 1000),
            rebalance_timeout_ms=int(_REBALANCE_S * 1000),
            max_poll_interval_ms=int(_REQUEST_S * 10_000),
            request_timeout_ms=int(_REQUEST_S * 1000),
            max_partition_fetch_bytes=_FETCH_BYTES,
            fetch_max_wait_ms=_FETCH_WAIT_MS,
            metadata_max_age_ms=_METADATA_MS,
        )

    async def _fetch_records(
        self,
        consumer: AIOKafkaConsumer,
        active_partitions: set[TP],
        timeout: float | None = None,  # noqa: ASYNC109 - as Faust calls it
        max_records: int | None = None,
    ) -> dict[TP, list[Fetched]]:
        if not self.consumer.flow_active:
            return {}
        try:
            return await fetched(consumer, active_partitions, timeout or 0.0)
        except KafkaError as error:
            if consumer._closed:
                raise
            reason = words(self.app.settings, error, "READ")
            if self.app.seldom.passes(reason):
                signals.event("fetch_failed", "warning", reason=reason)
            await asyncio.sleep(_AGAIN_S)
            return {}

    async def _commit(self, offsets: Mapping[TP, int]) -> bool:
        """Whether the broker took `offsets`. That it did not is no reason to end: the next commit says more."""
        taken = {TopicPartition(*tp): OffsetAndMetadata(offset, "") for tp, offset in offsets.items()}
        try:
            async with asyncio.timeout(_COMMIT_S):
                await self._ensure_consumer().commit(taken)
        except (KafkaError, TimeoutError) as error:
            reason = _named(self.app, error)
            if self.app.seldom.passes(f"commit: {reason}"):
                signals.event("commit_failed", "warning", reason=reason)
            return False
        return True


class _Consumer(Consumer):
    """Faust's consumer: positions and commits are the room's."""

    app: App

    def _new_consumer_thread(self) -> _Thread:
        return _Thread(self, loop=self.loop, beacon=self.beacon)

    def _to_message(self, tp: TP, record: Fetched) -> ConsumerMessage:
        generation = self.app.consumer_generation_id
        last = record.next - 1  # a bundle stands where its last record stands
        return ConsumerMessage(
            tp.topic, tp.partition, last, 0.0, 0, (), None, record, None, 0, 0, tp, generation_id=generation
        )

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._committing = asyncio.Lock()

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Fall silent first: from here on the partitions may be somebody else's.

        And let a commit under way end: were it refused after we joined again, aiokafka would forget who it is in the
        group and join as somebody new, and the group would wait for the one it forgot.
        """
        self.app.room.pause()
        async with self._committing:
            pass
        await super().on_partitions_revoked(revoked)

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        """Take over what is new before Faust asks where to read."""
        await self.app.room.own({tuple(tp) for tp in assigned}, self._look)
        await super().on_partitions_assigned(assigned, generation_id)

    async def _look(self, wanted: Mapping[tuple[str, int], float | None]) -> dict[tuple[str, int], Place]:
        while True:
            try:
                return await self._thread.call_thread(look, self._thread._ensure_consumer(), wanted)
            except KafkaError as error:  # the broker went away just now
                reason = words(self.app.settings, error, "READ")
                if self.app.seldom.passes(reason):
                    signals.event("look_failed", "warning", reason=reason)
                await asyncio.sleep(_AGAIN_S)

    async def perform_seek(self) -> None:
        """Seek to where the room wants to read; Faust calls it after each rebalance."""
        places = {tp: at for tp in self.assignment() if (at := self.app.room.position(tuple(tp))) is not None}
        await self.seek_wait({TopicPartition(*tp): at for tp, at in places.items()})
        self._read_offset.update(places)

    async def commit(self, topics: Any = None, start_new_transaction: bool = True) -> bool:
        """Commit what is folded and answered for."""
        upto = self.app.room.committable()
        if not upto or not await self.app.acknowledged(_SEND_S):
            return False
        async with self._committing:
            mine = {tuple(tp) for tp in self.assignment()}
            offsets = {tp: at for tp, at in upto.items() if tp in mine}
            if not offsets or self.app.room.paused:
                return False
            if not await self._thread.commit({TP(*tp): at for tp, at in offsets.items()}):
                return False
            self.app.room.committed(offsets)
            return True

    def on_buffer_full(self, tp: TP) -> None:
        """Nothing: a full agent holds up fetching by itself; to pause its partition would cost a second each time."""

    def verify_event_path(self, now: float, tp: TP) -> None:
        """Nothing: it takes a quiet topic for a stuck one; we have a lag of our own."""


class _Transport(Transport):
    Consumer = _Consumer


class _Bulk(Schema):
    """Bundles are handed on as they are."""

    def loads_key(self, app: Any, message: Any, **_: Any) -> None:
        return None

    def loads_value(self, app: Any, message: Any, **_: Any) -> Fetched:
        return message.value


class _Boot(BootStrategy):
    enable_kafka_producer = False  # ours send (`sender.Sender`)
    enable_web = False  # ours serves (`web.served`)
    enable_sensors = False


class App(faust.App):
    """A Faust app that carries a room."""

    BootStrategy = _Boot
    settings: Settings
    room: Room
    sender: Sender | None
    seldom: Seldom

    async def acknowledged(self, timeout_s: float) -> bool:
        """Whether all that was said is with the broker."""
        return self.sender is None or await self.sender.acknowledged(timeout_s)

    async def renew(self) -> None:
        """Read again what was made anew under us."""
        for tp, at in (await self.room.renew(self.consumer._look)).items():
            with contextlib.suppress(KafkaError):  # revoked just now: a rebalance looks for itself
                await self.consumer.seek(TopicPartition(*tp), at)

    def _create_directories(self) -> None:
        """None: nothing of ours is kept in files."""

    def end_of(self, tp: tuple[str, int]) -> int | None:
        """The end offset of `tp` as the last fetch told; None before the first, and for what is not ours."""
        key = TopicPartition(*tp)
        return self.consumer.highwater(key) if key in self.consumer.assignment() else None


def build_app(steps: Sequence[Step], settings: Settings, name: str, room: Room, sender: Sender | None = None) -> App:
    """An app for the room called `name`, its own consumer group; one agent a step. Build it in a running loop.

    `room` holds the states, `sender` is asked before a commit. Nothing is started.
    """
    app = App(
        group_of(settings.topic_prefix, name),
        broker=[f"kafka://{server.strip()}" for server in settings.bootstrap_servers.split(",")],
        autodiscover=False,
        origin=None,
        store="memory://",
        datadir=str(settings.state_dir / "faust").replace("{", "{{").replace("}", "}}"),  # Faust formats it
        web_enabled=False,
        topic_allow_declare=False,
        topic_disable_leader=True,
        broker_commit_interval=settings.commit_interval_s,
        broker_session_timeout=settings.session_timeout_s,
        broker_request_timeout=max(_REQUEST_S, settings.session_timeout_s),
        stream_buffer_maxsize=_BUNDLES,
        stream_recovery_delay=0.0,
        stream_wait_empty=False,  # what an agent has not folded is fetched again from where it stopped
        loop=asyncio.get_running_loop(),
    )
    app.settings, app.room, app.sender, app.seldom = settings, room, sender, Seldom()
    app.transport = _Transport(app.conf.broker_consumer, app)
    for step in steps:
        _agent(app, step)
    app.finalize()
    return app


def _named(app: App, error: Exception) -> str:
    denied = isinstance(error, GroupAuthorizationFailedError | TopicAuthorizationFailedError)
    return words(app.settings, error, "READ") if denied else type(error).__name__


def _agent(app: App, step: Step) -> None:
    inputs = app.topic(*_full(step, app.settings), schema=_Bulk(), acks=False, internal=False)
    app.agent(inputs, name=step.name)(partial(_fold, app, step.name))


async def _fold(app: App, step: str, stream: Any) -> None:
    async for event in stream.events():
        tp = event.message.tp
        if (again := app.room.hear(step, tuple(tp), event.value)) is not None:
            await app.consumer.seek(TopicPartition(*tp), again)


def _full(step: Step, settings: Settings) -> Iterable[str]:
    return [reads.topic.full(settings.topic_prefix) for reads in step.owned]
