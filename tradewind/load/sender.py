"""Sends one chat completion through a gateway and judges the answer as a strict caller would."""

from collections.abc import Callable
from types import TracebackType
from typing import Any

import aiohttp
import msgspec

from tradewind.load.drive import Shot, Target
from tradewind.load.outcome import ErrorKind, Outcome
from tradewind.pretend.settings import CLASS_HEADER, ORIGIN_HEADER

CONNECT_TIMEOUT_S = 3.0
SILENCE_TIMEOUT_S = 15.0  # longest wait for headers, and between two pieces of an answer
TOTAL_TIMEOUT_S = 120.0
PROMPT_CHARS_MAX = 4_000  # a longer prompt costs the machine of a demo more than it shows
SHED_HEADER = "x-tradewind-shed"
_DONE = b"data: [DONE]"
_ERROR_EVENT = b'data: {"error"'
_TAIL = 64
_FILLER = ("where does the wind carry what we ask of it and who answers first " * 64).encode()[:PROMPT_CHARS_MAX]


class _Whole(msgspec.Struct):
    """The least a whole plain answer has."""

    choices: list[msgspec.Raw]


_decode_whole = msgspec.json.Decoder(_Whole).decode


class HttpSender:
    """`await sender(shot, late_ms)` is a `send` for `drive`; use it in `async with`. Never raises for a bad answer."""

    def __init__(
        self,
        monotonic_s: Callable[[], float],
        *,
        silence_timeout_s: float = SILENCE_TIMEOUT_S,
        total_timeout_s: float = TOTAL_TIMEOUT_S,
    ) -> None:
        self._monotonic_s = monotonic_s
        self._timeout = aiohttp.ClientTimeout(
            total=total_timeout_s, sock_connect=CONNECT_TIMEOUT_S, sock_read=silence_timeout_s
        )
        self._session: aiohttp.ClientSession | None = None
        self._headers: dict[Target, dict[str, str]] = {}

    async def __aenter__(self) -> "HttpSender":
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=15.0)  # how many are open is the driver's to say
        self._session = aiohttp.ClientSession(connector=connector, timeout=self._timeout)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def __call__(self, shot: Shot, late_ms: float = 0.0) -> Outcome:
        attempt = _Attempt(shot, late_ms, self._monotonic_s)
        if self._session is None:
            raise RuntimeError("HttpSender is used outside of `async with`")
        target = shot.target
        try:
            async with self._session.post(
                f"{target.url}/v1/chat/completions", data=request_body(shot), headers=self._headers_of(target)
            ) as response:
                return await attempt.judge(response)
        except (aiohttp.ClientError, TimeoutError, ConnectionError) as error:
            return attempt.failed(error)

    def _headers_of(self, target: Target) -> dict[str, str]:
        if target not in self._headers:
            bearer = f"Bearer {target.api_key}"
            self._headers[target] = {
                "Authorization": bearer,
                "Content-Type": "application/json",
                ORIGIN_HEADER: target.origin,
                CLASS_HEADER: target.cls,
            }
        return self._headers[target]


class _Attempt:
    """One request under way."""

    def __init__(self, shot: Shot, late_ms: float, monotonic_s: Callable[[], float]) -> None:
        self._shot = shot
        self._late_ms = late_ms
        self._monotonic_s = monotonic_s
        self._sent_at_s = monotonic_s()
        self._response: aiohttp.ClientResponse | None = None
        self._ttft_ms: float | None = None

    async def judge(self, response: aiohttp.ClientResponse) -> Outcome:
        self._response = response
        if response.status != 200:
            await response.read()
            shed = SHED_HEADER in response.headers
            return self._outcome("shed" if shed else kind_of_status(response.status))
        whole = await (self._read_stream(response) if self._shot.stream else _is_whole(response))
        return self._outcome(None if whole else "truncated")

    def failed(self, error: Exception) -> Outcome:
        return self._outcome(kind_of_error(error, answered=self._response is not None))

    async def _read_stream(self, response: aiohttp.ClientResponse) -> bool:
        """Whether the stream ended with [DONE] and told of no error; keeps no more than its tail."""
        tail, faulty = b"", False
        async for piece in response.content.iter_any():
            tail += piece
            if self._ttft_ms is None and b"data:" in tail:
                self._ttft_ms = self._elapsed_ms()
            faulty = faulty or _ERROR_EVENT in tail
            tail = tail[-_TAIL:]
        return tail.rstrip().endswith(_DONE) and not faulty

    def _elapsed_ms(self) -> float:
        return (self._monotonic_s() - self._sent_at_s) * 1000.0

    def _outcome(self, error: ErrorKind | None) -> Outcome:
        shot, response = self._shot, self._response
        headers: Any = response.headers if response is not None else {}
        attempts = headers.get("x-tradewind-attempts", "")
        return Outcome(
            at_s=shot.at_s,
            origin=shot.target.origin,
            cls=shot.target.cls,
            stream=shot.stream,
            ok=error is None,
            error=error,
            status=response.status if response is not None else None,
            late_ms=self._late_ms,
            ttft_ms=self._ttft_ms,
            total_ms=self._elapsed_ms(),
            endpoint=headers.get("x-tradewind-endpoint"),
            region=headers.get("x-tradewind-region"),
            attempts=int(attempts) if attempts.isdecimal() else None,
            table=headers.get("x-tradewind-table"),
            taken_as=headers.get("x-tradewind-class"),
        )


def request_body(shot: Shot) -> bytes:
    """The JSON of one chat completion: about four characters of prompt a token, up to 4,000."""
    prompt = _FILLER[: min(4 * shot.input_tokens, PROMPT_CHARS_MAX)].decode()
    body: dict[str, object] = {
        "model": shot.target.model,
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": shot.output_tokens,
    }
    if shot.stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    return msgspec.json.encode(body)


def kind_of_error(error: Exception, *, answered: bool) -> ErrorKind:
    """The kind of a failure that is no answer; `answered` when the headers of one had come.

    >>> kind_of_error(TimeoutError(), answered=False), kind_of_error(TimeoutError(), answered=True)
    ('first_byte_timeout', 'stall')
    """
    if isinstance(error, (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)):
        return "connect"
    if isinstance(error, TimeoutError):
        return "stall" if answered else "first_byte_timeout"
    return "truncated" if answered else "reset"


def kind_of_status(status: int) -> ErrorKind:
    if status == 429:
        return "http_429"
    return "client_4xx" if 400 <= status < 500 else "http_5xx"


async def _is_whole(response: aiohttp.ClientResponse) -> bool:
    try:
        return bool(_decode_whole(await response.read()).choices)
    except msgspec.DecodeError:
        return False
