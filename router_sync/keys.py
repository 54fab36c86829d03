"""Keys on disk: a private key for the router, made on first use; trust files for gateways.

A trust file holds one public key per line, `kid base64 # comment`. The comment that we write
names the format. During a change of keys it holds two: first add
the new key everywhere, then let the router sign with both, then with the new one, then take the old one away.
"""

from __future__ import annotations

import base64
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from router_sync.sign import Signer, Trust, kid_of
from streams.contract import formats
from streams.contract.errors import BadSetting

TRUST_FORMAT: Final = 1
_COMMENT: Final = f"tradewind router, trust file format {TRUST_FORMAT}"
_FORMAT: Final = re.compile(r"#.*\btrust file format (\d{1,9})\b")
_OTHERS: Final = 0o077


def load_or_make(path: Path) -> Signer:
    """The signer of the private key in `path` (PEM, 0600); made when there is none, its public half in `path`.pub.

    Raises BadSetting when the file is readable by others, is not an Ed25519 key, or cannot be read or written.
    """
    try:
        if not path.exists():
            _make(path)
        signer = _load(path)
        _publish(path, signer)
    except OSError as error:
        remedy = "Give this user read and write access to it, or set another place."
        raise BadSetting(str(path), "signing key", error.strerror or str(error), remedy) from None
    return signer


def public_path(path: Path) -> Path:
    """Where the public half of the private key in `path` lies: a trust file with one key."""
    return path.with_name(path.name + ".pub")


def trust_line(public: Ed25519PublicKey, comment: str = "") -> str:
    """`public` as one line of a trust file."""
    line = f"{kid_of(public)} {base64.b64encode(public.public_bytes_raw()).decode()}"
    return f"{line} # {comment}" if comment else line


def load_trust(*paths: Path) -> Trust:
    """All keys in the trust files `paths`. Raises BadSetting with file and line, and when there is no key at all."""
    keys: dict[str, Ed25519PublicKey] = {}
    for path in paths:
        keys.update(_trusted(path))
    if not keys:
        where = ", ".join(map(str, paths)) or "trust file"
        raise BadSetting(where, "trusted keys", None, "Copy the router's public key (its .pub file) here.")
    return Trust(keys)


def _make(path: Path) -> None:
    pem = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = _draft(path, pem)
    try:
        # unlike a rename, a link never replaces a key that another process made meanwhile
        os.link(draft, path)
    except FileExistsError:
        pass
    finally:
        draft.unlink()


def _load(path: Path) -> Signer:
    mode = path.stat().st_mode & 0o777
    if mode & _OTHERS:
        raise BadSetting(str(path), "mode", oct(mode), f"Others can read the private key: chmod 600 {path}")
    try:
        private = load_pem_private_key(path.read_bytes(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        private = None
    if not isinstance(private, Ed25519PrivateKey):
        remedy = "Use an unencrypted Ed25519 key in PEM, or move the file away and a new key is made."
        raise BadSetting(str(path), "signing key", "its content", remedy)
    return Signer(private)


def _publish(path: Path, signer: Signer) -> None:
    """The public half beside the private one, written only when it differs (the folder may be read-only)."""
    public, text = public_path(path), trust_line(signer.public, _COMMENT) + "\n"
    unnumbered = trust_line(signer.public, "tradewind router") + "\n"
    if public.exists() and public.read_text("utf-8") in (text, unnumbered):
        return
    draft = _draft(public, text.encode())
    draft.chmod(0o644)
    draft.replace(public)


def _draft(path: Path, content: bytes) -> Path:
    """A complete, flushed 0600 file beside `path`, so that what appears under `path` is never half a file."""
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    with os.fdopen(handle, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    return Path(name)


def _trusted(path: Path) -> Iterator[tuple[str, Ed25519PublicKey]]:
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        remedy = "Copy the router's public key (its .pub file) here."
        raise BadSetting(str(path), "trust file", str(error), remedy) from None
    for said in _FORMAT.findall(text):  # several: such files may be put one behind the other
        formats.require(path, int(said), TRUST_FORMAT, "Update Tradewind here before you give it keys of this file.")
    for number, line in enumerate(text.splitlines(), 1):
        if words := line.partition("#")[0].split():
            yield _key(f"{path}:{number}", words)


def _key(where: str, words: list[str]) -> tuple[str, Ed25519PublicKey]:
    remedy = "Write one key per line: kid, a blank, the 32 raw bytes in base64, and a comment behind # if you like."
    try:
        kid, text = words
        public = Ed25519PublicKey.from_public_bytes(base64.b64decode(text, validate=True))
    except ValueError:
        raise BadSetting(where, "trusted key", "its content", remedy) from None
    if kid != kid_of(public):
        raise BadSetting(where, "kid", kid, f"The key beside it is called {kid_of(public)}: one of the two is wrong.")
    return kid, public
