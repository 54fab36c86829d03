"""Plans on a real Kafka become replicas at servers that speak the real protocols, and receipts on capacity.v1."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import msgspec
import psutil
import pytest
from typer.testing import CliRunner

from router_sync.actuators.around import Around
from router_sync.actuators.entry import Entry
from router_sync.actuators.hands import opened
from router_sync.actuators.kubernetes import KubernetesEntry
from router_sync.actuators.section import Actuators
from router_sync.flow import actuator_steps
from streams.contract import topics
from streams.contract.records import Capacity, CapacityPlan, Fleet
from streams.runtime.worker import carried
from streams.settings import Settings
from tests.contract.on_kafka import fresh, read_all, send, until
from tests.contract.stand_ins import aws
from tests.contract.stand_ins.kubernetes import StandIn
from tests.unit.router_fleet import endpoint, fleet
from tradewind.cli import app
from tradewind.ports import free_port

pytestmark = pytest.mark.kafka
SECRET = f"whsec_{base64.b64encode(bytes(32)).decode()}"
ONE = endpoint("rack-7", provider="onprem", replicas=2, most_replicas=10)
TWO = endpoint("rack-8", provider="onprem", url="http://127.0.0.1:2", replicas=2, most_replicas=10)
FLEET = fleet(endpoints=[ONE, TWO])


@pytest.fixture
async def mine(kafka: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Topics of one's own, with the fleet on them."""
    monkeypatch.chdir(tmp_path)
    made = await fresh(kafka, state_dir=tmp_path, tick_s=0.2)
    await publish(made, FLEET)
    return made


@pytest.fixture
async def api() -> AsyncIterator[StandIn]:
    async with StandIn().serving() as served:
        yield served


async def publish(mine: Settings, known: Fleet) -> None:
    await send(mine, [(topics.FLEET, known.fleet.encode(), msgspec.json.encode(known))])


async def plan(mine: Settings, want: int, plan_id: str, pool: str = ONE.pool, **more: Any) -> None:
    now_s = time.time()
    told: dict[str, Any] = {"made_at_s": now_s, "have": 2, "not_before_s": now_s, "reason": "noon"}
    made = CapacityPlan(pool=pool, plan_id=plan_id, want=want, **(told | more))
    await send(mine, [(topics.CAPACITY_PLAN, pool.encode(), msgspec.json.encode(made))])


async def said(mine: Settings, pool: str = ONE.pool) -> Capacity:
    records = [r for r in await read_all(mine, topics.CAPACITY) if r.key == pool.encode()]
    return msgspec.json.decode(records[-1].value, type=Capacity) if records else Capacity(pool=pool, at_s=0, ready=0)


async def receipted(mine: Settings, plan_id: str, ready: int, pool: str = ONE.pool) -> Capacity | None:
    last = await said(mine, pool)
    return last if (last.plan_id, last.ready) == (plan_id, ready) else None


def kubernetes(api: StandIn, folder: Path, **more: Any) -> KubernetesEntry:
    told: dict[str, Any] = {"pool": "onprem/*", "mode": "act", "observe_s": 0.5, "cool_down_s": 0.0}
    told |= {"drain_s": 0.0} | more
    return KubernetesEntry(namespace="inference", name="vllm-{zone}", kubeconfig=api.kubeconfig(folder), **told)


def acting(mine: Settings, *entries: Entry) -> Any:
    section = Actuators(pools=entries)
    return carried(actuator_steps(mine, section), mine, "actuators", partial(opened, section, Around(os.environ)))


async def test_a_plan_becomes_a_scaled_deployment_and_a_receipt(mine: Settings, api: StandIn, tmp_path: Path) -> None:
    thing = api.add("vllm-rack-7", ready=2)
    api.add("vllm-rack-8")
    async with acting(mine, kubernetes(api, tmp_path)):
        await plan(mine, 5, "p-1")
        await until(lambda: thing.replicas == 5)
        last = await until(lambda: receipted(mine, "p-1", 2))
        assert (last.starting, last.note) == (3, "p-1: deployments inference/vllm-rack-7 set from 2 to 5")
        thing.ready = 5
        await until(lambda: receipted(mine, "p-1", 5))
        assert (await until(lambda: said(mine))).cold_start_s is not None
        assert thing.annotations == {"tradewind/plan-id": "p-1"}


