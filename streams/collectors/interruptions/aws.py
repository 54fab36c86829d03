"""AWS: spot interruptions, two minutes ahead, and rebalance recommendations, from the instance metadata service (v2).

    PUT /latest/api/token                                        a token, six hours
    GET /latest/meta-data/spot/instance-action                   404, or {"action": "terminate", "time": "…Z"}
    GET /latest/meta-data/events/recommendations/rebalance       404, or {"noticeTime": "…Z"}

In a container the token does not come unless the instance's metadata hop limit is 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final, Literal

import aiohttp
import msgspec

from streams.collectors.interruptions.agent import Coming, Unreadable, body_of

_TOKEN_S: Final = 21_600
_NOT_FOUND, _UNAUTHORIZED = 404, 401
_ACTION: Final = "/latest/meta-data/spot/instance-action"
_REBALANCE: Final = "/latest/meta-data/events/recommendations/rebalance"


class _Action(msgspec.Struct, frozen=True):
    action: Literal["terminate", "stop", "hibernate"]
    time: datetime


class _Rebalance(msgspec.Struct, frozen=True, rename="camel"):
    notice_time: datetime


class Aws:
    """The metadata service of an EC2 instance."""

    def __init__(self, url: str = "http://169.254.169.254") -> None:
        self.url, self.every_s = url.rstrip("/"), 5.0
        self._token = ""

    async def fetch(self, http: aiohttp.ClientSession, now_s: float) -> Sequence[Coming]:
        return parse(await self._get(http, _ACTION), await self._get(http, _REBALANCE))

    async def _get(self, http: aiohttp.ClientSession, path: str) -> bytes | None:
        """What is there; None: nothing is."""
        for fresh in (not self._token, True):
            if fresh:
                await self._renew(http)
            async with http.get(self.url + path, headers={"X-aws-ec2-metadata-token": self._token}) as answer:
                if answer.status == _NOT_FOUND:
                    return None
                if answer.status != _UNAUTHORIZED or fresh:
                    return await body_of(answer)
        return None

    async def _renew(self, http: aiohttp.ClientSession) -> None:
        ttl = {"X-aws-ec2-metadata-token-ttl-seconds": str(_TOKEN_S)}
        async with http.put(f"{self.url}/latest/api/token", headers=ttl) as answer:
            token = (await body_of(answer)).decode("ascii", "replace").strip()
        if not token.isprintable() or not token:
            raise Unreadable("the token is no line of text")
        self._token = token


def parse(action: bytes | None, rebalance: bytes | None) -> list[Coming]:
    """What the two say; None where there was nothing.

    >>> [c.kind for c in parse(b'{"action": "stop", "time": "2026-01-01T00:02:00Z"}', None)]
    ['stop']
    """
    found = []
    try:
        if action is not None:
            said = msgspec.json.decode(action, type=_Action)
            kind: Literal["terminate", "stop"] = "terminate" if said.action == "terminate" else "stop"
            found.append(
                Coming(
                    id=f"{said.action}/{said.time.isoformat()}",
                    kind=kind,
                    deadline_at_s=said.time.timestamp(),
                    reason=f"AWS spot: {said.action}",
                )
            )
        if rebalance is not None:
            at = msgspec.json.decode(rebalance, type=_Rebalance).notice_time
            found.append(
                Coming(id=f"rebalance/{at.isoformat()}", kind="rebalance", reason="AWS recommends to rebalance")
            )
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Unreadable(str(error)) from None
    return found
