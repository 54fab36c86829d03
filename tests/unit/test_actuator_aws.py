"""The AWS actuator: groups as AWS describes them, bounds, throttling, failed launches."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import msgspec
import pytest

from router_sync.actuators import aws_asg
from router_sync.actuators.around import Around
from router_sync.actuators.aws_asg import AwsAsg, AwsAsgEntry
from router_sync.actuators.protocol import Later, Replicas
from streams.contract.errors import Refused, Stop
from streams.contract.records import CapacityPlan
from tests.contract.stand_ins import aws

POOL = "aws/eu-west/eu-west-1a/g6.xlarge/spot"
GROUP: dict[str, Any] = json.loads(b"""{"AutoScalingGroupName": "vllm", "MinSize": 1, "MaxSize": 10,
"DesiredCapacity": 6, "WarmPoolSize": 3, "Instances": [
 {"InstanceId": "i-1", "LifecycleState": "InService", "HealthStatus": "Healthy"},
 {"InstanceId": "i-2", "LifecycleState": "InService", "HealthStatus": "Unhealthy"},
 {"InstanceId": "i-3", "LifecycleState": "Pending:Wait", "HealthStatus": "Healthy"},
 {"InstanceId": "i-4", "LifecycleState": "Terminating:Wait", "HealthStatus": "Healthy"}]}""")


def plan(want: int, plan_id: str = "p-1") -> CapacityPlan:
    return CapacityPlan(pool=POOL, plan_id=plan_id, made_at_s=9.0, want=want, have=2, not_before_s=9.0, reason="noon")


@pytest.fixture(scope="module")
def moto_url() -> Iterator[str]:
    with aws.moto() as url:
        aws.make_group(url, "vllm-eu-west-1a")
        yield url


@pytest.fixture
async def front(moto_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[aws.Front]:
    for name, value in aws.KEYS.items():
        monkeypatch.setenv(name, value)
    async with aws.Front(moto_url).serving() as served:
        yield served


@contextlib.asynccontextmanager
async def actuator(front: aws.Front, acts: bool = True) -> AsyncIterator[AwsAsg]:
    entry = AwsAsgEntry(pool="*", region=aws.REGION, group="vllm-{zone}", endpoint_url=front.url)
    async with aws_asg.opened(entry, acts, Around()) as made:
        yield made


# ---------------------------------------------------------------- pure


def test_ready_is_who_is_in_service_and_healthy_and_what_is_not_even_launched_is_coming() -> None:
    seen = aws_asg.of_group(GROUP, failed=2)
    # six wanted, three there that stay: three more to come, one of which is pending
    assert (seen.ready, seen.starting, seen.want, seen.failed) == (1, 3, 6, 2)
    assert seen.note == "3 more in its warm pool"


def test_a_warm_pools_instances_are_not_in_service() -> None:
    warm = {
        **GROUP,
        "DesiredCapacity": 1,
        "Instances": [{"LifecycleState": "Warmed:Stopped", "HealthStatus": "Healthy"}],
    }
    assert aws_asg.of_group(warm).ready == 0


def test_instances_with_weights_count_by_them() -> None:
    instances = [{"LifecycleState": "InService", "HealthStatus": "Healthy", "WeightedCapacity": "4"}]
    seen = aws_asg.of_group({"DesiredCapacity": 8, "Instances": instances})
    assert (seen.ready, seen.starting, seen.note) == (4, 4, "")


def test_only_launches_that_failed_count_as_such() -> None:
    activities = [
        {"ActivityId": "a", "StatusCode": "Failed", "Description": "Launching a new EC2 instance.  Status Reason: …"},
        {"ActivityId": "b", "StatusCode": "Failed", "Description": "Terminating EC2 instance: i-1"},
        {"ActivityId": "c", "StatusCode": "Successful", "Description": "Launching a new EC2 instance: i-2"},
    ]
    assert aws_asg.failures(activities) == {"a"}


@pytest.mark.parametrize(
    ("code", "kind"),
    [("Throttling", Later), ("RequestLimitExceeded", Later), ("ScalingActivityInProgress", Later),
     ("AccessDenied", Stop), ("ExpiredToken", Stop), ("ValidationError", Refused)],
)  # fmt: skip
def test_an_error_code_is_an_error_by_what_one_can_do_about_it(code: str, kind: type[Exception]) -> None:
    error = aws_asg.error_of(code, "because", "set it")
    assert isinstance(error, kind)
    assert "because" in str(error)


# ---------------------------------------------------------------- asked


async def test_a_plan_beyond_the_groups_own_bounds_is_cut_to_them_and_never_refused_by_aws(front: aws.Front) -> None:
    async with actuator(front) as ours:
        receipt = await ours.apply(plan(50))
        assert (receipt.want, receipt.note) == (10, "vllm-eu-west-1a set from 2 to 10, not 50: its MaxSize is 10")
        receipt = await ours.apply(plan(0, "p-2"))
        assert (receipt.want, receipt.note) == (1, "vllm-eu-west-1a set from 10 to 1, not 0: its MinSize is 1")
        await ours.apply(plan(2, "p-3"))


async def test_the_stand_in_refuses_what_aws_refuses(front: aws.Front) -> None:
    async with actuator(front) as ours:
        with pytest.raises(Refused, match="above max value 10"):
            await ours._ask(
                "set it", "set_desired_capacity", AutoScalingGroupName="vllm-eu-west-1a", DesiredCapacity=11
            )


async def test_a_call_that_is_throttled_once_or_twice_goes_through(front: aws.Front) -> None:
    async with actuator(front) as ours:
        front.busy = 2
        assert await ours.observe(POOL) is not None
        assert front.asked == ["DescribeAutoScalingGroups"] * 3
        front.busy, ours._looked_at_s = 3, 0.0
        with pytest.raises(Later, match="Throttling"):
            await ours.observe(POOL)


async def test_launches_that_fail_after_we_looked_first_are_counted(front: aws.Front) -> None:
    front.failed = ["old"]
    async with actuator(front) as ours:
        assert await ours._failures("g") == 0
        front.failed = ["old", "new-1", "new-2"]
        assert await ours._failures("g") == 2
        front.failed = ["new-2", "new-3"]
        assert await ours._failures("g") == 3, "activities grow old, and stay counted"
        front.denied = {"DescribeScalingActivities"}
        assert await ours._failures("g") == 3


async def test_many_pools_are_looked_at_with_one_question_and_one_that_lacks_holds_up_no_other(
    front: aws.Front, moto_url: str
) -> None:
    for zone in ("z1", "z2"):
        await asyncio.to_thread(aws.make_group, moto_url, f"vllm-{zone}")
    pools = [f"aws/eu-west/{zone}/g6/spot" for zone in ("z1", "z2", "nobody")]
    async with actuator(front) as ours:
        await asyncio.gather(*(ours.observe(pool) for pool in pools), return_exceptions=True)
        front.asked.clear()
        ours._looked_at_s = 0.0
        one, two, lacks = await asyncio.gather(*(ours.observe(pool) for pool in pools), return_exceptions=True)
        assert front.asked == ["DescribeAutoScalingGroups"]
        assert isinstance(one, Replicas)
        assert isinstance(two, Replicas)
        assert "no Auto Scaling group vllm-nobody" in str(lacks)
        await ours.apply(msgspec.structs.replace(plan(3), pool=pools[0]))
        seen = await ours.observe(pools[0])
        assert seen is not None
        assert seen.want == 3, "what was set is seen at once"


async def test_in_a_dry_run_the_groups_bounds_are_rehearsed_too(front: aws.Front) -> None:
    async with actuator(front, acts=False) as ours:
        receipt = await ours.apply(plan(50))
    assert (receipt.taken, receipt.want) == (False, 10)
    assert receipt.note == "dry run: would set vllm-eu-west-1a from 2 to 10, not 50: its MaxSize is 10"
    assert "SetDesiredCapacity" not in front.asked


async def test_without_credentials_a_human_is_asked(front: aws.Front, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in aws.KEYS:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    async with actuator(front) as ours:
        with pytest.raises(Stop, match="no credentials"):
            await ours.observe(POOL)


async def test_a_profile_that_is_not_there_is_found_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    entry = AwsAsgEntry(pool="*", region=aws.REGION, group="g", profile="nobody")
    with pytest.raises(Stop, match="no way into AWS"):
        async with aws_asg.opened(entry, True, Around()):
            pass
