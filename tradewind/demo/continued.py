"""How many streams went on elsewhere after a break. Callers do not notice it, so the gateways are asked."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Final, NoReturn

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from streams import signals

_METRIC: Final = f"{next(iter(signals.CONTINUED.describe())).name}_total"
_EVERY_S: Final = 1.0
_PATIENCE: Final = aiohttp.ClientTimeout(total=1.0)


class Continued:
    """Adds up what gateways count, each from when it started.

    A gateway that is started again counts from nought; what it counted in the second before it died is lost.
    """

    def __init__(self, gateways: Mapping[str, str]) -> None:
        self.gateways = gateways
        self.total: int | None = None
        """None as long as no gateway could be asked."""
        self._last: dict[str, int] = {}

    async def follow(self) -> NoReturn:
        """Ask each second, for ever."""
        while True:
            await self.ask()
            await asyncio.sleep(_EVERY_S)

    async def ask(self) -> None:
        """Ask each gateway once, a second at most; one that does not answer is passed over."""
        async with aiohttp.ClientSession(timeout=_PATIENCE) as http:
            await asyncio.gather(*(self._ask(http, url) for url in self.gateways.values()))

    async def _ask(self, http: aiohttp.ClientSession, url: str) -> None:
        try:
            async with http.get(f"{url}/metrics") as answer:
                if answer.status == 200:
                    self.take(url, counted(await answer.text()))
        except (aiohttp.ClientError, TimeoutError):
            pass

    def take(self, gateway: str, count: int) -> None:
        """`gateway` has counted so many by now."""
        before = self._last.get(gateway, 0)
        self.total = (self.total or 0) + (count - before if count >= before else count)
        self._last[gateway] = count


def counted(exposition: str) -> int:
    """The gateway's count in its metrics; 0 where there is none."""
    families = text_string_to_metric_families(exposition)
    return round(sum(one.value for family in families for one in family.samples if one.name == _METRIC))
