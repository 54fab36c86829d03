"""Whom a gateway trusts: tokens that are accepted and those that are not, secrets that never show, files that turn."""

from __future__ import annotations

import base64
import copy
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, SECP384R1
from cryptography.hazmat.primitives.asymmetric.ec import generate_private_key as make_ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key as make_rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from yarl import URL

from router_sync.gateway import GatewayConfig, checked
from router_sync.gateway.access import load_access
from router_sync.gateway.caller import Caller
from router_sync.gateway.claims import ClaimNames, Jwt, Tokens
from router_sync.gateway.config import load_fields
from router_sync.gateway.handshake import Complaints, barred
from router_sync.gateway.issuer import IssuerKeys, of_jwks
from router_sync.gateway.refusal import Refusal
from router_sync.gateway.rename import answered_as, asked_as
from router_sync.gateway.secret import Reference, Secret, read
from router_sync.gateway.tls import Tls, server_context
from router_sync.gateway.upstream import Link, Upstream, Upstreams
from router_sync.gateway.watch import Watch
from streams.contract.errors import BadSetting

ISSUER, AUDIENCE, NOW_S = "https://login.example.com/", "tradewind", 1_000_000.0
KEYS: dict[str, Any] = {
    "RS256": make_rsa(public_exponent=65537, key_size=2048),
    "ES256": make_ec(SECP256R1()),
    "EdDSA": Ed25519PrivateKey.generate(),
}
TO_JWK: dict[str, Callable[[Any], str]] = {
    "RS256": jwt.algorithms.RSAAlgorithm.to_jwk,
    "ES256": jwt.algorithms.ECAlgorithm.to_jwk,
    "EdDSA": jwt.algorithms.OKPAlgorithm.to_jwk,
}


def pem(key: Any) -> bytes:
    text: bytes = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return text


def jwks(**named: str) -> bytes:
    """A key set of `kid=algorithm`."""
    keys = [{**json.loads(TO_JWK[alg](KEYS[alg].public_key())), "kid": kid, "use": "sig"} for kid, alg in named.items()]
    return json.dumps({"keys": keys}).encode()


def token(algorithm: str = "RS256", key: Any = None, kid: str | None = "k", drop: str = "", **claims: Any) -> str:
    usual: dict[str, Any] = {"iss": ISSUER, "aud": AUDIENCE, "sub": "acme", "exp": NOW_S + 60}
    said = {name: value for name, value in {**usual, **claims}.items() if name != drop}
    head = {} if kid is None else {"kid": kid}
    return jwt.encode(said, KEYS[algorithm] if key is None else key, algorithm=algorithm, headers=head)


def tokens(folder: Path, text: bytes | None = None, **fields: Any) -> Tokens:
    path = folder / "jwks.json"
    path.write_bytes(text if text is not None else jwks(k="RS256", e="ES256", d="EdDSA"))
    said = Jwt(issuer=ISSUER, audience=AUDIENCE, jwks_file=path, **fields)
    return Tokens(said, IssuerKeys(said, Watch(1.0)), lambda: NOW_S)


def refused(of: Tokens, one: str) -> tuple[int, str]:
    with pytest.raises(Refusal) as caught:
        of.caller(one)
    return caught.value.status, caught.value.code


# ---------------------------------------------------------------- tokens


@pytest.mark.parametrize(("algorithm", "kid"), [("RS256", "k"), ("ES256", "e"), ("EdDSA", "d")])
def test_a_token_of_the_issuer_says_tenant_and_classes(tmp_path: Path, algorithm: str, kid: str) -> None:
    of = tokens(tmp_path)
    one = token(algorithm, kid=kid, tradewind_classes=["chat", "batch"])
    assert of.caller(one) == Caller(tenant="acme", classes=("chat", "batch"))
    assert of.caller(one) is of.caller(one)  # known by now


