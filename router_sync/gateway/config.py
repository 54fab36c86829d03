"""What an operator may set of a gateway: one frozen object, checked at start."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar, get_args

import msgspec
from msgspec import Meta
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from router_sync.gateway.claims import Jwt
from router_sync.gateway.issuer import Algorithm
from router_sync.gateway.secret import Reference
from router_sync.gateway.tls import Tls
from router_sync.gateway.upstream import Upstream
from streams.contract.errors import BadSetting
from streams.contract.records import Name, Tier
from streams.runtime.access import Access, SaslMechanism, SecurityProtocol

Port = Annotated[int, Meta(ge=0, le=65535)]
_Bytes = Annotated[int, Meta(ge=1, le=1 << 32)]
_Seconds = Annotated[float, Meta(gt=0, le=3600)]
_FIELD: Final = re.compile(r"field `(\w+)`")
HIDDEN: Final = "***"
_HARMLESS: Final = frozenset(
    {
        "header", "scheme", "pass_authorization", "pass_facts", "ca_file", "cert_file", "key_file", "server_name",
        "hosts", "credential.file",
    }
)  # fmt: skip
"""Fields of an upstream whose values may be said aloud."""
_CHOICES: Final = {
    field: f"choose from {', '.join(get_args(kind))}"
    for field, kind in (
        ("jwt.algorithms", Algorithm),
        ("kafka.security_protocol", SecurityProtocol),
        ("kafka.sasl_mechanism", SaslMechanism),
    )
}
_Kind = TypeVar("_Kind")
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
    max_uri_bytes: Annotated[int, Meta(ge=64, le=1 << 20)] = 8 << 10
    """Of path and query."""
    max_concurrent: _Many = 1000
    max_streams: _Many = 1000
    """Requests whose answers are streamed, at once."""
    max_streams_per_tenant: _Many = 1000
    """Of those, one tenant's; callers without a key are one tenant."""
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
    tls_s: _Seconds = 0.75
    """More, to connect to an https endpoint: its handshake is two more ways there and back."""
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


_Fullness = Annotated[float, Meta(ge=0, le=2)]


