"""Signed tables: Ed25519 over the exact bytes that travel, so that nothing is parsed before it is verified.

What is signed is (type, key, value), each behind its length, so that a signature holds for no other key and for no
other kind of record. The type does not name the topic: a prefix may change without new signatures.
During a change of keys a table carries one header per key, and a gateway that trusts either accepts it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from streams.contract.errors import TableRefused
from streams.contract.topics import SIGNATURE

TYPE: Final = b"tradewind.routing-table.v1"
_ALG: Final = "Ed25519"
_MAX_HEADERS: Final = 4
"""More signatures than this are not looked at: each costs about 0.1 ms, and an attacker could send many."""
Headers = list[tuple[str, bytes]]


def kid_of(public: Ed25519PublicKey) -> str:
    """The key's name: the first 16 hex digits of the SHA-256 of its 32 raw bytes."""
    return hashlib.sha256(public.public_bytes_raw()).hexdigest()[:16]


def signed_bytes(key: bytes, value: bytes) -> bytes:
    """What is signed: type, key and value, each behind its length as 8 bytes, big-endian.

    >>> signed_bytes(b"ab", b"c") == signed_bytes(b"a", b"bc")
    False
    """
    return b"".join(len(part).to_bytes(8, "big") + part for part in (TYPE, key, value))


class Signer:
    """Seals tables with one private key. `kid` names it; by default `kid_of` its public half."""

    def __init__(self, private: Ed25519PrivateKey, kid: str | None = None) -> None:
        self._private = private
        self.public: Final = private.public_key()
        self.kid: Final = kid or kid_of(self.public)

    def seal(self, key: bytes, value: bytes) -> Headers:
        """The header that seals `value` under `key`; a `streams.runtime.step.Seal`."""
        signature = base64.b64encode(self._private.sign(signed_bytes(key, value))).decode()
        return [(SIGNATURE, f"alg={_ALG};kid={self.kid};sig={signature}".encode())]


def seal_with(signers: Iterable[Signer]) -> Callable[[bytes, bytes], Headers]:
    """A seal with one header per signer: during a change of keys, the old and the new."""
    kept = tuple(signers)
    return lambda key, value: [header for signer in kept for header in signer.seal(key, value)]


class Trust:
    """Public keys whose tables are followed, by kid; two of them during a change of keys."""

    def __init__(self, keys: Mapping[str, Ed25519PublicKey]) -> None:
        self.keys: Final = dict(keys)

    def verify(self, headers: Iterable[tuple[str, bytes]], key: bytes, value: bytes) -> str:
        """The kid of the first trusted key that signed exactly (`key`, `value`).

        Raises TableRefused: no signature, none by a trusted key, or one that does not fit these bytes.
        """
        seals = [text for name, text in headers if name == SIGNATURE]
        if not seals:
            raise TableRefused("signature", None, f"header {SIGNATURE} is missing: publish through a signing router")
        if len(seals) > _MAX_HEADERS:
            raise TableRefused("signature", len(seals), f"at most {_MAX_HEADERS} signatures are looked at")
        refused = TableRefused("signature", None, "nothing was looked at")
        for seal in seals:
            try:
                return self._one(seal, key, value)
            except TableRefused as error:
                refused = error
        raise refused

    def _one(self, seal: bytes, key: bytes, value: bytes) -> str:
        kid, signature = _parts(seal)
        public = self.keys.get(kid)
        if public is None:
            trusted = ", ".join(sorted(self.keys)) or "none"
            raise TableRefused("signature.kid", kid, f"is not trusted (trusted: {trusted}): add it to the trust file")
        try:
            public.verify(signature, signed_bytes(key, value))
        except InvalidSignature:
            raise TableRefused("signature.sig", kid, "does not fit these bytes under this key") from None
        return kid


def _parts(seal: bytes) -> tuple[str, bytes]:
    """Key id and signature out of "alg=Ed25519;kid=…;sig=base64"; TableRefused when it is anything else."""
    try:
        fields = dict(part.split("=", 1) for part in seal.decode("ascii").split(";"))
        alg, kid, signature = fields["alg"], fields["kid"], base64.b64decode(fields["sig"], validate=True)
    except (UnicodeDecodeError, ValueError, KeyError, binascii.Error):
        raise TableRefused("signature", seal[:80], "is not alg=…;kid=…;sig=base64") from None
    if alg != _ALG:
        raise TableRefused("signature.alg", alg, f"only {_ALG} is accepted")
    return kid, signature
