"""Callers name the service, endpoints their own model: the one becomes the other on the way out, and back in answers.

    {"model": "chat", ...}  ─►  {"model": "meta-llama/Llama-3.1-8B", ...}
    {"model": "chat", ...}  ◄─  {"model": "meta-llama/Llama-3.1-8B", ...}     and in each event of a stream

On the way back only a `model` that is exactly what was asked for is called by the service's name again: another one (a
dated version of it) is news, and stays. What is larger than `max_answer_bytes` goes through as it is. The answer's
header x-tradewind-model says the endpoint's name in any case.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

import msgspec

from router_sync.gateway.refusal import Refusal

_fields: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_encode: Final = msgspec.json.Encoder().encode


def asked_as(body: bytes, model: str) -> bytes:
    """`body`, a JSON object, with its `model` changed or added; all other values keep their very bytes.

    >>> asked_as(b'{"model": "chat", "temperature": 0.50}', "llama-8b")
    b'{"model":"llama-8b","temperature":0.50}'

    Raises Refusal 400 when it is no object.
    """
    try:
        fields = _fields.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise Refusal(400, "invalid_json", "The request body has to be a JSON object.") from None
    fields["model"] = msgspec.Raw(_encode(model))
    return _encode(fields)


def answered_as(text: bytes, model: str, service: str) -> bytes:
    """`text`, an answer or whole events, with `model` called `service`.

    >>> answered_as(b'data: {"model": "llama-8b"}', "llama-8b", "chat")
    b'data: {"model": "chat"}'
    """
    # inside a string a quote is written with a backslash before it, so this is a field and never what a model says
    pattern, name = _renaming(model, service)
    return pattern.sub(name, text) if b'"model"' in text else text


@lru_cache(maxsize=4096)
def _renaming(model: str, service: str) -> tuple[re.Pattern[bytes], bytes]:
    name = b"\\1" + _encode(service).replace(b"\\", b"\\\\")
    return re.compile(rb'(?<!\\)("model"\s*:\s*)' + re.escape(_encode(model))), name
