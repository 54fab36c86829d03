"""What we lean on inside Faust and aiokafka is still there: an upgrade that moves it fails here, loudly.

Each row is a name and its parameters as they were in faust-streaming 0.15.3 and aiokafka 0.14.0.
"""

from __future__ import annotations

import gc
import inspect
import weakref
from types import SimpleNamespace

import aiokafka
import faust
import pytest
from aiokafka import TopicPartition
from aiokafka.consumer import fetcher
from aiokafka.coordinator.assignors.abstract import AbstractPartitionAssignor
from aiokafka.record.memory_records import MemoryRecords
from faust.app.base import App, BootStrategy
from faust.serializers.schemas import Schema
from faust.tables.recovery import Recovery
from faust.transport.consumer import Consumer as BaseConsumer
from faust.transport.drivers.aiokafka import AIOKafkaConsumerThread, Consumer, Transport

from streams.runtime import fetch, kafka

SIGNATURES = [
    (AIOKafkaConsumerThread._create_worker_consumer, ["self", "transport"]),
    (AIOKafkaConsumerThread._fetch_records, ["self", "consumer", "active_partitions", "timeout", "max_records"]),
    (AIOKafkaConsumerThread._commit, ["self", "offsets"]),
    (AIOKafkaConsumerThread.commit, ["self", "offsets"]),
    (AIOKafkaConsumerThread._ensure_consumer, ["self"]),
    (AIOKafkaConsumerThread.call_thread, ["self", "fun", "args", "kwargs"]),
    (Consumer._new_consumer_thread, ["self"]),
    (Consumer._to_message, ["self", "tp", "record"]),
    (BaseConsumer.on_partitions_revoked, ["self", "revoked"]),
    (BaseConsumer.on_partitions_assigned, ["self", "assigned", "generation_id"]),
    (BaseConsumer.perform_seek, ["self"]),
    (Consumer.seek_wait, ["self", "partitions"]),
    (BaseConsumer.seek, ["self", "partition", "offset"]),
    (BaseConsumer.commit, ["self", "topics", "start_new_transaction"]),
    (BaseConsumer.on_buffer_full, ["self", "tp"]),
    (Consumer.verify_event_path, ["self", "now", "tp"]),
    (Schema.loads_key, ["self", "app", "message", "loads", "serializer"]),
    (Schema.loads_value, ["self", "app", "message", "loads", "serializer"]),
    (fetcher.FetchResult.check_assignment, ["self", "tp"]),
    (fetcher.FetchResult.has_more, ["self"]),
    (fetcher.FetchResult._update_position, ["self"]),
    (fetcher.FetchError.check_raise, ["self"]),
    (fetcher.Fetcher._create_fetch_waiter, ["self"]),
    (fetcher.Fetcher._notify, ["self", "future"]),
    (AbstractPartitionAssignor.metadata, ["topics"]),
    (AbstractPartitionAssignor.assign, ["cluster", "members"]),
    (AbstractPartitionAssignor.on_assignment, ["assignment"]),
]


@pytest.mark.parametrize(("method", "parameters"), SIGNATURES, ids=lambda v: getattr(v, "__qualname__", ""))
def test_a_method_we_override_or_call_has_the_parameters_we_know(method: object, parameters: list[str]) -> None:
    assert list(inspect.signature(method).parameters) == parameters


def test_versions_are_the_minors_that_were_read() -> None:
    assert faust.__version__.startswith("0.15.")
    assert aiokafka.__version__.startswith("0.14.")


@pytest.mark.parametrize(
    ("owner", "names"),
    [
        (fetcher.FetchResult.__init__, ["_topic_partition", "_partition_records"]),
        (fetcher.PartitionRecords.__init__, ["_records", "_records_iterator", "_check_crcs", "next_fetch_offset"]),
        (
            fetcher.Fetcher.__init__,
            ["_records", "_subscriptions", "_closed", "_wait_consume_future"],
        ),
        (aiokafka.AIOKafkaConsumer.__init__, ["_group_id", "_closed"]),
        (BaseConsumer.__init__, ["_read_offset"]),
    ],
    ids=lambda v: getattr(v, "__qualname__", ""),
)
def test_a_private_attribute_we_use_is_set_where_it_was(owner: object, names: list[str]) -> None:
    source = inspect.getsource(owner)
    assert [name for name in names if f"self.{name}" not in source] == []


def test_a_record_unpacked_by_aiokafka_is_a_message_of_ours() -> None:
    built = aiokafka.record.default_records.DefaultRecordBatchBuilder(2, 0, 0, -1, -1, -1, 1 << 16)
    built.append(0, timestamp=1700, key=b"k", value=b"v", headers=[("h", b"x")])
    built.append(1, timestamp=1701, key=None, value=None, headers=[])
    records = MemoryRecords(bytes(built.build()))
    assert records.has_next()
    batch = records.next_batch()
    assert (batch.validate_crc(), batch.is_control_batch) == (True, False)
    first, second = list(batch)
    assert (first.offset, first.timestamp, first.key, first.value) == (0, 1700, b"k", b"v")
    assert list(first.headers) == [("h", b"x")]
    assert (second.key, second.value) == (None, None)
    assert batch.next_offset == 2


def test_a_fetch_that_was_read_is_freed_without_waiting_for_the_collector() -> None:
    built = aiokafka.record.default_records.DefaultRecordBatchBuilder(2, 0, 0, -1, -1, -1, 1 << 16)
    built.append(0, timestamp=1700, key=b"k", value=b"v", headers=[])
    place = TopicPartition("t", 0)
    part = fetcher.PartitionRecords(place, MemoryRecords(bytes(built.build())), [], 0, None, None, True, 0)
    state = SimpleNamespace(paused=False, position=0, consumed_to=lambda offset: None)
    assignment = SimpleNamespace(active=True, state_value=lambda tp: state)
    result = fetcher.FetchResult(place, assignment=assignment, partition_records=part, backoff=0)
    held = weakref.ref(part)
    del part
    gc.disable()
    try:
        bundle = fetch.unpack(result, 1)
        assert bundle is not None
        assert [r.value for r in bundle.records] == [b"v"]
        assert held() is None
    finally:
        gc.enable()


def test_faust_takes_its_consumer_and_its_consumers_thread_from_our_transport() -> None:
    assert kafka._Transport.Consumer is kafka._Consumer
    assert issubclass(kafka._Transport, Transport)
    assert "transport.create_consumer" in inspect.getsource(App._new_consumer)
    assert "_create_worker_consumer" in inspect.getsource(AIOKafkaConsumerThread._create_consumer)


def test_faust_seeks_after_each_rebalance_and_before_the_flow_resumes() -> None:
    source = inspect.getsource(Recovery._resume_streams)
    assert source.index("perform_seek") < source.index("resume_flow")


def test_delivery_compares_with_the_offset_last_read_and_acks_off_means_no_gaps() -> None:
    source = inspect.getsource(BaseConsumer._drain_messages)
    assert "if acks_enabled:" in source
    assert "self._read_offset" in source
    assert "_to_message" in inspect.getsource(BaseConsumer.getmany)


def test_the_producer_web_server_and_sensors_of_faust_stay_off() -> None:
    boot = kafka._Boot(SimpleNamespace(sensors=["a sensor"], conf=SimpleNamespace(web_enabled=False)))
    assert isinstance(boot, BootStrategy)
    assert (list(boot.kafka_producer()), list(boot.web_server()), list(boot.sensors())) == ([], [], [])
