"""What gateways count of the streams at endpoints that were to be left. They are asked each second."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from typing import Final, NoReturn

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from streams import signals

_METRIC: Final = f"{next(iter(signals.LEFT.describe())).name}_total"
_EVERY_S: Final = 1.0
_PATIENCE: Final = aiohttp.ClientTimeout(total=1.0)


class Moves:
    """Counts by outcome and reason, of all gateways together, as of when each was asked last."""

    def __init__(self, gateways: Mapping[str, str]) -> None:
        self._gateways = gateways
        self._last: dict[str, Counter[str]] = {}

    async def follow(self) -> NoReturn:
        """Ask each second, for ever."""
        async with aiohttp.ClientSession(timeout=_PATIENCE) as http:
            while True:
                await asyncio.gather(*(self._ask(http, url) for url in self._gateways.values()))
                await asyncio.sleep(_EVERY_S)

    async def _ask(self, http: aiohttp.ClientSession, url: str) -> None:
        try:
            async with http.get(f"{url}/metrics") as answer:
                if answer.status == 200:
                    self._last[url] = counted(await answer.text())
        except (aiohttp.ClientError, TimeoutError):
            pass

    def total(self) -> dict[str, int]:
        """How many by "outcome: reason"."""
        return dict(sorted(sum(self._last.values(), Counter[str]()).items()))


def counted(exposition: str) -> Counter[str]:
    """A gateway's counts in its metrics."""
    samples = (one for family in text_string_to_metric_families(exposition) for one in family.samples)
    ours = (one for one in samples if one.name == _METRIC)
    return Counter({f"{one.labels['outcome']}: {one.labels['reason']}": round(one.value) for one in ours})