def test_classes_may_be_words_or_another_claim_and_none_means_the_default(tmp_path: Path) -> None:
    of = tokens(tmp_path, claims=ClaimNames(tenant="org", classes="scope"))
    assert of.caller(token(org="o", scope="chat batch")) == Caller(tenant="o", classes=("chat", "batch"))
    assert of.caller(token(org="o")) == Caller(tenant="o")
    assert refused(of, token(org="o", scope=[])) == (403, "class_not_allowed")
    assert refused(of, token(org="o", scope=7)) == (401, "invalid_claim")
    assert refused(of, token(org=7)) == (401, "missing_claim")


@pytest.mark.parametrize(
    ("one", "code"),
    [
        (token(exp=NOW_S - 31), "token_expired"),
        (token(nbf=NOW_S + 31), "token_not_yet_valid"),
        (token(aud="somebody"), "wrong_audience"),
        (token(iss="https://evil.example/"), "wrong_issuer"),
        (token(drop="exp"), "missing_claim"),
        (token(drop="aud"), "missing_claim"),
        (token(drop="sub"), "missing_claim"),
        (token(kid="other"), "unknown_key"),
        (token(key=make_rsa(public_exponent=65537, key_size=2048)), "invalid_token"),
        (token("EdDSA", kid="k"), "unknown_key"),  # the key named is of another kind
        ("a.b.c", "invalid_token"),
        ("..", "invalid_token"),
        (token()[:-5] + "AAAAA", "invalid_token"),
    ],
)
def test_a_token_that_is_not_right_is_a_401_that_says_why(tmp_path: Path, one: str, code: str) -> None:
    assert refused(tokens(tmp_path), one) == (401, code)


def test_clocks_may_differ_by_the_leeway(tmp_path: Path) -> None:
    of = tokens(tmp_path)
    assert of.caller(token(exp=NOW_S - 29, nbf=NOW_S + 29)).tenant == "acme"


def test_a_known_token_ends_when_it_expires(tmp_path: Path) -> None:
    said = Jwt(issuer=ISSUER, audience=AUDIENCE, jwks_file=tmp_path / "jwks.json", leeway_s=0)
    (tmp_path / "jwks.json").write_bytes(jwks(k="RS256"))
    now_s = [NOW_S]
    of, one = Tokens(said, IssuerKeys(said, Watch(1.0)), lambda: now_s[0]), token()
    assert of.caller(one).tenant == "acme"
    now_s[0] += 60
    assert refused(of, one) == (401, "token_expired")


def forged(head: dict[str, Any], signature: bytes = b"") -> str:
    parts = [
        json.dumps(head).encode(),
        json.dumps({"iss": ISSUER, "aud": AUDIENCE, "sub": "x", "exp": NOW_S + 9}).encode(),
    ]
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in (*parts, signature))


def test_unsigned_tokens_and_those_signed_with_the_public_key_as_a_secret_are_refused(tmp_path: Path) -> None:
    import hashlib
    import hmac

    of = tokens(tmp_path)
    assert refused(of, forged({"alg": "none", "kid": "k"})) == (401, "algorithm_not_allowed")
    head = {"alg": "HS256", "kid": "k"}
    text = forged(head).rpartition(".")[0]
    signature = hmac.new(pem(KEYS["RS256"]), text.encode(), hashlib.sha256).digest()
    assert refused(of, forged(head, signature)) == (401, "algorithm_not_allowed")
    only = tokens(tmp_path, algorithms=("ES256",))
    assert refused(only, token()) == (401, "algorithm_not_allowed")


def test_a_public_key_file_needs_no_names(tmp_path: Path) -> None:
    (tmp_path / "key.pem").write_bytes(pem(KEYS["ES256"]))
    said = Jwt(issuer=ISSUER, audience=AUDIENCE, public_key_file=tmp_path / "key.pem")
    of = Tokens(said, IssuerKeys(said, Watch(1.0)), lambda: NOW_S)
    for kid in (None, "any"):
        assert of.caller(token("ES256", kid=kid)).tenant == "acme"


def test_a_token_without_a_name_of_a_key_needs_it_to_be_the_only_one(tmp_path: Path) -> None:
    assert tokens(tmp_path).caller(token(kid=None)).tenant == "acme"
    two = tokens(tmp_path, jwks(a="RS256", b="RS256"))
    assert refused(two, token(kid=None)) == (401, "unknown_key")


