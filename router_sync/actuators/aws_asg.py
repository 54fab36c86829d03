"""AWS: sets the desired capacity of an Auto Scaling group.

    - {pool: "aws/eu-west-1/*", kind: aws_asg, region: eu-west-1, group: "vllm-{zone}", mode: act}

Credentials are found as AWS's own tools find them: the instance's or the pod's role, AWS_PROFILE, variables. The least:

    autoscaling:DescribeAutoScalingGroups, autoscaling:SetDesiredCapacity      (the second on these groups alone)
    autoscaling:DescribeScalingActivities                                      to count launches that failed

AWS refuses a desired capacity outside the group's MinSize and MaxSize, so the plan is clamped to them. The group's own
cooldown is not waited for (HonorCooldown=False), since a surge cannot wait; ours holds only against taking away. The
group's scaling policies go on and would pull at the same number: take them away. A warm pool makes launches quick; its
instances are not counted as ready. Instances with weights count by their weights.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from functools import partial
from typing import Annotated, Any, Final, Literal

from msgspec import Meta

from router_sync.actuators.around import Around, Call, lacking, threads
from router_sync.actuators.dry_run import would
from router_sync.actuators.entry import Entry, Template, filled
from router_sync.actuators.protocol import Later, Receipt, Replicas
from streams.contract.errors import Refused, Stop
from streams.contract.records import CapacityPlan, Url

Word = Annotated[str, Meta(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9_.-]+$(?!\n)")]
BUSY: Final = frozenset(
    {
        "Throttling", "ThrottlingException", "RequestLimitExceeded", "TooManyRequestsException", "ServiceUnavailable",
        "InternalFailure", "InternalError", "ScalingActivityInProgress", "ResourceContention", "RequestTimeout",
    }
)  # fmt: skip
"""Codes that pass by themselves."""
DENIED: Final = frozenset(
    {
        "AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "ExpiredToken", "InvalidClientTokenId",
        "SignatureDoesNotMatch", "UnrecognizedClientException", "AuthFailure", "OptInRequired",
    }
)  # fmt: skip
_THREADS: Final = 8
_ATTEMPTS: Final = 3
"""Of one call, with AWS's own backoff; then the pool waits."""
_CONNECT_S: Final = 3.0
_ACTIVITIES: Final = 20
_AT_ONCE: Final = 100
"""Groups that AWS describes in one answer."""


