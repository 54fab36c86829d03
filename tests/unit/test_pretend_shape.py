"""The OpenAI shapes: what is refused, and with which words."""

import json

import pytest

from tradewind.pretend import shape

GOOD = {"model": "m", "messages": [{"role": "user", "content": "wind " * 8}], "max_tokens": 5}


def refusal(body: bytes, limit: int = 100) -> tuple[int, dict[str, str | None]]:
    with pytest.raises(shape.Refusal) as caught:
        shape.parse_ask(body, ("m", "n"), limit)
    return caught.value.status, json.loads(caught.value.body())["error"]


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": "hello"}, "messages"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": "many"}, "max_tokens"),
        ({"stream": "yes"}, "stream"),
        ({"model": None}, "model"),
    ],
)
def test_a_wrong_field_is_a_400_that_names_it(change: dict[str, object], param: str) -> None:
    status, error = refusal(json.dumps(GOOD | change).encode())
    assert (status, error["type"], error["param"]) == (400, "invalid_request_error", param)
    assert set(error) == {"message", "type", "param", "code"}


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"messages": []}', b'{"model": "\xff"}'])
def test_a_body_that_is_no_request_is_a_400(body: bytes) -> None:
    assert refusal(body)[0] == 400


def test_an_unknown_model_is_a_404_that_lists_the_known_ones() -> None:
    status, error = refusal(json.dumps(GOOD | {"model": "x"}).encode())
    assert (status, error["code"]) == (404, "model_not_found")
    assert "m, n" in str(error["message"])


def test_too_long_a_request_says_how_long_and_the_limit() -> None:
    status, error = refusal(json.dumps(GOOD).encode(), limit=18)
    assert (status, error["code"]) == (400, "context_length_exceeded")
    assert "19 tokens" in str(error["message"])
    assert "limit of 18" in str(error["message"])


def test_content_in_parts_is_counted_as_its_text_is() -> None:
    parts = GOOD | {"messages": [{"role": "user", "content": [{"type": "text", "text": "wind " * 8}]}]}
    asks = [shape.parse_ask(json.dumps(body).encode(), ("m",), 100) for body in (GOOD, parts)]
    assert asks[0].prompt_tokens == asks[1].prompt_tokens == 14
