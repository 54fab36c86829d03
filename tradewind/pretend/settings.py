"""What one pretend endpoint is: its name, ports, models, speed and limits."""

from dataclasses import dataclass
from pathlib import Path

from tradewind.pretend import curve

ORIGIN_HEADER = "x-pretend-origin"
CLASS_HEADER = "x-pretend-class"
"""What a caller asked as. It passes gateways unread: so an endpoint knows it from the caller alone."""
HOST = "127.0.0.1"  # loopback only: the fault path would let anyone stop the process


@dataclass(frozen=True, slots=True)
class EndpointSettings:
    """One endpoint's settings; `ValueError` names a field out of range, its value and what is accepted.

    Port 0 takes any free port. `slots` None derives the concurrency from `capacity_rps` at `mean_output_tokens`.
    """

    name: str
    port: int = 0
    admin_port: int = 0
    models: tuple[str, ...] = ("pretend-8b",)
    capacity_rps: float = 40.0
    base_ttft_ms: float = 40.0
    base_between_ms: float = 5.0
    noise_sigma: float = 0.15
    mean_output_tokens: float = 28.0
    slots: int | None = None
    queue_limit: int = 64
    max_model_tokens: int = 16_384
    chunk_ms: float = 40.0  # tokens of a stream are sent in groups about this far apart: one timer for many tokens
    grace_s: float = 3.0  # how long open requests may still run after SIGTERM
    seed: int = 1
    ledger: Path | None = None  # where to write down who was received
    rtt_ms: tuple[tuple[str, float], ...] = ()  # the way from each origin; a request names its own in ORIGIN_HEADER

    def __post_init__(self) -> None:
        for field, low, high in _RANGES:
            value = getattr(self, field)
            if value is not None and not low <= value <= high:
                raise ValueError(f"{field}: {value!r} is out of range; give a number from {low} to {high}")
        for origin, rtt_ms in self.rtt_ms:
            if not 0 <= rtt_ms <= 60_000:
                raise ValueError(f"rtt of {origin}: {rtt_ms!r} is out of range; give milliseconds from 0 to 60000")
        if not self.name or not self.models or not all(self.models):
            raise ValueError(f"name, models: {self.name!r}, {self.models!r}; give a name and at least one model")

    @property
    def running_limit(self) -> int:
        """Requests that run side by side; further ones wait."""
        if self.slots is not None:
            return self.slots
        return curve.slots_for(self.capacity_rps, self.base_ttft_ms, self.base_between_ms, self.mean_output_tokens)


_RANGES: tuple[tuple[str, float, float], ...] = (
    ("port", 0, 65_535),
    ("admin_port", 0, 65_535),
    ("capacity_rps", 0.01, 100_000),
    ("base_ttft_ms", 0, 600_000),
    ("base_between_ms", 0.01, 60_000),
    ("noise_sigma", 0, 2),
    ("mean_output_tokens", 1, 100_000),
    ("slots", 1, 100_000),
    ("queue_limit", 0, 1_000_000),
    ("max_model_tokens", 16, 10_000_000),
    ("chunk_ms", 0, 10_000),
    ("grace_s", 0, 600),
)
