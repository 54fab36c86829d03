"""The gateway's own door: TLS and its renewed certificate, keys and tokens, and what each limit tells callers."""

from __future__ import annotations

import asyncio
import hashlib
import json
import socket
import ssl
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import jwt
import pytest
import trustme
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from router_sync.gateway import Limits
from router_sync.gateway.claims import Jwt
from router_sync.gateway.issuer import IssuerKeys, Key
from router_sync.gateway.tls import Tls
from router_sync.gateway.watch import Watch
from tests.integration.gateway_house import (
    CHAT,
    DONE,
    EVENT,
    House,
    answering,
    error,
    hanging,
    house,
    streaming,
    table,
    until,
    upstream,
)

# ---------------------------------------------------------------- TLS


@pytest.fixture(scope="module")
def ca() -> trustme.CA:
    return trustme.CA()


def written(made: trustme.LeafCert, folder: Path) -> Tls:
    cert, key = folder / "gateway.pem", folder / "gateway.key"
    for number, pem in enumerate(made.cert_chain_pems):
        pem.write_to_path(str(cert), append=number > 0)
    made.private_key_pem.write_to_path(str(key))
    return Tls(cert_file=cert, key_file=key)


def trusting(ca: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    ca.configure_trust(context)
    return context


def shown_by(port: int, context: ssl.SSLContext) -> str:
    """The name in the certificate of who listens there."""
    plain = socket.create_connection(("127.0.0.1", port))
    with context.wrap_socket(plain, server_hostname="127.0.0.1") as wrapped:
        names: Any = wrapped.getpeercert()
        return str(names["subjectAltName"])


async def test_callers_are_served_over_tls_and_a_renewed_certificate_is_taken_over(
    tmp_path: Path, ca: trustme.CA, caplog: pytest.LogCaptureFixture
) -> None:
    tls, context = written(ca.issue_cert("127.0.0.1"), tmp_path), trusting(ca)
    async with (
        upstream(streaming(EVENT, DONE)) as a,
        house(tmp_path, table({"a": a}, {"a": 1}), tls=tls, watch_every_s=0.02) as one,
    ):
        async with one.session.post(one.url + CHAT, json={"model": "m", "stream": True}, ssl=context) as answer:
            assert await answer.read() == EVENT + DONE
        tls.key_file.write_text("nonsense")
        with caplog.at_level("DEBUG"):
            await until(lambda: "file_refused" in caplog.text)
            assert "new.example" not in await asyncio.to_thread(shown_by, one.gateway.port, context)
            written(ca.issue_cert("127.0.0.1", "new.example"), tmp_path)
            await until(lambda: "file_taken_over" in caplog.text)
        assert "new.example" in await asyncio.to_thread(shown_by, one.gateway.port, context)


async def test_nothing_below_tls_1_2_and_no_plain_http_is_spoken(tmp_path: Path, ca: trustme.CA) -> None:
    tls = written(ca.issue_cert("127.0.0.1"), tmp_path)
    async with house(tmp_path, tls=tls) as one:
        minimum = one.gateway._trusted.tls
        assert minimum is not None
        assert minimum.minimum_version == ssl.TLSVersion.TLSv1_2
        with pytest.raises(aiohttp.ClientError):
            await one.session.get(one.url.replace("https", "http") + "/healthz")


async def test_callers_need_a_certificate_where_one_is_asked_for(tmp_path: Path, ca: trustme.CA) -> None:
    callers = trustme.CA()
    callers.cert_pem.write_to_path(str(tmp_path / "callers.pem"))
    made = written(ca.issue_cert("127.0.0.1"), tmp_path)
    tls = Tls(cert_file=made.cert_file, key_file=made.key_file, client_ca_file=tmp_path / "callers.pem")
    without, with_one = trusting(ca), trusting(ca)
    callers.issue_cert("caller@example.org").configure_cert(with_one)
    async with house(tmp_path, tls=tls) as one:
        async with one.session.get(one.url + "/healthz", ssl=with_one) as answer:
            assert answer.status == 200
        with pytest.raises((aiohttp.ClientError, ConnectionError)):
            await one.session.get(one.url + "/healthz", ssl=without)


# ---------------------------------------------------------------- keys and tokens


def key_entry(key: str, tenant: str, *classes: str) -> dict[str, Any]:
    return {"sha256": hashlib.sha256(key.encode()).hexdigest(), "tenant": tenant, "classes": list(classes)}


async def asked_with(one: House, key: str, **headers: str) -> tuple[int, dict[str, Any]]:
    status, _, body = await one.ask(headers={"Authorization": f"Bearer {key}", **headers})
    return status, json.loads(body)


async def test_keys_are_taken_over_when_their_file_changes_and_a_bad_file_is_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    keys = tmp_path / "keys.yaml"
    keys.write_text(json.dumps({"keys": [key_entry("first", "acme", "chat")]}))
    async with (
        upstream(answering()) as a,
        house(tmp_path, table({"a": a}, {"a": 1}), keys=keys, anonymous=False, watch_every_s=0.02) as one,
    ):
        assert (await asked_with(one, "first"))[0] == 200
        assert (await asked_with(one, "second"))[0] == 401
        keys.write_text("keys: [{sha256: short}]")
        await until(lambda: "file_refused" in caplog.text)
        assert (await asked_with(one, "first"))[0] == 200
        keys.write_text(json.dumps({"keys": [key_entry("second", "acme", "chat")]}))
        async with asyncio.timeout(5):
            while (await asked_with(one, "second"))[0] != 200:
                pass
        status, said = await asked_with(one, "first")
        assert (status, said["error"]["code"]) == (401, "invalid_api_key")


ISSUER, AUDIENCE = "https://login.example.com/", "tradewind"


class Issuer:
    """A token issuer whose keys are fetched."""

    def __init__(self) -> None:
        self.keys: dict[str, Ed25519PrivateKey] = {}
        self.status, self.asked = 200, 0

    def turn(self, kid: str) -> None:
        self.keys = {kid: Ed25519PrivateKey.generate()}

    async def serve(self, _: web.Request) -> web.StreamResponse:
        self.asked += 1
        jwks = [
            {**json.loads(jwt.algorithms.OKPAlgorithm.to_jwk(key.public_key())), "kid": kid}
            for kid, key in self.keys.items()
        ]
        return web.json_response({"keys": jwks}, status=self.status)

    def token(self, **claims: Any) -> str:
        ((kid, key),) = self.keys.items()
        usual = {"iss": ISSUER, "aud": AUDIENCE, "sub": "acme", "exp": time.time() + 60, "tradewind_classes": ["chat"]}
        return jwt.encode({**usual, **claims}, key, algorithm="EdDSA", headers={"kid": kid})


async def test_tokens_are_checked_with_keys_that_are_fetched_and_kept_when_that_fails(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("router_sync.gateway.issuer._GAP_S", 0.02)
    issuer = Issuer()
    issuer.turn("one")
    async with (
        upstream(issuer.serve) as url,
        upstream(answering()) as a,
        house(
            tmp_path,
            table({"a": a}, {"a": 1}),
            anonymous=False,
            jwt=Jwt(issuer=ISSUER, audience=AUDIENCE, jwks_url=f"{url}/v1/jwks"),
        ) as one,
    ):
        await until(lambda: one.gateway._trusted.why_not() is None)
        assert (await asked_with(one, issuer.token()))[0] == 200
        # the class comes with the token, a header only restricts
        assert (await asked_with(one, issuer.token(), **{"x-tradewind-class": "batch"}))[0] == 403
        both = issuer.token(tradewind_classes=["chat", "batch"])
        assert (await asked_with(one, both, **{"x-tradewind-class": "batch"}))[0] == 200
        # the issuer is away: its keys stay
        issuer.status, before = 500, issuer.asked
        old = issuer.token()
        issuer.turn("two")
        status, said = await asked_with(one, issuer.token())
        assert (status, said["error"]["code"]) == (401, "unknown_key")
        await until(lambda: "issuer_keys_not_fetched" in caplog.text)
        assert issuer.asked > before
        assert (await asked_with(one, old))[0] == 200
        # and back, with a new key: an unknown one brings the next fetch forward
        issuer.status = 200
        async with asyncio.timeout(10):
            while (await asked_with(one, issuer.token()))[0] != 200:
                pass
        assert (await asked_with(one, old))[0] == 401


async def test_until_the_issuers_keys_are_there_tokens_wait_and_the_gateway_is_not_ready(tmp_path: Path) -> None:
    said = Jwt(issuer=ISSUER, audience=AUDIENCE, jwks_url="http://127.0.0.1:1/jwks")
    issuer = Issuer()
    issuer.turn("one")
    async with (
        upstream(answering()) as a,
        house(tmp_path, table({"a": a}, {"a": 1}), anonymous=False, jwt=said) as one,
    ):
        status, answer = await asked_with(one, issuer.token())
        assert (status, answer["error"]["code"]) == (503, "no_issuer_keys")
        async with one.session.get(one.url + "/readyz") as ready:
            assert ready.status == 503
            assert "token issuer" in (await ready.json())["why"]


async def test_a_key_set_without_a_key_of_an_accepted_kind_does_not_replace_the_old_one() -> None:
    issuer = Issuer()
    issuer.turn("one")  # EdDSA
    async with upstream(issuer.serve) as url, aiohttp.ClientSession() as session:
        said = Jwt(issuer=ISSUER, audience=AUDIENCE, jwks_url=f"{url}/v1/jwks", algorithms=("RS256",))
        keys, old = IssuerKeys(said, Watch(1.0)), object()
        keys._take((Key("k", "RS256", old),))
        assert not await keys._fetch(session, f"{url}/v1/jwks", True)
        assert keys.find("k", "RS256") is old


# ---------------------------------------------------------------- limits


async def test_a_path_that_is_too_long_is_told_the_limit_wherever_it_is_noticed(tmp_path: Path) -> None:
    limits = Limits(max_uri_bytes=100)
    async with house(tmp_path, limits=limits) as one:
        for length in (99, 150, 5000):
            async with one.session.get(f"{one.url}/services/{'x' * length}") as answer:
                assert answer.status == 414
                said = error(await answer.read())
                assert (said["code"], "max_uri_bytes = 100" in said["message"]) == ("uri_too_long", True)
        async with one.session.get(f"{one.url}/healthz", headers={"x-long": "y" * 20_000}) as answer:
            assert answer.status == 431
            assert "max_header_bytes = 16384" in error(await answer.read())["message"]


async def test_streams_are_limited_overall_and_for_each_tenant_and_plain_requests_are_not(tmp_path: Path) -> None:
    keys = tmp_path / "keys.yaml"
    entries = [key_entry(name, name, "chat") for name in ("ann", "bob", "eve")]
    keys.write_text(json.dumps({"keys": entries}))
    limits, events = Limits(max_streams=2, max_streams_per_tenant=1), streaming(EVENT, then="silence")

    async def either(request: web.Request) -> web.StreamResponse:
        return await (events if b"true" in await request.read() else answering())(request)

    async with (
        upstream(either) as a,
        house(tmp_path, table({"a": a}, {"a": 1}), keys=keys, anonymous=False, limits=limits) as one,
    ):
        open_ones = [await opened(one, name) for name in ("ann", "bob")]
        for name, expected, limit in (("ann", 503, "max_streams = 2"), ("eve", 503, "max_streams = 2")):
            answer = await opened(one, name)
            said = error(await answer.read())
            assert (answer.status, said["code"], limit in said["message"]) == (expected, "too_many_streams", True)
            assert answer.headers["Retry-After"] == "1"
        assert (await asked_with(one, "ann"))[0] == 200
        open_ones.pop().close()
        await until(lambda: one.gateway.relay.in_flight == 1)
        answer = await opened(one, "ann")
        said = error(await answer.read())
        assert (answer.status, "max_streams_per_tenant = 1" in said["message"]) == (429, True)
        again = await opened(one, "eve")
        assert again.status == 200
        for each in (*open_ones, again):
            each.close()
        await until(lambda: one.gateway.relay.in_flight == 0)


async def opened(one: House, key: str) -> aiohttp.ClientResponse:
    headers = {"Authorization": f"Bearer {key}"}
    return await one.session.post(one.url + CHAT, json={"model": "m", "stream": True}, headers=headers)


async def _endless() -> AsyncIterator[bytes]:
    while True:
        yield b"x" * 1000
        await asyncio.sleep(0)


async def test_every_limit_names_its_field_its_value_and_a_remedy(tmp_path: Path) -> None:
    limits = Limits(
        max_body_bytes=1000, max_upload_bytes=3000, max_header_bytes=2000, max_headers=30, max_uri_bytes=300,
        max_concurrent=1, body_s=0.2,
    )  # fmt: skip
    upload = {"x-tradewind-model": "m", "Content-Type": "application/octet-stream"}
    cases: list[tuple[str, str, dict[str, Any]]] = [
        ("max_body_bytes = 1000", "Send less", {"data": b"x" * 1001}),
        ("max_upload_bytes = 3000", "Send less", {"data": b"x" * 3001, "headers": upload}),
        ("max_upload_bytes = 3000", "Send less", {"data": _endless(), "headers": upload}),
        ("max_header_bytes = 2000", "Shorten it", {"data": b"{}", "headers": {"x-long": "y" * 4000}}),
        ("max_headers = 30", "Send fewer", {"data": b"{}", "headers": {f"x-{n}": "1" for n in range(40)}}),
        ("body_s = 0.2", "faster", {"data": _slow()}),
    ]
    async with upstream(hanging) as a, house(tmp_path, table({"a": a}, {"a": 1}), limits=limits) as one:
        for limit, remedy, sent in cases:
            async with one.session.post(one.url + CHAT, **sent) as answer:
                message = error(await answer.read())["message"]
                assert limit in message
                assert remedy in message
        held = asyncio.create_task(one.ask())
        await until(lambda: one.gateway.relay.in_flight == 1)
        status, _, body = await one.ask()
        assert status == 503
        assert "max_concurrent = 1" in error(body)["message"]
        held.cancel()
        await asyncio.gather(held, return_exceptions=True)


async def _slow() -> AsyncIterator[bytes]:
    yield b"{"
    await asyncio.sleep(1.0)
    yield b"}"
