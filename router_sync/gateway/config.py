"""What an operator may set of a gateway: one frozen object, checked at start."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from streams.contract.errors import BadSetting
from streams.contract.records import Name

Port = Annotated[int, Meta(ge=0, le=65535)]
_Bytes = Annotated[int, Meta(ge=1, le=1 << 32)]
_Seconds = Annotated[float, Meta(gt=0, le=3600)]
_Many = Annotated[int, Meta(ge=1, le=1_000_000)]


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What a request may be. Whatever is larger or slower gets an error that names the field."""

    max_body_bytes: _Bytes = 8 << 20
    """Of a request whose body names the model: it is read whole before it is sent on."""
    max_upload_bytes: _Bytes = 256 << 20
    """Of a request whose header names the model: it is streamed, and tried once."""
    max_answer_bytes: _Bytes = 1 << 20
    """Plain answers up to this size are held until whole, so that a break can be tried elsewhere."""
    max_header_bytes: _Bytes = 16 << 10
    """Of one header line."""
    max_headers: _Many = 100
    max_concurrent: _Many = 1000
    body_s: _Seconds = 10.0
    """For the caller to send the whole body."""
    send_s: _Seconds = 30.0
    """For the caller to take one piece of the answer."""
    idle_s: _Seconds = 75.0
    """A connection without a request is closed after this."""


class Deadlines(msgspec.Struct, frozen=True, kw_only=True):
    """How long an endpoint may take before the next one is asked."""

    connect_s: _Seconds = 0.25
    first_byte_s: _Seconds = 30.0
    """At most; the class shortens it to `slo_factor` times its SLO, or three times what the endpoint took lately."""
    first_byte_floor_s: _Seconds = 1.0
    slo_factor: Annotated[float, Meta(ge=1, le=1000)] = 4.0
    whole_s: _Seconds = 120.0
    """For an answer that is not streamed: its first byte comes when all is made. Cut short when the endpoint falls."""
    stall_s: _Seconds = 2.0
    """Between two pieces of an answer."""
    total_s: _Seconds = 600.0


class Retries(msgspec.Struct, frozen=True, kw_only=True):
    """Other endpoints are asked while nothing of an answer has been sent to the caller."""

    attempts: Annotated[int, Meta(ge=1, le=10)] = 3
    generation: bool = True
    """Whether POSTs may be repeated: a generation costs money twice, but changes nothing at the endpoint."""
    budget_share: Annotated[float, Meta(ge=0, le=1)] = 0.2
    """Of requests, that may be retries; so that an outage is not made worse by them."""
    budget_per_s: Annotated[float, Meta(ge=0, le=1e6)] = 10.0
    """Retries that are always granted."""


class Probing(msgspec.Struct, frozen=True, kw_only=True):
    """GET /health at endpoints that say nothing."""

    quiet_s: _Seconds = 2.0
    """Endpoints heard within this time are not probed."""
    every_s: _Seconds = 1.0
    timeout_s: _Seconds = 1.0
    path: Annotated[str, Meta(pattern=r"^/[^\s]*$")] = "/health"


class GatewayConfig(msgspec.Struct, frozen=True, kw_only=True):
    """A gateway. `origin` is where its callers are; several processes on one port need `reuse_port` and own names."""

    name: Name = "gateway-1"
    origin: Name
    host: str = "127.0.0.1"
    port: Port = 8080
    """0 takes a free one; the log says which."""
    reuse_port: bool = False
    admin_port: Port | None = None
    """Another port for /healthz, /readyz and /metrics of this very process; they answer on `port` as well."""
    bootstrap_servers: str = "127.0.0.1:19092"
    prefix: str = "tradewind"
    trust: tuple[Path, ...]
    """Files with the routers' public keys."""
    table_file: Path | None = None
    """Follow a file instead of the topic."""
    keys: Path | None = None
    """YAML or JSON: who may call, as what. Without it only anonymous callers are served."""
    anonymous: bool = False
    """True: who shows no key is served in the service's default class; otherwise 401."""
    state_dir: Path = Path(".tradewind")
    limits: Limits = Limits()
    deadlines: Deadlines = Deadlines()
    retries: Retries = Retries()
    probing: Probing = Probing()
    report_every_s: _Seconds = 0.25
    status_every_s: _Seconds = 5.0
    queue_reports: Annotated[int, Meta(ge=10, le=1_000_000)] = 10_000
    """Reports kept while the broker is away; beyond that the oldest go, and are counted."""
    drain_s: Annotated[float, Meta(ge=0, le=600)] = 10.0
    """For requests in flight after SIGTERM."""


def checked(where: str, fields: dict[str, Any]) -> GatewayConfig:
    """A config from plain values. Raises BadSetting with `where`, the field and the accepted range."""
    try:
        return msgspec.convert(fields, GatewayConfig, dec_hook=_path)
    except msgspec.ValidationError as error:
        says, _, field = str(error).partition(" - at `$.")
        raise BadSetting(where, field.rstrip("`") or "config", fields.get(field.rstrip("`")), says) from None


def _path(kind: type, value: Any) -> Any:
    if kind is Path and isinstance(value, str | Path):
        return Path(value)
    raise NotImplementedError(kind)
