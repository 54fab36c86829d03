"""Prices and carbon that move, small and the same in each run: what routers would hear of a market and of a grid.

price     list price of a spot pool * (1 - 0.25 .. 1 + 0.25), a wave of two minutes, each pool at another point of it
carbon    mean of the grid zone     * (1 - 0.4  .. 1 + 0.4),  a wave of three minutes: noon and night, sped up
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Mapping, Sequence
from math import sin, tau
from typing import Final, NoReturn
from zlib import crc32

import msgspec
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from streams.contract.records import CarbonIntensity, Fleet, Record, SpotPrice
from streams.contract.topics import TOPIC_OF
from streams.runtime import cloudevents
from streams.runtime.access import client_options
from streams.runtime.clock import Clock
from streams.settings import Settings

EVERY_S: Final = 5.0
PRICE_SWING: Final = 0.25
PRICE_PERIOD_S: Final = 120.0
CARBON_SWING: Final = 0.4
CARBON_PERIOD_S: Final = 180.0
_STOP_S: Final = 2.0
_BAND: Final = 1
"""Of interruptions; 0 to 4."""


def prices(fleet: Fleet, at_s: float, now_s: float) -> Iterator[SpotPrice]:
    """One a spot pool, `at_s` seconds into the run; `now_s` is unix seconds."""
    for pool, price in {e.pool: e.price_usd_per_h for e in fleet.endpoints if e.market == "spot"}.items():
        yield SpotPrice(
            pool=pool,
            price_usd_per_h=round(price * (1 + PRICE_SWING * _wave(pool, at_s, PRICE_PERIOD_S)), 4),
            effective_at_s=now_s,
            observed_at_s=now_s,
            interruption_band=_BAND,
        )


def carbon(means: Mapping[str, float], at_s: float, now_s: float) -> Iterator[CarbonIntensity]:
    """One a grid zone, average and measured, valid until the one after the next."""
    for zone, mean in means.items():
        yield CarbonIntensity(
            grid_zone=zone,
            kind="average",
            basis="measured",
            carbon_g_per_kwh=round(mean * (1 + CARBON_SWING * _wave(zone, at_s, CARBON_PERIOD_S)), 1),
            valid_from_s=now_s,
            valid_until_s=now_s + 2 * EVERY_S,
        )


def _wave(name: str, at_s: float, period_s: float) -> float:
    """-1..1; each name is at another point of it."""
    return sin(tau * (at_s / period_s + crc32(name.encode()) / 2**32))


async def feed(fleet: Fleet, means: Mapping[str, float], settings: Settings, *, at_s: Clock, now_s: Clock) -> NoReturn:
    """Send both every five seconds, for ever; what a broker that is away does not take is said again the next time."""
    producer = AIOKafkaProducer(**client_options(settings), acks="all")
    await producer.start()
    try:
        while True:
            said = [*prices(fleet, at_s(), now_s()), *carbon(means, at_s(), now_s())]
            with contextlib.suppress(KafkaError):
                await _say(producer, said, settings, now_s())
            await asyncio.sleep(EVERY_S)
    finally:  # a broker that is away holds nobody up
        await asyncio.wait([asyncio.gather(producer.stop(), return_exceptions=True)], timeout=_STOP_S)


async def _say(producer: AIOKafkaProducer, records: Sequence[Record], settings: Settings, now_s: float) -> None:
    for record in records:
        topic = TOPIC_OF[type(record)]
        key = topic.key_of(record)
        headers = cloudevents.headers(topic.name, source="tradewind-demo", event_id=f"{key}/{now_s:.3f}", now_s=now_s)
        value = msgspec.json.encode(record)
        await producer.send(topic.full(settings.topic_prefix), value, key=key.encode(), headers=headers)
    await producer.flush()
