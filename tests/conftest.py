"""One real Kafka for the whole test session, started by the first test that asks for it.

make test   ┌ one process:  tests/contract, tests/integration: real processes and brokers, one after the other
            └ another:      all others, which ask nothing of the machine but its time
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tradewind.embedded import EmbeddedKafka, Runtime, default_cache, prepare


@pytest.fixture(scope="session")
def kafka_runtime() -> Runtime:
    """Java and the verified jars, for tests that start brokers of their own; fetched once for the machine."""
    java_home = os.environ.get("JAVA_HOME")
    return prepare(default_cache(os.environ, Path.home()), java_home=Path(java_home) if java_home else None)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def kafka(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    """Bootstrap servers of a real Kafka that all tests of the session share: make topics with names of your own.

    TRADEWIND_TEST_BOOTSTRAP names one that runs already; TRADEWIND_TEST_CONTAINERS=1 takes a container instead of the
    embedded one, and fails where Docker does not answer: what was asked for by name is not quietly replaced.
    """
    if existing := os.environ.get("TRADEWIND_TEST_BOOTSTRAP"):
        yield existing
    elif os.environ.get("TRADEWIND_TEST_CONTAINERS") == "1":
        async for bootstrap in _container():
            yield bootstrap
    else:
        runtime: Runtime = request.getfixturevalue("kafka_runtime")
        async with EmbeddedKafka(runtime, tmp_path_factory.mktemp("kafka"), port=None) as embedded:
            yield embedded.bootstrap_servers


async def _container() -> AsyncIterator[str]:
    from testcontainers.community.kafka import KafkaContainer

    container = KafkaContainer().with_kraft()
    container.with_env("KAFKA_AUTO_CREATE_TOPICS_ENABLE", "false")
    container.with_env("KAFKA_GROUP_MIN_SESSION_TIMEOUT_MS", "1000")
    await asyncio.to_thread(container.start)
    try:
        yield container.get_bootstrap_server()
    finally:
        await asyncio.to_thread(container.stop)
