"""A queue of deferred work on the memory carrier, with carbon that has hours, for tests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from router_sync.flow import steps
from router_sync.layout import Floats
from router_sync.release import Booking, Slots, Wish
from router_sync.sign import Signer
from streams.contract.records import CarbonIntensity, Deferred, Fleet, Record, Release
from streams.contract.topics import DEAD_FIELD, DEAD_LETTERS, DEAD_REASON, DEFERRED, RELEASES, TOPIC_OF
from streams.runtime.memory import MemoryCarrier
from streams.settings import Settings
from tests.unit.router_fleet import endpoint, fleet, request_class

SIGNER = Signer(Ed25519PrivateKey.from_private_bytes(bytes(32)))
NOON_S = 1_763_942_400.0
"""2025-11-24 00:00:00Z, a full hour."""
H = 3600.0


def green_fleet(defer_s: float = 24 * H, **more: Any) -> Fleet:
    """Two endpoints of 100 requests/s and 5 kW on one grid; chat has a class that waits."""
    kinds = (request_class(), request_class("nightly", slo_p95_ms=60_000.0, tier="sheddable", defer_s=defer_s))
    told = {"grid_zone": "IE", "power_w": 5000.0} | more
    ends = (endpoint("eu-west-a", **told), endpoint("eu-west-b", **told))
    return fleet(kinds, ends, demand_rps=10.0)


def job(
    name: str = "job-1", requests: int = 100_000, within_s: float = 6 * H, at_s: float = NOON_S, **more: Any
) -> Deferred:
    """Work of the class that waits, handed in at `at_s`."""
    told = {"service": "chat", "class_": "nightly", "origin": "eu"} | more
    return Deferred(job=name, requests=requests, submitted_at_s=at_s, deadline_at_s=at_s + within_s, **told)


def carbon(
    grams: Mapping[int, float], zone: str = "IE", basis: Any = "forecast", kind: Any = "average"
) -> list[CarbonIntensity]:
    """Intensities by hour from NOON_S on."""
    return [
        CarbonIntensity(
            grid_zone=zone, kind=kind, basis=basis, carbon_g_per_kwh=value, valid_from_s=NOON_S + hour * H,
            valid_until_s=NOON_S + (hour + 1) * H,
        )
        for hour, value in grams.items()
    ]  # fmt: skip


def alone(ahead: Slots, wish: Wish) -> tuple[Floats, Floats]:
    """By start: mean dollars of a request of `wish`, and when it is through, where nothing else is booked."""
    booking = Booking(ahead)
    return booking.costs(wish, booking.lane(wish.may, wish.egress_usd))


class Night:
    """The queue, hour by hour. `say` hands records in now."""

    def __init__(self, of: Fleet | None = None, now_s: float = NOON_S, tick_s: float = 1.0) -> None:
        [step] = [step for step in steps(Settings(tick_s=tick_s), SIGNER) if step.name == "defer"]
        self.step = step
        self.carrier = MemoryCarrier([step], now_s=now_s)
        if of is not None:
            self.say(of)

    def say(self, *records: Record) -> None:
        for record in records:
            topic = TOPIC_OF[type(record)]
            self.carrier.send(topic, topic.key_of(record), msgspec.json.encode(record))

    def cancel(self, name: str) -> None:
        self.carrier.send(DEFERRED, name, None)

    def until(self, hours: float) -> None:
        """Let time pass to so many hours after NOON_S."""
        self.carrier.run_until(NOON_S + hours * H)

    def words(self, name: str = "job-1") -> list[Release]:
        found = [msgspec.json.decode(m.value or b"", type=Release) for m in self.carrier.said(RELEASES)]
        return [word for word in found if word.job == name]

    def released_h(self, name: str = "job-1") -> float | None:
        """Hours after NOON_S at which the word to begin came; None: it did not. It comes once."""
        at_s = [word.made_at_s for word in self.words(name) if word.released]
        assert len(at_s) <= 1
        return (at_s[0] - NOON_S) / H if at_s else None

    def dead(self) -> list[tuple[str, str]]:
        letters = [dict(m.headers) for m in self.carrier.said(DEAD_LETTERS)]
        return [(one[DEAD_FIELD].decode(), one[DEAD_REASON].decode()) for one in letters]
