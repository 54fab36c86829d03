"""How clients of ours get at Kafka: settings that contradict each other, files, passwords that nobody sees."""

from __future__ import annotations

import logging
import ssl
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trustme

from router_sync.gateway.config import checked
from streams import settings
from streams.contract.errors import BadSetting
from streams.runtime import access as module
from streams.runtime.access import Access, client_options, warn_if_open
from streams.settings import Settings, environment

PASSWORD = "hunter2-f00d"


@pytest.fixture(autouse=True)
def _nothing_of_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_warned", set())
    for name in list(environment()):
        if name.upper().startswith("TRADEWIND_"):
            monkeypatch.delenv(name)


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """A CA, a certificate of a client with its key, and a password."""
    ca = trustme.CA()
    client = ca.issue_cert("worker.example")
    made = {name: tmp_path / name for name in ("ca.pem", "cert.pem", "key.pem", "password")}
    ca.cert_pem.write_to_path(made["ca.pem"])
    client.cert_chain_pems[0].write_to_path(made["cert.pem"])
    client.private_key_pem.write_to_path(made["key.pem"])
    made["password"].touch(0o600)
    made["password"].write_text(f"{PASSWORD}\n")
    return made


def sasl(files: dict[str, Path], **changed: Any) -> Access:
    said: dict[str, Any] = {
        "bootstrap_servers": "kafka:9093",
        "security_protocol": "SASL_SSL",
        "sasl_mechanism": "SCRAM-SHA-512",
        "sasl_username": "streams",
        "sasl_password_file": files["password"],
        "tls_ca_file": files["ca.pem"],
        **changed,
    }
    return Access(**said)


def test_a_plain_broker_needs_its_address_alone() -> None:
    assert client_options("127.0.0.1:19092") == {"bootstrap_servers": "127.0.0.1:19092"}
    assert client_options(Settings(bootstrap_servers="kafka:9092")) == {"bootstrap_servers": "kafka:9092"}


def test_a_secured_one_gets_a_name_a_password_and_a_tls_that_checks_whom_it_speaks_with(files: dict[str, Path]) -> None:
    options = client_options(sasl(files))
    context = options.pop("ssl_context")
    assert options == {
        "bootstrap_servers": "kafka:9093",
        "security_protocol": "SASL_SSL",
        "sasl_mechanism": "SCRAM-SHA-512",
        "sasl_plain_username": "streams",
        "sasl_plain_password": PASSWORD,
    }
    assert context.check_hostname
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2


def test_a_client_may_have_a_certificate_of_its_own_and_is_known_by_it(files: dict[str, Path]) -> None:
    mine = Access(
        security_protocol="SSL",
        tls_ca_file=files["ca.pem"],
        tls_cert_file=files["cert.pem"],
        tls_key_file=files["key.pem"],
    )
    assert set(client_options(mine)) == {"bootstrap_servers", "security_protocol", "ssl_context"}
    assert mine.principal.startswith("User:")
    assert "trustme" in mine.principal
    assert sasl(files).principal == "User:streams"
    assert Access().principal == "User:ANONYMOUS"


def test_a_password_is_read_anew_for_each_client(files: dict[str, Path]) -> None:
    mine = sasl(files)
    client_options(mine)
    files["password"].write_text("another")
    assert client_options(mine)["sasl_plain_password"] == "another"


def test_a_password_is_in_no_repr_and_no_json(files: dict[str, Path]) -> None:
    mine = sasl(files)
    assert PASSWORD not in repr(mine) + str(mine) + msgspec.json.encode(mine, enc_hook=str).decode()


def test_a_password_that_others_may_read_is_told_once(files: dict[str, Path], caplog: pytest.LogCaptureFixture) -> None:
    files["password"].chmod(0o644)
    for _ in range(3):
        client_options(sasl(files))
    (told,) = caplog.records
    assert told.getMessage() == "kafka_password_file_open"
    assert f"chmod 600 {files['password']}" in told.fields["remedy"]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("protocol", "servers", "mechanism", "told"),
    [
        ("PLAINTEXT", "127.0.0.1:1,localhost:2", None, []),
        ("PLAINTEXT", "127.0.0.1:1,kafka:2", None, ["anybody on the way"]),
        ("SASL_PLAINTEXT", "kafka:2", "PLAIN", ["read the password: set security_protocol to SASL_SSL"]),
        ("SASL_SSL", "kafka:2", "PLAIN", []),
    ],
)
def test_what_can_be_read_on_the_way_is_told_once_and_not_refused(
    protocol: Any,
    servers: str,
    mechanism: Any,
    told: list[str],
    files: dict[str, Path],
    caplog: pytest.LogCaptureFixture,
) -> None:
    named = {"sasl_mechanism": mechanism, "sasl_username": "u", "sasl_password_file": files["password"]}
    mine = Access(bootstrap_servers=servers, security_protocol=protocol, **(named if mechanism else {}))
    for _ in range(2):
        warn_if_open(mine)
    said = [(r.levelno, r.fields["remedy"]) for r in caplog.records]  # type: ignore[attr-defined]
    assert len(said) == len(told)
    assert all(level == logging.WARNING and word in remedy for (level, remedy), word in zip(said, told, strict=True))


