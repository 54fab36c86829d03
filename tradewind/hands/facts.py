"""What compacted topics say now: the last word by key. What cannot be read is left out; the router judges it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, TypeVar

import msgspec

from router_sync.orders import in_force, meant
from streams.contract import topics
from streams.contract.errors import BadSetting, Missing
from streams.contract.records import Endpoint, EndpointHealth, Fleet, GatewayStatus, Order, Service
from streams.settings import Settings
from tradewind.hands import kafka

R = TypeVar("R", bound=msgspec.Struct)
T = TypeVar("T")
HEALTH_S = 15.0
"""Health older than this says nothing any more."""


class Fact(NamedTuple):
    """The last word under a key."""

    record: Any
    at_s: float
    """When the broker, or its sender, stamped it."""


def last_words(records: Iterable[Any], kind: type[R]) -> dict[str, Fact]:
    """The last readable record by key; tombstones remove."""
    decoder, found = msgspec.json.Decoder(kind), dict[str, Fact]()
    for record in records:
        key = (record.key or b"").decode("utf-8", "replace")
        found.pop(key, None) if record.value is None else None
        try:
            if record.value is not None:
                found[key] = Fact(decoder.decode(record.value), record.timestamp / 1000)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            continue
    return found


async def fleet(consumer: Any, settings: Settings) -> Fleet:
    """The fleet in force. Raises Missing when none was published."""
    known = last_words(await kafka.held(consumer, settings, topics.FLEET), Fleet)
    if not known:
        raise Missing(
            f"No fleet was published under {settings.topic_prefix}",
            "Run `tradewind up`, `tradewind fleet publish tradewind.yaml`, or check --topic-prefix",
        )
    found: Fleet = max(known.values(), key=lambda fact: fact.record.version).record
    return found


async def orders(consumer: Any, settings: Settings, known: Fleet, now_s: float) -> dict[str, Order]:
    """Endpoint to the order that drains it now."""
    given = last_words(await kafka.held(consumer, settings, topics.ORDERS), Order)
    draining = {name: fact.record for name, fact in given.items() if fact.record.drain}
    return in_force(draining, {e.name for e in known.endpoints}, now_s)


async def left_over(consumer: Any, settings: Settings, name: str) -> bool:
    """Whether an order drains `name`, which the fleet does not have any more."""
    given = last_words(await kafka.held(consumer, settings, topics.ORDERS), Order)
    known = await fleet(consumer, settings)
    return name in given and given[name].record.drain and all(e.name != name for e in known.endpoints)


async def gateways(consumer: Any, settings: Settings) -> list[GatewayStatus]:
    """The last status of each gateway and service."""
    said = last_words(await kafka.held(consumer, settings, topics.GATEWAY_STATUS), GatewayStatus)
    return [said[key].record for key in sorted(said)]


async def health(consumer: Any, settings: Settings, now_s: float) -> list[EndpointHealth]:
    """The last word of each source within HEALTH_S, all its parts."""
    heard = await kafka.held(consumer, settings, topics.ENDPOINT_HEALTH, now_s - HEALTH_S)
    decoder = msgspec.json.Decoder(EndpointHealth)
    last: dict[tuple[str, int], EndpointHealth] = {}
    for record in heard:
        try:
            said = decoder.decode(record.value or b"")
        except (msgspec.MsgspecError, UnicodeDecodeError):
            continue
        last[said.source, said.part] = said
    return list(last.values())


def endpoint_of(known: Fleet, name: str) -> Endpoint:
    """The endpoint of that name. Raises BadSetting with the name that was meant."""
    return named("ENDPOINT", name, {e.name: e for e in known.endpoints})


def service_of(known: Fleet, name: str) -> Service:
    """The service of that name. Raises BadSetting with the name that was meant."""
    return named("SERVICE", name, {s.name: s for s in known.services})


def named(argument: str, name: str, there: Mapping[str, T]) -> T:
    """What is there under `name`. Raises BadSetting, about `argument`, with the name that was meant."""
    if name in there:
        return there[name]
    hint = meant(name, there).lstrip(": ")
    hint = f"{hint[:1].upper()}{hint[1:]}" if hint else f"There are {', '.join(sorted(there)[:12])}"
    where = "flag" if argument.startswith("-") else "argument"
    raise BadSetting(where, argument, name, hint)
