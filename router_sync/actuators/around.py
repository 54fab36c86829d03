"""What surrounds actuators: handed to each, so that none reads the clock or the environment by itself."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol, TypeVar

from streams.contract.errors import Missing
from streams.runtime import clock

T = TypeVar("T")


class Around(NamedTuple):
    """`environ`: where secrets may be kept; `now_s`: unix seconds."""

    environ: Mapping[str, str] = MappingProxyType({})
    now_s: Callable[[], float] = clock.now_s


class Call(Protocol):
    """Runs a blocking function beside the loop."""

    def __call__(self, work: Callable[..., T], /, *given: Any) -> Awaitable[T]: ...


@contextlib.contextmanager
def threads(name: str, count: int) -> Iterator[Call]:
    """Threads of one actuator's own, so that a library that hangs takes nobody else's; what hangs is not waited for."""
    pool = ThreadPoolExecutor(count, thread_name_prefix=name)
    loop = asyncio.get_running_loop()

    def call(work: Callable[..., T], /, *given: Any) -> Awaitable[T]:
        return loop.run_in_executor(pool, partial(work, *given))

    try:
        yield call
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def lacking(kind: str, package: str, extra: str) -> Missing:
    """The error of a kind whose package is not installed."""
    return Missing(f"The actuator {kind} needs {package}, which is not installed", f"pip install 'tradewind[{extra}]'")