async def test_who_takes_over_carries_nothing_out_twice_and_goes_on(
    mine: Settings, api: StandIn, tmp_path: Path
) -> None:
    thing = api.add("vllm-rack-7")
    api.add("vllm-rack-8")
    async with contextlib.AsyncExitStack() as first:
        owner = await first.enter_async_context(acting(mine, kubernetes(api, tmp_path)))
        await plan(mine, 5, "p-1")
        await until(lambda: receipted(mine, "p-1", 5))
        async with acting(mine, kubernetes(api, tmp_path)) as standby:
            await until(lambda: standby.ready and owner.ready and owner.held == {0})
            thing.replicas = 4  # somebody's own hands, after the plan
            await first.aclose()
            await until(lambda: standby.held == {0} and standby.ready)
            await plan(mine, 6, "p-2", TWO.pool)
            await until(lambda: receipted(mine, "p-2", 6, TWO.pool))
            assert thing.replicas == 4
            assert (await said(mine)).plan_id == "p-1"


async def test_one_target_that_refuses_holds_up_no_other_and_says_why(
    mine: Settings, api: StandIn, tmp_path: Path
) -> None:
    other = api.add("vllm-rack-8")  # and no vllm-rack-7
    async with acting(mine, kubernetes(api, tmp_path)):
        await plan(mine, 5, "p-1")
        await plan(mine, 6, "q-1", TWO.pool)
        await until(lambda: receipted(mine, "q-1", 6, TWO.pool))
        assert other.replicas == 6
        sick = await until(lambda: _with_note(mine, "not carried out"))
        assert "404" in sick.note
        assert sick.plan_id is None
        await until(lambda: api.add("vllm-rack-7"))


async def _with_note(mine: Settings, words: str) -> Capacity | None:
    last = await said(mine)
    return last if words in last.note else None


