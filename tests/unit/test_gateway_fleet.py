"""What the fleet says of endpoints' APIs and models comes to gateways in tables; what does not fit is refused."""

from __future__ import annotations

import random

import msgspec
import pytest

from router_sync.client import LocalEndpoint, Picker
from router_sync.fleet import misfits
from router_sync.gateway.upstream import Upstream, Upstreams
from router_sync.gateway.watch import Watch
from router_sync.table import _endpoint, _Now, check
from streams.contract.errors import TableRefused
from streams.contract.records import Endpoint, Fleet, Route, RoutingTable, Service, TableEndpoint
from tests.unit.router_fleet import endpoint, fleet

READY = _Now("ready", 100.0, 0.0, 100.0, None)


def two_services(*ends: Endpoint) -> Fleet:
    """chat, and embed with the same classes."""
    one = fleet(endpoints=ends)
    embed = Service(name="embed", classes=one.services[0].classes, default_class=one.services[0].default_class)
    return msgspec.structs.replace(one, services=(*one.services, embed))


def told(of: Fleet) -> list[str]:
    return [f"{path}: {value} {remedy}" for path, value, remedy in misfits(of) if "rtt_ms" not in path]


def test_each_service_of_an_endpoint_has_a_model_of_its_own_in_its_table() -> None:
    one = endpoint("a", services=("chat", "embed"), models={"chat": "llama-8b"}, health_path="/live")
    for service, model in (("chat", "llama-8b"), ("embed", "")):
        said = _endpoint(one, service, READY, 1.0)
        assert (said.model, said.api, said.health_path) == (model, "openai", "/live")
    assert b"health_path" not in msgspec.json.encode(_endpoint(endpoint("b"), "chat", READY, 1.0))


def test_models_of_services_that_are_not_the_endpoints_are_named() -> None:
    one = endpoint("a", services=("chat", "embed"), models={"chatt": "llama-8b"})
    (said,) = told(two_services(one))
    assert said.startswith("endpoints[0].models: chatt")
    assert "chat, embed" in said


def test_a_service_has_one_api_whoever_serves_it() -> None:
    both = ("chat", "embed")
    said = told(two_services(endpoint("a", services=both), endpoint("b", services=("chat",), api="http")))
    assert len(said) == 1
    assert said[0].startswith("endpoints[1].api: http")
    assert not told(two_services(endpoint("a", services=("chat",)), endpoint("b", services=("embed",), api="http")))


@pytest.mark.parametrize("wrong", [{"model": "other"}, {"api": "http"}, {"health_path": "/x"}])
def test_a_table_that_says_otherwise_than_the_fleet_is_refused(wrong: dict[str, str]) -> None:
    of = fleet(endpoints=[endpoint("a", models={"chat": "llama-8b"})])
    said = msgspec.structs.replace(_endpoint(of.endpoints[0], "chat", READY, 1.0), **wrong)  # type: ignore[arg-type]
    route = Route(origin="eu", class_="interactive", slo_p95_ms=400, endpoints=("a",), shares=(1.0,))
    table = RoutingTable(
        service="chat", epoch=1, version=1, issued_at_s=0.0, expires_at_s=9.0, fleet_version=1,
        default_class="interactive", endpoints=(said,), routes=(route,),
    )  # fmt: skip
    with pytest.raises(TableRefused, match=next(iter(wrong))):
        check(table, of, None)  # type: ignore[arg-type] - it is refused before law is looked at


def test_a_new_table_gives_an_endpoint_its_new_model_and_keeps_what_is_known_of_it() -> None:
    of = fleet(endpoints=[endpoint("a")])

    def table(model: str) -> RoutingTable:
        said = msgspec.structs.replace(_endpoint(of.endpoints[0], "chat", READY, 1.0), model=model)
        return RoutingTable(
            service="chat", epoch=1, version=1, issued_at_s=0.0, expires_at_s=9.0, fleet_version=1,
            default_class="interactive", endpoints=(said,), routes=(),
        )  # fmt: skip

    picker = Picker(table("old"), rng=random.Random(1), clock=lambda: 0.0)
    local = picker.endpoints["a"]
    picker.adopt(table("new"))
    assert picker.endpoints["a"] is local
    assert local.model == "new"


def test_upstreams_by_names_that_no_table_knows_are_found() -> None:
    said = TableEndpoint(
        name="a", url="http://a", provider="aws", region="r", zone="z", jurisdiction="DE", capacity_rps=1.0,
        concurrency=1, cost_usd_per_request=0.0, latency_p95_ms=1.0,
    )  # fmt: skip
    upstreams = Upstreams({name: Upstream() for name in ("a", "aws", "default", "awz")}, {}, Watch(1.0))
    assert upstreams.unused([LocalEndpoint(said, random.Random(1))]) == ["awz"]
