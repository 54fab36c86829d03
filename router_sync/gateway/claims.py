"""Callers with a token (JWT) of an issuer the operator trusts: who they are and which classes they may use.

jwt:
  issuer: https://login.example.com/
  audience: tradewind
  jwks_url: https://login.example.com/.well-known/jwks.json     # or jwks_file, or public_key_file
  claims: {tenant: sub, classes: tradewind_classes}

Signatures are of a key pair: with a secret that both sides know, or with none, nothing is accepted.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from router_sync.gateway.caller import Caller
from router_sync.gateway.issuer import Algorithm, IssuerKeys
from router_sync.gateway.refusal import Refusal

_REMEMBERED: Final = 10_000
_LOCAL: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_Seconds = Annotated[float, Meta(gt=0, le=86400)]
_Claim = Annotated[str, Meta(min_length=1, max_length=256)]
_LONGEST: Final = 128


class ClaimNames(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where a token says what."""

    tenant: _Claim = "sub"
    classes: _Claim = "tradewind_classes"
    """A list, or words with blanks between them. A token without it gets each service's default class."""


class Jwt(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whose tokens are accepted. One of jwks_file, jwks_url and public_key_file has the issuer's keys."""

    issuer: Annotated[str, Meta(min_length=1, max_length=2000)]
    audience: Annotated[str, Meta(min_length=1, max_length=2000)]
    jwks_file: Path | None = None
    jwks_url: Annotated[str, Meta(max_length=2000)] | None = None
    """https, or http on this machine; fetched beside the requests, and kept when that fails."""
    public_key_file: Path | None = None
    """PEM."""
    ca_file: Path | None = None
    """Certificates that jwks_url's is checked against; else those the machine trusts."""
    algorithms: Annotated[tuple[Algorithm, ...], Meta(min_length=1)] = ("RS256", "ES256", "EdDSA")
    claims: ClaimNames = ClaimNames()
    leeway_s: Annotated[float, Meta(ge=0, le=300)] = 30.0
    """By which clocks may differ."""
    refresh_s: _Seconds = 300.0
    timeout_s: Annotated[float, Meta(gt=0, le=60)] = 5.0

    def __post_init__(self) -> None:
        """Refuse none or several sources of keys, and one that others could write on the way."""
        if sum(said is not None for said in (self.jwks_file, self.jwks_url, self.public_key_file)) != 1:
            raise ValueError("give one of jwks_file, jwks_url and public_key_file")
        if self.jwks_url is not None:
            url = urlsplit(self.jwks_url)
            if not url.hostname or not (url.scheme == "https" or (url.scheme == "http" and url.hostname in _LOCAL)):
                raise ValueError("jwks_url has to be https://, or http:// on this machine")


class Tokens:
    """Callers by token. `now_s` is unix seconds. A token is verified once, then known by its digest until it ends."""

    def __init__(self, said: Jwt, keys: IssuerKeys, now_s: Callable[[], float]) -> None:
        self._said, self._keys, self._now_s = said, keys, now_s
        self._known: dict[bytes, tuple[Caller, float]] = {}
        self._of_keys = -1

    def caller(self, token: str) -> Caller:
        """The token's bearer. Raises Refusal 401 for what is wrong with it, 403 when it grants no class, 503 while
        there are no keys to check it with."""
        if self._of_keys != self._keys.version:
            self._known, self._of_keys = {}, self._keys.version
        digest, now_s = hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest(), self._now_s()
        known = self._known.get(digest)
        if known is not None and now_s < known[1]:
            return known[0]
        claims = self._verified(token)
        until_s = self._in_time(claims, now_s)
        caller = self._of(claims)
        if len(self._known) >= _REMEMBERED:
            self._known.clear()
        self._known[digest] = (caller, until_s)
        return caller

    def _verified(self, token: str) -> Mapping[str, Any]:
        import jwt

        try:
            head = jwt.get_unverified_header(token)
            if (algorithm := head.get("alg")) not in self._said.algorithms:
                raise _refused("algorithm_not_allowed", f"Sign it with {' or '.join(self._said.algorithms)}.")
            key = self._keys.find(head.get("kid"), algorithm)
            return jwt.decode(
                token,
                key,
                algorithms=[algorithm],
                issuer=self._said.issuer,
                audience=self._said.audience,
                # time is ours to look at: now_s is an argument
                options={
                    "require": ["exp", "iss", "aud"], "verify_exp": False, "verify_nbf": False, "verify_iat": False,
                },
            )  # fmt: skip
        except jwt.InvalidAudienceError:
            raise _refused("wrong_audience", f"It is not for {self._said.audience!r}.") from None
        except jwt.InvalidIssuerError:
            raise _refused("wrong_issuer", f"It is not from {self._said.issuer!r}.") from None
        except jwt.MissingRequiredClaimError as error:
            raise _refused("missing_claim", f"It does not say {error.claim!r}.") from None
        except jwt.InvalidSignatureError:
            raise _refused("invalid_token", "Its signature does not fit.") from None
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError):
            raise _refused("invalid_token", "It cannot be read as a token.") from None

    def _in_time(self, claims: Mapping[str, Any], now_s: float) -> float:
        """When it ends, unix seconds with the leeway."""
        ends_s, begins_s, leeway_s = claims["exp"], claims.get("nbf", 0), self._said.leeway_s
        if not _is_time(ends_s) or not _is_time(begins_s):
            raise _refused("invalid_token", "Its exp or nbf is no time.")
        if now_s >= ends_s + leeway_s:
            raise _refused("token_expired", "It has expired: get a new one.")
        if now_s < begins_s - leeway_s:
            raise _refused("token_not_yet_valid", "It is not valid yet.")
        return float(ends_s) + leeway_s

    def _of(self, claims: Mapping[str, Any]) -> Caller:
        names = self._said.claims
        tenant, said = claims.get(names.tenant), claims.get(names.classes)
        if not isinstance(tenant, str) or not 0 < len(tenant) <= _LONGEST:
            raise _refused("missing_claim", f"Its {names.tenant!r} has to name the tenant, in at most 128 characters.")
        if said is None:
            return Caller(tenant=tenant)
        classes = said.split() if isinstance(said, str) else said
        if not isinstance(classes, list) or not all(isinstance(class_, str) for class_ in classes):
            raise _refused("invalid_claim", f"Its {names.classes!r} has to be a list of classes.")
        if not classes:
            raise Refusal(403, "class_not_allowed", f"This token grants no class: its {names.classes!r} is empty.")
        return Caller(tenant=tenant, classes=tuple(classes))


def _is_time(said: object) -> bool:
    return isinstance(said, int | float) and not isinstance(said, bool) and 0 <= said < 1e12


def _refused(code: str, says: str) -> Refusal:
    return Refusal(401, code, f"This token is not accepted. {says}", headers={"WWW-Authenticate": "Bearer"})
