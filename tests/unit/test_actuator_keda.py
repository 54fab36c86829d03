"""The KEDA actuator: a real gRPC client asks it as KEDA does, and HTTP as its metrics-api trigger does."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import pytest
import trustme

from router_sync.actuators import keda
from router_sync.actuators.around import Around
from router_sync.actuators.keda import METRIC, Keda, KedaEntry
from router_sync.actuators.keda_pb import externalscaler_pb2
from streams.contract.errors import Missing
from streams.contract.records import CapacityPlan
from tests.contract.stand_ins.kubernetes import StandIn

pb: Any = externalscaler_pb2
POOL = "gcp/eu/eu-b/g2-standard-8/spot"
PB = Path(keda.__file__).parent / "keda_pb"


def plan(want: int, plan_id: str = "p-1", pool: str = POOL) -> CapacityPlan:
    return CapacityPlan(pool=pool, plan_id=plan_id, made_at_s=9.0, want=want, have=2, not_before_s=9.0, reason="noon")


def ref(pool: str = POOL, **more: str) -> Any:
    return pb.ScaledObjectRef(name="vllm", namespace="inference", scalerMetadata={"pool": pool, **more})


@contextlib.asynccontextmanager
async def actuator(acts: bool = True, **more: Any) -> AsyncIterator[Keda]:
    entry = KedaEntry(pool="gcp/*", **({"port": 0, "http_port": 0} | more))
    async with keda.opened(entry, acts, Around()) as made:
        yield made


class Scaler:
    """KEDA's side: calls by their names on the wire, with nothing of ours but the messages."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        def call(kind: Callable[..., Any], name: str, asks: Any, answers: Any) -> Any:
            path = f"/externalscaler.ExternalScaler/{name}"
            return kind(path, request_serializer=asks.SerializeToString, response_deserializer=answers.FromString)

        unary, stream = channel.unary_unary, channel.unary_stream
        self.is_active = call(unary, "IsActive", pb.ScaledObjectRef, pb.IsActiveResponse)
        self.stream_is_active = call(stream, "StreamIsActive", pb.ScaledObjectRef, pb.IsActiveResponse)
        self.get_metric_spec = call(unary, "GetMetricSpec", pb.ScaledObjectRef, pb.GetMetricSpecResponse)
        self.get_metrics = call(unary, "GetMetrics", pb.GetMetricsRequest, pb.GetMetricsResponse)

    async def planned(self, name: str = METRIC) -> float:
        answer = await self.get_metrics(pb.GetMetricsRequest(scaledObjectRef=ref(), metricName=name), timeout=5)
        (value,) = answer.metricValues
        assert (value.metricName, float(value.metricValue)) == (name, value.metricValueFloat)
        return float(value.metricValueFloat)


@contextlib.asynccontextmanager
async def asking(ours: Keda) -> AsyncIterator[Scaler]:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{ours.port}") as channel:
        yield Scaler(channel)


async def code_of(call: Any) -> Any:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code()


# ---------------------------------------------------------------- gRPC


async def test_keda_is_told_what_is_planned_as_one_per_replica() -> None:
    async with actuator() as ours, asking(ours) as scaler:
        assert (await ours.apply(plan(4))).note == "KEDA is told 4"
        (spec,) = (await scaler.get_metric_spec(ref(), timeout=5)).metricSpecs
        assert (spec.metricName, spec.targetSize, spec.targetSizeFloat) == (METRIC, 1, 1.0)
        assert await scaler.planned() == 4.0
        assert await scaler.planned("s0-planned_replicas") == 4.0, "KEDA names metrics as it likes"
        assert (await scaler.is_active(ref(), timeout=5)).result
        await ours.apply(plan(0, "p-2"))
        assert not (await scaler.is_active(ref(), timeout=5)).result
        assert await scaler.planned() == 0.0


async def test_the_first_plan_and_each_change_are_pushed() -> None:
    async with actuator() as ours, asking(ours) as scaler:
        stream = scaler.stream_is_active(ref())
        for want, active in ((0, False), (3, True), (4, True), (0, False)):
            coming = asyncio.ensure_future(stream.read())
            await ours.apply(plan(want))
            await ours.apply(plan(9, pool="gcp/another"))
            assert (await asyncio.wait_for(coming, 5)).result == active
        coming = asyncio.ensure_future(stream.read())
        await ours.apply(plan(0, "p-2"))
        done, _ = await asyncio.wait([coming], timeout=0.2)
        assert not done, "the same number is no news"
        stream.cancel()
        await asyncio.gather(coming, return_exceptions=True)


async def test_until_there_is_a_plan_and_in_a_dry_run_keda_falls_back() -> None:
    for acts in (True, False):
        async with actuator(acts) as ours, asking(ours) as scaler:
            receipt = None if acts else await ours.apply(plan(4))
            assert receipt is None or (receipt.taken, receipt.note) == (False, "dry run: would tell KEDA 4")
            assert await code_of(scaler.is_active(ref(), timeout=5)) == grpc.StatusCode.UNAVAILABLE
            assert await code_of(scaler.planned()) == grpc.StatusCode.UNAVAILABLE


