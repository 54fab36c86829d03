"""Keys lie where every other Kafka client with murmur2 puts them."""

import pytest
from aiokafka.partitioner import murmur2 as theirs
from hypothesis import given
from hypothesis import strategies as st

from streams.contract.keys import murmur2, partition_of

# org.apache.kafka.common.utils.UtilsTest.testMurmur2: signed there, as Java has it
JAVA = {
    b"21": -973932308,
    b"foobar": -790332482,
    b"a-little-bit-long-string": -985981536,
    b"a-little-bit-longer-string": -1486304829,
    b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
    b"abc": 479470107,
}


@pytest.mark.parametrize(("key", "signed"), JAVA.items())
def test_the_hash_is_the_one_of_the_java_client(key: bytes, signed: int) -> None:
    assert murmur2(key) == signed % 2**32


@given(st.binary(max_size=300))
def test_the_hash_is_the_one_of_aiokafka_for_any_bytes(key: bytes) -> None:
    assert murmur2(key) == theirs(key) % 2**32


@given(st.text(max_size=50), st.integers(1, 1024))
def test_a_key_lies_on_one_partition_whether_given_as_text_or_bytes(key: str, partitions: int) -> None:
    raw = key.encode("utf-8", "replace")
    assert partition_of(raw, partitions) == (theirs(raw) & 0x7FFFFFFF) % partitions
    assert partition_of(raw.decode(), partitions) == partition_of(raw, partitions)
    assert 0 <= partition_of(raw, partitions) < partitions
