"""Conversations that outlive endpoints: one answer after the other, streamed, each judged word by word.

What an answer has to be is known beforehand (`tradewind.pretend.shape`), so a judge needs no word of gateways: all of
the text, in order, nothing twice, under one id, with one end. In some conversations there is a tool, whose state no
other endpoint can take over: nobody promises that those outlive theirs, and they are counted by themselves.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import aiohttp
import msgspec

from streams.runtime.clock import Clock
from tradewind.load import Outcome, Target
from tradewind.load.outcome import ErrorKind
from tradewind.load.sender import SHED_HEADER, kind_of_error, kind_of_status
from tradewind.pretend.settings import CLASS_HEADER, ORIGIN_HEADER
from tradewind.pretend.shape import text_of

TOKENS: Final = (150, 2400)
"""Of an answer, from few to many; as often between 150 and 300 as between 1200 and 2400."""
PAUSE_S: Final = (0.5, 2.0)
WITH_TOOL: Final = 8
"""Every so manieth conversation has a tool."""
_STAGGER_S: Final = 0.2
_SLOWER: Final = 1.6
"""An endpoint under load may take so many times as long as an idle one."""
_END_S: Final = 3.0
_SILENCE_S: Final = 15.0
_TOOL: Final = {"type": "function", "function": {"name": "look_up", "parameters": {"type": "object"}}}


class Turn(msgspec.Struct, frozen=True, kw_only=True):
    """One answer of a conversation. Times are seconds into the run; `endpoint` is where it began."""

    talk: str
    able: bool
    """Another endpoint can go on with it."""
    tokens: int
    began_at_s: float
    ended_at_s: float
    endpoint: str
    whole: bool
    """It came word for word, once, and ended."""
    error: ErrorKind | None = None


class Heard:
    """A stream of events, put together by its caller."""

    def __init__(self) -> None:
        self.text, self.ids, self.ends, self.reasons, self.faulty = "", set[str](), 0, 0, False
        self._rest = b""

    def feed(self, piece: bytes) -> None:
        """Some more bytes."""
        *lines, self._rest = (self._rest + piece).split(b"\n")
        for line in lines:
            if line.startswith(b"data: [DONE]"):
                self.ends += 1
            elif line.startswith(b"data: "):
                self._event(msgspec.json.decode(line[6:]))

    def _event(self, event: dict[str, Any]) -> None:
        self.faulty = self.faulty or "error" in event
        for choice in event.get("choices", ()):
            self.ids.add(event["id"])
            self.text += choice["delta"].get("content", "")
            self.reasons += choice["finish_reason"] is not None

    def whole(self, tokens: int) -> bool:
        """Whether it is the answer of so many tokens, all of it, once."""
        once = (len(self.ids), self.ends, self.reasons) == (1, 1, 1)
        return once and not self.faulty and not self._rest and self.text == text_of(0, tokens)


class Talks:
    """All conversations of a run. `at_s` is seconds into it, `lasts_s` how long it is; None: without end."""

    def __init__(
        self,
        targets: Sequence[Target],
        count: int,
        token_s: float,
        lasts_s: float | None,
        rng: random.Random,
        at_s: Clock,
        seen: Callable[[Outcome], None],
    ) -> None:
        self.turns: list[Turn] = []
        self._targets, self._count, self._token_s, self._lasts_s = targets, count, token_s, lasts_s
        self._rng, self._at_s, self._seen = rng, at_s, seen

    async def run(self) -> None:
        """Talk until the run is over."""
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=3.0, sock_read=_SILENCE_S)
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(timeout=timeout, connector=connector) as http, asyncio.TaskGroup() as group:
            for number in range(self._count):
                group.create_task(self._talk(number, http))

    async def _talk(self, number: int, http: aiohttp.ClientSession) -> None:
        await asyncio.sleep(number * _STAGGER_S)
        target, able = self._targets[number % len(self._targets)], number % WITH_TOOL != WITH_TOOL - 1
        while (tokens := self._tokens()) is not None:
            if (pause_s := await self._turn(f"talk-{number}", target, able, tokens, http)) is None:
                pause_s = self._rng.uniform(*PAUSE_S)
            await asyncio.sleep(pause_s)

    def _tokens(self) -> int | None:
        """How long the next answer is: no longer than the run; None: it is over."""
        few, many = TOKENS
        drawn = int(few * (many / few) ** self._rng.random())
        if self._lasts_s is None:
            return drawn
        most = int((self._lasts_s - self._at_s() - _END_S) / (self._token_s * _SLOWER))
        return min(drawn, most) if most >= few else None

    async def _turn(
        self, talk: str, target: Target, able: bool, tokens: int, http: aiohttp.ClientSession
    ) -> float | None:
        """One answer. In how many seconds to ask again, where it was not let in; None: as one likes."""
        began_s = self._at_s()
        reply = await self._ask(talk, target, able, tokens, http)
        if reply.error == "shed":
            return float(reply.headers.get("Retry-After", "1"))
        whole = reply.error is None and reply.heard.whole(tokens)
        turn = Turn(
            talk=talk,
            able=able,
            tokens=tokens,
            began_at_s=began_s,
            ended_at_s=self._at_s(),
            endpoint=reply.headers.get("x-tradewind-endpoint", ""),
            whole=whole,
            error=reply.error or (None if whole else "truncated"),
        )
        self.turns.append(turn)
        if able:
            self._seen(_outcome(turn, target, reply))
        return None

    async def _ask(self, talk: str, target: Target, able: bool, tokens: int, http: aiohttp.ClientSession) -> _Reply:
        reply = _Reply()
        url, headers = f"{target.url}/v1/chat/completions", _headers(target, talk)
        try:
            async with http.post(url, data=_body(target, tokens, able), headers=headers) as answer:
                reply.headers = dict(answer.headers)
                if answer.status != 200:
                    reply.error = "shed" if SHED_HEADER in answer.headers else kind_of_status(answer.status)
                    return reply
                async for piece in answer.content.iter_any():
                    reply.first_at_s = reply.first_at_s or self._at_s()
                    reply.heard.feed(piece)
        except (aiohttp.ClientError, TimeoutError, ConnectionError) as failure:
            reply.error = kind_of_error(failure, answered=bool(reply.headers))
        except (msgspec.MsgspecError, LookupError):  # no event of ours
            reply.error = "truncated"
        return reply


@dataclass(slots=True)
class _Reply:
    """What came back."""

    heard: Heard = field(default_factory=Heard)
    headers: Mapping[str, str] = field(default_factory=dict)
    error: ErrorKind | None = None
    first_at_s: float | None = None


def _outcome(turn: Turn, target: Target, reply: _Reply) -> Outcome:
    """The turn as a request of the run like any other."""
    first_s, attempts = reply.first_at_s, reply.headers.get("x-tradewind-attempts", "")
    return Outcome(
        at_s=turn.began_at_s,
        origin=target.origin,
        cls=target.cls,
        stream=True,
        ok=turn.whole,
        error=turn.error,
        ttft_ms=None if first_s is None else (first_s - turn.began_at_s) * 1000.0,
        total_ms=(turn.ended_at_s - turn.began_at_s) * 1000.0,
        endpoint=turn.endpoint or None,
        region=reply.headers.get("x-tradewind-region"),
        attempts=int(attempts) if attempts.isdecimal() else None,
        table=reply.headers.get("x-tradewind-table"),
        taken_as=reply.headers.get("x-tradewind-class"),
    )


def _headers(target: Target, talk: str) -> dict[str, str]:
    return {
        "Authorization": f"Bearer {target.api_key}",
        "Content-Type": "application/json",
        "x-tradewind-session": talk,
        ORIGIN_HEADER: target.origin,
        CLASS_HEADER: target.cls,
    }


def _body(target: Target, tokens: int, able: bool) -> bytes:
    body: dict[str, object] = {
        "model": target.model,
        "messages": [{"role": "user", "content": "and then?"}],
        "max_tokens": tokens,
        "stream": True,
    }
    return msgspec.json.encode(body if able else body | {"tools": [_TOOL]})
