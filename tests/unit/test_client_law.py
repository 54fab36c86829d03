"""Law at the pick: what a table's routes name and its own law forbids is left out, counted, and told once."""

from __future__ import annotations

import logging
import random
from typing import Any

import msgspec
import pytest

from router_sync.client import Picker
from router_sync.client.law import TableLaw
from streams import signals
from streams.contract.records import Policy, Route, RoutingTable, Rule
from tests.unit.test_client_pick import Time, described, table

SPOT = Policy(name="p", rules=(Rule(id="no-spot", deny={"market": ("spot",)}),))
HOME = Policy(name="h", default="deny", rules=(Rule(id="home", allow={"country": ("DE",)}),))


def lawful(of: RoutingTable, *policies: Policy, spot: tuple[str, ...] = (), **of_route: Any) -> RoutingTable:
    """`of` with policies, some endpoints on the spot market, and facts of its routes."""
    endpoints = tuple(
        msgspec.structs.replace(end, market="spot" if end.name in spot else "owned") for end in of.endpoints
    )
    routes = tuple(msgspec.structs.replace(route, **of_route) for route in of.routes)
    return msgspec.structs.replace(of, policies=policies, endpoints=endpoints, routes=routes)


def picker(of: RoutingTable) -> Picker:
    return Picker(of, rng=random.Random(1), clock=Time())


def picked(one: Picker, *exclude: str) -> set[str | None]:
    picks = [one.pick("eu", "chat", exclude=exclude) for _ in range(200)]
    return {pick.endpoint.name if pick else None for pick in picks}


def dropped(service: str = "m") -> float:
    return signals.UNLAWFUL.labels(service)._value.get()


def test_shares_and_fallbacks_that_law_forbids_are_never_picked() -> None:
    one = picker(lawful(table({"a": 0.5, "b": 0.5}, ["c", "d"]), SPOT, spot=("b", "c")))
    assert picked(one) == {"a"}
    assert picked(one, "a") == {"d"}
    assert picked(one, "a", "d") == {None}
    assert one.pick("eu", "chat", key="session").endpoint.name == "a"  # type: ignore[union-attr]
    assert one.left("eu", "chat", ()) == 2
    assert not one.closed("eu", "chat")


def test_a_lawful_table_is_followed_as_it_is() -> None:
    before = dropped()
    one = picker(lawful(table({"a": 0.75, "b": 0.25}, ["c"]), SPOT, HOME))
    assert picked(one) == {"a", "b"}
    assert dropped() == before


def test_where_law_leaves_nothing_the_route_is_closed_and_says_by_what() -> None:
    one = picker(lawful(table({"a": 1.0}, ["b"]), SPOT, HOME, spot=("a", "b")))
    assert picked(one) == {None}
    assert [denial.ref for denial in one.closed("eu", "chat")] == ["p/no-spot"]
    assert one.closed("eu", "batch") == one.closed("moon", "chat") == ()


def test_an_empty_route_that_law_does_not_close_is_no_matter_of_law() -> None:
    drained = lawful(table({}, [], strangers=["a", "b"]), SPOT, spot=("a",))
    assert not picker(drained).closed("eu", "chat")


def test_what_a_class_says_of_jurisdictions_holds_at_the_pick() -> None:
    of = lawful(table({"a": 1.0}, ["b"]), jurisdictions=("FR",))
    assert [denial.ref for denial in picker(of).closed("eu", "chat")] == ["class/jurisdictions"]
    assert picked(picker(lawful(table({"a": 1.0}), jurisdictions=("FR", "DE")))) == {"a"}


def test_what_a_table_does_not_say_of_a_route_never_helps() -> None:
    abroad = Policy(name="o", rules=(Rule(id="r", when={"origin_country": ("DE",)}, deny={"country": ("DE",)}),))
    of = table({"a": 1.0})
    assert picked(picker(lawful(of, abroad))) == {None}, "a table without origin_country may be of Germany"
    assert picked(picker(lawful(of, abroad, origin_country="US"))) == {"a"}


def test_a_breach_is_counted_and_told_once_until_a_lawful_table_comes(caplog: pytest.LogCaptureFixture) -> None:
    bad, before = lawful(table({"a": 0.5, "b": 0.5}, ["b", "c"]), SPOT, spot=("b",)), dropped()
    one = picker(bad)
    assert dropped() == before + 1
    one.adopt(msgspec.structs.replace(bad, version=2))
    assert dropped() == before + 1, "the same routes are not built again"
    one.adopt(lawful(table({"a": 0.4, "b": 0.6}, version=3), SPOT, spot=("b",)))
    assert dropped() == before + 2
    assert [r.getMessage() for r in caplog.records].count("table_breaks_law") == 1
    told = next(record.fields for record in caplog.records if record.getMessage() == "table_breaks_law")  # type: ignore[attr-defined]
    assert (told["endpoint"], told["rules"], told["route"]) == ("b", ["p/no-spot"], "chat@eu")
    one.adopt(lawful(table({"a": 1.0}, version=4), SPOT))
    one.adopt(lawful(table({"a": 0.5, "b": 0.5}, version=5), SPOT, spot=("b",)))
    assert [r.getMessage() for r in caplog.records].count("table_breaks_law") == 2


def test_other_policies_alone_are_followed_at_once() -> None:
    one = picker(lawful(table({"a": 0.5, "b": 0.5}), spot=("b",)))
    assert picked(one) == {"a", "b"}
    one.adopt(lawful(table({"a": 0.5, "b": 0.5}, version=2), SPOT, spot=("b",)))
    assert picked(one) == {"a"}
    one.adopt(lawful(table({"a": 0.5, "b": 0.5}, version=3), SPOT, spot=("a",)))
    assert picked(one) == {"b"}


def test_the_law_of_a_table_is_kept_while_its_endpoints_are_the_same() -> None:
    of = lawful(table({"a": 1.0}), SPOT)
    law = TableLaw(of)
    other = msgspec.structs.replace(of, version=9, endpoints=(described("a", "down"),))
    assert not law.is_of(other), "its market is another"
    assert law.is_of(msgspec.structs.replace(of, version=9, routes=()))
    assert law.forbidden(Route(origin="eu", class_="x", slo_p95_ms=1, endpoints=(), shares=())) == frozenset()


@pytest.fixture(autouse=True)
def _hear(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "tradewind")
