"""How a gateway reaches endpoints: credentials that change and never show, TLS on both sides, models by other names."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
import trustme
from aiohttp import web

from router_sync.gateway import Limits, Probing, Retries
from router_sync.gateway.secret import Reference
from router_sync.gateway.upstream import Upstream
from tests.integration.gateway_house import (
    ANSWER,
    ASK,
    CHAT,
    DONE,
    Handler,
    House,
    answering,
    error,
    house,
    streaming,
    table,
    until,
    upstream,
)

SECRET = "sk-first-5f0d"
LATER = "sk-later-91ce"


class Noting:
    """A handler that keeps the headers and bodies it got."""

    def __init__(self, status: int = 200) -> None:
        self.headers: list[dict[str, str]] = []
        self.bodies: list[bytes] = []
        self.status = status

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.headers.append({name.lower(): value for name, value in request.headers.items()})
        self.bodies.append(await request.read())
        return web.Response(status=self.status, body=ANSWER, content_type="application/json")


def kept(folder: Path, value: str = SECRET) -> Reference:
    path = folder / "credential"
    path.write_text(f"{value}\n")
    return Reference(file=path)


def logged(caplog: pytest.LogCaptureFixture) -> str:
    """All that was logged, with every field."""
    return "\n".join(f"{record.getMessage()} {record.__dict__!r}" for record in caplog.records)


async def pages(one: House) -> str:
    said = []
    for path in ("/readyz", "/metrics", "/v1/models"):
        async with one.session.get(one.url + path) as answer:
            said.append(await answer.text())
    return "\n".join(said)


async def test_an_endpoint_gets_our_credential_and_never_the_callers(tmp_path: Path) -> None:
    a = Noting()
    upstreams = {
        "p": Upstream(credential=Reference(env="UNUSED")),
        "a": Upstream(credential=kept(tmp_path), headers={"X-Team": "ml", "x-key": Reference(env="MORE")}),
    }
    async with (
        upstream(a.handle) as url,
        house(tmp_path, table({"a": url}, {"a": 1}), {"MORE": "m", "UNUSED": "u"}, upstreams=upstreams) as one,
    ):
        sent = {"api-key": "caller", "x-api-key": "caller", "x-team": "caller", "Authorization": "Bearer caller"}
        status, headers, _ = await one.ask(headers=sent)
        assert status == 200
        (got,) = a.headers
        assert (got["authorization"], got["x-team"], got["x-key"]) == (f"Bearer {SECRET}", "ml", "m")
        assert "caller" not in json.dumps(got)
        assert SECRET not in json.dumps(headers)


async def test_an_endpoints_own_entry_goes_before_its_providers_and_that_before_the_default(tmp_path: Path) -> None:
    a, b = Noting(), Noting()
    upstreams = {
        "default": Upstream(credential=Reference(env="D")),
        "p": Upstream(credential=Reference(env="P"), header="api-key"),
        "b": Upstream(credential=Reference(env="B"), scheme="Key"),
    }
    environ = {"D": "d", "P": "of-p", "B": "of-b"}
    async with upstream(a.handle) as to_a, upstream(b.handle) as to_b:
        for shares in ({"a": 1.0}, {"b": 1.0}):
            of = table({"a": to_a, "b": to_b}, shares)
            async with house(tmp_path / next(iter(shares)), of, environ, upstreams=upstreams) as one:
                assert (await one.ask())[0] == 200
    assert a.headers[0]["api-key"] == "of-p"
    assert "authorization" not in a.headers[0]
    assert b.headers[0]["authorization"] == "Key of-b"
    assert "api-key" not in b.headers[0]


async def test_callers_credentials_are_passed_on_only_where_that_is_asked_for(tmp_path: Path) -> None:
    for passes in (False, True):
        a = Noting()
        upstreams = {"default": Upstream(pass_authorization=passes)}
        async with (
            upstream(a.handle) as url,
            house(tmp_path / str(passes), table({"a": url}, {"a": 1}), upstreams=upstreams) as one,
        ):
            await one.ask(headers={"Authorization": "Bearer mine", "Cookie": "c=1"})
        assert a.headers[0].get("authorization") == ("Bearer mine" if passes else None)
        assert "cookie" not in a.headers[0]


async def test_a_credential_that_changes_is_taken_over_and_a_bad_one_is_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    a, reference = Noting(), kept(tmp_path)
    assert reference.file is not None
    upstreams = {"a": Upstream(credential=reference)}
    probing = Probing(quiet_s=0.01, every_s=0.05)
    with caplog.at_level("DEBUG"):
        async with (
            upstream(a.handle, a.handle) as url,
            house(
                tmp_path, table({"a": url}, {"a": 1}), upstreams=upstreams, watch_every_s=0.02, probing=probing
            ) as one,
        ):
            await one.ask()
            assert a.headers[-1]["authorization"] == f"Bearer {SECRET}"
            kept(tmp_path, LATER)
            await until(lambda: "file_taken_over" in caplog.text)
            await one.ask()
            assert a.headers[-1]["authorization"] == f"Bearer {LATER}"
            reference.file.write_text("")
            await until(lambda: "file_refused" in caplog.text)
            reference.file.unlink()
            await one.ask()
            assert a.headers[-1]["authorization"] == f"Bearer {LATER}"
            # probes carry it too
            before = len(a.headers)
            await until(lambda: len(a.headers) > before)
            assert a.headers[-1]["authorization"] == f"Bearer {LATER}"
            shown = await pages(one) + logged(caplog) + repr(one.gateway.config) + repr(one.sink.records)
            shown += repr(vars(one.gateway._trusted.upstreams._links["a"].headers[0][1].__class__))
    for secret in (SECRET, LATER):
        assert secret not in shown
    assert "upstreams.a" in shown
    assert "It holds nothing" in shown


async def test_an_endpoint_that_refuses_our_credential_is_left_for_another_and_the_log_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with (
        upstream(answering(b'{"error":{"message":"bad key"}}', 401)) as a,
        upstream(answering()) as b,
        house(
            tmp_path,
            table({"a": a, "b": b}, {"a": 1.0}),
            upstreams={"a": Upstream(credential=kept(tmp_path))},
        ) as one,
    ):
        for _ in range(6):
            status, headers, _ = await one.ask()
            assert (status, headers["x-tradewind-endpoint"]) == (200, "b")
        assert headers["x-tradewind-attempts"] == "1"  # it is shut by now
        await one.follow(table({"a": a}, {"a": 1.0}, version=2))
        status, _, body = await one.ask()
        assert status == 502
        assert error(body)["code"] == "upstream_client_4xx"
        assert "credential" in error(body)["message"]
        await until(lambda: any(record.errors for record in one.metrics("a")))
        assert {kind for record in one.metrics("a") for kind in record.errors} == {"client_4xx"}
    said = logged(caplog)
    assert "upstream_refuses_credential" in said
    assert "upstreams.a.credential" in said
    assert SECRET not in said


async def organised(request: web.Request) -> web.StreamResponse:
    """401 for an organisation it does not know, as OpenAI answers."""
    return web.Response(status=401 if "OpenAI-Organization" in request.headers else 200, body=ANSWER)


async def test_a_callers_header_that_all_endpoints_refuse_is_his_own_mistake_and_shuts_none(tmp_path: Path) -> None:
    upstreams = {"default": Upstream(credential=kept(tmp_path))}
    async with (
        upstream(organised) as a,
        upstream(organised) as b,
        house(tmp_path, table({"a": a, "b": b}, {"a": 0.5, "b": 0.5}), upstreams=upstreams) as one,
    ):
        for _ in range(4):
            status, _, body = await one.ask(headers={"OpenAI-Organization": "bogus"})
            assert (status, error(body)["code"]) == (401, "upstream_unauthorized")
        locals_ = one.gateway.following.pickers["m"].endpoints
        assert not any(local.breaker.shut or local.breaker.streak for local in locals_.values())
        assert one.gateway.relay.lost_servable == 0


async def test_a_credential_that_all_endpoints_refuse_is_named_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with (
        upstream(answering(b"{}", 401)) as a,
        upstream(answering(b"{}", 401)) as b,
        house(
            tmp_path, table({"a": a, "b": b}, {"a": 1.0}), upstreams={"p": Upstream(credential=kept(tmp_path))}
        ) as one,
    ):
        assert (await one.ask())[0] == 401
    assert "upstreams.p.credential" in logged(caplog)


async def test_a_callers_header_that_one_endpoint_refuses_does_not_shut_it_while_it_serves_others(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    upstreams = {"a": Upstream(credential=kept(tmp_path))}
    async with (
        upstream(organised) as a,
        upstream(answering()) as b,
        house(tmp_path, table({"a": a, "b": b}, {"a": 1.0}), upstreams=upstreams) as one,
    ):
        assert (await one.ask())[1]["x-tradewind-endpoint"] == "a"
        for _ in range(4):
            status, headers, _ = await one.ask(headers={"OpenAI-Organization": "bogus"})
            assert (status, headers["x-tradewind-endpoint"]) == (200, "b")
        assert (await one.ask())[1]["x-tradewind-endpoint"] == "a"
    assert "upstream_refuses_credential" not in logged(caplog)


async def test_who_alone_refuses_our_credential_is_named_in_the_log_and_nobody_waiting_there_is_cut(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    release, waiting = asyncio.Event(), asyncio.Event()

    async def slow_or_refused(request: web.Request) -> web.StreamResponse:
        if "OpenAI-Organization" not in request.headers:
            waiting.set()
            await release.wait()
        return await organised(request)

    async with (
        upstream(slow_or_refused) as a,
        house(tmp_path, table({"a": a}, {"a": 1.0}), upstreams={"a": Upstream(credential=kept(tmp_path))}) as one,
    ):
        slow = asyncio.create_task(one.ask())
        await waiting.wait()
        for _ in range(4):
            status, _, body = await one.ask(headers={"OpenAI-Organization": "bogus"})
            assert (status, error(body)["code"]) == (502, "upstream_client_4xx")
        assert one.gateway.following.pickers["m"].endpoints["a"].breaker.streak == 0
        release.set()
        assert (await slow)[0] == 200
    assert "upstreams.a.credential" in logged(caplog)


async def test_a_callers_header_with_an_underscore_does_not_stand_beside_ours(tmp_path: Path) -> None:
    a = Noting()
    upstreams = {"a": Upstream(headers={"X-Team": "ml"})}
    async with upstream(a.handle) as url, house(tmp_path, table({"a": url}, {"a": 1}), upstreams=upstreams) as one:
        assert (await one.ask(headers={"x_team": "caller", "api_key": "caller", "x-other": "1"}))[0] == 200
    assert (a.headers[0]["x-team"], a.headers[0]["x-other"]) == ("ml", "1")
    assert "caller" not in json.dumps(a.headers)


async def test_an_endpoint_that_wants_a_credential_nobody_gave_us_is_named_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with (
        upstream(answering(b"{}", 401)) as a,
        house(tmp_path, table({"a": a}, {"a": 1}), upstreams={"other": Upstream()}) as one,
    ):
        assert (await one.ask())[0] == 401  # as it said
        assert "give it a credential in upstreams.a" in logged(caplog)


async def test_a_host_that_is_not_the_entrys_gets_neither_requests_nor_probes_and_the_log_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    evil, good = Noting(), Noting()
    entry = Upstream(credential=kept(tmp_path), hosts=("a.example", "localhost"), headers={"x-team": "ml"})
    probing = Probing(quiet_s=0.01, every_s=0.02)
    async with upstream(evil.handle, evil.handle) as a, upstream(good.handle) as b:
        of = table({"a": a, "b": b.replace("127.0.0.1", "localhost")}, {"a": 0.5, "b": 0.5})
        async with house(tmp_path, of, upstreams={"p": entry}, probing=probing) as one:
            for _ in range(5):
                assert (await one.ask())[0] == 200
            await until(lambda: any("connect" in record.errors for record in one.metrics("a", "probe")))
    assert evil.headers == []
    assert good.headers[0]["authorization"] == f"Bearer {SECRET}"
    told = next(r.__dict__ for r in caplog.records if r.getMessage() == "upstream_credential_withheld")
    assert "127.0.0.1" in repr(told)
    assert "upstreams.p.hosts" in repr(told)


# ---------------------------------------------------------------- TLS


@pytest.fixture(scope="module")
def ca() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def ca_file(ca: trustme.CA, tmp_path: Path) -> Path:
    path = tmp_path / "ca.pem"
    ca.cert_pem.write_to_path(str(path))
    return path


def server_tls(ca: trustme.CA, *names: str, wants_certificate: bool = False) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert(*names).configure_cert(context)
    if wants_certificate:
        ca.configure_trust(context)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def client_files(ca: trustme.CA, folder: Path) -> dict[str, Path]:
    cert, key = folder / "client.pem", folder / "client.key"
    made = ca.issue_cert("gateway@example.org")
    made.cert_chain_pems[0].write_to_path(str(cert))
    made.private_key_pem.write_to_path(str(key))
    return {"cert_file": cert, "key_file": key}


async def test_an_https_endpoint_is_served_by_whose_ca_is_named_plain_and_streaming(
    tmp_path: Path, ca: trustme.CA, ca_file: Path
) -> None:
    events = b'data: {"model":"m","choices":[{"delta":{"content":"hi"}}]}\n\n'
    for handler, stream, expected in ((answering(), False, ANSWER), (streaming(events, DONE), True, events + DONE)):
        async with (
            upstream(handler, tls=server_tls(ca, "127.0.0.1")) as a,
            house(
                tmp_path / str(stream),
                table({"a": a}, {"a": 1}),
                upstreams={"default": Upstream(ca_file=ca_file)},
                probing=Probing(quiet_s=0.01, every_s=0.02),
            ) as one,
        ):
            status, _, body = await one.ask(stream=stream)
            assert (status, body) == (200, expected)
            await until(lambda one=one: bool(one.metrics("a", "probe")))  # type: ignore[misc]
            assert not one.metrics("a", "probe")[0].errors


async def test_who_is_not_trusted_is_not_asked_and_the_log_names_him_and_the_remedy(
    tmp_path: Path, ca: trustme.CA, ca_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    seen = Noting()
    cases = {"unknown": ("127.0.0.1", None, "ca_file"), "misnamed": ("a.example", ca_file, "server_name")}
    for case, (name, trusted, remedy) in cases.items():
        async with (
            upstream(seen.handle, tls=server_tls(ca, name)) as a,
            upstream(answering()) as b,
            house(
                tmp_path / case,
                table({"a": a, "b": b}, {"a": 1.0}),
                upstreams={"a": Upstream(ca_file=trusted)},
            ) as one,
        ):
            status, headers, _ = await one.ask()
            assert (status, headers["x-tradewind-endpoint"]) == (200, "b")
            await until(lambda one=one: bool(one.metrics("a")))  # type: ignore[misc]
            assert one.metrics("a")[0].errors == {"connect": 1}
        (told, *_) = [r.__dict__["fields"] for r in caplog.records if r.getMessage() == "upstream_tls_failed"]
        assert told["endpoint"] == "a"
        assert remedy in told["remedy"]
        assert "upstreams.a" in told["remedy"]
        caplog.clear()
    assert not seen.headers


async def test_a_name_of_the_certificate_may_be_given(tmp_path: Path, ca: trustme.CA, ca_file: Path) -> None:
    upstreams = {"a": Upstream(ca_file=ca_file, server_name="a.example")}
    async with (
        upstream(answering(), tls=server_tls(ca, "a.example")) as a,
        house(tmp_path, table({"a": a}, {"a": 1}), upstreams=upstreams) as one,
    ):
        assert (await one.ask())[0] == 200


async def test_an_endpoint_that_wants_a_certificate_gets_ours(tmp_path: Path, ca: trustme.CA, ca_file: Path) -> None:
    upstreams = {"a": Upstream(ca_file=ca_file, **client_files(ca, tmp_path))}
    async with (
        upstream(answering(), tls=server_tls(ca, "127.0.0.1", wants_certificate=True)) as a,
        house(tmp_path, table({"a": a}, {"a": 1}), upstreams=upstreams) as one,
    ):
        assert (await one.ask())[0] == 200


def one_handshake(listening: socket.socket, tls: ssl.SSLContext) -> None:
    """Refuse one client, so that he hears of it."""
    plain = listening.accept()[0]
    with tls.wrap_socket(plain, server_side=True, do_handshake_on_connect=False) as wrapped:
        with pytest.raises(ssl.SSLError):
            wrapped.do_handshake()
        socket.socket.shutdown(wrapped, socket.SHUT_WR)
        while socket.socket.recv(wrapped, 4096):
            pass


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_without_a_certificate_where_one_is_wanted_there_is_no_connection_and_the_log_says_why(
    tmp_path: Path, ca: trustme.CA, ca_file: Path, caplog: pytest.LogCaptureFixture, version: ssl.TLSVersion
) -> None:
    tls = server_tls(ca, "127.0.0.1", wants_certificate=True)
    tls.maximum_version = version
    with socket.create_server(("127.0.0.1", 0)) as listening:
        url = f"https://127.0.0.1:{listening.getsockname()[1]}"
        server = asyncio.create_task(asyncio.to_thread(one_handshake, listening, tls))
        upstreams, retries = {"a": Upstream(ca_file=ca_file)}, Retries(attempts=1)
        async with house(tmp_path, table({"a": url}, {"a": 1}), upstreams=upstreams, retries=retries) as one:
            status, _, body = await one.ask()
            await server
        assert status == 502
        assert error(body)["code"] == "upstream_connect"
    (told, *_) = [r.__dict__["fields"] for r in caplog.records if r.getMessage() == "upstream_tls_failed"]
    assert "cert_file and key_file in upstreams.a" in told["remedy"]


# ---------------------------------------------------------------- models by other names


def modelling(*, streams: bool = False) -> tuple[Handler, list[dict[str, Any]]]:
    """An OpenAI server that answers under the model it was asked for."""
    asked: list[dict[str, Any]] = []

    async def handle(request: web.Request) -> web.StreamResponse:
        asked.append(json.loads(await request.read()))
        model = asked[-1]["model"]
        said = {"id": "1", "model": model, "choices": [{"message": {"content": f'"model":"{model}"'}}]}
        if not streams:
            return web.json_response(said)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for _ in range(2):
            await response.write(b"data: " + msgspec.json.encode(said) + b"\n\n")
        await response.write(DONE)
        return response

    return handle, asked


async def test_two_services_on_one_endpoint_are_asked_under_its_own_model_names(tmp_path: Path) -> None:
    handle, asked = modelling()
    async with upstream(handle) as a, house(tmp_path) as one:
        await one.follow(table({"a": a}, {"a": 1}, {"model": "meta/llama-8b"}))
        await one.follow(table({"a": a}, {"a": 1}, {"model": "BAAI/bge"}, service="other"))
        for service, model in (("m", "meta/llama-8b"), ("other", "BAAI/bge")):
            status, headers, body = await one.ask(model=service, temperature=0.5)
            assert status == 200
            assert asked[-1] == {**ASK, "model": model, "temperature": 0.5}
            said = json.loads(body)
            assert said["model"] == service
            assert said["choices"][0]["message"]["content"] == f'"model":"{model}"'  # what a model says is its own
            assert headers["x-tradewind-model"] == model


async def test_a_streams_events_name_the_service_and_not_the_endpoints_model(tmp_path: Path) -> None:
    handle, asked = modelling(streams=True)
    async with upstream(handle) as a, house(tmp_path, table({"a": a}, {"a": 1}, {"model": "llama-8b"})) as one:
        _, _, body = await one.ask(stream=True)
    assert asked[0]["model"] == "llama-8b"
    events = [json.loads(line[5:]) for line in body.splitlines() if line.startswith(b"data: {")]
    assert [event["model"] for event in events] == ["m", "m"]
    assert events[0]["choices"][0]["message"]["content"] == '"model":"llama-8b"'
    assert body.endswith(DONE)


async def test_each_endpoint_that_is_tried_is_asked_under_its_own_name(tmp_path: Path) -> None:
    failing, well = Noting(500), Noting()
    async with upstream(failing.handle) as a, upstream(well.handle) as b:
        of = table({"a": a, "b": b}, {"a": 1.0})
        ends = tuple(msgspec.structs.replace(end, model=f"model-of-{end.name}") for end in of.endpoints)
        async with house(tmp_path, msgspec.structs.replace(of, endpoints=ends)) as one:
            assert (await one.ask())[0] == 200
    assert [json.loads(noted.bodies[0])["model"] for noted in (failing, well)] == ["model-of-a", "model-of-b"]


async def test_a_json_body_too_large_to_be_changed_is_refused_and_other_uploads_go_through(tmp_path: Path) -> None:
    a, limits = Noting(), Limits(max_body_bytes=100)
    async with (
        upstream(a.handle) as url,
        house(tmp_path, table({"a": url}, {"a": 1}, {"model": "llama-8b"}), limits=limits) as one,
    ):
        sent: dict[str, int] = {"application/json": 413, "application/octet-stream": 200}
        for kind, expected in sent.items():
            headers = {"x-tradewind-model": "m", "Content-Type": kind}
            async with one.session.post(one.url + CHAT, data=b"x" * 200, headers=headers) as answer:
                assert answer.status == expected
                if expected == 413:
                    assert "max_body_bytes = 100" in error(await answer.read())["message"]
    assert a.bodies == [b"x" * 200]


@pytest.mark.parametrize(
    ("path", "model", "expected"),
    [
        ("/v1/audio/transcriptions", "whisper-1", 400),
        ("/v1/audio/transcriptions", "m", 200),
        ("/v1/audio/transcriptions", "", 200),
        ("/v1/files", "whisper-1", 200),  # its form names no model
    ],
)
async def test_a_form_whose_model_would_have_to_be_changed_is_refused(
    tmp_path: Path, path: str, model: str, expected: int
) -> None:
    a = Noting()
    async with upstream(a.handle) as url, house(tmp_path, table({"a": url}, {"a": 1}, {"model": model})) as one:
        form = aiohttp.FormData({"model": "m"}, default_to_multipart=True)
        async with one.session.post(one.url + path, data=form, headers={"x-tradewind-model": "m"}) as answer:
            assert answer.status == expected
            if expected == 400:
                said = error(await answer.read())
                assert (said["code"], "whisper-1" in said["message"]) == ("model_not_renamed", True)
    assert len(a.bodies) == (expected == 200)


async def test_an_answer_that_goes_on_elsewhere_is_asked_for_under_the_other_endpoints_name(tmp_path: Path) -> None:
    asked: list[dict[str, Any]] = []

    def telling(*words: str, whole: bool) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            asked.append(json.loads(await request.read()))
            said = [
                {"id": "1", "model": asked[-1]["model"], "choices": [{"delta": {"content": word}}]} for word in words
            ]
            events = [b"data: " + msgspec.json.encode(event) + b"\n\n" for event in said]
            return await streaming(*events, *([DONE] if whole else []), then="end" if whole else "cut")(request)

        return handle

    async with upstream(telling("The", " wind", whole=False)) as a, upstream(telling(" turns", whole=True)) as b:
        of = table({"a": a, "b": b}, {"a": 1.0}, {"continues": True})
        ends = tuple(msgspec.structs.replace(end, model=f"model-of-{end.name}") for end in of.endpoints)
        async with house(tmp_path, msgspec.structs.replace(of, endpoints=ends)) as one:
            _, _, body = await one.ask(stream=True)
    assert [said["model"] for said in asked] == ["model-of-a", "model-of-b"]
    assert asked[1]["messages"][-1] == {"role": "assistant", "content": "The wind"}
    assert body.count(b'"model":"m"') == 3
    assert body.endswith(DONE)
