"""Signatures and keys: what is accepted, what is refused, and how that is said."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from router_sync.keys import load_or_make, load_trust, public_path, trust_line
from router_sync.sign import Signer, Trust, kid_of, seal_with
from streams.contract.errors import BadSetting, TableRefused

KEY, VALUE = b"chat", b'{"service":"chat"}'


def signer(seed: int) -> Signer:
    return Signer(Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32))


OLD, NEW, STRANGER = signer(1), signer(2), signer(3)
TRUST = Trust({OLD.kid: OLD.public, NEW.kid: NEW.public})


def test_a_sealed_table_is_accepted_and_its_key_named() -> None:
    assert TRUST.verify(OLD.seal(KEY, VALUE), KEY, VALUE) == OLD.kid == kid_of(OLD.public)
    assert len(OLD.kid) == 16


def test_the_header_says_algorithm_key_and_signature() -> None:
    [(name, text)] = OLD.seal(KEY, VALUE)
    assert name == "tw-sig"
    assert text.startswith(f"alg=Ed25519;kid={OLD.kid};sig=".encode())


@pytest.mark.parametrize(
    ("key", "value"),
    [(b"chat2", VALUE), (KEY, VALUE + b" "), (b"cha", b"t" + VALUE), (b"", KEY + VALUE), (KEY, b"")],
)
def test_a_signature_holds_for_exactly_its_key_and_bytes(key: bytes, value: bytes) -> None:
    with pytest.raises(TableRefused, match="does not fit these bytes"):
        TRUST.verify(OLD.seal(KEY, VALUE), key, value)


def test_during_a_change_of_keys_either_signature_is_enough() -> None:
    both = seal_with([OLD, NEW])(KEY, VALUE)
    assert len(both) == 2
    assert Trust({OLD.kid: OLD.public}).verify(both, KEY, VALUE) == OLD.kid
    assert Trust({NEW.kid: NEW.public}).verify(both, KEY, VALUE) == NEW.kid


def test_an_unknown_key_is_refused_by_name_and_with_what_would_be_trusted() -> None:
    with pytest.raises(TableRefused, match=f"is not trusted .*{OLD.kid}.*{STRANGER.kid}"):
        TRUST.verify(STRANGER.seal(KEY, VALUE), KEY, VALUE)


def test_a_stranger_may_not_borrow_a_trusted_name() -> None:
    forged = Signer(Ed25519PrivateKey.from_private_bytes(bytes(32)), kid=OLD.kid)
    with pytest.raises(TableRefused, match="does not fit"):
        TRUST.verify(forged.seal(KEY, VALUE), KEY, VALUE)


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("content-type", b"application/json")],
        [("tw-sig", b"")],
        [("tw-sig", b"alg=none;kid=x;sig=")],
        [("tw-sig", b"alg=Ed25519;kid=x")],
        [("tw-sig", b"alg=Ed25519;kid=x;sig=%%%")],
        [("tw-sig", "alg=Ed25519;kid=ä;sig=AA==".encode())],
        [("tw-sig", b"alg=Ed25519;kid=x;sig=AA==")] * 5,
    ],
)
def test_what_is_no_signature_is_refused(headers: list[tuple[str, bytes]]) -> None:
    with pytest.raises(TableRefused, match="signature"):
        TRUST.verify(headers, KEY, VALUE)


def test_a_short_signature_of_a_trusted_key_is_refused() -> None:
    with pytest.raises(TableRefused, match="does not fit"):
        TRUST.verify([("tw-sig", f"alg=Ed25519;kid={OLD.kid};sig=AAAA".encode())], KEY, VALUE)


def test_a_key_is_made_on_first_use_and_kept_for_the_next(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "router.pem"
    first, again = load_or_make(path), load_or_make(path)
    assert first.kid == again.kid
    assert path.stat().st_mode & 0o777 == 0o600
    assert sorted(p.name for p in path.parent.iterdir()) == ["router.pem", "router.pem.pub"]
    assert load_trust(public_path(path)).verify(first.seal(KEY, VALUE), KEY, VALUE) == first.kid


def test_a_key_that_others_can_read_is_refused_with_the_remedy(tmp_path: Path) -> None:
    path = tmp_path / "router.pem"
    load_or_make(path)
    path.chmod(0o640)
    with pytest.raises(BadSetting, match=rf"0o640.*chmod 600 {path}"):
        load_or_make(path)


@pytest.mark.parametrize(
    "content", [b"", b"not a key", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----"]
)
def test_a_file_that_is_no_key_is_refused_and_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "router.pem"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(BadSetting, match="Ed25519"):
        load_or_make(path)
    assert path.read_bytes() == content


def test_a_key_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "router.pem"
    pem = generate_private_key(SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.write_bytes(pem)
    path.chmod(0o600)
    with pytest.raises(BadSetting, match="Ed25519"):
        load_or_make(path)


def test_a_trust_file_holds_several_keys_with_comments(tmp_path: Path) -> None:
    path = tmp_path / "trust"
    path.write_text(f"# routers we follow\n\n{trust_line(OLD.public, 'until May')}\n{trust_line(NEW.public)}\n")
    assert set(load_trust(path).keys) == {OLD.kid, NEW.kid}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("only-one-word", r"trust:2: trusted key"),
        (f"{OLD.kid} AAAA", r"trust:2: trusted key"),
        (f"{OLD.kid} !!!", r"trust:2: trusted key"),
        (f"{OLD.kid} {base64.b64encode(NEW.public.public_bytes_raw()).decode()}", rf"trust:2: kid.*{NEW.kid}"),
    ],
)
def test_a_bad_line_of_a_trust_file_is_named(tmp_path: Path, line: str, said: str) -> None:
    path = tmp_path / "trust"
    path.write_text(f"# comment\n{line}\n")
    with pytest.raises(BadSetting, match=said) as bad:
        load_trust(path)
    assert line not in str(bad.value), "it may be a private key"


def test_trusting_nobody_is_refused_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("# nobody\n")
    with pytest.raises(BadSetting, match="trusted keys"):
        load_trust(tmp_path / "empty")
    with pytest.raises(BadSetting, match="trust file"):
        load_trust(tmp_path / "missing")
