"""How large a request is, in tokens, and so of which class: simple ones may have a class of their own.

    {"messages": [{"content": "Where does the wind go?"}], "max_tokens": 64, "n": 1}   ─►   23 // 4 + 64 = 69
    {"messages": [{"content": "Where does the wind go?"}]}                             ─►   None: nobody knows

The estimate is four bytes a token for what is said, and what may be answered. It need not be good, only never far too
small: tools, schemas and pictures count with all their bytes.
"""

from __future__ import annotations

from typing import Final

import msgspec

from router_sync.client import Picker
from router_sync.gateway.ask import Ask

BYTES_PER_TOKEN: Final = 4
_NO_OUTPUT: Final = frozenset(
    f"/v1/{path}" for path in ("embeddings", "moderations", "rerank", "score", "classify", "pooling")
)
"""They answer with numbers: there is no limit to ask for."""


class _Message(msgspec.Struct, frozen=True):
    content: msgspec.Raw = msgspec.Raw(b"")
    tool_calls: msgspec.Raw = msgspec.Raw(b"")


class _Said(msgspec.Struct, frozen=True):
    """The fields that make a request large; chat, completions, responses and messages name them differently."""

    messages: tuple[_Message, ...] = ()
    prompt: msgspec.Raw = msgspec.Raw(b"")
    input: msgspec.Raw = msgspec.Raw(b"")
    system: msgspec.Raw = msgspec.Raw(b"")
    instructions: msgspec.Raw = msgspec.Raw(b"")
    documents: msgspec.Raw = msgspec.Raw(b"")
    tools: msgspec.Raw = msgspec.Raw(b"")
    response_format: msgspec.Raw = msgspec.Raw(b"")
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    max_output_tokens: int | None = None
    n: int | None = None


_decoder: Final = msgspec.json.Decoder(_Said)


def by_size(asked: Ask, picker: Picker, origin: str, class_: str, path: str, assumed: int | None) -> str:
    """The class that a request of `class_` is taken as of: its `simple_class`, where it has one and is small enough."""
    route = picker.route(origin, class_)
    if route is None or not route.simple_class or asked.api == "http" or not isinstance(asked.body, bytes):
        return class_
    simple = picker.route(origin, route.simple_class)
    if simple is None or not simple.endpoints:
        return class_
    tokens = tokens_of(asked.body, path, assumed)
    return class_ if tokens is None or tokens > route.simple_tokens else simple.class_


def tokens_of(body: bytes, path: str, assumed: int | None) -> int | None:
    """Tokens of the request in `body` and of the longest answer it allows; None: nobody knows.

    `assumed` is taken for the answer's where the request names no limit.
    """
    try:
        said = _decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    output = _output(said, path, assumed)
    return None if output is None else _bytes(said) // BYTES_PER_TOKEN + output


def _bytes(said: _Said) -> int:
    others = (
        said.prompt, said.input, said.system, said.instructions, said.documents, said.tools, said.response_format
    )  # fmt: skip
    return sum(map(_length, others)) + sum(_length(m.content) + _length(m.tool_calls) for m in said.messages)


def _length(raw: msgspec.Raw) -> int:
    """Of the JSON; a text is without its quotes."""
    whole = memoryview(raw)
    return max(0, whole.nbytes - 2) if whole.nbytes and whole[0] == 0x22 else whole.nbytes


def _output(said: _Said, path: str, assumed: int | None) -> int | None:
    if path in _NO_OUTPUT:
        return 0
    limits = [n for n in (said.max_completion_tokens, said.max_tokens, said.max_output_tokens) if n is not None]
    each = max(limits) if limits else assumed
    return None if each is None else max(0, each) * max(1, said.n or 1)
