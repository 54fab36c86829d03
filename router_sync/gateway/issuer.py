"""The public keys of a token issuer: from a file that is watched, or from a URL that is fetched now and then.

A fetch never makes a request wait. What fails leaves the keys that were; a token that names an unknown key brings the
next fetch forward, to at most one every few seconds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

import aiohttp
import msgspec

from router_sync.gateway.refusal import Refusal
from router_sync.gateway.tls import client_context
from router_sync.gateway.watch import Watch
from streams import signals
from streams.contract.errors import BadSetting

if TYPE_CHECKING:
    from router_sync.gateway.claims import Jwt

Algorithm = Literal["RS256", "ES256", "EdDSA"]
_KIND: Final[dict[tuple[str, str], Algorithm]] = {
    ("RSA", ""): "RS256", ("EC", "P-256"): "ES256", ("OKP", "Ed25519"): "EdDSA",
}  # fmt: skip
_PUBLIC: Final = ("kty", "crv", "n", "e", "x", "y")
_MOST_BYTES: Final = 1 << 20
_MOST_KEYS: Final = 100
_RSA_BITS: Final = 2048
_GAP_S: Final = 5.0
_AGAIN_S: Final = 1.0
_LONGEST_WAIT_S: Final = 30.0


class Key(NamedTuple):
    """One key; an empty `kid` is that of a key without a name."""

    kid: str
    algorithm: Algorithm
    key: Any


class IssuerKeys:
    """The keys in force. `version` grows with each change. Raises BadSetting when made of a file without any."""

    def __init__(self, said: Jwt, watch: Watch) -> None:
        self.version = 0
        self._said = said
        self._keys: tuple[Key, ...] = ()
        self._wanted = asyncio.Event()
        self._failures = 0
        if said.ca_file is not None:
            client_context("jwt", said.ca_file, None, None)
        path = said.jwks_file or said.public_key_file
        if path is not None:
            watch.add("jwt", [path], self._load)
            self._load()

    @property
    def empty(self) -> bool:
        return not self._keys

    def find(self, kid: object, algorithm: str) -> Any:
        """The key a token names; without a name the only one of its kind. Raises Refusal 401, or 503 without keys."""
        if not self._keys:
            message = "The keys of the token issuer are not here yet; try again in a moment."
            raise Refusal(503, "no_issuer_keys", message, headers={"Retry-After": "1"})
        fit = [key for key in self._keys if key.algorithm == algorithm and (kid is None or key.kid in (kid, ""))]
        if len(fit) == 1 or (fit and kid is not None):
            return max(fit, key=lambda key: key.kid == kid).key
        self._wanted.set()
        raise Refusal(
            401, "unknown_key", "This token is not accepted. No key of the issuer is the one it names (kid).",
            headers={"WWW-Authenticate": "Bearer"},
        )  # fmt: skip

    async def run(self) -> None:
        """Fetch until cancelled; ends at once where keys come from a file."""
        if self._said.jwks_url is None:
            return
        ca = self._said.ca_file
        tls = client_context("jwt", ca, None, None) if ca is not None else True
        timeout = aiohttp.ClientTimeout(total=self._said.timeout_s)
        async with aiohttp.ClientSession(timeout=timeout, cookie_jar=aiohttp.DummyCookieJar()) as session:
            while True:
                well = await self._fetch(session, self._said.jwks_url, tls)
                await self._pause(self._said.refresh_s if well else self._again_s())

    def _again_s(self) -> float:
        return min(self._said.refresh_s, _LONGEST_WAIT_S, _AGAIN_S * 2.0 ** min(self._failures - 1, 10))

    async def _pause(self, wait_s: float) -> None:
        await asyncio.sleep(min(wait_s, _GAP_S))
        if wait_s > _GAP_S:
            try:
                async with asyncio.timeout(wait_s - _GAP_S):
                    await self._wanted.wait()
            except TimeoutError:
                pass
        self._wanted.clear()

    async def _fetch(self, session: aiohttp.ClientSession, url: str, tls: Any) -> bool:
        try:
            async with session.get(url, ssl=tls, allow_redirects=False) as answer:
                if answer.status != 200:
                    raise ValueError(f"it answered {answer.status}")
                keys = tuple(of_jwks(await _body(answer)))
            if not self._fit(keys):
                raise ValueError(f"it holds no public key for {', '.join(self._said.algorithms)}")
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            self._failures += 1
            if self._failures.bit_count() == 1:  # 1, 2, 4, 8 …
                says = str(error)[:200] or type(error).__name__
                signals.event(
                    "issuer_keys_not_fetched", "warning", url=url, reason=says, failures=self._failures,
                    kept=len(self._keys),
                )  # fmt: skip
            return False
        self._failures = 0
        self._take(keys)
        return True

    def _load(self) -> None:
        said, keys = self._said, tuple[Key, ...]()
        path = said.jwks_file or said.public_key_file
        assert path is not None
        field = "jwt.jwks_file" if said.jwks_file else "jwt.public_key_file"
        try:
            text = path.read_bytes()
            keys = tuple(of_jwks(text)) if said.jwks_file else (of_pem(text),)
        except OSError as error:
            raise BadSetting("gateway", field, str(path), f"{error.strerror}: name a readable file.") from None
        except ValueError as error:
            raise BadSetting("gateway", field, str(path), f"{error}.") from None
        if not self._fit(keys):
            remedy = f"It holds no public key for {', '.join(said.algorithms)}: RSA of 2048 bits, P-256 or Ed25519."
            raise BadSetting("gateway", field, str(path), remedy)
        self._take(keys)

    def _fit(self, keys: tuple[Key, ...]) -> bool:
        """Whether one of them could check a token that is accepted."""
        return any(key.algorithm in self._said.algorithms for key in keys)

    def _take(self, keys: tuple[Key, ...]) -> None:
        self._keys = keys
        self.version += 1


def of_jwks(text: bytes) -> Iterator[Key]:
    """The keys of a JSON Web Key Set that sign in an accepted way; others are left out. ValueError when it is none."""
    try:
        said = msgspec.json.decode(text)
    except msgspec.DecodeError:
        raise ValueError("it is no JSON") from None
    listed = said.get("keys") if isinstance(said, dict) else None
    if not isinstance(listed, list):
        raise ValueError("it has no list `keys`")
    for jwk in listed[:_MOST_KEYS]:
        if isinstance(jwk, dict) and (key := _of_jwk(jwk)) is not None:
            yield key


def _of_jwk(jwk: dict[str, Any]) -> Key | None:
    import jwt

    kid = jwk.get("kid", "")
    algorithm = _KIND.get((str(jwk.get("kty")), str(jwk.get("crv", ""))))
    if algorithm is None or not isinstance(kid, str) or jwk.get("use", "sig") != "sig":
        return None
    if jwk.get("alg", algorithm) not in (algorithm, "Ed25519"):
        return None
    try:
        # only what is public of it: whoever publishes a private key shall not make us use it
        key = jwt.PyJWK({name: jwk[name] for name in _PUBLIC if name in jwk}, algorithm=algorithm).key
    except (jwt.PyJWTError, ValueError, TypeError):
        return None
    return Key(kid, algorithm, key) if _strong(key) else None


def of_pem(text: bytes) -> Key:
    """The key of a PEM file. ValueError when there is none that is accepted."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        key = load_pem_public_key(text)
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError("it is no public key in PEM (-----BEGIN PUBLIC KEY-----)") from None
    if isinstance(key, RSAPublicKey) and _strong(key):
        return Key("", "RS256", key)
    if isinstance(key, EllipticCurvePublicKey) and isinstance(key.curve, SECP256R1):
        return Key("", "ES256", key)
    if isinstance(key, Ed25519PublicKey):
        return Key("", "EdDSA", key)
    raise ValueError("it is no key of RSA with 2048 bits, P-256 or Ed25519")


def _strong(key: Any) -> bool:
    """A short RSA key can be broken; the other kinds have one size."""
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

    return not isinstance(key, RSAPublicKey) or key.key_size >= _RSA_BITS


async def _body(answer: aiohttp.ClientResponse) -> bytes:
    pieces, size = list[bytes](), 0
    while piece := await answer.content.readany():
        pieces.append(piece)
        size += len(piece)
        if size > _MOST_BYTES:
            raise ValueError(f"it is larger than {_MOST_BYTES} bytes")
    return b"".join(pieces)
