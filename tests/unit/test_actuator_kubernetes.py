"""The Kubernetes actuator: what it reads out of objects, and what it does when the API server refuses."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from router_sync.actuators import kubernetes
from router_sync.actuators.around import Around
from router_sync.actuators.kubernetes import ANNOTATION, CONFLICTS, Kubernetes, KubernetesEntry, Target
from router_sync.actuators.protocol import Later
from streams.contract.errors import Refused, Stop
from streams.contract.records import CapacityPlan
from tests.contract.stand_ins.kubernetes import StandIn, hpa

POOL = "onprem/rack/rack-7/l4/owned"
DEPLOYMENT = b"""{"kind":"Deployment","apiVersion":"apps/v1","metadata":{"name":"vllm","resourceVersion":"812"},
"spec":{"replicas":6,"selector":{"matchLabels":{"app":"vllm"}}},"status":{"observedGeneration":3,"replicas":6,
"updatedReplicas":6,"readyReplicas":4,"availableReplicas":4,"unavailableReplicas":2}}"""
NEW = b'{"kind":"LeaderWorkerSet","metadata":{"name":"vllm"},"spec":{},"status":{}}'
SCALE = b"""{"kind":"Scale","apiVersion":"autoscaling/v1","metadata":{"name":"vllm","resourceVersion":"812"},
"spec":{"replicas":6},"status":{"replicas":5,"selector":"app=vllm"}}"""
ZERO = b'{"kind":"Scale","metadata":{"name":"vllm","resourceVersion":"1"},"spec":{},"status":{"replicas":0}}'


def plan(want: int, plan_id: str = "p-1") -> CapacityPlan:
    return CapacityPlan(
        pool=POOL, plan_id=plan_id, made_at_s=100.0, want=want, have=2, not_before_s=100.0, reason="noon"
    )


@contextlib.asynccontextmanager
async def actuator(api: StandIn, folder: Path, *, acts: bool = True, **more: Any) -> AsyncIterator[Kubernetes]:
    told = {"namespace": "inference", "name": "vllm-{zone}", "deadline_s": 5.0}
    entry = KubernetesEntry(pool="*", kubeconfig=api.kubeconfig(folder), **(told | more))
    async with kubernetes.opened(entry, acts, Around()) as made:
        yield made


@pytest.fixture
async def api() -> AsyncIterator[StandIn]:
    async with StandIn().serving() as served:
        yield served


# ---------------------------------------------------------------- pure


def test_an_object_tells_who_is_ready_and_one_that_is_new_tells_nothing_yet() -> None:
    assert kubernetes.of_object(json.loads(DEPLOYMENT))[:3] == (4, 2, 6)
    assert kubernetes.of_object(json.loads(NEW))[:3] == (0, 1, 1), "one is what replicas means where it is left out"


def test_a_scale_tells_who_exists_and_leaves_nought_out() -> None:
    assert kubernetes.of_scale(json.loads(SCALE))[:3] == (5, 1, 6)
    assert kubernetes.of_scale(json.loads(ZERO))[:3] == (0, 0, 0)
    assert kubernetes.patch_of(json.loads(SCALE), 8) == {
        "metadata": {"resourceVersion": "812"}, "spec": {"replicas": 8},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("resource", "group", "kind", "api", "owned"),
    [
        ("deployments", "apps", "Deployment", "apps/v1", True),
        ("statefulsets", "apps", "StatefulSet", "apps/v1", True),
        ("statefulsets", "apps", "Deployment", "apps/v1", False),
        ("leaderworkersets", "leaderworkerset.x-k8s.io", "LeaderWorkerSet", "leaderworkerset.x-k8s.io/v1", True),
        ("leaderworkersets", "leaderworkerset.x-k8s.io", "LeaderWorkerSet", "example.com/v1", False),
        ("proxies", "example.com", "Proxy", "example.com/v1", True),
    ],
)
def test_whose_target_it_is_is_told_by_kind_group_and_name(
    resource: str, group: str, kind: str, api: str, owned: bool
) -> None:
    target = Target(group, "v1", "inference", resource, "vllm")
    assert (kubernetes.owner_of(target, [hpa("h", "vllm", kind, api)]) == "h") == owned
    assert kubernetes.owner_of(target, [hpa("h", "other", kind, api), {}, {"spec": None}]) is None


@pytest.mark.parametrize(
    ("status", "kind"),
    [(401, Stop), (403, Stop), (404, Stop), (405, Stop), (429, Later), (500, Later), (503, Later), (422, Refused),
     (400, Refused), (415, Refused)],
)  # fmt: skip
def test_an_answer_is_an_error_by_what_one_can_do_about_it(status: int, kind: type[Exception]) -> None:
    body = json.dumps({"kind": "Status", "message": "because"})
    error = kubernetes.error_of(status, body, {"Retry-After": "3"}, "get it")
    assert type(error) is kind or isinstance(error, kind)
    assert "because" in str(error)
    assert getattr(error, "after_s", None) == (3.0 if isinstance(error, Later) else None)
    assert "gateway timeout" in str(kubernetes.error_of(status, "gateway timeout", {}, "get it"))


def test_names_that_cannot_be_are_not_asked_for() -> None:
    entry = KubernetesEntry(pool="*", namespace="inference", name="{zone}-{market}")
    with pytest.raises(Stop, match="cannot be the name of an object"):
        kubernetes.target_of(entry, "aws/eu/eu-a/g6/on_demand")
    with pytest.raises(Stop, match="has not just the parts"):
        kubernetes.target_of(entry, "aws/eu/eu-a")


def test_a_resource_whose_api_is_not_known_has_to_say_it() -> None:
    with pytest.raises(ValueError, match="group and version of proxies"):
        KubernetesEntry(pool="*", namespace="n", name="x", resource="proxies")
    entry = KubernetesEntry(pool="*", namespace="n", name="x", resource="proxies", group="example.com", version="v1")
    assert kubernetes.target_of(entry, POOL) == ("example.com", "v1", "n", "proxies", "x")


# ---------------------------------------------------------------- asked


async def test_the_scale_is_set_by_us_by_name_and_the_plan_is_noted(api: StandIn, tmp_path: Path) -> None:
    thing = api.add("vllm-rack-7")
    async with actuator(api, tmp_path) as ours:
        receipt = await ours.apply(plan(5))
    assert receipt.note == "deployments inference/vllm-rack-7 set from 2 to 5"
    assert (thing.managers, thing.annotations) == (["tradewind", "tradewind"], {ANNOTATION: "p-1"})
    patched = [path for method, path, _ in api.asked if method == "PATCH"]
    assert patched[0].endswith("/deployments/vllm-rack-7/scale")


@pytest.mark.parametrize("resource", ["statefulsets", "leaderworkersets"])
async def test_other_resources_with_a_scale_are_set_the_same_way(api: StandIn, tmp_path: Path, resource: str) -> None:
    group, _ = kubernetes.KNOWN[resource]
    thing = api.add("vllm-rack-7", resource, group=group)
    async with actuator(api, tmp_path, resource=resource) as ours:
        assert (await ours.apply(plan(5))).taken
        assert (await ours.observe(POOL) or ())[:3] == (5, 0, 5)
    assert thing.replicas == 5


async def test_what_others_change_meanwhile_is_read_again_and_not_without_end(api: StandIn, tmp_path: Path) -> None:
    thing = api.add("vllm-rack-7")
    api.others = 2
    async with actuator(api, tmp_path, annotate=False) as ours:
        assert (await ours.apply(plan(5))).taken
        assert (thing.replicas, api.others) == (5, 0)
        api.others = CONFLICTS
        with pytest.raises(Later, match="others have changed"):
            await ours.apply(plan(6))
    assert thing.replicas == 5


async def test_it_steps_aside_for_whoever_scales_the_target_and_asks_again(api: StandIn, tmp_path: Path) -> None:
    thing = api.add("vllm-rack-7")
    async with actuator(api, tmp_path) as ours:
        api.hpas = [hpa("by-cpu", "vllm-rack-7")]
        receipt = await ours.apply(plan(5))
        assert (receipt.taken, receipt.again_s) == (False, kubernetes.ASIDE_S)
        assert "is scaled by the horizontalpodautoscaler by-cpu" in receipt.note
        api.hpas, api.scaled_objects = (
            [],
            [{"metadata": {"name": "s"}, "spec": {"scaleTargetRef": {"name": "vllm-rack-7"}}}],
        )
        assert "is scaled by the scaledobject s" in (await ours.apply(plan(5))).note
        assert thing.replicas == 2
        api.scaled_objects = [hpa("s", "another")]
        assert (await ours.apply(plan(5))).taken


async def test_where_it_cannot_see_who_scales_it_does_not_scale_unless_told_so(api: StandIn, tmp_path: Path) -> None:
    thing = api.add("vllm-rack-7")
    api.denied = {"list horizontalpodautoscalers", "list scaledobjects"}
    async with actuator(api, tmp_path) as ours:
        with pytest.raises(Stop, match="autoscalers: false"):
            await ours.apply(plan(5))
    assert thing.replicas == 2
    async with actuator(api, tmp_path, autoscalers=False) as ours:
        assert (await ours.apply(plan(5))).taken


async def test_without_the_right_to_see_the_object_those_that_exist_are_counted(api: StandIn, tmp_path: Path) -> None:
    api.add("vllm-rack-7", replicas=6, ready=4)
    async with actuator(api, tmp_path) as ours:
        assert (await ours.observe(POOL) or ())[:3] == (4, 2, 6)
        api.denied = {"get deployments"}
        seen = await ours.observe(POOL)
        assert seen is not None
        assert seen[:3] == (6, 0, 6)
        assert "those that exist are counted" in seen.note
        api.denied.add("get deployments/scale")
        with pytest.raises(Stop, match="does not let us get the scale"):
            await ours.observe(POOL)


async def test_without_the_right_to_annotate_it_is_tried_once_and_the_plan_is_taken(
    api: StandIn, tmp_path: Path
) -> None:
    thing = api.add("vllm-rack-7")
    api.denied = {"patch deployments"}
    async with actuator(api, tmp_path) as ours:
        assert (await ours.apply(plan(5))).taken
        assert (await ours.apply(plan(6, "p-2"))).taken
    tried = [path for method, path, _ in api.asked if method == "PATCH" and not path.endswith("/scale")]
    assert (thing.replicas, len(tried)) == (6, 1)


async def test_a_dry_run_asks_the_server_too_so_that_a_lacking_right_is_found(api: StandIn, tmp_path: Path) -> None:
    thing = api.add("vllm-rack-7")
    async with actuator(api, tmp_path, acts=False) as ours:
        receipt = await ours.apply(plan(5))
        assert receipt.note == "dry run: would set deployments inference/vllm-rack-7 from 2 to 5"
        patched = [query for method, _, query in api.asked if method == "PATCH"]
        assert patched == ["dryRun=All&fieldManager=tradewind"]
        api.denied = {"patch deployments/scale"}
        with pytest.raises(Stop):
            await ours.apply(plan(5))
    assert (thing.replicas, thing.version, thing.annotations) == (2, 100, {})


async def test_a_number_that_the_api_does_not_take_refuses_the_plan(api: StandIn, tmp_path: Path) -> None:
    api.add("vllm-rack-7")
    async with actuator(api, tmp_path) as ours:
        with pytest.raises(Refused, match="must be greater than or equal to 0"):
            await ours._patched(Target("apps", "v1", "inference", "deployments", "vllm-rack-7"), -1)


async def test_a_token_that_is_not_known_needs_a_human(api: StandIn, tmp_path: Path) -> None:
    api.add("vllm-rack-7")
    entry = KubernetesEntry(
        pool="*", namespace="inference", name="vllm-{zone}", kubeconfig=api.kubeconfig(tmp_path, "old")
    )
    async with kubernetes.opened(entry, True, Around()) as ours:
        with pytest.raises(Stop, match="401"):
            await ours.observe(POOL)


async def test_without_a_way_into_a_cluster_it_does_not_begin(tmp_path: Path) -> None:
    entry = KubernetesEntry(pool="lab/*", namespace="n", name="x", kubeconfig=tmp_path / "none")
    with pytest.raises(Stop, match=r"no way into Kubernetes for lab/\*"):
        async with kubernetes.opened(entry, True, Around()):
            pass


async def test_in_a_pod_it_is_the_pods_own_service_account(tmp_path: Path) -> None:
    entry = KubernetesEntry(pool="*", namespace="n", name="x")
    with pytest.raises(Stop, match=r"Service host/port is not set|service account"):
        async with kubernetes.opened(entry, True, Around({"KUBERNETES_SERVICE_HOST": "10.0.0.1"})):
            pass