SASL = {"security_protocol": "SASL_SSL", "sasl_mechanism": "PLAIN", "sasl_username": "u", "sasl_password_file": "p"}
WRONG: list[tuple[dict[str, str], str, str]] = [
    ({"security_protocol": "TLS"}, "security_protocol", "'SASL_SSL'"),
    ({"security_protocol": "SASL_SSL"}, "sasl_mechanism", "SASL_SSL needs it: set it, or set security_protocol to SSL"),
    ({**SASL, "sasl_mechanism": "GSSAPI"}, "sasl_mechanism", "'SCRAM-SHA-256' or 'SCRAM-SHA-512'"),
    ({k: v for k, v in SASL.items() if k != "sasl_username"}, "sasl_username", "SASL_SSL needs it"),
    ({k: v for k, v in SASL.items() if k != "sasl_password_file"}, "sasl_password_file", "SASL_SSL needs it"),
    ({**SASL, "security_protocol": "SSL"}, "sasl_mechanism", "SSL does not use it: set security_protocol to SASL_SSL"),
    ({"tls_ca_file": "ca.pem"}, "tls_ca_file", "PLAINTEXT does not use it: set security_protocol to SSL"),
    (
        {**SASL, "security_protocol": "SASL_PLAINTEXT", "tls_ca_file": "c"},
        "tls_ca_file",
        "to SASL_SSL, or leave it out",
    ),
    ({"security_protocol": "SSL", "tls_cert_file": "c"}, "tls_key_file", "give both, not tls_cert_file alone"),
    ({"security_protocol": "SSL", "tls_key_file": "k"}, "tls_key_file", "give both, not tls_key_file alone"),
]


@pytest.mark.parametrize(("said", "field", "right"), WRONG, ids=[f"{w[1]}-{n}" for n, w in enumerate(WRONG)])
def test_settings_that_contradict_each_other_name_the_field_and_what_would_be_right(
    said: dict[str, str], field: str, right: str
) -> None:
    with pytest.raises(BadSetting) as caught:
        settings.load(**said)
    assert caught.value.field == field
    assert right in caught.value.remedy


def test_a_gateways_own_access_is_held_to_the_same_rules() -> None:
    with pytest.raises(BadSetting, match="SASL_SSL needs it") as caught:
        checked("gw.yaml", {"origin": "eu", "trust": [], "anonymous": True, "kafka": {"security_protocol": "SASL_SSL"}})
    assert caught.value.where == "gw.yaml"


def test_variables_that_a_compose_file_leaves_empty_are_as_if_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    for field in module.SECURITY:
        monkeypatch.setenv(f"TRADEWIND_{field.upper()}", "")
    assert Access.of(settings.load()) == Access()


@pytest.mark.parametrize(
    ("field", "content", "why"),
    [
        ("sasl_password_file", None, "No such file or directory: give a readable file of one line"),
        ("sasl_password_file", b"", "one line, the password"),
        ("sasl_password_file", b"two\nlines\n", "one line, the password"),
        ("sasl_password_file", b"\xff\xfe", "one line, the password"),
        ("tls_ca_file", None, "No such file or directory: give a readable file of PEM certificates"),
        ("tls_ca_file", b"no certificate", "give a readable file of PEM certificates"),
        ("tls_cert_file", b"no certificate", "a PEM certificate"),
        ("tls_key_file", b"no key", "PEM key without a passphrase"),
    ],
)
def test_a_file_of_no_use_is_named_with_the_reason_and_not_quoted(
    field: str, content: bytes | None, why: str, files: dict[str, Path], tmp_path: Path
) -> None:
    path = tmp_path / "bad"
    if content is not None:
        path.touch(0o600)
        path.write_bytes(content)
    own = {"tls_cert_file": files["cert.pem"], "tls_key_file": files["key.pem"]}
    with pytest.raises(BadSetting) as caught:
        client_options(sasl(files, **{**own, field: path}))
    assert caught.value.field == field
    assert str(path) in str(caught.value)
    assert why in caught.value.remedy
    assert not content or content.decode(errors="replace").strip() not in str(caught.value)


def test_a_key_that_needs_a_passphrase_is_refused_and_nobody_is_asked_for_it(
    files: dict[str, Path], tmp_path: Path
) -> None:
    from cryptography.hazmat.primitives import serialization as s

    key = s.load_pem_private_key(files["key.pem"].read_bytes(), password=None)
    locked = tmp_path / "locked.pem"
    locked.write_bytes(key.private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, s.BestAvailableEncryption(b"secret")))
    with pytest.raises(BadSetting, match="without a passphrase"):
        client_options(sasl(files, tls_cert_file=files["cert.pem"], tls_key_file=locked))


def test_a_secret_in_the_wrong_place_is_not_repeated() -> None:
    with pytest.raises(BadSetting) as caught:
        checked("gw.yaml", {"origin": "eu", "trust": [], "anonymous": True, "kafka": {"sasl_password": PASSWORD}})
    assert caught.value.field == "kafka.sasl_password"
    assert PASSWORD not in str(caught.value) + repr(caught.value.value)
