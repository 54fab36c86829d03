"""Who calls, and as what: an API key, a token or a client certificate gives tenant and classes.

Keys are kept as SHA-256, never as they are (`tradewind keys make` makes both):

keys:
  - sha256: 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
    tenant: acme
    classes: [chat, batch]      # the first one unless the header x-tradewind-class asks for another of them
certificates:                   # who shows no key, by a name in the certificate that tls.client_ca_file vouches for
  - name: spiffe://acme.example/app
    tenant: acme
    classes: [chat]
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
from aiohttp import web
from msgspec import Meta
from multidict import CIMultiDictProxy
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from router_sync.gateway.caller import ANONYMOUS, Caller
from router_sync.gateway.claims import Tokens
from router_sync.gateway.refusal import Refusal
from streams.contract import formats
from streams.contract.errors import BadSetting
from streams.contract.records import Name, Route

Certificate = Mapping[str, Any]
"""As `ssl.SSLSocket.getpeercert` says it."""
CLASS_HEADER: Final = "x-tradewind-class"
FORMAT: Final = 1
"""Of the file of keys; its field `format` may say so."""
_TOKEN_DOTS: Final = 2
_KEY_HEADERS: Final = ("api-key", "x-api-key")


class _Key(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A caller's entry in the file."""

    sha256: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$(?!\n)")]
    tenant: Name
    classes: tuple[Name, ...] = ()


