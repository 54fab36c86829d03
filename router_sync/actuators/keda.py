"""KEDA: says how many replicas are planned, and KEDA scales, within its own limits. Nothing is written anywhere.

    - {pool: "gcp/*", kind: keda, namespace: inference, name: "vllm-{zone}", host: 0.0.0.0, mode: act}

A ScaledObject takes the number by either of two triggers; `pool` is written out in full:

    triggers:
      - type: external-push                                     # gRPC, at once when the plan changes
        metadata: {scalerAddress: "tradewind-actuators:6000", pool: gcp/eu-west1/eu-west1-b/g2-standard-8/spot}
      - type: metrics-api                                       # or JSON, when KEDA polls
        metadata:
          url: http://tradewind-actuators:6001/pools/gcp/eu-west1/eu-west1-b/g2-standard-8/spot
          valueLocation: planned_replicas
          targetValue: "1"

Until there is a plan, in a dry run, and where another process owns the pools, it answers UNAVAILABLE (503): KEDA does
what its `fallback` says. namespace and name are the object that KEDA scales, seen as the kind kubernetes sees it (the
right to get it is enough); without them nothing is seen, and capacity.v1 has what the fleet declares.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Mapping
from fnmatch import fnmatchcase
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from aiohttp import web
from msgspec import Meta

from router_sync.actuators.around import Around, lacking
from router_sync.actuators.dry_run import would
from router_sync.actuators.kubernetes import Eyes, ObjectEntry, cluster
from router_sync.actuators.protocol import Receipt, Replicas
from streams.contract.errors import Missing, Stop
from streams.contract.records import CapacityPlan

Port = Annotated[int, Meta(ge=0, le=65535)]
METRIC: Final = "planned_replicas"
_CALLS: Final = 1000
"""At once; a stream lasts as long as its ScaledObject."""
_SCALER: Final = "externalscaler.ExternalScaler"


class KedaEntry(ObjectEntry, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Serves planned replicas to KEDA."""

    forgets = True

    kind: Literal["keda"] = "keda"
    host: str = "127.0.0.1"
    port: Port = 6000
    """Of the external scaler (gRPC)."""
    http_port: Port | None = 6001
    """Of the same as JSON; None: not served."""
    cert_file: Path | None = None
    """PEM; with key_file both speak TLS."""
    key_file: Path | None = None

    def __post_init__(self) -> None:
        """Refuse half a key pair."""
        super().__post_init__()
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError("cert_file and key_file go together: give both or none")


class Planned:
    """What is planned of each pool now, for those who ask and those who wait."""

    def __init__(self, pattern: str) -> None:
        self._pattern = pattern
        self._plans: dict[str, CapacityPlan] = {}
        self._changed = asyncio.Condition()

    def knows(self, pool: str) -> bool:
        """Whether the pool is one of this entry's."""
        return fnmatchcase(pool, self._pattern)

    def of(self, pool: str) -> CapacityPlan | None:
        """None: there is no plan."""
        return self._plans.get(pool)

    async def say(self, plan: CapacityPlan) -> None:
        """From now on `plan` counts."""
        self._plans[plan.pool] = plan
        async with self._changed:
            self._changed.notify_all()

    async def wanted(self, pool: str) -> AsyncIterator[int]:
        """What is planned, now and after each change, for ever."""
        last: int | None = None
        while True:
            async with self._changed:
                while (plan := self.of(pool)) is None or plan.want == last:
                    await self._changed.wait()
            last = plan.want
            yield last


class Keda:
    """The actuator: what it sets is what it says."""

    def __init__(self, planned: Planned, acts: bool, eyes: Eyes | None) -> None:
        self._planned, self._acts, self._eyes = planned, acts, eyes
        self.port = self.http_port = 0

    async def observe(self, pool: str) -> Replicas | None:
        seen = await self._eyes.observe(pool) if self._eyes is not None else None
        plan = self._planned.of(pool)
        if seen is None or plan is None:
            return seen
        behind = f"KEDA has it at {seen.want}" if seen.want != plan.want else ""
        notes = "; ".join(filter(None, (behind, seen.note)))
        return seen._replace(want=plan.want, starting=max(0, plan.want - seen.ready), note=notes)

    async def apply(self, plan: CapacityPlan) -> Receipt:
        if not self._acts:
            return would(plan.want, "tell KEDA")
        await self._planned.say(plan)
        return Receipt(plan.want, note=f"KEDA is told {plan.want}")


# ---------------------------------------------------------------- gRPC