def test_weak_private_symmetric_and_foreign_keys_of_a_set_are_left_out() -> None:
    weak = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(make_rsa(public_exponent=65537, key_size=1024).public_key()))
    wide = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(make_ec(SECP384R1()).public_key()))
    private = json.loads(jwt.algorithms.OKPAlgorithm.to_jwk(KEYS["EdDSA"]))
    other = {"kty": "oct", "k": "c2VjcmV0", "alg": "HS256"}
    encrypts = {**json.loads(TO_JWK["RS256"](KEYS["RS256"].public_key())), "use": "enc"}
    text = json.dumps({"keys": [weak, wide, other, encrypts, "nonsense", {"kty": "RSA", "n": 3}, private]}).encode()
    (key,) = of_jwks(text)
    assert key.algorithm == "EdDSA"
    assert not hasattr(key.key, "private_bytes")


@pytest.mark.parametrize("text", [b"", b"[]", b'{"keys": 3}', b'{"keys": []}', b"\xff"])
def test_a_file_without_a_usable_key_stops_with_its_name(tmp_path: Path, text: bytes) -> None:
    with pytest.raises(BadSetting, match=r"jwt\.jwks_file = .*jwks\.json"):
        tokens(tmp_path, text)


@pytest.mark.parametrize("url", ["http://login.example.com/jwks", "ftp://x/", "https://", "http://127.0.0.1.evil/"])
def test_keys_are_fetched_only_where_nobody_can_change_them_on_the_way(url: str) -> None:
    with pytest.raises(BadSetting, match="jwks_url has to be https"):
        checked("f", {**USUAL, "jwt": {"issuer": "i", "audience": "a", "jwks_url": url}})


# ---------------------------------------------------------------- secrets

USUAL: dict[str, Any] = {"origin": "eu", "trust": ["a.pub"], "anonymous": True}
HELD = "sk-very-secret"


def test_a_secret_shows_itself_nowhere() -> None:
    one = Secret(HELD)
    assert one.reveal() == HELD
    for shown in (repr(one), str(one), f"{one}", f"{one!s:>40}", f"{one}", repr([one]), "%s" % one):  # noqa: UP031
        assert HELD not in shown
    for write in (pickle.dumps, copy.copy):
        with pytest.raises(TypeError):
            write(one)


@pytest.mark.parametrize(
    ("content", "remedy"),
    [
        (None, "No such file"),
        ("", "holds nothing"),
        ("  \n", "holds nothing"),
        (f"{HELD}\nmore", "one line"),
        (f"{HELD}\x01", "one line"),
        (f"{HELD}é", "one line"),
        (HELD * 2000, "one line"),
    ],
)
def test_a_credential_that_cannot_be_used_stops_the_gateway_with_its_entry_and_never_its_value(
    tmp_path: Path, content: str | None, remedy: str
) -> None:
    path = tmp_path / "credential"
    if content is not None:
        path.write_text(content)
    said = {"gpu-1": Upstream(credential=Reference(file=path))}
    with pytest.raises(BadSetting, match=remedy) as caught:
        Upstreams(said, {}, Watch(1.0))
    assert caught.value.field == "upstreams.gpu-1.credential.file"
    assert str(path) in str(caught.value)
    assert HELD not in str(caught.value) + repr(caught.value.__dict__)


def test_a_variable_that_is_not_set_is_named() -> None:
    with pytest.raises(BadSetting, match="Set the variable OPENAI_KEY") as caught:
        read(Reference(env="OPENAI_KEY"), {}, "upstreams.a.credential")
    assert caught.value.field == "upstreams.a.credential.env"
    assert read(Reference(env="OPENAI_KEY"), {"OPENAI_KEY": f" {HELD}\n"}, "x").reveal() == HELD


