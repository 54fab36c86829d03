"""How large a request is, and of which class it is taken because of that; what fleets may declare of it."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from router_sync.client import Picker
from router_sync.fleet import misfits
from router_sync.gateway.ask import Ask
from router_sync.gateway.size import by_size, tokens_of
from streams.contract.records import RequestClass, Route, RoutingTable
from tests.unit.router_fleet import fleet, request_class
from tests.unit.test_router_decides import table

CHAT = "/v1/chat/completions"


def sized(path: str = CHAT, assumed: int | None = None, **body: Any) -> int | None:
    return tokens_of(json.dumps({"model": "m", **body}).encode(), path, assumed)


def said(*texts: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": text} for text in texts]


def test_four_bytes_are_a_token_and_the_limit_is_added() -> None:
    assert sized(messages=said("a" * 400), max_tokens=50) == 150
    assert sized(messages=said("a" * 200, "a" * 200), max_tokens=50) == 150
    assert sized(prompt="a" * 400, max_tokens=50) == 150
    assert sized("/v1/responses", input="a" * 400, max_output_tokens=50) == 150


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens", "max_output_tokens"])
def test_each_name_of_the_limit_counts_and_of_several_the_largest(field: str) -> None:
    assert sized(messages=said("abcd"), **{field: 7}) == 8
    assert sized(messages=said("abcd"), **{"max_tokens": 3, field: 7}) == 8


def test_several_answers_count_several_times() -> None:
    assert sized(messages=said("abcd"), max_tokens=10, n=3) == 31


def test_without_a_limit_nobody_knows_unless_one_is_assumed() -> None:
    assert sized(messages=said("abcd")) is None
    assert sized(messages=said("abcd"), assumed=20) == 21
    assert sized(messages=said("abcd"), max_tokens=None, assumed=20) == 21


def test_embeddings_answer_with_no_tokens() -> None:
    assert sized("/v1/embeddings", input=["a" * 100, "a" * 100]) == pytest.approx(50, abs=3)


def test_pictures_tools_and_foreign_letters_are_never_counted_as_less() -> None:
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 4000}}
    assert (sized(messages=said([picture]), max_tokens=1) or 0) > 1000
    assert (sized(messages=said("a"), tools=[{"x": "a" * 4000}], max_tokens=1) or 0) > 1000
    assert (sized(messages=said("風" * 400), max_tokens=1) or 0) >= 300


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"messages": 3, "max_tokens": 5}', b'{"max_tokens": "5"}'])
def test_what_cannot_be_read_is_not_simple(body: bytes) -> None:
    assert tokens_of(body, CHAT, 5) is None


# ---------------------------------------------------------------- the class it is taken as of


def picker(*, simple: str = "edge", tokens: int = 100, ends: tuple[str, ...] = ("a",)) -> Picker:
    def route(class_: str, **more: Any) -> Route:
        shares = (1.0,) if more.get("endpoints", ("a",)) else ()
        return Route(
            **{"origin": "eu", "class_": class_, "slo_p95_ms": 300, "endpoints": ("a",), "shares": shares} | more
        )

    routes = (route("chat", simple_class=simple, simple_tokens=tokens), route("edge", endpoints=ends))
    table = RoutingTable(
        service="m", epoch=1, version=1, issued_at_s=0, expires_at_s=1e9, fleet_version=1, default_class="chat",
        endpoints=(), routes=routes,
    )  # fmt: skip
    return Picker(table, rng=random.Random(1), clock=lambda: 0.0)


def ask(length: int, api: Any = "openai") -> Ask:
    body = json.dumps({"model": "m", "messages": said("a" * length), "max_tokens": 50}).encode()
    return Ask("m", False, body, None, api)


def test_simple_requests_are_taken_as_of_their_own_class_up_to_the_last_token() -> None:
    assert by_size(ask(200), picker(), "eu", "chat", CHAT, None) == "edge"
    assert by_size(ask(204), picker(), "eu", "chat", CHAT, None) == "chat"


@pytest.mark.parametrize(
    "without", [picker(simple=""), picker(simple="nowhere"), picker(ends=())], ids=["none", "unknown", "empty"]
)
def test_where_the_simple_class_leads_nowhere_the_request_stays_what_it_was(without: Picker) -> None:
    assert by_size(ask(4), without, "eu", "chat", CHAT, None) == "chat"


def test_plain_http_has_no_size_and_another_class_no_simple_one() -> None:
    assert by_size(ask(4, "http"), picker(), "eu", "chat", CHAT, None) == "chat"
    assert by_size(ask(4), picker(), "eu", "edge", CHAT, None) == "edge"


# ---------------------------------------------------------------- what a fleet may declare


def problems(**simple: Any) -> list[str]:
    """Of a fleet whose class chat, for DE and FR, has the simple class edge, declared as `simple` says."""
    mine = {"simple_class": "edge", "simple_tokens": 100, "jurisdictions": ("IE", "FR"), "tenant": "acme"}
    edge = {"jurisdictions": ("IE",), "tenant": "acme"} | simple.pop("edge", {})
    kinds: list[RequestClass] = [request_class("chat", **(mine | simple)), request_class("edge", **edge)]
    return [f"{path}: {value} {remedy}" for path, value, remedy in misfits(fleet(kinds)) if "rtt_ms" not in path]


def test_a_class_under_the_same_or_stricter_law_may_take_the_simple_ones() -> None:
    assert problems() == []


@pytest.mark.parametrize(
    ("changes", "field", "remedy"),
    [
        ({"simple_class": "chat"}, "simple_class", "Name another class of this service: edge."),
        ({"simple_class": "edgy"}, "simple_class", "Name another class of this service: edge."),
        ({"simple_tokens": 0}, "simple_tokens", "up to how many tokens"),
        ({"simple_class": "", "simple_tokens": 5}, "simple_tokens", "Name the simple_class too"),
        ({"edge": {"jurisdictions": ()}}, "simple_class", "let its jurisdictions be among IE, FR"),
        ({"edge": {"jurisdictions": ("IE", "US")}}, "simple_class", "let its jurisdictions be among IE, FR"),
        ({"edge": {"tenant": ""}}, "simple_class", "another tenant: give it 'acme', as chat has"),
        ({"edge": {"data_class": "personal"}}, "simple_class", "another data_class"),
        ({"edge": {"simple_class": "chat", "simple_tokens": 1}}, "simple_class", "has a simple_class itself"),
    ],
)
def test_what_does_not_fit_is_named_with_the_remedy(changes: dict[str, Any], field: str, remedy: str) -> None:
    said = [one for one in problems(**changes) if one.startswith(f"services[0].classes[0].{field}:")]
    assert len(said) == 1
    assert remedy in said[0]


def test_a_table_says_what_the_fleet_says_of_simple_requests() -> None:
    kinds = [request_class("chat", simple_class="edge", simple_tokens=100), request_class("edge", complexity="simple")]
    routes = {route.class_: route for route in table(fleet(kinds)).routes}
    assert (routes["chat"].simple_class, routes["chat"].simple_tokens) == ("edge", 100)
    assert routes["edge"].complexity == "simple"
