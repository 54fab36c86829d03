"""The section `actuators:` as a whole: who has which pool, and whether it acts.

actuators:
  mode: dry_run                     # `act` does what is planned
  pools:                            # the first that fits has a pool; where none does, it is said what would be done
    - {pool: "onprem/*", kind: kubernetes, namespace: inference, name: "vllm-{zone}", most: 12, mode: act}
    - {pool: "aws/*/g6.*", kind: aws_asg, region: eu-west-1, group: "vllm-{zone}"}
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Final

import msgspec

from router_sync.actuators.dry_run import DryRunEntry
from router_sync.actuators.entry import Entry, Mode

_OTHERS: Final = DryRunEntry(pool="*")


class Actuators(msgspec.Struct, frozen=True, kw_only=True):
    """Entries in their order; pools that none fits are dry_run's."""

    mode: Mode = "dry_run"
    pools: tuple[Entry, ...] = ()

    @property
    def entries(self) -> tuple[Entry, ...]:
        """All of them, the last of which fits every pool."""
        return (*self.pools, _OTHERS)

    def number(self, pool: str) -> int:
        """Which of `entries` has `pool`."""
        return next(n for n, entry in enumerate(self.entries) if fnmatchcase(pool, entry.pool))

    def acts(self, entry: Entry) -> bool:
        """Whether what is planned for the pools of `entry` is done, not only said."""
        return (entry.mode or self.mode) == "act" and not isinstance(entry, DryRunEntry)
