"""Who decides: the house's own stages on the memory carrier, or a rival. One method wide.

A brain is told all that the world says, each record at its time, and what a rival may look at; it says tables, and
whatever plans and releases it makes. Everything behind it (gateways, endpoints, accounts) is the same for all.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Protocol, TypeVar

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from router_sync.client import Follower, Found
from router_sync.sign import Signer, Trust
from streams.contract import topics
from streams.contract.records import CapacityPlan, Decision, Fleet, Record, Release, RoutingTable
from streams.contract.topics import TOPIC_OF, Topic
from streams.runtime.memory import MemoryCarrier
from streams.runtime.step import Step
from streams.settings import Settings
from tradewind.flow import rooms
from tradewind.world.ground import Floats, Ground
from tradewind.world.market import Told

Expect = Literal["forecast", "none", "hindsight"]
"""What is expected of demand: the forecasters' word; nothing; or what will be, told by an oracle."""
SETTLE_S: Final = 0.35
"""After a step's end, in which the house hears its last reports and answers them: tables of then are of that step."""
LATENESS_S: Final = 60.0
"""Of the run's settings: slots of a calm step are spoken of as late as its end."""
_FORGOTTEN: Final = (
    topics.ENDPOINT_METRICS, topics.ARRIVALS, topics.ENDPOINT_HEALTH, topics.DEMAND, topics.CARBON_INTENSITY,
    topics.SPOT_PRICES, topics.DEMAND_FORECAST,
)  # fmt: skip
_encode: Final = msgspec.json.Encoder().encode
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class View:
    """What is seen of the world at `now_s`, of the step that has just ended, and nothing of what is to come."""

    ground: Ground
    now_s: float
    rps: Floats
    """[F] what was asked."""
    inside_ms: Floats
    """[E] median inside."""
    load: Floats
    """[E] of what the ready replicas can."""
    ready: Sequence[int]
    """[E] replicas."""
    starting: Sequence[int]
    up: Sequence[bool]
    """[E] whether it answers probes."""
    usd_per_h: Floats
    """[E] of a replica."""
    g_per_kwh: Floats
    """[E] of its power."""


@dataclass(slots=True)
class Said:
    """What a brain has said since it was asked last, in order."""

    tables: list[RoutingTable] = field(default_factory=list)
    decisions: list[Decision] = field(default_factory=list)
    plans: list[CapacityPlan] = field(default_factory=list)
    releases: list[Release] = field(default_factory=list)


class Brain(Protocol):
    """Decides for all gateways."""

    name: str

    def live(self, told: Sequence[Told], until_s: float, every_s: float, view: View) -> Said:
        """Live until `until_s`, ticking every `every_s`, being `told` what is said until then."""
        ...


class House:
    """The stages of all rooms, as they run on Kafka. Tables are signed, and followed as gateways follow them."""

    name = "tradewind"

    def __init__(
        self, fleet: Fleet, settings: Settings, start_s: float, seed: int, expect: Expect = "forecast"
    ) -> None:
        signer = Signer(Ed25519PrivateKey.from_private_bytes(hashlib.sha256(f"world {seed}".encode()).digest()))
        self.carrier = MemoryCarrier(_steps(settings, signer, expect), now_s=start_s, wide=1, forgotten=_FORGOTTEN)
        self.follower = Follower(Trust({signer.kid: signer.public}))
        self._every_s = settings.tick_s
        self._read: dict[str, int] = {}
        self._tell(fleet)
        self.carrier.run_until(start_s)

    def live(self, told: Sequence[Told], until_s: float, every_s: float, view: View) -> Said:
        """As `Brain`."""
        if every_s != self._every_s:
            self._every_s = every_s
            self.carrier.pace(every_s)
        for at_s, record in told:
            if at_s > self.carrier.now_s:  # what comes together is read together
                self.carrier.run_until(at_s)
            self._tell(record)
        self.carrier.run_until(until_s + SETTLE_S)
        said = Said(
            decisions=self._new(topics.DECISIONS, Decision),
            plans=self._new(topics.CAPACITY_PLAN, CapacityPlan),
            releases=self._new(topics.RELEASES, Release),
        )
        for message in self._messages(topics.ROUTING_TABLE):
            found = Found(message.key or b"", message.value or b"", list(message.headers))
            if (table := self.follower.offer(found, self.carrier.now_s)) is not None:
                said.tables.append(table)
        return said

    @property
    def dead_letters(self) -> int:
        """How many records were refused."""
        return len(self.carrier.said(topics.DEAD_LETTERS))

    def _tell(self, record: Record) -> None:
        topic = TOPIC_OF[type(record)]
        self.carrier.send(topic, topic.key_of(record), _encode(record))

    def _messages(self, topic: Topic) -> list[Any]:
        messages = self.carrier.since(topic, self._read.get(topic.name, 0))
        self._read[topic.name] = self._read.get(topic.name, 0) + len(messages)
        return messages

    def _new(self, topic: Topic, kind: type[R]) -> list[R]:
        return [msgspec.json.decode(m.value, type=kind) for m in self._messages(topic) if m.value is not None]


def settings_of(base: Settings) -> Settings:
    """`base` as the run needs it: slots are spoken of for as long as a calm step."""
    return base.model_copy(update={"lateness_s": max(base.lateness_s, LATENESS_S)})


def _steps(settings: Settings, signer: Signer, expect: Expect) -> list[Step]:
    """All steps of the house but those that act: the world does. Those that forecast demand only where wanted."""
    decide = (room for name, room in rooms(settings, signer).items() if name != "actuators")
    steps: Iterable[Step] = (step for room in decide for step in room)
    return [step for step in steps if expect == "forecast" or topics.DEMAND_FORECAST not in step.writes]