async def test_whoever_asks_wrongly_is_told_what_is_wrong() -> None:
    async with actuator() as ours, asking(ours) as scaler:
        nothing = pb.ScaledObjectRef(name="vllm", namespace="inference")
        for call in (scaler.is_active, scaler.get_metric_spec):
            assert await code_of(call(nothing, timeout=5)) == grpc.StatusCode.INVALID_ARGUMENT
            assert await code_of(call(ref("aws/x"), timeout=5)) == grpc.StatusCode.NOT_FOUND


async def test_streams_end_with_the_server_and_it_ends_at_once() -> None:
    async with contextlib.AsyncExitStack() as stack:
        ours = await stack.enter_async_context(actuator())
        async with asking(ours) as scaler:
            await ours.apply(plan(1))
            stream = scaler.stream_is_active(ref())
            assert (await stream.read()).result
            await asyncio.wait_for(stack.aclose(), 5)
            assert await code_of(stream.read()) in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)


async def test_over_tls_who_trusts_the_certificate_is_answered(tmp_path: Path) -> None:
    authority = trustme.CA()
    issued = authority.issue_cert("localhost")
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    cert.write_bytes(b"".join(part.bytes() for part in issued.cert_chain_pems))
    key.write_bytes(issued.private_key_pem.bytes())
    async with actuator(cert_file=cert, key_file=key) as ours:
        await ours.apply(plan(4))
        trusted = grpc.ssl_channel_credentials(authority.cert_pem.bytes())
        async with grpc.aio.secure_channel(f"localhost:{ours.port}", trusted) as channel:
            assert await Scaler(channel).planned() == 4.0
        async with asking(ours) as scaler:
            assert await code_of(scaler.planned()) == grpc.StatusCode.UNAVAILABLE
        async with aiohttp.ClientSession() as http:
            url = f"https://localhost:{ours.http_port}/pools/{POOL}"
            async with http.get(url, ssl=_trusting(authority)) as answer:
                assert (await answer.json())[METRIC] == 4


def _trusting(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


# ---------------------------------------------------------------- JSON


async def test_the_same_number_is_there_as_json() -> None:
    async with actuator() as ours, aiohttp.ClientSession() as http:

        async def get(pool: str) -> tuple[int, Any]:
            async with http.get(f"http://127.0.0.1:{ours.http_port}/pools/{pool}") as answer:
                return answer.status, await answer.json()

        assert await get(POOL) == (503, {"error": "nothing is planned here"})
        await ours.apply(plan(4))
        assert await get(POOL) == (200, {"pool": POOL, METRIC: 4, "plan_id": "p-1", "made_at_s": 9.0})
        assert await get("aws/x") == (404, {"error": "not a pool of this scaler"})
        async with http.post(f"http://127.0.0.1:{ours.http_port}/pools/{POOL}", json={}) as answer:
            assert answer.status == 405, "nobody changes a plan here"


# ---------------------------------------------------------------- seen


async def test_it_sees_with_the_eyes_of_kubernetes_and_says_where_keda_lags_behind(tmp_path: Path) -> None:
    async with StandIn().serving() as api:
        thing = api.add("vllm-eu-b", replicas=3, ready=2)
        how = {"namespace": "inference", "name": "vllm-{zone}", "kubeconfig": api.kubeconfig(tmp_path)}
        async with actuator(**how) as ours:
            assert (await ours.observe(POOL) or ())[:3] == (2, 1, 3)
            await ours.apply(plan(5))
            seen = await ours.observe(POOL)
            assert seen is not None
            assert (seen.ready, seen.starting, seen.want, seen.note) == (2, 3, 5, "KEDA has it at 3")
            thing.replicas, thing.ready = 5, 5
            assert (await ours.observe(POOL) or ())[:5] == (5, 0, 5, 0, "")
        assert not any(method == "PATCH" for method, _, _ in api.asked)


async def test_without_an_object_nothing_is_seen() -> None:
    async with actuator() as ours:
        assert await ours.observe(POOL) is None


async def test_a_port_that_is_taken_is_found_at_the_start() -> None:
    async with actuator() as ours:
        for taken in ({"port": ours.port}, {"http_port": ours.http_port}):
            with pytest.raises(Missing, match=r"KEDA cannot be served on 127\.0\.0\.1"):
                async with actuator(**taken):
                    pass


# ---------------------------------------------------------------- messages


def test_messages_are_as_their_description_says(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "grpc_tools.protoc", f"-I{PB}", f"--python_out={tmp_path}", "externalscaler.proto"]
    subprocess.run(words, check=True, timeout=60)
    made, kept = (folder / "externalscaler_pb2.py" for folder in (tmp_path, PB))
    lines = [[line for line in path.read_text().splitlines() if "DESCRIPTOR" in line] for path in (made, kept)]
    assert lines[0] == lines[1], "the description changed: generate the messages anew"


def test_numbers_on_the_wire_are_the_protocols() -> None:
    value = pb.MetricValue(metricName="m", metricValue=3, metricValueFloat=3.0)
    assert value.SerializeToString().hex() == "0a016d1003190000000000000840"
    asked = pb.GetMetricsRequest(
        scaledObjectRef=pb.ScaledObjectRef(name="a", scalerMetadata={"k": "v"}), metricName="m"
    )
    assert asked.SerializeToString().hex() == "0a0b0a01611a060a016b12017612016d"
