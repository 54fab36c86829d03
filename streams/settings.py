"""The only reader of the environment and of configuration files: one frozen object, built once, checked at start.

What an operator sets comes from flags, then TRADEWIND_… variables, then what the caller has read (`settings:` of a
tradewind.yaml: see `tradewind.config`), then defaults. Each value knows where it came from.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

from pydantic import Field, ValidationError, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from streams.contract.errors import BadSetting
from streams.runtime.access import SECURITY, SaslMechanism, SecurityProtocol, wrong

LogLevel = Literal["debug", "info", "warning", "error"]
_SERVER: Final = re.compile(r"(?:[\w.-]+|\[[0-9A-Fa-f:.]+\])(?::([0-9]{1,5}))?")


class Settings(BaseSettings):
    """Everything an operator may set, with its range. Variables are TRADEWIND_ and the name in capitals."""

    model_config = SettingsConfigDict(env_prefix="TRADEWIND_", frozen=True, extra="forbid", validate_default=True)

    bootstrap_servers: str = Field("127.0.0.1:19092", min_length=1)
    """Kafka: HOST:PORT, several with commas."""
    security_protocol: SecurityProtocol = "PLAINTEXT"
    """How one gets into Kafka: over TLS (SSL), with a name and a password (SASL), both, or neither."""
    sasl_mechanism: SaslMechanism | None = None
    """How the password is proven; needed with SASL."""
    sasl_username: str | None = Field(None, max_length=256)
    """Needed with SASL."""
    sasl_password_file: Path | None = None
    """Holds the password, one line; read each time a client is made."""
    tls_ca_file: Path | None = None
    """PEM certificates that brokers' are checked against; none: those the machine trusts."""
    tls_cert_file: Path | None = None
    """The client's own certificate (PEM), for brokers that ask for one."""
    tls_key_file: Path | None = None
    """Its key (PEM), without a passphrase."""
    topic_prefix: str = Field("tradewind", pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$", max_length=64)
    """First part of the name of every topic and consumer group."""
    wide_partitions: int = Field(4, ge=1, le=1024)
    """Of endpoint-metrics and arrivals when they are made: the most streams workers that can share the work."""
    replication: int = Field(1, ge=1, le=9)
    """Replicas of topics when they are made; min.insync.replicas is one less, and at least 1."""
    session_timeout_s: float = Field(6.0, ge=1, le=300)
    """A worker unheard for this long is taken for dead: others get its partitions."""
    heartbeat_s: float = Field(1.0, ge=0.1, le=100)
    """How often a worker tells Kafka that it lives."""
    commit_interval_s: float = Field(0.5, ge=0.05, le=60)
    """How often workers commit what they have read."""

    window_s: int = Field(60, ge=5, le=600)
    """Length of the sliding window of quantiles."""
    lateness_s: float = Field(5.0, ge=0, le=120)
    """An observation further behind its observer's newest is left out and counted."""
    tick_s: float = Field(1.0, ge=0.05, le=60)
    """How often steps speak when nothing is urgent."""

    table_ttl_s: float = Field(300.0, ge=5, le=86400)
    """From a table's issue to its expiry; an expired one is never adopted, but kept by who holds it."""
    table_heartbeat_s: float = Field(5.0, ge=0.5, le=10)
    """How often a table is published though nothing changed."""
    latency_usd_per_s: float = Field(0.001, ge=0, le=1000)
    """What a second of a request's latency costs in the objective."""
    carbon_usd_per_kg: float = Field(0.1, ge=0, le=100)
    """What a kilogram of CO2-equivalent costs in the objective; 0.1 is 100 dollars a tonne."""
    carbon_kind: Literal["average", "marginal"] = "average"
    """Which series of carbon intensity is gone by; the two are never mixed."""

    state_dir: Path = Path(".tradewind")
    """Folder of keys, kept tables, and the embedded Kafka's data."""
    host: str = "127.0.0.1"
    """Address on which workers serve /metrics, /healthz and /readyz."""
    log_level: LogLevel = "info"
    """The least level that is logged."""

    @field_validator("bootstrap_servers")
    @classmethod
    def _servers_have_addresses(cls, servers: str) -> str:
        if not all(_is_server(server) for server in servers.split(",")):
            raise PydanticCustomError("servers", "Write HOST:PORT, several with commas")
        return servers

    @field_validator(*SECURITY, mode="before")
    @classmethod
    def _nothing_is_not_given(cls, value: object) -> object:
        """Compose files hand on variables that nobody set as empty ones."""
        return None if value == "" else value

    @field_validator(*SECURITY)
    @classmethod
    def _security_fits(cls, value: object, info: ValidationInfo) -> object:
        if "security_protocol" in info.data and (says := wrong(str(info.field_name), value, info.data)):
            raise PydanticCustomError("security", "{says}", {"says": says})
        return value

    @field_validator("heartbeat_s")
    @classmethod
    def _beats_twice_a_session(cls, heartbeat_s: float, info: ValidationInfo) -> float:
        most_s = info.data.get("session_timeout_s", math.inf) / 2
        return _below(heartbeat_s, most_s, "half of session_timeout_s: one lost heartbeat must not end a membership")

    @field_validator("table_heartbeat_s")
    @classmethod
    def _beats_twice_a_table(cls, heartbeat_s: float, info: ValidationInfo) -> float:
        most_s = info.data.get("table_ttl_s", math.inf) / 2
        return _below(heartbeat_s, most_s, "half of table_ttl_s: one lost heartbeat must not let a table expire")


def _is_server(text: str) -> bool:
    """Whether `text` is HOST or HOST:PORT, an IPv6 address in brackets.

    >>> [_is_server(text) for text in ("kafka", "[::1]:9092", "a:b", "a:0", "http://a:1", " a:1", "")]
    [True, True, False, False, False, False, False]
    """
    found = _SERVER.fullmatch(text)
    return found is not None and (found[1] is None or 1 <= int(found[1]) <= 65535)


def _below(value_s: float, most_s: float, what: str) -> float:
    if value_s >= most_s:
        raise PydanticCustomError("below", "has to be below {most_s}, {what}", {"most_s": f"{most_s:g}", "what": what})
    return value_s


class Layer(NamedTuple):
    """Values from one source, and the place of each, as in `tradewind.yaml:7`."""

    values: Mapping[str, Any] = {}
    places: Mapping[str, str] = {}


class Settled(NamedTuple):
    """Settings, and where each of them came from: "flag", "environment TRADEWIND_…", a layer's place, or "default"."""

    settings: Settings
    sources: dict[str, str]


DEFAULT = "default"


def load(**flags: Any) -> Settings:
    """Settings from flags that are not None, then the environment, then defaults.

    Raises BadSetting with the field, the value and the accepted range.
    """
    return settle(flags).settings


def settle(flags: Mapping[str, Any], *layers: Layer) -> Settled:
    """Settings from `flags` that are not None, then the environment, then `layers` in their order, then defaults.

    Raises BadSetting with where the value came from, the field, the value and the accepted range.
    """
    given = {name: value for name, value in flags.items() if value is not None}
    sources = {**_from_environment(), **dict.fromkeys(given, "flag")}
    for layer in layers:
        new = {name: value for name, value in layer.values.items() if name not in sources}
        given |= new
        sources |= {name: layer.places.get(name, "file") for name in new}
    try:
        settings = Settings(**given)
    except ValidationError as error:
        raise _bad(error, sources) from None
    return Settled(settings, {name: sources.get(name, DEFAULT) for name in Settings.model_fields})


def _from_environment() -> dict[str, str]:
    """Field to the name of its variable, of those that are set; as pydantic reads them, in any case."""
    names = {name.upper(): name for name in os.environ}
    variables = {field: names.get(f"TRADEWIND_{field.upper()}") for field in Settings.model_fields}
    return {field: f"environment {name}" for field, name in variables.items() if name is not None}


def _bad(error: ValidationError, sources: Mapping[str, str]) -> BadSetting:
    first = error.errors()[0]
    name = ".".join(str(part) for part in first["loc"])
    where = sources.get(name, DEFAULT if name else "settings")
    return BadSetting(where, name or "settings", first.get("input"), first["msg"])


class _Alone(Settings):
    """Settings without the environment: how a file is judged by itself."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (init_settings,)


def wrongs(values: Mapping[str, Any]) -> list[tuple[str, Any, str]]:
    """(field, value, what would be right) of all that cannot be used in `values`, judged without the environment."""
    try:
        _Alone(**values)
    except ValidationError as error:
        return [(".".join(map(str, e["loc"])), e.get("input"), e["msg"]) for e in error.errors()]
    return []


def environment() -> Mapping[str, str]:
    """The environment as a read-only mapping, for the few who hand parts of it on (Java, cache folders)."""
    return dict(os.environ)
