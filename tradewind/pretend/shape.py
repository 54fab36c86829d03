"""The OpenAI chat API's shapes: a request read strictly, answers and errors written as callers expect them."""

import re
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, UnsetType

_VOCABULARY = ("the", "wind", "turns", "and", "every", "sail", "that", "waits", "for", "it", "is", "set", "again")
_TEXT = [" " + _VOCABULARY[i % len(_VOCABULARY)] for i in range(4096)]
_PARAM = re.compile(r"`\$\.(\w+)|required field `(\w+)`")
_encode = msgspec.json.Encoder().encode
DONE = b"data: [DONE]\n\n"

_Positive = Annotated[int, msgspec.Meta(ge=1)]


class Refusal(Exception):
    """A request this endpoint does not serve; carries the answer's status and OpenAI's error fields."""

    def __init__(self, status: int, message: str, kind: str, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self._fields = {"message": message, "type": kind, "param": param, "code": code}

    def body(self) -> bytes:
        return _encode({"error": self._fields})


class Part(msgspec.Struct, frozen=True):
    type: str
    text: str = ""


class Message(msgspec.Struct, frozen=True):
    role: str
    content: str | list[Part] | None = None


class StreamOptions(msgspec.Struct, frozen=True):
    include_usage: bool = False


class Ask(msgspec.Struct, frozen=True):
    """A chat completion asked for; fields this endpoint has no use for are ignored."""

    model: str
    messages: Annotated[list[Message], msgspec.Meta(min_length=1)]
    stream: bool = False
    stream_options: StreamOptions | None = None
    max_tokens: _Positive | None = None
    max_completion_tokens: _Positive | None = None
    continue_final_message: bool = False

    @property
    def prompt_tokens(self) -> int:
        """About four characters a token and four tokens a message."""
        return sum(4 + _characters(message) // 4 for message in self.messages)

    @property
    def output_limit(self) -> int | None:
        return self.max_completion_tokens or self.max_tokens

    @property
    def begun_tokens(self) -> int:
        """Tokens of the answer that the caller has already, when this is to go on with it."""
        last = self.messages[-1]
        if not self.continue_final_message or last.role != "assistant" or not isinstance(last.content, str):
            return 0
        return last.content.count(" ")

    @property
    def wants_usage(self) -> bool:
        return self.stream_options is not None and self.stream_options.include_usage


_decode_ask = msgspec.json.Decoder(Ask).decode


def parse_ask(body: bytes, models: tuple[str, ...], max_model_tokens: int) -> Ask:
    """The request in `body`; `Refusal` with status 400 or 404 says what is wrong with it."""
    try:
        ask = _decode_ask(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _invalid(str(error), _param_of(str(error))) from error
    if ask.model not in models:
        served = ", ".join(models)
        message = f"The model `{ask.model}` does not exist here; this endpoint serves: {served}."
        raise Refusal(404, message, "invalid_request_error", "model", "model_not_found")
    total = ask.prompt_tokens + (ask.output_limit or 0)
    if total > max_model_tokens:
        message = f"{total} tokens (prompt and max_tokens) exceed the limit of {max_model_tokens}; shorten either."
        raise _invalid(message, "messages", "context_length_exceeded")
    return ask


def _invalid(message: str, param: str | None, code: str | None = None) -> Refusal:
    return Refusal(400, message, "invalid_request_error", param, code)


def _param_of(message: str) -> str | None:
    found = _PARAM.search(message)
    return (found[1] or found[2]) if found else None


def _characters(message: Message) -> int:
    if isinstance(message.content, list):
        return sum(len(part.text) for part in message.content)
    return len(message.content or "")


def text_of(start: int, tokens: int) -> str:
    """Tokens `start` to `start + tokens` of the text every answer consists of."""
    return "".join(_TEXT[(start + i) % len(_TEXT)] for i in range(tokens))


def usage_of(prompt_tokens: int, output_tokens: int) -> dict[str, int]:
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": output_tokens,
        "total_tokens": prompt_tokens + output_tokens,
    }


def completion(answer_id: str, created: int, ask: Ask, output_tokens: int, finish_reason: str) -> bytes:
    """The whole answer of a plain request."""
    message = {"role": "assistant", "content": text_of(ask.begun_tokens, output_tokens)}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish_reason}
    return _encode(
        {
            "id": answer_id,
            "object": "chat.completion",
            "created": created,
            "model": ask.model,
            "choices": [choice],
            "usage": usage_of(ask.prompt_tokens, output_tokens),
        }
    )


class _Delta(msgspec.Struct, frozen=True):
    role: str | UnsetType = UNSET
    content: str | UnsetType = UNSET


class _Choice(msgspec.Struct, frozen=True):
    index: int
    delta: _Delta
    logprobs: None
    finish_reason: str | None


class _Chunk(msgspec.Struct, frozen=True):
    id: str
    object: str
    created: int
    model: str
    choices: list[_Choice]
    usage: dict[str, int] | UnsetType | None = UNSET


class Chunks:
    """The server-sent events of one streamed answer, as bytes."""

    def __init__(self, answer_id: str, created: int, ask: Ask) -> None:
        self._id, self._created, self._ask = answer_id, created, ask
        self._usage: UnsetType | None = None if ask.wants_usage else UNSET

    def opening(self) -> bytes:
        return self._event([_Choice(0, _Delta(role="assistant", content=""), None, None)], self._usage)

    def tokens(self, start: int, count: int) -> bytes:
        content = text_of(self._ask.begun_tokens + start, count)
        return self._event([_Choice(0, _Delta(content=content), None, None)], self._usage)

    def closing(self, output_tokens: int, finish_reason: str) -> bytes:
        """The finish reason, the usage where it was asked for, and `[DONE]`."""
        last = self._event([_Choice(0, _Delta(), None, finish_reason)], self._usage)
        if not self._ask.wants_usage:
            return last + DONE
        return last + self._event([], usage_of(self._ask.prompt_tokens, output_tokens)) + DONE

    def _event(self, choices: list[_Choice], usage: dict[str, int] | UnsetType | None) -> bytes:
        chunk = _Chunk(self._id, "chat.completion.chunk", self._created, self._ask.model, choices, usage)
        return b"data: " + _encode(chunk) + b"\n\n"


def models_body(models: tuple[str, ...], created: int) -> bytes:
    data = [{"id": model, "object": "model", "created": created, "owned_by": "tradewind"} for model in models]
    listing: dict[str, Any] = {"object": "list", "data": data}
    return _encode(listing)
