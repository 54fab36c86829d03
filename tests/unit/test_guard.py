"""Law at the endpoint: what gateways say in headers, what the endpoint is, and what is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from router_sync.fleet import BadFleet
from router_sync.guard import Guard, asgi
from router_sync.policy import headers
from streams.contract.records import Policy, Route, Rule

EU = Policy(name="p", rules=(Rule(id="eu", when={"data_class": ("personal",)}, require={"country": ("DE", "IE")}),))
IRELAND = {"country": ("IE",), "place": ("cloud",), "certificate": ()}
AMERICA = {**IRELAND, "country": ("US",)}


def said(**fields: Any) -> list[tuple[str, str]]:
    """The headers of a gateway for a route."""
    usual: dict[str, Any] = {"origin": "eu", "class_": "chat", "slo_p95_ms": 300, "endpoints": (), "shares": ()}
    return [*headers.of("m", Route(**(usual | fields))).items()]


def refs(own: Any, *sent: tuple[str, str]) -> list[str]:
    return [denial.ref for denial in Guard([EU], own).denials(sent)]


def test_headers_come_back_as_the_facts_they_were_made_of() -> None:
    made = said(data_class="personal", tenant="Müller, GmbH\r\nx: y", origin_country="DE", jurisdictions=("IE", "NO"))
    assert all(value.isascii() and value.isprintable() for _, value in made)
    facts, jurisdictions = headers.heard((name.upper(), value) for name, value in made)
    assert jurisdictions == ("IE", "NO")
    assert facts["tenant"] == ("Müller, GmbH\r\nx: y",)
    assert facts["origin_country"] == ("DE",)
    assert set(facts) == {"service", "class", "origin", "tier", "data_class", "tenant", "origin_country"}
    assert headers.heard(said()).jurisdictions == ()


def test_what_was_sent_twice_is_not_known() -> None:
    twice = [*said(data_class="public"), ("X-Tradewind-Data-Class", "public")]
    assert "data_class" not in headers.heard(twice).facts
    assert refs(AMERICA, *twice) == ["p/eu"]
    assert headers.heard([*said(), *said()]).jurisdictions is None


def test_an_endpoint_refuses_what_its_own_facts_do_not_permit() -> None:
    assert refs(IRELAND, *said(data_class="personal")) == []
    assert refs(AMERICA, *said(data_class="personal")) == ["p/eu"]
    assert refs(AMERICA, *said(data_class="public")) == []
    assert refs({}, *said(data_class="personal")) == ["p/eu"], "it does not know where it is"
    assert refs(IRELAND, *said(data_class="public", jurisdictions=("NO",))) == ["class/jurisdictions"]


def test_a_request_of_which_no_gateway_has_said_anything_is_refused() -> None:
    assert refs(IRELAND) == ["class/jurisdictions"]
    assert refs(IRELAND, ("x-tradewind-data-class", "public")) == ["class/jurisdictions"]


def written(folder: Path, text: str) -> Path:
    (folder / "ours.yaml").write_text("rules: [{id: home, require: {country: [IE]}}]\n")
    (folder / "guard.yaml").write_text(text)
    return folder / "guard.yaml"


def test_a_guard_is_a_file_of_policies_and_of_what_the_endpoint_is(tmp_path: Path) -> None:
    text = "policies: [gdpr, ./ours.yaml]\nendpoint: {country: US, provider: aws, certificate: [eu-us-dpf, x]}\n"
    guard = Guard.load(written(tmp_path, text))
    assert [d.ref for d in guard.denials(said(data_class="personal", origin_country="DE"))] == ["ours/home"]
    text = "policies: [gdpr]\nendpoint: {country: US}\n"
    guard = Guard.load(written(tmp_path, text))
    assert [d.ref for d in guard.denials(said(data_class="personal", origin_country="DE"))] == ["gdpr/default"]
    assert not guard.denials(said(data_class="public", origin_country="DE")), "it is in the cloud unless it says edge"


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("endpoint: {country: US}\n", "policies"),
        ("policies: [gdpr]\n", "endpoint"),
        ("policies: [gdpr]\nendpoint: {land: US}\n", "endpoint.land"),
        ("policies: [gdpr]\nendpoint: {country: UK}\n", "endpoint.country"),
        ("policies: [gdpr]\nendpoint: {country: [US, DE]}\n", "endpoint.country"),
        ("policies: [gdpr]\nendpoint: {place: moon}\n", "endpoint.place"),
        ("policies: [gdpr]\nendpoint: {country: US}\nfree: [/]\n", "free"),
        ("policies: [./none.yaml]\nendpoint: {country: US}\n", "policies[0]"),
    ],
)
def test_a_guard_that_could_not_judge_does_not_start(text: str, field: str, tmp_path: Path) -> None:
    with pytest.raises(BadFleet) as caught:
        Guard.load(written(tmp_path, text))
    assert [problem.field for problem in caught.value.problems] == [field]


async def answered(guard: Guard, scope: dict[str, Any]) -> list[dict[str, Any]]:
    """What an ASGI server gets to send."""
    sent: list[dict[str, Any]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "app"})

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        raise AssertionError("a refused request is not read")

    await asgi(app, guard)(scope, receive, send)
    return sent


def request(path: str, *sent: tuple[str, str], kind: str = "http") -> dict[str, Any]:
    return {"type": kind, "path": path, "headers": [(name.encode(), value.encode()) for name, value in sent]}


async def test_an_asgi_app_behind_a_guard_hears_of_lawful_requests_and_probes_alone() -> None:
    guard = Guard([EU], AMERICA)
    assert await answered(guard, request("/v1/chat/completions", *said(data_class="public"))) == [{"type": "app"}]
    assert await answered(guard, request("/health")) == [{"type": "app"}]
    assert await answered(guard, {"type": "lifespan"}) == [{"type": "app"}]
    start, end = await answered(guard, request("/v1/chat/completions", *said(data_class="personal")))
    assert start["status"] == 451
    assert dict(start["headers"])[b"x-tradewind-guard"] == b"p/eu"
    error = json.loads(end["body"])["error"]
    assert error["code"] == "forbidden_by_guard"
    assert "p/eu requires country in DE, IE, not US" in error["message"]
    assert (await answered(guard, request("/v1/realtime", kind="websocket")))[0]["type"] == "websocket.close"


def test_a_guard_needs_the_contract_and_a_file() -> None:
    """No numpy, no Kafka, no HTTP server of its own: it runs inside somebody else's process."""
    code = (
        "import sys, router_sync.guard; print([m for m in sys.modules if m in "
        + repr(("numpy", "polars", "aiohttp", "aiokafka", "faust", "highspy", "cryptography", "pydantic"))
        + "])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
