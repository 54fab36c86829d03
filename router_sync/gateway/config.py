"""What an operator may set of a gateway: one frozen object, checked at start."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from streams.contract.errors import BadSetting
from streams.contract.records import Name

Port = Annotated[int, Meta(ge=0, le=65535)]
_Bytes = Annotated[int, Meta(ge=1, le=1 << 32)]
_Seconds = Annotated[float, Meta(gt=0, le=3600)]
_FIELD: Final = re.compile(r"field `(\w+)`")
_Many = Annotated[int, Meta(ge=1, le=1_000_000)]


class Limits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
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
    max_connections: _Many = 4000
    """Callers' connections, with requests or without; one more is told so and closed."""
    header_s: _Seconds = 10.0
    """For the caller to send all headers of a request."""
    body_s: _Seconds = 10.0
    """For the caller to send the whole body."""
    send_s: _Seconds = 30.0
    """For the caller to take one piece of the answer."""
    idle_s: _Seconds = 75.0
    """A connection without a request is closed after this."""


class Deadlines(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
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


class Retries(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Other endpoints are asked while nothing of an answer has been sent to the caller."""

    attempts: Annotated[int, Meta(ge=1, le=10)] = 3
    generation: bool = True
    """Whether POSTs that only generate may be repeated: it costs money twice, but changes nothing at the endpoint.

    They are a closed list (chat/completions, embeddings ...); others, like batches, go out again only when no
    connection was made."""
    budget_share: Annotated[float, Meta(ge=0, le=1)] = 0.2
    """Of requests, that may be retries; so that an outage is not made worse by them."""
    budget_per_s: Annotated[float, Meta(ge=0, le=1e6)] = 10.0
    """Retries that are always granted."""


class Probing(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """GET /health at endpoints that say nothing."""

    quiet_s: _Seconds = 2.0
    """Endpoints heard within this time are not probed."""
    every_s: _Seconds = 1.0
    timeout_s: _Seconds = 1.0
    path: Annotated[str, Meta(pattern=r"^/[^\s]*$")] = "/health"


class GatewayConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A gateway. `origin` is where its callers are; several processes on one port need `reuse_port` and own names."""

    name: Name = "gateway-1"
    origin: Name
    host: str = "127.0.0.1"
    port: Port = 8080
    """0 takes a free one; the log says which."""
    reuse_port: bool = False
    admin_port: Port | None = None
    """/healthz, /readyz and /metrics of this very process, for nobody else; then `port` answers /healthz only."""
    bootstrap_servers: str = "127.0.0.1:19092"
    prefix: str = "tradewind"
    trust: tuple[Path, ...]
    """Files with the routers' public keys."""
    table_file: Path | None = None
    """Follow a file instead of the topic."""
    keys: Path | None = None
    """YAML or JSON: who may call, as what. Without it `anonymous` must be true: else nobody could call."""
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


def load_fields(path: Path) -> dict[str, Any]:
    """Fields of a GatewayConfig as a YAML file says them, for `checked`. Raises BadSetting when it is no such file."""
    remedy = "Give a readable YAML file of settings, like `origin: europe`."
    try:
        said = YAML(typ="safe", pure=True).load(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, YAMLError) as error:
        raise BadSetting(str(path), "config", str(error), remedy) from None
    if not isinstance(said, dict) or not all(isinstance(field, str) for field in said):
        raise BadSetting(str(path), "config", said, remedy)
    return said


def checked(where: str, fields: dict[str, Any]) -> GatewayConfig:
    """A config from plain values. Raises BadSetting with `where`, the field and the accepted range.

    Unknown fields are refused, a shared port without a name (the default one would be two gateways'), and a gateway
    that could serve nobody.
    """
    try:
        config = msgspec.convert(fields, GatewayConfig, dec_hook=_path)
    except msgspec.ValidationError as error:
        says, _, at = str(error).partition(" - at `$.")
        named = _FIELD.search(says)
        field = ".".join(part for part in (at.rstrip("`"), named[1] if named else "") if part)
        raise BadSetting(where, field or "config", _at(fields, field), f"{says}.") from None
    if config.reuse_port and "name" not in fields:
        remedy = "Give each process that shares the port a name of its own: its reports are told apart by it."
        raise BadSetting(where, "name", None, remedy)
    if config.keys is None and not config.anonymous:
        raise BadSetting(where, "keys", None, "Nobody could call: give --keys FILE or --anonymous.")
    return config


def _at(fields: Any, path: str) -> Any:
    """The value at `path`, like deadlines.connect_s; None when there is none."""
    for part in path.split("."):
        fields = fields.get(part) if isinstance(fields, dict) else None
    return fields


def _path(kind: type, value: Any) -> Any:
    if kind is Path and isinstance(value, str | Path):
        return Path(value)
    raise NotImplementedError(kind)
