"""The hands: run what the stage decides, each pool by itself, each errand within its deadline; and never raise.

errand ─► the pool's actuator ─► apply, then observe ─► Brought (receipt, replicas, or what went wrong)
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Sequence
from typing import Final, NamedTuple, TypeVar

from router_sync.actuators.around import Around
from router_sync.actuators.entry import Entry
from router_sync.actuators.kinds import KINDS
from router_sync.actuators.protocol import Actuator, Later
from router_sync.actuators.section import Actuators
from router_sync.actuators.standing import Brought, Order, Trouble
from streams import signals
from streams.contract.errors import Refused, Retry, Stop
from streams.runtime.room import Act
from streams.runtime.step import Errand

AT_ONCE: Final = 8
"""Errands of one entry that are under way together; more wait, and those of other entries do not wait for them."""
T = TypeVar("T")


class _Arm(NamedTuple):
    """One entry's actuator."""

    entry: Entry
    actuator: Actuator
    turns: asyncio.Semaphore


class Hands:
    """Runs errands with the actuators that are open."""

    def __init__(self, section: Actuators, arms: Sequence[_Arm], around: Around) -> None:
        self._section, self._arms, self._now_s = section, arms, around.now_s

    async def run(self, errand: Errand) -> Brought:
        """What came of it."""
        arm = self._arms[self._section.number(errand.on)]
        order: Order | None = errand.what
        async with arm.turns:
            began_at_s = self._now_s()
            done = await self._within(arm, arm.actuator.apply(order.plan)) if order is not None else (None, None)
            seen = await self._within(arm, arm.actuator.observe(errand.on))
        return Brought(began_at_s, self._now_s(), seen[0], done[0], blind=seen[1], trouble=done[1])

    async def _within(self, arm: _Arm, verb: Awaitable[T]) -> tuple[T | None, Trouble | None]:
        deadline_s = arm.entry.deadline_s
        try:
            async with asyncio.timeout(deadline_s):
                return await verb, None
        except TimeoutError:
            return None, Trouble("later", f"no answer within {deadline_s:g} s")
        except Retry as error:
            return None, Trouble("later", str(error), error.after_s if isinstance(error, Later) else None)
        except Refused as error:
            return None, Trouble("refused", str(error))
        except Stop as error:
            return None, Trouble("stop", str(error))
        except Exception as error:  # noqa: BLE001 - a plug-in's mistake must not end the others' work
            signals.event("actuator_mistake", "error", kind=arm.entry.kind, error=repr(error))
            return None, Trouble("later", repr(error))


def examine(section: Actuators, around: Around) -> None:
    """Open all actuators and close them again: raises Stop for what they lack, before anything runs."""

    async def look() -> None:
        async with opened(section, around):
            pass

    asyncio.run(look())


@contextlib.asynccontextmanager
async def opened(section: Actuators, around: Around) -> AsyncIterator[Act]:
    """Runs errands while the context lasts. Raises Stop for what an actuator lacks: a package, a secret, a port."""
    async with contextlib.AsyncExitStack() as stack:
        arms = []
        for entry in section.entries:
            acts = section.acts(entry)
            actuator = await stack.enter_async_context(KINDS[entry.kind].opened(entry, acts, around))
            arms.append(_Arm(entry, actuator, asyncio.Semaphore(AT_ONCE)))
        yield Hands(section, arms, around).run