@pytest.mark.parametrize(
    ("upstream", "field"),
    [
        ({"credential": HELD}, "upstreams.a.credential"),
        (HELD, "upstreams.a"),
        ({"credential": {"value": HELD}}, "upstreams.a.credential.value"),
        ({"credential": {"env": HELD}}, "upstreams.a.credential.env"),
        ({"credential": {"file": "x", "env": "Y"}}, "upstreams.a.credential"),
        ({"token": HELD}, "upstreams.a.token"),
        ({"headers": {"x": {"value": HELD}}}, "upstreams.a.headers"),
        ({"headers": {"Host": HELD}}, "upstreams.a"),
        ({"credential": {"env": "Y"}, "pass_authorization": True}, "upstreams.a"),
        ({"cert_file": "x"}, "upstreams.a"),
        ({"hosts": ["https://a.example"]}, "upstreams.a.hosts[0]"),
    ],
)
def test_an_upstream_that_makes_no_sense_is_named_and_what_may_be_a_secret_is_not_repeated(
    upstream: object, field: str
) -> None:
    with pytest.raises(BadSetting) as caught:
        checked("gateway.yaml", {**USUAL, "upstreams": {"a": upstream}})
    assert caught.value.field.startswith(field)
    assert HELD not in str(caught.value) + repr(caught.value.__dict__)


@pytest.mark.parametrize("key", [HELD, {"value": HELD}, {"env": HELD}])
def test_a_key_of_sessions_that_stands_in_the_file_by_mistake_is_not_repeated(key: object) -> None:
    with pytest.raises(BadSetting) as caught:
        checked("gateway.yaml", {**USUAL, "sessions": {"key": key}})
    assert caught.value.field.startswith("sessions.key")
    assert HELD not in str(caught.value) + repr(caught.value.__dict__)


def test_a_config_is_printed_with_where_secrets_are_and_not_with_what_they_are(tmp_path: Path) -> None:
    path = tmp_path / "credential"
    path.write_text(HELD)
    config = checked("f", {**USUAL, "upstreams": {"a": {"credential": {"file": str(path)}, "header": "api-key"}}})
    assert isinstance(config, GatewayConfig)
    links = Upstreams(config.upstreams, {}, Watch(1.0))
    assert HELD not in repr(config) + repr(links._links["a"].headers)
    assert links._links["a"].said() == {"api-key": HELD}


# ---------------------------------------------------------------- certificates