class Ceiling(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How full a route's endpoints may be for requests of one tier; 1 is full, 2 is twice that."""

    begins: _Fullness
    """Up to here all are let in."""
    closed: _Fullness
    """From here on none is; between the two as many as lie between."""

    def __post_init__(self) -> None:
        """Refuse a cliff."""
        if self.closed <= self.begins:
            raise ValueError(f"closed = {self.closed:g} is not above begins = {self.begins:g}: leave room between them")

    def open_share(self, saturation: float) -> float:
        """Of the requests, that are let in.

        >>> [Ceiling(begins=0.5, closed=1.0).open_share(s) for s in (0.5, 0.75, 1.5)]
        [1.0, 0.5, 0.0]
        """
        return min(1.0, max(0.0, (self.closed - saturation) / (self.closed - self.begins)))


class Tiers(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who gives way when there is not room for all: 429 with the code `shed`."""

    ceilings: bool = True
    """False: only what the table says is shed."""
    premium: Ceiling = Ceiling(begins=1.5, closed=2.0)
    standard: Ceiling = Ceiling(begins=0.8, closed=1.3)
    sheddable: Ceiling = Ceiling(begins=0.5, closed=1.0)
    retry_after_s: Annotated[int, Meta(ge=1, le=600)] = 1
    """Whoever is shed is asked to wait so long, or up to twice as long."""

    def __post_init__(self) -> None:
        """Refuse a higher tier that would give way before a lower one."""
        tiers = (("sheddable", self.sheddable), ("standard", self.standard), ("premium", self.premium))
        for (low, lower), (high, higher) in pairwise(tiers):
            if higher.begins < lower.begins or higher.closed < lower.closed:
                raise ValueError(f"{high} would give way before {low}: raise its begins and closed at least to {low}'s")

    def ceiling(self, tier: Tier) -> Ceiling:
        """Of a tier."""
        ceiling: Ceiling = getattr(self, tier)
        return ceiling


class Sessions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Requests with the header x-tradewind-session: each session stays at one endpoint, its home."""

    homes: bool = True
    """A home is kept though shares change, and shared with other gateways by the topic sessions.v1. False: wherever the
    table's shares put a session; a change of shares moves some."""
    key: Reference | None = None
    """A secret that names of sessions are hashed with before they are told, the same at all gateways; without it they
    are hashed all the same, but whoever reads the topic can try names."""
    most: Annotated[int, Meta(ge=1, le=10_000_000)] = 100_000
    """Sessions remembered; beyond that those go that have been silent for longest."""
    told_per_s: Annotated[float, Meta(gt=0, le=1e5)] = 200.0
    """Records sent, at most; what is beyond stays this gateway's own until its next request."""


class Probing(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """GET at endpoints that say nothing."""

    quiet_s: _Seconds = 2.0
    """Endpoints heard within this time are not probed."""
    every_s: _Seconds = 1.0
    timeout_s: _Seconds = 1.0
    path: Annotated[str, Meta(pattern=r"^/[^\s]*$")] = "/health"
    """Of endpoints that have no `health_path` of their own."""


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
    kafka: Access | None = None
    """How to get in there, where that takes more than an address; its own `bootstrap_servers` go before ours."""
    prefix: str = "tradewind"
    trust: tuple[Path, ...]
    """Files with the routers' public keys."""
    table_file: Path | None = None
    """Follow a file instead of the topic."""
    keys: Path | None = None
    """YAML or JSON: who may call, as what; taken over when it changes. Without it and `jwt`, `anonymous` must be true:
    else nobody could call."""
    jwt: Jwt | None = None
    """Tokens that say who calls, as what."""
    tls: Tls | None = None
    """`port` speaks TLS; `admin_port` does not."""
    upstreams: dict[str, Upstream] = {}
    """How endpoints are reached, by endpoint, else by provider, else `default`: credentials, TLS, headers."""
    watch_every_s: _Seconds = 2.0
    """How often files that may change are looked at: keys, credentials, certificates."""
    anonymous: bool = False
    """True: who shows no key is served in the service's default class; otherwise 401."""
    state_dir: Path = Path(".tradewind")
    limits: Limits = Limits()
    deadlines: Deadlines = Deadlines()
    retries: Retries = Retries()
    tiers: Tiers = Tiers()
    assumed_output_tokens: Annotated[int, Meta(ge=0, le=10_000_000)] | None = None
    """Of a request that names no limit, where a class has a `simple_class`; without it such a request is not simple."""
    sessions: Sessions = Sessions()
    probing: Probing = Probing()
    report_every_s: _Seconds = 0.25
    status_every_s: _Seconds = 5.0
    queue_reports: Annotated[int, Meta(ge=10, le=1_000_000)] = 10_000
    """Reports kept while the broker is away; beyond that the oldest go, and are counted."""
    drain_s: Annotated[float, Meta(ge=0, le=600)] = 10.0
    """For requests in flight after SIGTERM."""

    @property
    def at(self) -> Access | str:
        """Where Kafka is, and how to get in."""
        return self.kafka or self.bootstrap_servers


def load_fields(path: Path) -> dict[str, Any]:
    """Fields of a GatewayConfig as a YAML file says them, for `checked`. Raises BadSetting when it is no such file."""
    remedy = "Give a readable YAML file of settings, like `origin: europe`."
    try:
        said = YAML(typ="safe", pure=True).load(path.read_text("utf-8"))
    except (OSError, YAMLError, ValueError, LookupError, RecursionError) as error:  # 2020-13-45, !!bool x, [[[[…
        raise BadSetting(str(path), "config", _why(error), remedy) from None
    if not isinstance(said, dict) or not all(isinstance(field, str) for field in said):
        raise BadSetting(str(path), "config", "its content", remedy)
    return said


def checked(where: str, fields: dict[str, Any]) -> GatewayConfig:
    """A config from plain values. Raises BadSetting with `where`, the field and the accepted range.

    Unknown fields are refused, a shared port without a name (the default one would be two gateways'), and a gateway
    that could serve nobody.
    """
    config = _converted(where, fields, GatewayConfig, "")
    if config.reuse_port and "name" not in fields:
        remedy = "Give each process that shares the port a name of its own: its reports are told apart by it."
        raise BadSetting(where, "name", None, remedy)
    if config.keys is None and config.jwt is None and not config.anonymous:
        raise BadSetting(where, "keys", None, "Nobody could call: give --keys FILE, `jwt` or --anonymous.")
    return config


def _converted(where: str, said: Any, kind: type[_Kind], at: str) -> _Kind:
    """`said` as a `kind`, which stands at `at`. Parts that have names of their own are looked at one by one."""
    if kind is GatewayConfig and isinstance(said, dict) and isinstance(upstreams := said.get("upstreams"), dict):
        made = {str(name): _converted(where, one, Upstream, f"upstreams.{name}") for name, one in upstreams.items()}
        said = {**said, "upstreams": made}
    try:
        return msgspec.convert(said, kind, dec_hook=_path)
    except msgspec.ValidationError as error:
        says, _, path = str(error).partition(" - at `$")
        named = _FIELD.search(says)
        below = ".".join(part for part in (path.strip(".`"), named[1] if named else "") if part)
        field = ".".join(part for part in (at, below) if part)
        if says.startswith("Invalid enum value"):
            says = f"{says}: {_CHOICES.get(field.partition('[')[0], 'see the reference')}"
        raise BadSetting(where, field or "config", _shown(said, field, below), f"{says}.") from None


def hidden(field: str) -> bool:
    """Whether the value of `field` is not to be said aloud: a secret may stand where its reference should.

    Names of headers may have dots: what looks like a reference's file there may be a header of that name.

    >>> [hidden(f"upstreams.a.{field}") for field in ("ca_file", "credential", "credential.file", "headers.x.file")]
    [False, True, False, True]
    """
    first, _, rest = field.removeprefix("gateway.").partition(".")
    if first == "sessions":
        return rest.partition(".")[0] == "key" and rest != "key.file"
    below = rest.partition(".")[2]
    return first == "upstreams" and below.partition("[")[0] not in _HARMLESS


def _shown(said: Any, field: str, below: str) -> Any:
    return HIDDEN if hidden(field) else _at(said, below)


def _at(said: Any, path: str) -> Any:
    """The value at `path`, like deadlines.connect_s or trust[0]; None when there is none."""
    for part in re.findall(r"[^.\[\]]+", path):
        if isinstance(said, dict):
            said = said.get(part)
        else:
            said = said[int(part)] if isinstance(said, list | tuple) and part.isdecimal() else None
    return said


def _why(error: Exception) -> str:
    """Without the line itself, which may hold a secret."""
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    if problem is not None:
        return f"{problem}, line {mark.line + 1}" if mark is not None else str(problem)
    return str(getattr(error, "strerror", None) or type(error).__name__)


def _path(kind: type, value: Any) -> Any:
    if kind is Path and isinstance(value, str | Path):
        return Path(value)
    raise NotImplementedError(kind)
