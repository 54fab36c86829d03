"""The only reader of the environment and of configuration files: one frozen object, built once, checked at start.

What an operator sets comes from flags, then TRADEWIND_… variables, then defaults. What the fleet is stands in
`tradewind.yaml` and is read by `router_sync.fleet`.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, SettingsConfigDict

from streams.contract.errors import BadSetting

LogLevel = Literal["debug", "info", "warning", "error"]


class Settings(BaseSettings):
    """Everything an operator may set, with its range. Variables are TRADEWIND_ and the name in capitals."""

    model_config = SettingsConfigDict(env_prefix="TRADEWIND_", frozen=True, extra="forbid", validate_default=True)

    bootstrap_servers: str = Field("127.0.0.1:19092", min_length=1)
    topic_prefix: str = Field("tradewind", pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$", max_length=64)
    wide_partitions: int = Field(4, ge=1, le=1024)
    replication: int = Field(1, ge=1, le=9)
    session_timeout_s: float = Field(6.0, ge=1, le=300)
    heartbeat_s: float = Field(1.0, ge=0.1, le=100)
    commit_interval_s: float = Field(0.5, ge=0.05, le=60)

    window_s: int = Field(60, ge=5, le=600)
    lateness_s: float = Field(5.0, ge=0, le=120)
    tick_s: float = Field(1.0, ge=0.05, le=60)

    table_ttl_s: float = Field(300.0, ge=5, le=86400)
    table_heartbeat_s: float = Field(5.0, ge=0.5, le=10)
    latency_usd_per_s: float = Field(0.001, ge=0, le=1000)

    state_dir: Path = Path(".tradewind")
    host: str = "127.0.0.1"
    log_level: LogLevel = "info"

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


def _below(value_s: float, most_s: float, what: str) -> float:
    if value_s >= most_s:
        raise PydanticCustomError("below", "has to be below {most_s}, {what}", {"most_s": f"{most_s:g}", "what": what})
    return value_s


def load(**flags: Any) -> Settings:
    """Settings from flags that are not None, then the environment, then defaults.

    Raises BadSetting with the field, the value and the accepted range.
    """
    given = {name: value for name, value in flags.items() if value is not None}
    try:
        return Settings(**given)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        where = "flag" if name in given else f"environment TRADEWIND_{name.upper()}"
        raise BadSetting(where, name, first.get("input"), first["msg"]) from None


def environment() -> Mapping[str, str]:
    """The environment as a read-only mapping, for the few who hand parts of it on (Java, cache folders)."""
    return dict(os.environ)
