"""Says what it would do, and does nothing: what every pool has that no entry speaks of.

    - {pool: "*", kind: dry_run}

It needs no rights and sees nothing, so `ready` on capacity.v1 is what the fleet declares. To rehearse with the eyes of
another kind, take that kind with `mode: dry_run`.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Literal

from router_sync.actuators.around import Around
from router_sync.actuators.entry import Entry
from router_sync.actuators.protocol import Receipt, Replicas
from streams.contract.records import CapacityPlan


class DryRunEntry(Entry, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Sees nothing and does nothing; says what it would do."""

    kind: Literal["dry_run"] = "dry_run"


def would(want: int, what: str = "set it to") -> Receipt:
    """The receipt of a rehearsal."""
    return Receipt(want, taken=False, note=f"dry run: would {what} {want}")


class DryRun:
    """The actuator."""

    async def observe(self, pool: str) -> Replicas | None:
        return None

    async def apply(self, plan: CapacityPlan) -> Receipt:
        return would(plan.want)


@contextlib.asynccontextmanager
async def opened(entry: DryRunEntry, acts: bool, around: Around) -> AsyncIterator[DryRun]:
    """Whatever `acts` says, it does not."""
    yield DryRun()
