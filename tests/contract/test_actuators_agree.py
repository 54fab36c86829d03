"""What holds for every actuator, whatever it speaks: each against a server that speaks as the real one, and refuses."""

from __future__ import annotations

import base64
import contextlib
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest

from router_sync.actuators import aws_asg, dry_run, kubernetes, webhook
from router_sync.actuators.around import Around
from router_sync.actuators.dry_run import DryRunEntry
from router_sync.actuators.entry import Entry
from router_sync.actuators.kinds import KINDS
from router_sync.actuators.protocol import Actuator, Later
from router_sync.gateway.secret import Reference
from streams.contract.errors import Missing, Stop
from streams.contract.records import CapacityPlan
from tests.contract.stand_ins import aws
from tests.contract.stand_ins.kubernetes import StandIn
from tests.contract.stand_ins.webhook import Receiver

POOL = "aws/eu-west/rack-7/l4/owned"
KEY = b"0123456789abcdef0123456789abcdef"
NOTHING = Around()
MESSAGES = "router_sync.actuators.keda_pb.externalscaler_pb2"


def plan(want: int, plan_id: str = "p-1", **more: Any) -> CapacityPlan:
    told: dict[str, Any] = {"pool": POOL, "made_at_s": 100.0, "have": 2, "not_before_s": 100.0, "reason": "noon"}
    return CapacityPlan(want=want, plan_id=plan_id, **(told | more))


@dataclass
class House:
    """An entry and the other side of it. `set_to`: what the target is set to, by its own word."""

    entry: Entry
    set_to: Callable[[], int]
    deny: Callable[[], None]
    throttle: Callable[[], None]
    gone: Entry
    """An entry whose target is not there."""
    away: Entry
    """An entry whose other side does not answer."""
    around: Around = NOTHING

    def opened(self, acts: bool = True, entry: Entry | None = None) -> AbstractAsyncContextManager[Actuator]:
        chosen = entry or self.entry
        return KINDS[chosen.kind].opened(chosen, acts, self.around)


def replaced(entry: Entry, **changed: Any) -> Entry:
    return msgspec.structs.replace(entry, **changed)


@contextlib.asynccontextmanager
async def on_kubernetes(folder: Path, _: str) -> AsyncIterator[House]:
    async with StandIn().serving() as api:
        thing = api.add("vllm-rack-7")
        (folder / "away").mkdir()
        entry = kubernetes.KubernetesEntry(
            pool="*", namespace="inference", name="vllm-{zone}", kubeconfig=api.kubeconfig(folder), deadline_s=2.0
        )
        here, api.url = api.url, "http://127.0.0.1:9"
        away = replaced(entry, kubeconfig=api.kubeconfig(folder / "away"))
        api.url = here

        def deny() -> None:
            api.denied = {"patch deployments/scale"}

        def throttle() -> None:
            api.busy = 1

        yield House(entry, lambda: thing.replicas, deny, throttle, replaced(entry, name="nobody"), away)


@contextlib.asynccontextmanager
async def on_aws(_: Path, moto_url: str) -> AsyncIterator[House]:
    name = f"vllm-{len(aws.client(moto_url, 'autoscaling').describe_auto_scaling_groups()['AutoScalingGroups'])}"
    aws.make_group(moto_url, name)
    async with aws.Front(moto_url).serving() as front:
        entry = aws_asg.AwsAsgEntry(pool="*", region=aws.REGION, group=name, endpoint_url=front.url, deadline_s=5.0)

        def set_to() -> int:
            found = aws.client(moto_url, "autoscaling").describe_auto_scaling_groups(AutoScalingGroupNames=[name])
            return int(found["AutoScalingGroups"][0]["DesiredCapacity"])

        def deny() -> None:
            front.denied = {"SetDesiredCapacity"}

        def throttle() -> None:
            front.busy = 9

        away = replaced(entry, endpoint_url="http://127.0.0.1:9")
        yield House(entry, set_to, deny, throttle, replaced(entry, group="nobody"), away)


@contextlib.asynccontextmanager
async def on_a_webhook(folder: Path, _: str) -> AsyncIterator[House]:
    async with Receiver(KEY).serving() as receiver:
        (folder / "hook").write_text(f"whsec_{base64.b64encode(KEY).decode()}\n")
        entry = webhook.WebhookEntry(
            pool="*", url=receiver.url, observe_url=receiver.url, secret=Reference(file=folder / "hook"), deadline_s=2.0
        )

        def deny() -> None:
            receiver.keys = (b"another" * 5,)

        def throttle() -> None:
            receiver.answers = [(429, {"Retry-After": "7"}, b"slowly")] * 2

        nowhere = replaced(entry, url=f"{receiver.url}/x", secret=Reference(env="HOOK"))
        around = Around({"HOOK": f"whsec_{base64.b64encode(b'n' * 32).decode()}"})
        away = replaced(entry, url="http://127.0.0.1:9", observe_url="http://127.0.0.1:9")
        yield House(entry, lambda: receiver.replicas.get(POOL, 2), deny, throttle, nowhere, away, around)


