"""A stream that broke off goes on elsewhere: what the caller has becomes the beginning of an answer to be continued.

    begun at A:   data: {.. "content":"The wind"}   ✗
    asked of B:   messages + {"role":"assistant","content":"The wind"}, continue_final_message, fewer max_tokens
    goes on:      data: {.. "content":" turns"} … data: [DONE]          under A's answer id

Only chat completions with one plain choice can be continued: tools, logprobs and guided decoding keep state that the
text does not show, and thoughts are no part of it. The parameters are vLLM's and SGLang's; an endpoint says that it
knows them by `continues`. Tokens are counted as events with content, one each as these engines send them. Idea: NVIDIA
Dynamo's request migration.
"""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

_PATH: Final = "/v1/chat/completions"
_KEPT_BYTES: Final = 1 << 20
_STATEFUL: Final = (
    "tools", "functions", "logprobs", "response_format", "guided_json", "guided_regex", "guided_choice",
    "guided_grammar", "structured_outputs", "logit_bias",
)  # fmt: skip
_LIMITS: Final = ("max_tokens", "max_completion_tokens")
_ID: Final = re.compile(rb'"id":\s*"([^"]{1,200})"')
_WORDS: Final = re.compile(rb'"(?:content|finish_reason)":\s*"[^"]|\[DONE\]')


class _Delta(msgspec.Struct, frozen=True):
    content: str | None = None
    tool_calls: Any = None
    function_call: Any = None
    reasoning_content: Any = None
    reasoning: Any = None
    refusal: Any = None
    audio: Any = None

    @property
    def more(self) -> bool:
        """Whether it says what the text does not show."""
        others = (self.tool_calls, self.function_call, self.reasoning_content, self.reasoning, self.refusal, self.audio)
        return any(others)


class _Choice(msgspec.Struct, frozen=True):
    index: int = 0
    delta: _Delta = _Delta()
    finish_reason: str | None = None


class _Event(msgspec.Struct, frozen=True):
    choices: tuple[_Choice, ...] = ()


_decoder: Final = msgspec.json.Decoder(_Event)


class Journal:
    """What went out of one stream, as it went, up to 1 MiB; beyond that it cannot be continued."""

    __slots__ = ("_begun_id", "_request", "_sent", "_size", "_their_id", "events")

    def __init__(self, request: dict[str, Any]) -> None:
        self.events = 0
        """That went out; about as many as tokens."""
        self._request = request
        self._sent: list[bytes] = []
        self._size = 0
        self._begun_id = b""
        self._their_id = b""

    @classmethod
    def of(cls, path: str, body: bytes) -> Journal | None:
        """A journal of the answer to this request, None when such an answer cannot be continued."""
        if path != _PATH:
            return None
        request = msgspec.json.decode(body)
        messages = request.get("messages")
        chat = isinstance(messages, list) and all(isinstance(message, dict) for message in messages)
        plain = chat and request.get("n") in (None, 1) and not any(request.get(field) for field in _STATEFUL)
        return cls(request) if plain else None

    def passing(self, events: bytes) -> bytes:
        """Note whole events on their way out; those of a continuation come back under the first answer's id."""
        if self._their_id == b"" and (found := _ID.search(events)):
            self._their_id = found[1]
            if self._begun_id:
                events = _without_opening(events)
            else:
                self._begun_id = found[1]
        if self._their_id != self._begun_id:
            theirs = re.compile(rb'("id":\s*")' + re.escape(self._their_id) + b'"')
            events = theirs.sub(lambda found: found[1] + self._begun_id + b'"', events)
        self.events += events.count(b"\n\n")
        self._size += len(events)
        if self._size <= _KEPT_BYTES:
            self._sent.append(events)
        return events

    def to_come(self) -> int | None:
        """Events that may still come, at most; None where the caller named no limit."""
        asked = [limit for name in _LIMITS if isinstance(limit := self._request.get(name), int)]
        return max(0, min(asked) - self.events) if asked else None

    def rest(self) -> bytes | None:
        """The request for what is still to come; None when nothing is, or it cannot be asked for."""
        if self._size > _KEPT_BYTES or (told := self._told()) is None:
            return None
        text, tokens = told
        asked = _less(self._request, tokens)
        if asked is None:
            return None
        self._their_id = b""
        if text:
            asked["messages"] = _begun(asked, text)
            asked |= {"continue_final_message": True, "add_generation_prompt": False}
        return msgspec.json.encode(asked)

    def _told(self) -> tuple[str, int] | None:
        """(text, tokens) the caller has; None when it cannot be told or was the whole of it."""
        pieces: list[str] = []
        for line in b"".join(self._sent).splitlines():
            if not line.startswith(b"data:"):
                continue
            try:
                choices = _decoder.decode(line[5:]).choices
            except (msgspec.MsgspecError, UnicodeDecodeError):
                return None
            for choice in choices:
                if choice.index != 0 or choice.finish_reason is not None or choice.delta.more:
                    return None
                if choice.delta.content:
                    pieces.append(choice.delta.content)
        return "".join(pieces), len(pieces)


def speaks(events: bytes) -> bool:
    """Whether they hold words, or the end: a first event may only name the role, before anything is made."""
    return _WORDS.search(events) is not None


def _less(request: dict[str, Any], tokens: int) -> dict[str, Any] | None:
    """The request with limits as they are after so many tokens; None when no more may come."""
    asked = dict(request)
    for limit in _LIMITS:
        if isinstance(asked.get(limit), int):
            asked[limit] -= tokens
            if asked[limit] <= 0:
                return None
    if isinstance(asked.get("min_tokens"), int):
        asked["min_tokens"] = max(0, asked["min_tokens"] - tokens)
    return asked


def _begun(asked: dict[str, Any], text: str) -> list[Any]:
    """The messages with `text` as the beginning of the answer: behind what the caller himself began of it."""
    messages: list[Any] = asked["messages"]
    last = messages[-1] if asked.get("continue_final_message") and messages else {}
    if last.get("role") == "assistant" and isinstance(said := last.get("content"), str):
        return [*messages[:-1], {**last, "content": said + text}]
    return [*messages, {"role": "assistant", "content": text}]


def _without_opening(events: bytes) -> bytes:
    """Without a first event that only names the role: the caller has it."""
    first, end, others = events.partition(b"\n\n")
    return others if end and b'"role"' in first and b'"content":""' in first.replace(b" ", b"") else events
