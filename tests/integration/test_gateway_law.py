"""Law at a gateway and behind it, over real HTTP: what is picked, what is answered, and what a guard hears."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import trustme
from aiohttp import ClientSession, TCPConnector, web

from router_sync.gateway.tls import Tls
from router_sync.gateway.upstream import Upstream
from router_sync.guard import Guard, middleware
from streams import signals
from streams.contract.records import Arrivals, Policy, RoutingTable, Rule
from tests.integration.gateway_house import ANSWER, CHAT, House, answering, error, house, table, upstream

EU = Policy(
    name="eu",
    rules=(Rule(id="home", when={"data_class": ("personal",)}, require={"country": ("DE",)}, reason="r", source="s"),),
)


def lawful(of: RoutingTable, *policies: Policy, country: dict[str, str] | None = None, **of_route: Any) -> RoutingTable:
    """`of` with policies; countries of endpoints by name, and facts of its routes."""
    endpoints = tuple(
        msgspec.structs.replace(end, jurisdiction=(country or {}).get(end.name, "DE")) for end in of.endpoints
    )
    facts = {"origin_country": "DE", "data_class": "personal", **of_route}
    routes = tuple(msgspec.structs.replace(route, **facts) for route in of.routes)
    return msgspec.structs.replace(of, policies=policies, endpoints=endpoints, routes=routes)


async def test_a_correctly_signed_table_that_breaks_its_law_is_not_followed_there(tmp_path: Path) -> None:
    async with upstream(answering()) as a, upstream(answering(b'{"from": "b"}')) as b:
        of = lawful(table({"a": a, "b": b}, {"a": 0.2, "b": 0.8}), EU, country={"b": "US"})
        async with house(tmp_path, of) as one:
            for _ in range(30):
                status, headers, body = await one.ask()
                assert (status, headers["x-tradewind-endpoint"], body) == (200, "a", ANSWER)


async def test_a_route_to_which_law_leaves_nothing_is_answered_with_451_and_the_rules(tmp_path: Path) -> None:
    async with upstream(answering()) as a:
        of = lawful(table({"a": a}, {"a": 1.0}), EU, country={"a": "US"}, jurisdictions=("DE",))
        async with house(tmp_path, of) as one:
            status, headers, body = await one.ask()
            said = error(body)
            assert (status, said["code"], said["type"]) == (451, "forbidden_by_law", "permission_error")
            assert "eu/home: r (s)" in said["message"]
            assert headers["x-tradewind-rules"] == "eu/home, class/jurisdictions"
            assert not one.metrics("a")
            arrivals = [record for record, _ in one.sink.records if isinstance(record, Arrivals)]
            assert not any(record.arrived for record in arrivals), (
                "it is no demand: there is nothing to be planned for it"
            )
    assert signals.REQUESTS.labels("m", "chat", "451")._value.get() >= 1


async def test_an_empty_route_of_no_matter_of_law_stays_a_503(tmp_path: Path) -> None:
    async with upstream(answering()) as a:
        of = lawful(table({"a": a}, {"a": 1.0}), EU, endpoints=(), shares=(), fallbacks=())
        async with house(tmp_path, of) as one:
            status, _, body = await one.ask()
            assert (status, error(body)["code"]) == (503, "no_endpoint")


def seeing(seen: list[dict[str, str]]) -> Any:
    async def handle(request: web.Request) -> web.StreamResponse:
        seen.append({name.lower(): value for name, value in request.headers.items()})
        return web.Response(body=ANSWER, content_type="application/json")

    return handle


async def test_an_endpoint_is_told_what_law_asks_and_nothing_a_caller_made_up(tmp_path: Path) -> None:
    seen: list[dict[str, str]] = []
    async with upstream(seeing(seen)) as a:
        of = lawful(table({"a": a}, {"a": 1.0}), purpose="support", jurisdictions=("DE", "NO"))
        async with house(tmp_path, of) as one:
            forged = {"x-tradewind-data-class": "public", "x-tradewind-jurisdictions": "*", "x-tradewind-tenant": "x"}
            assert (await one.ask(headers=forged))[0] == 200
    facts = {name.removeprefix("x-tradewind-"): value for name, value in seen[0].items() if "tradewind" in name}
    assert facts == {
        "service": "m", "class": "chat", "tenant": "anonymous", "data-class": "personal", "purpose": "support",
        "tier": "standard", "origin": "eu", "origin-country": "DE", "jurisdictions": "DE, NO",
    }  # fmt: skip


async def test_who_need_not_know_is_told_nothing(tmp_path: Path) -> None:
    seen: list[dict[str, str]] = []
    async with upstream(seeing(seen)) as a:
        more = {"upstreams": {"p": Upstream(pass_facts=False)}}
        async with house(tmp_path, lawful(table({"a": a}, {"a": 1.0})), **more) as one:
            assert (await one.ask())[0] == 200
    assert not [name for name in seen[0] if name.startswith("x-tradewind-")]


async def guarded(guard: Guard) -> tuple[web.AppRunner, str]:
    app = web.Application(middlewares=[middleware(guard)])
    app.router.add_post(CHAT, answering())
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    return runner, f"http://127.0.0.1:{runner.addresses[0][1]}"


async def ask(one: House) -> tuple[int, str | None, str | None]:
    status, headers, body = await one.ask()
    return status, headers.get("x-tradewind-endpoint"), error(body)["code"] if status >= 400 else None


async def test_a_guard_that_knows_better_refuses_and_another_endpoint_is_asked(tmp_path: Path) -> None:
    """The fleet says both are in Germany; one of them knows that it is not."""
    abroad, a = await guarded(Guard([EU], {"country": ("US",)}))
    home, b = await guarded(Guard([EU], {"country": ("DE",)}))
    try:
        async with house(tmp_path, lawful(table({"a": a, "b": b}, {"a": 1.0}), EU)) as one:
            assert await ask(one) == (200, "b", None)
            await one.follow(lawful(table({"a": a}, {"a": 1.0}, version=2), EU))
            assert await ask(one) == (451, None, "forbidden_by_guard")
            await one.follow(lawful(table({"a": a}, {"a": 1.0}, version=3), EU, data_class="public"))
            assert await ask(one) == (200, "a", None)
    finally:
        await abroad.cleanup()
        await home.cleanup()
    assert signals.GUARDED.labels("a")._value.get() >= 2


async def test_a_class_of_a_tenant_refuses_callers_of_another(tmp_path: Path) -> None:
    digest = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"  # of "test"
    (tmp_path / "keys.yaml").write_text(f"keys: [{{sha256: {digest}, tenant: acme, classes: [chat, batch]}}]\n")
    async with upstream(answering()) as a:
        of = lawful(table({"a": a}, {"a": 1.0}))
        routes = tuple(
            msgspec.structs.replace(route, tenant="globex" if route.class_ == "chat" else "acme") for route in of.routes
        )
        async with house(tmp_path, msgspec.structs.replace(of, routes=routes), keys=tmp_path / "keys.yaml") as one:
            assert await ask(one) == (403, None, "class_of_another_tenant"), "nobody is not globex"
            key = {"Authorization": "Bearer test"}
            assert (await one.ask(headers=key))[0] == 200, "his first class is another's, his second is his"
            status, _, body = await one.ask(
                headers={**key, "x-tradewind-class": "chat", "x-tradewind-tenant": "globex"}
            )
            assert (status, error(body)["code"]) == (403, "class_of_another_tenant")
            async with one.session.get(f"{one.url}/v1/models") as answer:
                assert (await answer.json())["data"] == []


async def test_a_client_certificate_says_who_calls(tmp_path: Path) -> None:
    ca, server = trustme.CA(), trustme.CA()
    listener, app = server.issue_cert("127.0.0.1"), ca.issue_cert("app.acme.example")
    ca.cert_pem.write_to_path(tmp_path / "ca.pem")
    listener.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    listener.private_key_pem.write_to_path(tmp_path / "key.pem")
    (tmp_path / "keys.yaml").write_text("certificates: [{name: app.acme.example, tenant: acme, classes: [batch]}]\n")
    tls = Tls(cert_file=tmp_path / "cert.pem", key_file=tmp_path / "key.pem", client_ca_file=tmp_path / "ca.pem")
    seen: list[dict[str, str]] = []
    fields: dict[str, Any] = {"tls": tls, "keys": tmp_path / "keys.yaml", "anonymous": False}
    async with upstream(seeing(seen)) as a, house(tmp_path, lawful(table({"a": a}, {"a": 1.0})), **fields) as one:
        import ssl

        for certificate, status in ((app, 200), (ca.issue_cert("other.acme.example"), 401)):
            context = ssl.create_default_context()
            server.configure_trust(context)
            certificate.configure_cert(context)
            async with (
                ClientSession(connector=TCPConnector(ssl=context)) as session,
                session.post(one.url + CHAT, json={"model": "m", "messages": []}) as answer,
            ):
                assert answer.status == status
    assert (seen[0]["x-tradewind-tenant"], seen[0]["x-tradewind-class"]) == ("acme", "batch")
