"""What is counted in a step: bundles of requests on their way, and what came of them by endpoint and by flow."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from router_sync.client import LocalEndpoint
from streams.contract.records import ErrorKind

if TYPE_CHECKING:
    from tradewind.world.gateway import Gateway


@dataclass(slots=True)
class Bundle:
    """So many requests of one flow that one gateway sends to one endpoint in one step."""

    gateway: Gateway
    flow: int
    end: int
    local: LocalEndpoint
    count: int
    waited_ms: float = 0.0
    """Lost at other endpoints before."""
    tried: tuple[str, ...] = ()
    ok: int = 0


@dataclass(frozen=True, slots=True)
class Miss:
    """So many requests of a bundle that failed in a way, after some time."""

    bundle: Bundle
    kind: ErrorKind
    count: int
    ms: float


@dataclass(slots=True)
class Row:
    """What a gateway met at one endpoint with one flow in one step."""

    requests: int = 0
    ok: int = 0
    errors: dict[ErrorKind, int] = field(default_factory=dict)

    def failed(self, kind: ErrorKind, count: int) -> None:
        self.requests += count
        self.errors[kind] = self.errors.get(kind, 0) + count

    def answered(self, count: int) -> None:
        self.requests += count
        self.ok += count


@dataclass(slots=True)
class Counts:
    """Of one flow at one gateway in one step."""

    arrived: int = 0
    shed: int = 0
    failed: int = 0