class Scaler:
    """Answers what KEDA asks an external scaler. `pb` are its messages."""

    def __init__(self, planned: Planned, pb: Any, codes: Any) -> None:
        self._planned, self._pb, self._codes = planned, pb, codes

    async def is_active(self, ref: Any, context: Any) -> Any:
        plan = await self._plan(ref, context)
        return self._pb.IsActiveResponse(result=plan.want > 0)

    async def stream_is_active(self, ref: Any, context: Any) -> AsyncIterator[Any]:
        async for want in self._planned.wanted(await self._pool(ref, context)):
            yield self._pb.IsActiveResponse(result=want > 0)

    async def get_metric_spec(self, ref: Any, context: Any) -> Any:
        await self._pool(ref, context)
        spec = self._pb.MetricSpec(metricName=METRIC, targetSize=1, targetSizeFloat=1.0)
        return self._pb.GetMetricSpecResponse(metricSpecs=[spec])

    async def get_metrics(self, request: Any, context: Any) -> Any:
        plan = await self._plan(request.scaledObjectRef, context)
        name = request.metricName or METRIC
        value = self._pb.MetricValue(metricName=name, metricValue=plan.want, metricValueFloat=float(plan.want))
        return self._pb.GetMetricsResponse(metricValues=[value])

    async def _pool(self, ref: Any, context: Any) -> str:
        pool = str(ref.scalerMetadata.get("pool", ""))
        if not pool:
            await context.abort(self._codes.INVALID_ARGUMENT, "the trigger's metadata needs pool")
        if not self._planned.knows(pool):
            await context.abort(self._codes.NOT_FOUND, f"{pool[:128]} is not a pool of this scaler")
        return pool

    async def _plan(self, ref: Any, context: Any) -> CapacityPlan:
        plan = self._planned.of(pool := await self._pool(ref, context))
        if plan is None:
            await context.abort(self._codes.UNAVAILABLE, f"nothing is planned of {pool[:128]} here")
        assert plan is not None
        return plan


def _server(planned: Planned) -> Any:
    """A gRPC server that is not started."""
    try:
        import grpc

        pb: Any = import_module("router_sync.actuators.keda_pb.externalscaler_pb2")
    except ImportError:
        raise lacking("keda", "grpcio and protobuf", "keda") from None
    scaler = Scaler(planned, pb, grpc.StatusCode)
    unary, stream = grpc.unary_unary_rpc_method_handler, grpc.unary_stream_rpc_method_handler
    methods = {
        "IsActive": (unary, scaler.is_active, pb.ScaledObjectRef, pb.IsActiveResponse),
        "StreamIsActive": (stream, scaler.stream_is_active, pb.ScaledObjectRef, pb.IsActiveResponse),
        "GetMetricSpec": (unary, scaler.get_metric_spec, pb.ScaledObjectRef, pb.GetMetricSpecResponse),
        "GetMetrics": (unary, scaler.get_metrics, pb.GetMetricsRequest, pb.GetMetricsResponse),
    }
    handlers = {
        name: made(handle, request_deserializer=asks.FromString, response_serializer=answers.SerializeToString)
        for name, (made, handle, asks, answers) in methods.items()
    }
    server = grpc.aio.server(maximum_concurrent_rpcs=_CALLS, options=(("grpc.so_reuseport", 0),))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_SCALER, handlers),))
    return server


@contextlib.asynccontextmanager
async def _grpc_served(entry: KedaEntry, planned: Planned) -> AsyncIterator[int]:
    server, place = _server(planned), f"{entry.host}:{entry.port}"
    try:
        if entry.cert_file is not None and entry.key_file is not None:
            import grpc

            pair = entry.key_file.read_bytes(), entry.cert_file.read_bytes()
            port = server.add_secure_port(place, grpc.ssl_server_credentials([pair]))
        else:
            port = server.add_insecure_port(place)
    except (RuntimeError, OSError) as error:
        raise _not_served(entry.host, entry.port, error) from None
    await server.start()
    try:
        yield port
    finally:
        await server.stop(grace=None)


# ---------------------------------------------------------------- JSON


def answer(planned: Planned, pool: str) -> tuple[int, Mapping[str, Any]]:
    """Status and JSON for a GET of `pool`."""
    if not planned.knows(pool):
        return 404, {"error": "not a pool of this scaler"}
    if (plan := planned.of(pool)) is None:
        return 503, {"error": "nothing is planned here"}
    return 200, {"pool": pool, METRIC: plan.want, "plan_id": plan.plan_id, "made_at_s": plan.made_at_s}


@contextlib.asynccontextmanager
async def _http_served(entry: KedaEntry, planned: Planned) -> AsyncIterator[int]:
    async def get(request: web.Request) -> web.Response:
        status, said = answer(planned, request.match_info["pool"])
        return web.json_response(said, status=status)

    app = web.Application()
    app.router.add_get("/pools/{pool:.+}", get)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
    await runner.setup()
    try:
        await web.TCPSite(runner, entry.host, entry.http_port, ssl_context=_tls(entry)).start()
        yield int(runner.addresses[0][1])
    except OSError as error:
        raise _not_served(entry.host, entry.http_port or 0, error) from None
    finally:
        await runner.cleanup()


def _tls(entry: KedaEntry) -> ssl.SSLContext | None:
    if entry.cert_file is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(entry.cert_file, entry.key_file)
    return context


def _not_served(host: str, port: int, error: Exception) -> Stop:
    why = getattr(error, "strerror", None) or error
    return Missing(
        f"KEDA cannot be served on {host}:{port} ({why})", "Free the port, or correct host, port, certificate"
    )


@contextlib.asynccontextmanager
async def opened(entry: KedaEntry, acts: bool, around: Around) -> AsyncIterator[Keda]:
    """Raises Missing without the packages, or where a port cannot be listened on."""
    planned = Planned(entry.pool)
    async with contextlib.AsyncExitStack() as stack:
        eyes = Eyes(entry, *await stack.enter_async_context(cluster(entry, around))) if entry.name else None
        keda = Keda(planned, acts, eyes)
        keda.port = await stack.enter_async_context(_grpc_served(entry, planned))
        if entry.http_port is not None:
            keda.http_port = await stack.enter_async_context(_http_served(entry, planned))
        yield keda
