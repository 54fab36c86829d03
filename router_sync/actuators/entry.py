"""What an operator may set of the pools of one actuator. Kinds add fields of their own."""

from __future__ import annotations

from typing import Annotated, ClassVar, Final, Literal

import msgspec
from msgspec import Meta

from streams.contract.errors import Stop

Mode = Literal["dry_run", "act"]
Pattern = Annotated[str, Meta(min_length=1, max_length=256)]
Template = Annotated[str, Meta(min_length=1, max_length=256)]
"""A name that may have {provider}, {region}, {zone}, {instance} and {market} of the pool in it."""
Many = Annotated[int, Meta(ge=0, le=100_000)]
Wait = Annotated[float, Meta(ge=0, le=86_400)]
PARTS: Final = ("provider", "region", "zone", "instance", "market")


class Entry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which pools, within which bounds, and whether they are acted on. The first entry that fits a pool has it."""

    forgets: ClassVar[bool] = False
    """Whether what was set ends with this process: the next owner then carries the last plan out again."""
    kind: str
    """Which actuator."""
    pool: Pattern
    """Of provider/region/zone/instance/market, where * stands for anything, even several parts."""
    mode: Mode | None = None
    """dry_run says what it would do, act does it; None: as the section says."""
    least: Many = 0
    """Beside `least_replicas` of the fleet: the higher one holds."""
    most: Many | None = None
    """Beside `most_replicas` of the fleet: the lower one holds."""
    most_step: Annotated[int, Meta(ge=1, le=100_000)] | None = None
    """Replicas added or taken away at once; None: as many as planned, so that a surge may jump."""
    cool_down_s: Wait = 300.0
    """For so long after any change of a pool nothing is taken away. What is to be added never waits."""
    drain_s: Wait = 10.0
    """What is to be taken away is counted out for so long before it is: tables learn of it while it still answers."""
    observe_s: Annotated[float, Meta(ge=0.5, le=3600)] = 5.0
    """Between two looks."""
    deadline_s: Annotated[float, Meta(ge=1, le=300)] = 15.0
    """For one look or one change."""
    launch_s: Annotated[float, Meta(ge=1, le=86_400)] | None = None
    """A replica that is not ready so long after its launch counts as failed; None: three cold starts."""
    plan_age_s: Annotated[float, Meta(ge=10, le=2_592_000)] = 900.0
    """A plan that says no end of its own is not carried out any more when it is older than this."""


def filled(template: str, pool: str) -> str:
    """`template` with the parts of `pool` in it. Raises Stop where they cannot be told apart.

    >>> filled("vllm-{zone}", "onprem/rack/rack-7/l4/owned")
    'vllm-rack-7'
    """
    if "{" not in template:
        return template
    parts = pool.split("/")
    if len(parts) != len(PARTS):
        raise Stop(f"{pool} has not just the parts {'/'.join(PARTS)}", f"Name its target in full, not as {template}")
    for name, value in zip(PARTS, parts, strict=True):
        template = template.replace(f"{{{name}}}", value)
    return template