def test_a_certificate_that_cannot_be_used_stops_with_its_field(tmp_path: Path) -> None:
    bad, key = tmp_path / "bad.pem", tmp_path / "key.pem"
    bad.write_text("nonsense")
    key.write_bytes(KEYS["ES256"].private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    cases: list[tuple[str, Callable[[], object]]] = [
        ("tls.cert_file", lambda: server_context(Tls(cert_file=bad, key_file=key), Watch(1.0))),
        ("tls.key_file", lambda: server_context(Tls(cert_file=bad, key_file=tmp_path / "none"), Watch(1.0))),
        ("upstreams.a.ca_file", lambda: Upstreams({"a": Upstream(ca_file=bad)}, {}, Watch(1.0))),
        ("upstreams.a.cert_file", lambda: Upstreams({"a": Upstream(cert_file=bad, key_file=key)}, {}, Watch(1.0))),
    ]
    for field, make in cases:
        with pytest.raises(BadSetting) as caught:
            make()
        assert caught.value.field == field


# ---------------------------------------------------------------- files that change


def test_a_change_is_read_once_and_what_is_bad_is_told_and_left(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, read_ones, watch = tmp_path / "file", list[str](), Watch(1.0)

    def reload() -> None:
        text = path.read_text()
        if text == "bad":
            raise BadSetting("f", "x", text, "Be good.")
        read_ones.append(text)

    path.write_text("one")
    watch.add("x", [path], reload)
    watch.take(watch.changed())
    assert read_ones == []
    for text in ("three", "bad", "fourth"):
        path.write_text(text)
        for _ in range(2):
            watch.take(watch.changed())
    assert read_ones == ["three", "fourth"]
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == ["file_refused"]


@pytest.mark.parametrize("bad", ["tenant: 2020-13-45", "tenant: !!int x", "tenant: !!bool x", f"tenant: {'[' * 3000}"])
def test_a_bad_value_in_one_file_is_told_and_stops_no_other_files_change(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, bad: str
) -> None:
    keys, other, read_ones, watch = tmp_path / "keys.yaml", tmp_path / "other", list[str](), Watch(1.0)
    keys.write_text("keys: []")
    other.write_text("old")
    access = load_access(keys, anonymous=False)
    watch.add("keys", [keys], lambda: access.load(keys))
    watch.add("mistake", [keys], lambda: dict[str, None]()["no such"])
    watch.add("other", [other], lambda: read_ones.append(other.read_text()))
    keys.write_text(f"keys:\n  - {bad}\n")
    other.write_text("rotated")
    watch.take(watch.changed())
    assert read_ones == ["rotated"]
    assert [r.getMessage() for r in caplog.records if r.levelname == "ERROR"] == ["file_refused", "file_refused"]
    for load in (lambda: load_access(keys, anonymous=False), lambda: load_fields(keys)):
        with pytest.raises(BadSetting, match="Give a readable"):
            load()


# ---------------------------------------------------------------- hosts that may be sent to


@pytest.mark.parametrize(
    ("hosts", "url", "may"),
    [
        ((), "http://127.0.0.1:1", True),
        (("api.example",), "https://api.example/v1", True),
        (("API.example",), "https://Api.Example:8443/v1", True),
        (("api.example:443",), "https://api.example", True),
        (("api.example:443",), "https://api.example:8443", False),
        (("api.example",), "https://api.example@evil.example/v1", False),
        (("api.example",), "https://api.example.evil.example", False),
        (("[::1]:80",), "http://[::1]/v1", True),
    ],
)
def test_a_credential_goes_to_its_hosts_only(
    hosts: tuple[str, ...], url: str, may: bool, caplog: pytest.LogCaptureFixture
) -> None:
    said = {"p": {"credential": {"env": "P"}, "hosts": hosts}}
    links = Upstreams(checked("f", {**USUAL, "upstreams": said}).upstreams, {"P": HELD}, Watch(1.0))
    assert links.unbound() == ([] if hosts else ["p"])
    reason = barred(URL(url, encoded=True), "one", links._links["p"], Complaints())
    assert (reason is None) is may
    told = [record for record in caplog.records if record.getMessage() == "upstream_credential_withheld"]
    assert len(told) == (not may)
    assert all("upstreams.p.hosts" in repr(record.__dict__) and HELD not in repr(record.__dict__) for record in told)


def test_a_credential_that_goes_over_the_net_in_clear_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    link = Link("p")
    link.credential, complaints = True, Complaints()
    for url in ("http://127.0.0.2:1", "http://localhost", "https://a.example", "http://a.example", "http://a.example"):
        assert barred(URL(url), "one", link, complaints) is None
    assert [record.getMessage() for record in caplog.records] == ["upstream_credential_in_clear"]


# ---------------------------------------------------------------- models by other names


def test_a_body_gets_the_endpoints_model_and_keeps_the_rest_byte_by_byte() -> None:
    body = b'{"x": 1.50, "model": "chat", "y": {"model": "chat"}, "z": "\\u00e9"}'
    assert asked_as(body, 'a"b') == b'{"x":1.50,"model":"a\\"b","y":{"model": "chat"},"z":"\\u00e9"}'
    assert asked_as(b"{}", "m") == b'{"model":"m"}'
    for bad in (b"[]", b"{", b"\xff"):
        with pytest.raises(Refusal):
            asked_as(bad, "m")


def test_an_answers_model_is_called_by_the_service_and_what_is_said_in_it_is_not_touched() -> None:
    text = json.dumps({"model": "up/stream", "content": '{"model": "up/stream"}', "other": {"model": "up"}}).encode()
    said = json.loads(answered_as(text, "up/stream", "chat\\1"))
    assert said == {"model": "chat\\1", "content": '{"model": "up/stream"}', "other": {"model": "up"}}
    assert answered_as(b'{"model":"up-2026-01"}', "up", "chat") == b'{"model":"up-2026-01"}'
