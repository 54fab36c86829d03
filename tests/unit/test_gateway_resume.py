"""What a journal makes of a stream that is to go on elsewhere: the text so far, fewer tokens, and when it cannot be."""

from __future__ import annotations

import json
from typing import Any

import pytest

from router_sync.gateway.resume import Journal, speaks

CHAT = "/v1/chat/completions"
USER = {"role": "user", "content": "Go"}


def delta(**said: Any) -> bytes:
    return b"data: " + json.dumps({"id": "A", "choices": [{"index": 0, "delta": said}]}).encode() + b"\n\n"


def journal(**asked: Any) -> Journal | None:
    return Journal.of(CHAT, json.dumps({"model": "m", "messages": [USER], **asked}).encode())


def rest_of(*said: bytes, **asked: Any) -> dict[str, Any] | None:
    one = journal(**asked)
    assert one is not None
    for events in said:
        one.passing(events)
    rest = one.rest()
    return None if rest is None else json.loads(rest)


def test_what_was_said_is_the_beginning_of_the_answer_and_its_tokens_are_spent() -> None:
    rest = rest_of(delta(content="The"), delta(content=" wind"), max_tokens=10, min_tokens=1)
    assert rest is not None
    assert rest["messages"] == [USER, {"role": "assistant", "content": "The wind"}]
    assert (rest["max_tokens"], rest["min_tokens"]) == (8, 0)
    assert (rest["continue_final_message"], rest["add_generation_prompt"]) == (True, False)


def test_an_answer_that_the_caller_began_himself_is_one_message() -> None:
    begun = [USER, {"role": "assistant", "content": "The w"}]
    asked = {"messages": begun, "continue_final_message": True, "add_generation_prompt": False}
    rest = rest_of(delta(content="ind"), **asked)
    assert rest is not None
    assert rest["messages"] == [USER, {"role": "assistant", "content": "The wind"}]


def test_before_the_first_word_the_request_is_repeated_as_it_was() -> None:
    rest = rest_of(delta(role="assistant", content=""), max_tokens=3)
    assert rest == {"model": "m", "messages": [USER], "max_tokens": 3}


@pytest.mark.parametrize("more", ["reasoning_content", "reasoning", "tool_calls", "refusal"])
def test_what_the_text_does_not_show_cannot_be_asked_for(more: str) -> None:
    assert rest_of(delta(**{more: [{"x": 1}]})) is None


def test_nothing_is_asked_for_when_all_tokens_are_spent() -> None:
    assert rest_of(delta(content="a"), delta(content="b"), max_completion_tokens=2) is None


@pytest.mark.parametrize("asked", [{"tools": [{}]}, {"guided_json": {"type": "object"}}, {"messages": "Go"}, {"n": 2}])
def test_some_answers_are_not_followed_at_all(asked: dict[str, Any]) -> None:
    assert journal(**asked) is None


def test_it_knows_how_much_may_come() -> None:
    one, endless = journal(max_tokens=5, max_completion_tokens=4), journal()
    assert one is not None
    assert endless is not None
    one.passing(delta(content="a") + delta(content="b"))
    assert (one.to_come(), endless.to_come()) == (2, None)


def test_words_and_the_end_speak_and_a_role_does_not() -> None:
    assert not speaks(delta(role="assistant", content=""))
    assert speaks(delta(content="a"))
    assert speaks(b"data: [DONE]\n\n")
