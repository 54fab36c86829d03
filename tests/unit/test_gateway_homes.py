"""Homes of sessions: kept while they may be used, moved for a reason, told to the others, and never by name."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from router_sync.client import Found, Picker
from router_sync.gateway import ListSink, Sessions
from router_sync.gateway.homes import Homes
from router_sync.gateway.secret import Secret
from streams.contract.records import EndpointState, Route, RoutingTable, Session, TableEndpoint

NAMED = ("m", "acme", "conversation 7")


class Time:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def table(
    shares: dict[str, float],
    *,
    version: int = 1,
    states: dict[str, EndpointState] | None = None,
    leave_by_s: dict[str, float] | None = None,
    fallbacks: tuple[str, ...] = (),
    named: tuple[str, ...] = ("a", "b", "c"),
) -> RoutingTable:
    endpoints = tuple(
        TableEndpoint(
            name=name,
            url="http://a:1",
            provider="p",
            region="r",
            zone="z",
            jurisdiction="DE",
            state=(states or {}).get(name, "ready"),
            capacity_rps=10,
            concurrency=8,
            cost_usd_per_request=0.0,
            latency_p95_ms=100,
            leave_by_s=(leave_by_s or {}).get(name),
        )
        for name in named
    )
    route = Route(
        origin="eu", class_="chat", slo_p95_ms=300, endpoints=tuple(shares), shares=tuple(shares.values()),
        fallbacks=fallbacks,
    )  # fmt: skip
    return RoutingTable(
        service="m", epoch=1, version=version, issued_at_s=0, expires_at_s=1e9, fleet_version=1, default_class="chat",
        endpoints=endpoints, routes=(route,),
    )  # fmt: skip


class Gateway:
    """Homes and a picker as a gateway has them; `told` is what went to the topic."""

    def __init__(self, of: RoutingTable, name: str = "g1", key: str | None = None, **config: Any) -> None:
        self.time, self.sink, self.in_sight = Time(), ListSink(), True
        self.picker = Picker(of, rng=random.Random(1), clock=self.time)
        secret = Secret(key) if key is not None else None
        self.homes = Homes(Sessions(**config), name, self.sink, secret, lambda: self.in_sight, self.time)

    def follow(self, of: RoutingTable) -> None:
        self.picker.adopt(of)
        self.homes.heed(of)

    def asked(self, named: tuple[str, str, str] = NAMED, origin: str = "eu") -> str | None:
        pick = self.homes.pick(self.picker, origin, "chat", named)
        return None if pick is None else pick.endpoint.name

    @property
    def told(self) -> list[Session]:
        return [record for record, _ in self.sink.records if isinstance(record, Session)]

    def hears(self, *said: Session) -> None:
        for record in said:
            self.homes.hear(Found(record.session.encode(), msgspec.json.encode(record), []))


def session(number: int) -> tuple[str, str, str]:
    return ("m", "acme", f"s{number}")


EVEN = {"a": 0.5, "b": 0.5}


def test_a_session_stays_at_home_though_all_shares_go_elsewhere() -> None:
    one = Gateway(table(EVEN))
    homes = [one.asked(session(n)) for n in range(50)]
    assert set(homes) == {"a", "b"}
    one.follow(table({"c": 1.0}, version=2, fallbacks=("a", "b")))
    assert [one.asked(session(n)) for n in range(50)] == homes
    assert one.asked(session(99)) == "c"  # a new one goes by the shares


def test_a_home_is_told_once_and_by_no_name() -> None:
    one = Gateway(table(EVEN))
    for _ in range(9):
        one.asked()
    (said,) = one.told
    assert (said.service, said.class_, said.home, said.attempt, said.gateway) == ("m", "chat", one.asked(), 1, "g1")
    assert said.move_by_s is None
    assert not {"acme", "conversation", "7"} & set(msgspec.json.encode(said).decode().split('"'))
    one.time.now_s += 7 * 3600.0  # the topic keeps a day
    one.asked()
    one.asked()
    assert len(one.told) == 2


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda home: table({"c": 1.0}, version=2, states={home: "drain"}, fallbacks=(home,)), "drain"),
        (lambda home: table({"c": 1.0}, version=2, leave_by_s={home: 1030.0}, fallbacks=(home,)), "drain"),
        (lambda home: table({"c": 1.0}, version=2, states={home: "down"}, fallbacks=(home,)), "down"),
        (lambda _: table({"c": 1.0}, version=2), "route"),
        (lambda _: table({"c": 1.0}, version=2, named=("c",)), "gone"),
    ],
)
def test_a_home_that_may_not_be_used_any_more_moves_and_says_so(
    change: Callable[[str], RoutingTable], why: str
) -> None:
    one = Gateway(table(EVEN))
    home = one.asked()
    assert home is not None
    one.follow(change(home))
    assert one.picker.home("eu", "chat", home) == why
    assert one.asked() == "c"
    assert [(s.home, s.attempt) for s in one.told if s.move_by_s is None] == [(home, 1), ("c", 2)]
    one.follow(table(EVEN, version=3, fallbacks=("c",)))
    assert one.asked() == "c", "it does not move back: what it said is there by now"


def test_an_endpoint_that_this_gateway_cannot_reach_is_no_home() -> None:
    one = Gateway(table(EVEN))
    home = one.asked()
    assert home is not None
    local = one.picker.endpoints[home]
    for _ in range(3):
        local.failed(one.time.now_s, "connect", local.begin())
    assert one.asked() not in (home, None)


def test_sessions_in_progress_are_told_by_when_to_move_and_others_are_not() -> None:
    one = Gateway(table({"a": 1.0}))
    one.asked(session(1))
    one.time.now_s += 900.0
    one.asked(session(2))
    one.hears(Session(session="ff", service="m", home="a", attempt=1, gateway="g2", at_s=one.time.now_s))
    off = table({"b": 1.0}, version=2, leave_by_s={"a": one.time.now_s + 30.0})
    one.follow(off)
    one.follow(msgspec.structs.replace(off, version=3))
    ask_to_move = [said for said in one.told if said.move_by_s is not None]
    assert [(said.session, said.home, said.attempt) for said in ask_to_move] == [
        (one.homes.hashed(session(2)), "a", 1)
    ], "of another gateway's it tells itself"


def test_gateways_and_those_that_start_again_learn_homes_from_the_topic() -> None:
    one = Gateway(table(EVEN))
    homes = [one.asked(session(n)) for n in range(30)]
    two = Gateway(table({"c": 1.0}, fallbacks=("a", "b")), "g2")
    two.hears(*one.told)
    assert [two.asked(session(n)) for n in range(30)] == homes
    assert two.told == []


def test_of_two_words_the_higher_attempt_counts_and_then_the_later() -> None:
    one = Gateway(table(EVEN))

    def said(home: str, attempt: int, gateway: str = "g2") -> Session:
        return Session(
            session=one.homes.hashed(NAMED), service="m", home=home, attempt=attempt, gateway=gateway, at_s=1000.0
        )

    one.hears(said("a", 2), said("b", 1))
    assert one.asked() == "a"
    one.hears(said("b", 2))
    assert one.asked() == "b"
    one.hears(msgspec.structs.replace(said("a", 3), move_by_s=1030.0))
    assert one.asked() == "b", "that is a call to move, and no home"


def test_two_gateways_that_met_a_session_at_once_come_to_one_home() -> None:
    one, two = Gateway(table({"a": 1.0}, fallbacks=("b",))), Gateway(table({"b": 1.0}, fallbacks=("a",)), "g2")
    assert (one.asked(), two.asked()) == ("a", "b")
    topic = [*one.told, *two.told]
    one.hears(*topic)
    two.hears(*topic)
    assert one.asked() == two.asked() == "b"


def test_nothing_is_told_while_the_topic_is_away_and_what_was_not_is_told_later() -> None:
    one = Gateway(table(EVEN))
    one.in_sight = False
    home = one.asked()
    assert one.told == []
    one.in_sight = True
    assert one.asked() == home
    assert [said.home for said in one.told] == [home]


def test_a_flood_of_sessions_is_neither_remembered_nor_told_without_end() -> None:
    one = Gateway(table(EVEN), most=100, told_per_s=2.0)
    for n in range(1000):
        one.asked(session(n))
    assert len(one.homes) == 100
    assert len(one.told) == 20  # ten seconds' worth
    one.time.now_s += 1.0
    for n in range(900, 1000):
        one.asked(session(n))
    assert len(one.told) == 22


def test_a_stream_that_was_moved_takes_its_session_with_it() -> None:
    one = Gateway(table({"a": 1.0}))
    one.asked()
    one.follow(table({"b": 0.5, "c": 0.5}, version=2, leave_by_s={"a": 1030.0}))
    one.homes.moved(NAMED, "chat", "c", "notice")
    assert one.asked() == "c"
    assert [(said.home, said.attempt) for said in one.told if said.move_by_s is None] == [("a", 1), ("c", 2)]


def test_names_are_hashed_with_a_key_where_there_is_one() -> None:
    plain, keyed, same, other = (Gateway(table(EVEN), key=key).homes for key in (None, "k1", "k1", "k2"))
    hashes = [homes.hashed(NAMED) for homes in (plain, keyed, same, other)]
    assert len(set(hashes)) == 3
    assert hashes[1] == hashes[2]
    assert plain.hashed(("m", "acme", "x")) != plain.hashed(("m", "evil", "x"))


@pytest.mark.parametrize("value", [b"", b"{", b'{"session":"x"}', b"\xff"])
def test_what_cannot_be_read_says_nothing(value: bytes) -> None:
    one = Gateway(table(EVEN))
    one.homes.hear(Found(b"k", value, []))
    assert len(one.homes) == 0


def test_a_session_from_an_origin_without_a_route_has_no_home() -> None:
    one = Gateway(table(EVEN))
    assert one.asked(origin="mars") is None
    assert one.told == []
