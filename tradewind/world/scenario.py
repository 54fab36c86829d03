"""What a scenario file may say: the fleet and what happens to it. Times are lengths after the start: 9h30m.

Each mapping of a list is one of the structs below; its fields, with defaults and ranges, are the grammar.
"""

from __future__ import annotations

from typing import Annotated, Final

import msgspec
from msgspec import Meta

from streams.contract.records import Fleet, Label, Name, Text
from tradewind.world.engine import FaultKind

Length = Annotated[str, Meta(pattern=r"^(\d+(\.\d+)?[smhd])+$(?!\n)", max_length=32)]
"""A length of time: 90s, 30m, 1h30m, 1d."""
Rps = Annotated[float, Meta(ge=0, le=1e5)]
Part = Annotated[float, Meta(ge=0, le=1)]
Factor = Annotated[float, Meta(ge=0, le=100)]
LONGEST_S: Final = 7 * 86_400.0


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """`demand`: what one origin asks of one class on an ordinary day."""

    origin: Name
    class_: Name = msgspec.field(name="class")
    service: Label = ""
    """Empty: the only service that has the class."""
    mean_rps: Rps
    swing: Part = 0.0
    """Of the mean, up at the peak and down half a day from it."""
    peak: Length = "14h"
    """Of the UTC day."""
    noise: Part = 0.05
    """Ups and downs of about ten minutes, as a share."""


class Surged(msgspec.Struct, frozen=True, kw_only=True):
    """`surges`: for a while somebody asks more."""

    at: Length
    lasts: Length
    factor: Factor
    origin: Label = ""
    """Empty: all of them."""
    class_: Label = msgspec.field(name="class", default="")
    ramp: Length = "30s"
    """In which it grows, and falls."""


class Worked(msgspec.Struct, frozen=True, kw_only=True):
    """`work`: jobs that may wait, one each time."""

    origin: Name
    class_: Name = msgspec.field(name="class")
    service: Label = ""
    at: Length = "0s"
    """The first."""
    every: Length = "1h"
    times: Annotated[int, Meta(ge=1, le=1000)] = 1
    requests: Annotated[int, Meta(ge=1, le=100_000_000)]
    within: Length
    """Until the deadline."""
    rps: Annotated[float, Meta(gt=0, le=1e5)]
    """At which a job sends once it has begun."""


class Failed(msgspec.Struct, frozen=True, kw_only=True):
    """`faults`: an endpoint, zone, region or provider fails for a while."""

    at: Length
    lasts: Length
    where: Name
    kind: FaultKind = "dead"
    """dead: no connection; refusing: connections refused; hanging: no answer; slow; partial: some get a 5xx."""
    value: Annotated[float, Meta(ge=0, le=100)] | None = None
    """Of slow: how many times (default 3); of partial: the share that fails (default 0.3)."""


class Lost(msgspec.Struct, frozen=True, kw_only=True):
    """`losses`: spot replicas of an endpoint, zone, region or provider are taken back, after a notice."""

    at: Length
    """Of the loss; the notice comes before it."""
    lasts: Length
    where: Name
    notice: Length = "120s"
    left: Annotated[int, Meta(ge=0, le=100_000)] = 0
    """Replicas that each pool lends still."""


class Priced(msgspec.Struct, frozen=True, kw_only=True):
    """`prices`: replicas of an endpoint, zone, region or provider cost more or less for a while."""

    at: Length
    lasts: Length
    where: Name
    factor: Factor


class Powered(msgspec.Struct, frozen=True, kw_only=True):
    """`carbon`: how dirty the power of a grid zone is on an ordinary day."""

    grid_zone: Name
    mean_g: Annotated[float, Meta(ge=0, le=2000)]
    """Grams of CO2-equivalent per kWh."""
    swing: Part = 0.0
    low: Length = "13h"
    """Of the UTC day, when it is cleanest."""


class Swung(msgspec.Struct, frozen=True, kw_only=True):
    """`carbon_swings`: the power of a grid zone is dirtier or cleaner for a while."""

    at: Length
    lasts: Length
    grid_zone: Name
    factor: Factor


class Scenario(msgspec.Struct, frozen=True, kw_only=True):
    """A whole file."""

    name: Name
    says: Text = ""
    """In a sentence, what there is to be seen."""
    start: Annotated[str, Meta(max_length=40)] = "2026-06-16T00:00:00Z"
    """UTC, ISO 8601."""
    lasts: Length = "1d"
    """At most 7d."""
    seed: Annotated[int, Meta(ge=0, le=2**31)] = 1
    """Of all chance; `--seed` goes before it."""
    gateways: Annotated[int, Meta(ge=1, le=16)] = 1
    """Of each origin."""
    cold_start: Length | None = None
    """Of every endpoint; left out: as the fleet declares."""
    report_delay: Length = "0s"
    """From what a gateway has seen to the topics."""
    table_delay: Length = "0s"
    """From the topics to what a gateway does."""
    demand: Annotated[tuple[Asked, ...], Meta(min_length=1, max_length=1000)]
    surges: Annotated[tuple[Surged, ...], Meta(max_length=1000)] = ()
    work: Annotated[tuple[Worked, ...], Meta(max_length=1000)] = ()
    faults: Annotated[tuple[Failed, ...], Meta(max_length=1000)] = ()
    losses: Annotated[tuple[Lost, ...], Meta(max_length=1000)] = ()
    prices: Annotated[tuple[Priced, ...], Meta(max_length=1000)] = ()
    carbon: Annotated[tuple[Powered, ...], Meta(max_length=1000)] = ()
    carbon_swings: Annotated[tuple[Swung, ...], Meta(max_length=1000)] = ()


class Whole(msgspec.Struct, frozen=True):
    """A scenario that can be lived through: what the file says, and its fleet."""

    scenario: Scenario
    fleet: Fleet