class AwsAsgEntry(Entry, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Sets the desired capacity of one Auto Scaling group per pool."""

    kind: Literal["aws_asg"] = "aws_asg"
    group: Template
    """Its name; {zone} and the like stand for the pool's."""
    region: Word
    profile: Word | None = None
    """Of the shared credentials file; None: as AWS's tools find credentials."""
    endpoint_url: Url | None = None
    """Another place than AWS's usual one: a VPC endpoint, a stand-in."""


# ---------------------------------------------------------------- pure: what AWS says


def of_group(group: Mapping[str, Any], failed: int = 0) -> Replicas:
    """Replicas of a group as `describe_auto_scaling_groups` has it, `failed` launches counted."""
    instances = group.get("Instances") or ()
    well = _weight(i for i in instances if i["LifecycleState"] == "InService" and i.get("HealthStatus") == "Healthy")
    coming = _weight(i for i in instances if i["LifecycleState"].startswith("Pending"))
    want = int(group["DesiredCapacity"])
    # what is desired and not even begun is coming too
    starting = max(coming, want - _weight(i for i in instances if not i["LifecycleState"].startswith("Terminat")))
    return Replicas(ready=well, starting=max(0, starting), want=want, failed=failed, note=_of_warm_pool(group))


def _weight(instances: Iterable[Mapping[str, Any]]) -> int:
    return sum(int(i.get("WeightedCapacity") or 1) for i in instances)


def _of_warm_pool(group: Mapping[str, Any]) -> str:
    size = group.get("WarmPoolSize")
    return f"{size} more in its warm pool" if size else ""


def within(group: Mapping[str, Any], want: int) -> tuple[int, str]:
    """`want` within the group's own bounds, and a note where they were met.

    >>> within({"MinSize": 1, "MaxSize": 10}, 50)
    (10, ', not 50: its MaxSize is 10')
    """
    if want > group["MaxSize"]:
        return int(group["MaxSize"]), f", not {want}: its MaxSize is {group['MaxSize']}"
    if want < group["MinSize"]:
        return int(group["MinSize"]), f", not {want}: its MinSize is {group['MinSize']}"
    return want, ""


def failures(activities: Iterable[Mapping[str, Any]]) -> set[str]:
    """Ids of launches that failed."""
    return {
        a["ActivityId"] for a in activities if a["StatusCode"] == "Failed" and a["Description"].startswith("Launch")
    }


def error_of(code: str, message: str, what: str) -> Exception:
    """The error behind AWS's code, by what one can do about it."""
    said = f"{code}: {message[:300]}"
    if code in BUSY:
        return Later(f"AWS is not ready to {what} ({said})")
    if code in DENIED:
        return Stop(
            f"AWS does not let us {what} ({said})", "Correct the credentials, or grant the action to their role"
        )
    return Refused("want", what, f"AWS refuses it: {said}")


# ---------------------------------------------------------------- what asks AWS


class AwsAsg:
    """The actuator. `client` is boto3's of autoscaling."""

    def __init__(self, entry: AwsAsgEntry, acts: bool, client: Any, call: Call) -> None:
        self._entry, self._acts, self._client, self._call = entry, acts, client, call
        self._failed: dict[str, tuple[set[str], set[str]]] = {}
        """Group to failed launches: those from before we looked first, and all."""
        self._groups: dict[str, Mapping[str, Any] | None] = {}
        """Those we were asked for, as they were at the last look; None: not there."""
        self._looked_at_s = -math.inf
        self._looking = asyncio.Lock()

    async def observe(self, pool: str) -> Replicas | None:
        name = filled(self._entry.group, pool)
        seen = of_group(await self._lately(name))
        return seen._replace(failed=await self._failures(name) if seen.starting else self._known(name))

    async def apply(self, plan: CapacityPlan) -> Receipt:
        name = filled(self._entry.group, plan.pool)
        group = _there(name, (await self._described([name]))[name], self._entry)
        (want, limit), before = within(group, plan.want), group["DesiredCapacity"]
        if not self._acts:
            rehearsed = would(want, f"set {name} from {before} to")
            return rehearsed._replace(note=rehearsed.note + limit)
        await self._ask(
            f"set the desired capacity of {name}", "set_desired_capacity", AutoScalingGroupName=name,
            DesiredCapacity=want, HonorCooldown=False,
        )  # fmt: skip
        self._looked_at_s = -math.inf
        return Receipt(want, note=f"{name} set from {before} to {want}{limit}")

    async def _lately(self, name: str) -> Mapping[str, Any]:
        """The group as it was less than half a look ago: one question for all groups, since AWS counts questions."""
        async with self._looking:
            now_s = asyncio.get_running_loop().time()
            if name not in self._groups or now_s - self._looked_at_s > self._entry.observe_s / 2:
                self._groups = await self._described([*self._groups, name])
                self._looked_at_s = now_s
            return _there(name, self._groups[name], self._entry)

    async def _described(self, names: Sequence[str]) -> dict[str, Mapping[str, Any] | None]:
        """Groups by name; None where there is none."""
        found: dict[str, Mapping[str, Any] | None] = dict.fromkeys(names)
        for first in range(0, len(found), _AT_ONCE):
            some = [*found][first : first + _AT_ONCE]
            said = await self._ask(
                f"describe {', '.join(some[:3])}", "describe_auto_scaling_groups", AutoScalingGroupNames=some,
                MaxRecords=_AT_ONCE,
            )  # fmt: skip
            found |= {group["AutoScalingGroupName"]: group for group in said["AutoScalingGroups"]}
        return found

    async def _failures(self, name: str) -> int:
        """Launches that failed since we looked first; without the right to see them, those known."""
        try:
            said = await self._ask(
                f"see activities of {name}", "describe_scaling_activities", AutoScalingGroupName=name,
                MaxRecords=_ACTIVITIES,
            )  # fmt: skip
        except (Stop, Refused):
            return self._known(name)
        now = failures(said["Activities"])
        before, ever = self._failed.get(name, (now, set()))
        self._failed[name] = (before, (ever | now))
        return self._known(name)

    def _known(self, name: str) -> int:
        before, ever = self._failed.get(name, (set(), set()))
        return len(ever - before)

    async def _ask(self, what: str, method: str, **given: Any) -> Any:
        return await self._call(_asked, what, partial(getattr(self._client, method), **given))


def _there(name: str, group: Mapping[str, Any] | None, entry: AwsAsgEntry) -> Mapping[str, Any]:
    if group is None:
        raise Stop(f"There is no Auto Scaling group {name} in {entry.region}", "Correct its name or its region")
    return group


def _asked(what: str, ask: Any) -> Any:
    """The answer. Raises Later, Refused or Stop."""
    from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, PartialCredentialsError

    try:
        return ask()
    except ClientError as error:
        said = error.response["Error"]
        raise error_of(said.get("Code", ""), said.get("Message", ""), what) from None
    except (NoCredentialsError, PartialCredentialsError) as error:
        raise Stop(
            f"There are no credentials to {what} ({error})", "Give this machine a role, or set AWS_PROFILE"
        ) from None
    except BotoCoreError as error:
        raise Later(f"AWS cannot be asked to {what} ({type(error).__name__})") from None


@contextlib.asynccontextmanager
async def opened(entry: AwsAsgEntry, acts: bool, around: Around) -> AsyncIterator[AwsAsg]:
    """Raises Stop without the package, or with a profile that is not there."""
    with threads("aws_asg", _THREADS) as call:
        client = await call(_client, entry)
        try:
            yield AwsAsg(entry, acts, client, call)
        finally:
            client.close()


def _client(entry: AwsAsgEntry) -> Any:
    try:
        import boto3
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError
    except ImportError:
        raise lacking("aws_asg", "boto3", "aws") from None
    how = Config(
        region_name=entry.region, retries={"mode": "standard", "total_max_attempts": _ATTEMPTS},
        connect_timeout=min(_CONNECT_S, entry.deadline_s), read_timeout=entry.deadline_s,
        max_pool_connections=_THREADS, user_agent_extra="tradewind",
    )  # fmt: skip
    try:
        session = boto3.Session(profile_name=entry.profile, region_name=entry.region)
        return session.client("autoscaling", config=how, endpoint_url=entry.endpoint_url)
    except (BotoCoreError, ValueError) as error:
        raise Stop(
            f"There is no way into AWS for {entry.pool} ({error})", "Correct region, profile or endpoint_url"
        ) from None