HOUSES = {"kubernetes": on_kubernetes, "aws_asg": on_aws, "webhook": on_a_webhook}


@pytest.fixture(scope="module")
def moto_url() -> Iterator[str]:
    with aws.moto() as url:
        yield url


@pytest.fixture(params=HOUSES)
async def house(
    request: pytest.FixtureRequest, tmp_path: Path, moto_url: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[House]:
    for name, value in aws.KEYS.items():
        monkeypatch.setenv(name, value)
    async with HOUSES[request.param](tmp_path, moto_url) as made:
        yield made


# ---------------------------------------------------------------- laws


async def test_what_is_applied_is_what_is_seen_then(house: House) -> None:
    async with house.opened() as actuator:
        before = await actuator.observe(POOL)
        assert before is not None
        assert (before.ready, before.starting) == (2, 0)
        receipt = await actuator.apply(plan(4))
        assert (receipt.taken, receipt.want, house.set_to()) == (True, 4, 4)
        after = await actuator.observe(POOL)
        assert after is not None
        assert (after.want, after.ready + after.starting) == (4, 4)


async def test_the_same_plan_twice_is_taken_twice_and_changes_nothing_more(house: House) -> None:
    async with house.opened() as actuator:
        first, second = await actuator.apply(plan(4)), await actuator.apply(plan(4))
        assert (first.taken, second.taken, second.want, house.set_to()) == (True, True, 4, 4)


async def test_it_goes_down_as_it_goes_up(house: House) -> None:
    async with house.opened() as actuator:
        await actuator.apply(plan(4))
        await actuator.apply(plan(1, "p-2"))
        assert house.set_to() == 1


async def test_a_dry_run_sees_and_says_what_it_would_do_and_changes_nothing(house: House) -> None:
    async with house.opened(acts=False) as actuator:
        seen = await actuator.observe(POOL)
        receipt = await actuator.apply(plan(4))
        assert seen is not None
        assert (receipt.taken, receipt.want, receipt.again_s, house.set_to()) == (False, 4, None, 2)
        assert receipt.note.startswith("dry run: would ")
        assert "4" in receipt.note


async def test_who_is_away_is_asked_again_later(house: House) -> None:
    async with house.opened(entry=house.away) as actuator:
        with pytest.raises(Later):
            await actuator.observe(POOL)
        with pytest.raises(Later):
            await actuator.apply(plan(4))


async def test_who_is_busy_is_asked_again_later_and_then_it_works(house: House) -> None:
    async with house.opened() as actuator:
        house.throttle()
        with pytest.raises(Later) as caught:
            await actuator.apply(plan(4))
        assert caught.value.after_s in (7.0, None)
        assert house.set_to() == 2
        for _ in range(5):
            with contextlib.suppress(Later):
                await actuator.apply(plan(4))
        assert house.set_to() == 4


async def test_a_right_that_lacks_needs_a_human_and_says_what_to_do(house: House) -> None:
    async with house.opened() as actuator:
        house.deny()
        with pytest.raises(Stop) as caught:
            await actuator.apply(plan(4))
        assert caught.value.remedy
        assert house.set_to() == 2


async def test_a_target_that_is_not_there_needs_a_human(house: House) -> None:
    async with house.opened(entry=house.gone) as actuator:
        with pytest.raises(Stop):
            await actuator.apply(plan(4))


# ---------------------------------------------------------------- all kinds


@pytest.mark.parametrize(
    ("kind", "more", "modules", "extra"),
    [
        ("kubernetes", {"namespace": "n", "name": "x"}, ["kubernetes"], "kubernetes"),
        ("aws_asg", {"region": "eu-west-1", "group": "g"}, ["boto3"], "aws"),
        ("keda", {"port": 0, "http_port": None}, ["grpc"], "keda"),
        ("keda", {"port": 0, "http_port": None}, ["google.protobuf", MESSAGES], "keda"),
    ],
)  # fmt: skip
async def test_a_package_that_is_not_installed_is_named_with_its_extra(
    kind: str, more: dict[str, Any], modules: list[str], extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in modules:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(Missing, match=rf"pip install 'tradewind\[{extra}\]'"):
        async with KINDS[kind].opened(KINDS[kind].entry(pool="*", **more), False, Around()):
            pass


async def test_dry_run_sees_nothing_and_does_nothing_even_when_it_is_told_to_act() -> None:
    async with dry_run.opened(DryRunEntry(pool="*"), True, Around()) as actuator:
        assert await actuator.observe(POOL) is None
        receipt = await actuator.apply(plan(4))
        assert (receipt.taken, receipt.note) == (False, "dry run: would set it to 4")


def test_kinds_are_called_as_their_entries_say_and_none_needs_its_package_to_be_known() -> None:
    for name, kind in KINDS.items():
        fields = {f.name: f for f in msgspec.structs.fields(kind.entry)}
        assert fields["kind"].default == name
        assert kind.entry.__doc__


def test_nothing_heavy_is_imported_until_it_is_used() -> None:
    heavy = ("kubernetes", "boto3", "botocore", "grpc", "google")
    told = f"import sys, router_sync.actuators.kinds as _; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
