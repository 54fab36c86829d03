"""Work beside the requests that does not end by surprise: what fails is told, and begins again after a pause."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Awaitable, Callable
from typing import Final

from streams import signals

FIRST_WAIT_S: Final = 0.1
LONGEST_WAIT_S: Final = 5.0
_WELL_S: Final = 60.0


async def kept(name: str, work: Callable[[], Awaitable[None]], *, wait_s: float = FIRST_WAIT_S) -> None:
    """Run `work` until it ends by itself or is cancelled. What it raises is the event `task_failed`, never the end.

    The pause doubles from `wait_s` to five seconds; whoever ran well for a minute begins anew.
    """
    loop, failures = asyncio.get_running_loop(), 0
    while True:
        began_s = loop.time()
        try:
            await work()
            return
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            mistake: BaseException = error  # of something awaited, which is no order to us
        except Exception as error:  # noqa: BLE001 - a gateway that follows nobody looks well and is not
            mistake = error
        failures = 1 if loop.time() - began_s >= _WELL_S else failures + 1
        if failures.bit_count() == 1:  # 1, 2, 4, 8 …
            signals.event("task_failed", "error", task=name, failures=failures, **_said(mistake))
        await asyncio.sleep(min(LONGEST_WAIT_S, wait_s * 2 ** min(failures - 1, 16)))


def _said(mistake: BaseException) -> dict[str, str]:
    frames = traceback.extract_tb(mistake.__traceback__)
    last = frames[-1] if frames else None
    return {"error": repr(mistake), "where": f"{last.name}:{last.lineno}" if last else ""}