class _Certificate(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A caller by a name in its certificate: a URI, DNS or mail name, or the common name of one that has none."""

    name: Annotated[str, Meta(min_length=1, max_length=1000)]
    tenant: Name
    classes: tuple[Name, ...] = ()


class _Keys(msgspec.Struct, frozen=True):
    keys: tuple[_Key, ...] | None = None
    certificates: tuple[_Certificate, ...] = ()

    def __post_init__(self) -> None:
        """Refuse a file of something else; an empty list is nobody's key."""
        if self.keys is None and not self.certificates:
            raise ValueError("missing required field `keys`")


class Access:
    """Callers by key, token or certificate. `certified`: the listener asks callers for certificates and checks them."""

    def __init__(self, *, anonymous: bool = False, tokens: Tokens | None = None, certified: bool = False) -> None:
        self._callers: dict[bytes, Caller] = {}
        self._certificates: dict[str, Caller] = {}
        self._anonymous, self._tokens, self._certified = anonymous, tokens, certified

    def load(self, path: Path) -> None:
        """Take over who is in `path`, and nobody else. Raises BadSetting with the remedy; then the old ones stay."""
        said = _keys(path)
        if said.certificates and not self._certified:
            remedy = "Set tls.client_ca_file: without it no caller shows a certificate."
            raise BadSetting(str(path), "certificates", said.certificates[0].name, remedy)
        self._callers = {
            bytes.fromhex(key.sha256): Caller(tenant=key.tenant, classes=key.classes) for key in said.keys or ()
        }
        self._certificates = {one.name: Caller(tenant=one.tenant, classes=one.classes) for one in said.certificates}

    def who(self, headers: CIMultiDictProxy[str], certificate: Certificate | None = None) -> Caller:
        """The caller, by his key or token, else by his certificate.

        Refusal 401 when none of them is known, or all are missing where one is needed.
        """
        key = _key(headers)
        if key is None and certificate is not None:
            known = next(
                (self._certificates[name] for name in names_in(certificate) if name in self._certificates), None
            )
            if known is not None:
                return known
        if key is None or (self._anonymous and not self._callers and self._tokens is None):
            if self._anonymous:
                return ANONYMOUS
            raise _unknown("missing_api_key", "Send an API key: Authorization: Bearer KEY.")
        # a digest is looked up, so that timing tells nothing of the key
        # bytes that are no UTF-8 come as surrogates: they are somebody's wrong key, not our mistake
        caller = self._callers.get(hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest())
        if caller is not None:
            return caller
        if self._tokens is not None and key.count(".") == _TOKEN_DOTS:
            return self._tokens.caller(key)
        raise _unknown("invalid_api_key", "This API key is not known here.")


def shown_by(request: web.BaseRequest) -> Certificate | None:
    """The certificate of whoever sent `request`, which the listener has checked; None: it asked for none."""
    return request.transport.get_extra_info("peercert") if request.transport is not None else None


def names_in(certificate: Certificate) -> list[str]:
    """The names that a certificate vouches for: URIs, DNS and mail names; the common name where it has none of them.

    >>> names_in({"subject": ((("commonName", "app"),),), "subjectAltName": (("URI", "spiffe://acme/app"),)})
    ['spiffe://acme/app']
    """
    names = [name for kind, name in certificate.get("subjectAltName", ()) if kind in ("URI", "DNS", "email")]
    common = (value for part in certificate.get("subject", ()) for kind, value in part if kind == "commonName")
    return names or list(common)


def class_of(
    caller: Caller, headers: CIMultiDictProxy[str], default_class: str, route_of: Callable[[str], Route | None]
) -> str:
    """The request's class: the caller's first that is served, or the default; a header may only choose among his.

    Raises Refusal 403 when he asks for a class that is not his, has none that this service has a route for, or only
    some that are another tenant's: his key or token says whose he is, and no header does.
    """
    his = _classes(caller, default_class)
    wanted = headers.get(CLASS_HEADER)
    if wanted is not None and wanted not in his:
        raise Refusal(403, "class_not_allowed", f"This key may not use the class {wanted[:64]!r}.", param=CLASS_HEADER)
    routes = [route for class_ in (his if wanted is None else (wanted,)) if (route := route_of(class_)) is not None]
    for route in routes:
        if is_open(route, caller):
            return route.class_
    if routes:
        says = f"The class {routes[0].class_!r} is another tenant's."
        raise Refusal(403, "class_of_another_tenant", says, param=CLASS_HEADER)
    raise Refusal(403, "class_not_served", f"No route for {', '.join(his)} here: ask for another model, or elsewhere.")


def may_use(caller: Caller, default_class: str, route_of: Callable[[str], Route | None]) -> bool:
    """Whether `class_of` would find him a class."""
    routes = map(route_of, _classes(caller, default_class))
    return any(route is not None and is_open(route, caller) for route in routes)


def is_open(route: Route, caller: Caller) -> bool:
    """Whether the route's class is anybody's, or of the caller's tenant."""
    return not route.tenant or route.tenant == caller.tenant


def _classes(caller: Caller, default_class: str) -> tuple[str, ...]:
    return caller.classes or (default_class,)


def _unknown(code: str, message: str) -> Refusal:
    return Refusal(401, code, message, headers={"WWW-Authenticate": "Bearer"})


def load_access(path: Path | None, *, anonymous: bool, tokens: Tokens | None = None, certified: bool = False) -> Access:
    """Callers from a file of YAML or JSON, and by token. Raises BadSetting with file, field and remedy."""
    access = Access(anonymous=anonymous, tokens=tokens, certified=certified)
    if path is not None:
        access.load(path)
    return access


def _keys(path: Path) -> _Keys:
    try:
        said = YAML(typ="safe", pure=True).load(path.read_text("utf-8"))
        formats.require(path, formats.number_in(said), FORMAT, "Update this gateway, or give it a file that it reads.")
        found = msgspec.convert(said, _Keys)
    except msgspec.ValidationError as error:  # a ValueError too
        raise BadSetting(str(path), "keys", "its content", f"{error}: sha256, tenant and classes per key.") from None
    except (OSError, YAMLError, ValueError, LookupError, RecursionError) as error:  # 2020-13-45, !!bool x, [[[[…
        why = getattr(error, "strerror", None) or getattr(error, "problem", None) or f"no text ({type(error).__name__})"
        raise BadSetting(str(path), "keys", str(why), "Give a readable YAML or JSON file with a list `keys`.") from None
    if len({key.sha256 for key in found.keys or ()}) != len(found.keys or ()):
        raise BadSetting(str(path), "keys", "sha256", "A key stands there twice; leave one of the two.")
    if len({one.name for one in found.certificates}) != len(found.certificates):
        raise BadSetting(str(path), "certificates", "name", "A name stands there twice; leave one of the two.")
    return found


def _key(headers: CIMultiDictProxy[str]) -> str | None:
    said = headers.get("Authorization")
    if said is not None:
        scheme, _, rest = said.partition(" ")
        return rest.strip() if scheme.lower() == "bearer" else said
    return next((key for name in _KEY_HEADERS if (key := headers.get(name))), None)