async def test_a_group_of_aws_is_set_and_cut_to_its_own_bounds(
    mine: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from router_sync.actuators.aws_asg import AwsAsgEntry

    for name, value in aws.KEYS.items():
        monkeypatch.setenv(name, value)
    with aws.moto() as url:
        await asyncio.to_thread(partial(aws.make_group, url, "vllm-rack-7", most=4))
        async with aws.Front(url).serving() as front:
            entry = AwsAsgEntry(
                pool="onprem/*", mode="act", region=aws.REGION, group="vllm-{zone}", endpoint_url=front.url,
                observe_s=0.5,
            )  # fmt: skip
            async with acting(mine, entry):
                front.busy = 2
                await plan(mine, 9, "p-1")
                last = await until(lambda: receipted(mine, "p-1", 4))
                assert last.note == "p-1: vllm-rack-7 set from 2 to 4, not 9: its MaxSize is 4"


async def test_keda_reads_the_plan_and_again_after_a_restart(mine: Settings) -> None:
    from router_sync.actuators.keda import KedaEntry
    from router_sync.actuators.keda_pb import externalscaler_pb2

    pb: Any = externalscaler_pb2
    port = free_port()
    entry = KedaEntry(pool="onprem/*", mode="act", port=port, http_port=None)
    asked = pb.GetMetricsRequest(scaledObjectRef=pb.ScaledObjectRef(name="v", scalerMetadata={"pool": ONE.pool}))

    async def planned() -> float:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            call = channel.unary_unary(
                "/externalscaler.ExternalScaler/GetMetrics", request_serializer=pb.GetMetricsRequest.SerializeToString,
                response_deserializer=pb.GetMetricsResponse.FromString,
            )  # fmt: skip
            with contextlib.suppress(grpc.aio.AioRpcError):
                return float((await call(asked, timeout=5)).metricValues[0].metricValueFloat)
            return 0.0

    await plan(mine, 5, "p-1")
    for _ in range(2):
        async with acting(mine, entry):
            await until(lambda: _is(planned, 5.0))


async def _is(ask: Any, value: float) -> bool:
    return bool(await ask() == value)


# ---------------------------------------------------------------- as processes, and by hand


def file_of(mine: Settings, api: StandIn, folder: Path, mode: str) -> Path:
    section = {
        "mode": mode,
        "pools": [
            {"pool": "onprem/*", "kind": "kubernetes", "namespace": "inference", "name": "vllm-{zone}",
             "kubeconfig": str(api.kubeconfig(folder)), "observe_s": 0.5}
        ],
    }  # fmt: skip
    path = folder / "tradewind.yaml"
    quick = {"tick_s": 0.2, "session_timeout_s": 2.0, "heartbeat_s": 0.3}
    path.write_text(json.dumps({"settings": quick, "actuators": section}))
    return path


@contextlib.asynccontextmanager
async def worker(mine: Settings, file: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    words = ["worker", "actuators", "--config", str(file), "--port", "0"]
    where = ["--bootstrap-servers", mine.bootstrap_servers, "--topic-prefix", mine.topic_prefix]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tradewind", *words, *where, cwd=file.parent, stderr=asyncio.subprocess.PIPE
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(10):
                await process.wait()


def types(mine: Settings, *words: str) -> tuple[int, Any]:
    where = ("--bootstrap-servers", mine.bootstrap_servers, "--topic-prefix", mine.topic_prefix)
    result = CliRunner().invoke(app, [*words, *where, "--json"])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, json.loads(result.stdout)


async def test_an_operator_plans_sees_and_releases_and_a_dry_run_changes_nothing(
    mine: Settings, api: StandIn, tmp_path: Path
) -> None:
    thing = api.add("vllm-rack-7")
    api.add("vllm-rack-8")
    async with worker(mine, file_of(mine, api, tmp_path, "dry_run")):
        code, told = await asyncio.to_thread(types, mine, "capacity", "plan", ONE.pool, "--want", "8", "--by", "ann")
        assert code == 0
        plan_id = told["plan"]["plan_id"]
        note = told["capacity"]["note"]
        assert note.startswith(f"dry run; {plan_id} by ann, who holds the pool until ")
        assert note.endswith("dry run: would set deployments inference/vllm-rack-7 from 2 to 8")
    assert thing.replicas == 2

    async with worker(mine, file_of(mine, api, tmp_path, "act")) as process:
        await until(lambda: thing.replicas == 8)
        await until(lambda: receipted(mine, plan_id, 8))
        code, told = await asyncio.to_thread(types, mine, "capacity", "show")
        states = {state["pool"]: state for state in told["pools"]}
        one = states[ONE.pool]
        assert (code, one["carried_out"], one["plan"]["by"], one["most"]) == (0, True, "ann", 10)
        assert (one["capacity"]["ready"], states[TWO.pool]["plan"]) == (8, None)

        await asyncio.to_thread(types, mine, "capacity", "release", ONE.pool)
        await until(lambda: _released(mine))
        await plan(mine, 9, "p-1")
        await until(lambda: receipted(mine, "p-1", 9))
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 10) == 0


async def _released(mine: Settings) -> bool:
    return (await said(mine)).held_until_s is None


async def test_when_a_worker_is_killed_the_one_that_stands_by_goes_on(
    mine: Settings, api: StandIn, tmp_path: Path
) -> None:
    thing = api.add("vllm-rack-7")
    api.add("vllm-rack-8")
    file = file_of(mine, api, tmp_path, "act")
    async with worker(mine, file) as first:
        await plan(mine, 5, "p-1")
        await until(lambda: receipted(mine, "p-1", 5))
        async with worker(mine, file):
            first.kill()
            await first.wait()
            await plan(mine, 6, "p-2")
            await until(lambda: receipted(mine, "p-2", 6), 40)
            assert thing.managers == ["tradewind"] * 4, "two plans, each set and noted once"


async def test_what_an_operator_types_wrongly_is_answered_with_what_is_right(mine: Settings) -> None:
    where = ("--bootstrap-servers", mine.bootstrap_servers, "--topic-prefix", mine.topic_prefix, "--no-wait")

    async def refused(*words: str) -> str:
        result = await asyncio.to_thread(CliRunner().invoke, app, ["capacity", "plan", *words, *where])
        return str(result.exception)

    assert "Did you mean" in await refused(ONE.pool[:-1], "--want", "3")
    assert "most_replicas" in await refused(ONE.pool, "--want", "11")
    assert "--for" in await refused(ONE.pool, "--want", "3", "--for", "soon")
    assert await read_all(mine, topics.CAPACITY_PLAN) == []


async def test_a_worker_without_a_way_into_the_cluster_says_so_and_ends(
    mine: Settings, api: StandIn, tmp_path: Path
) -> None:
    file = file_of(mine, api, tmp_path, "act")
    (tmp_path / "kubeconfig").write_text("{}")
    async with worker(mine, file) as process:
        assert process.stderr is not None
        told = await asyncio.wait_for(process.stderr.read(), 30)
        assert await process.wait() == 1
    assert b"tradewind: There is no way into Kubernetes for onprem/*" in told


async def test_up_starts_a_worker_for_the_section_and_gives_it_its_secrets_alone(
    kafka: str, api: StandIn, tmp_path: Path
) -> None:
    mine = await fresh(kafka)
    thing, pool = api.add("vllm-rack-7"), "onprem/eu/rack-7/unknown/on_demand"
    (tmp_path / "tradewind.yaml").write_text(_whole(api, tmp_path))
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TRADEWIND_")}
    where = ["--bootstrap-servers", mine.bootstrap_servers, "--topic-prefix", mine.topic_prefix]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tradewind", "up", "--json", *where), cwd=tmp_path, env={**kept, "HOOK": SECRET},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        ready = json.loads(await asyncio.wait_for(process.stdout.readline(), 60))
        pids = {one["role"]: one["pid"] for one in ready["processes"]}
        assert pids.keys() == {"streams", "router", "actuators", "gateway"}
        assert {role for role, pid in pids.items() if "HOOK" in psutil.Process(pid).environ()} == {"actuators"}
        await plan(mine, 4, "p-1", pool)
        await until(lambda: thing.replicas == 4)
        await until(lambda: receipted(mine, "p-1", 4, pool))
    finally:
        process.send_signal(signal.SIGINT)
        assert await asyncio.wait_for(process.wait(), 30) == 0


def _whole(api: StandIn, folder: Path) -> str:
    return f"""\
fleet: hers
services:
  - {{name: chat, default_class: interactive, classes: [{{name: interactive, slo_p95_ms: 2000}}]}}
origins:
  - {{name: eu, jurisdiction: DE, rtt_ms: {{eu: 5}}}}
endpoints:
  - {{name: a, url: "http://127.0.0.1:9", services: [chat], provider: onprem, region: eu, zone: rack-7,
     jurisdiction: DE, capacity_rps: 50, price_usd_per_h: 1.0, replicas: 2, most_replicas: 8}}
  - {{name: b, url: "http://127.0.0.1:19", services: [chat], provider: lab, region: eu, zone: rack-8,
     jurisdiction: DE, capacity_rps: 50, price_usd_per_h: 1.0}}
gateway:
  ports: {{eu: {free_port()}}}
  anonymous: true
  drain_s: 1
actuators:
  pools:
    - {{pool: "lab/*", kind: webhook, url: "https://hook.example", secret: {{env: HOOK}}}}
    - {{pool: "onprem/*", kind: kubernetes, namespace: inference, name: "vllm-{{zone}}", mode: act, observe_s: 0.5,
       kubeconfig: {api.kubeconfig(folder)}}}
"""
