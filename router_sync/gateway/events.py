"""Server-sent events on their way through: only whole ones go out, and an end is only an end with [DONE]."""

from __future__ import annotations

from typing import Final

import msgspec

_DONE: Final = b"[DONE]"
_LONGEST: Final = 1 << 20


class _Usage(msgspec.Struct, frozen=True):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class _Used(msgspec.Struct, frozen=True):
    usage: _Usage | None = None


_decoder: Final = msgspec.json.Decoder(_Used)
Tokens = tuple[int | None, int | None]
UNKNOWN: Final[Tokens] = (None, None)


class Events:
    """Pieces go in as they come, whole events come out; what is left at the end was broken off."""

    __slots__ = ("_rest", "_used", "done")

    def __init__(self) -> None:
        self._rest = b""
        self._used = b""
        self.done = False
        """[DONE] went by."""

    def feed(self, piece: bytes) -> bytes:
        """All that is whole now; empty when no event is. An event beyond 1 MiB goes out in parts."""
        text = self._rest + piece if self._rest else piece
        cut = _last_end(text)
        if not cut and len(text) > _LONGEST:
            cut = len(text)
        whole, self._rest = text[:cut], text[cut:]
        if _DONE in whole:
            self.done = True
        if b'"usage"' in whole:
            self._used = whole
        return whole

    def rest(self) -> bytes:
        """What has not gone out: an event without its blank line."""
        return self._rest

    def tokens(self) -> Tokens:
        """(in, out) as the last event with a usage says."""
        for line in reversed(self._used.split(b"\n")):
            if line.startswith(b"data:") and b'"usage"' in line:
                return tokens_of(line[5:])
        return UNKNOWN


def tokens_of(body: bytes) -> Tokens:
    """(in, out) of a JSON answer; None where it does not say."""
    try:
        usage = _decoder.decode(body).usage
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return UNKNOWN
    if usage is None:
        return UNKNOWN
    return _count(usage.prompt_tokens), _count(usage.completion_tokens)


def _count(said: int | None) -> int | None:
    return said if said is not None and 0 <= said < 1 << 32 else None


def _last_end(text: bytes) -> int:
    """Just behind the last blank line; 0 when there is none."""
    at = text.rfind(b"\n\n")
    crlf = text.rfind(b"\r\n\r\n")
    return max(at + 2 if at >= 0 else 0, crlf + 4 if crlf >= 0 else 0)
