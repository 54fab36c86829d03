"""Who calls, and as what: an API key or a token gives the classes a caller may use.

Keys are kept as SHA-256, never as they are (`tradewind keys make` makes both):

keys:
  - sha256: 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
    tenant: acme
    classes: [chat, batch]      # the first one unless the header x-tradewind-class asks for another of them
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Final

import msgspec
from msgspec import Meta
from multidict import CIMultiDictProxy
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from router_sync.gateway.caller import ANONYMOUS, Caller
from router_sync.gateway.claims import Tokens
from router_sync.gateway.refusal import Refusal
from streams.contract import formats
from streams.contract.errors import BadSetting
from streams.contract.records import Name

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


class _Keys(msgspec.Struct, frozen=True):
    keys: tuple[_Key, ...]


class Access:
    """Callers by key or token."""

    def __init__(self, *, anonymous: bool = False, tokens: Tokens | None = None) -> None:
        self._callers: dict[bytes, Caller] = {}
        self._anonymous, self._tokens = anonymous, tokens

    def load(self, path: Path) -> None:
        """Take over the keys in `path`, and no other. Raises BadSetting with the remedy; then the old ones stay."""
        self._callers = {
            bytes.fromhex(key.sha256): Caller(tenant=key.tenant, classes=key.classes) for key in _keys(path)
        }

    def who(self, headers: CIMultiDictProxy[str]) -> Caller:
        """The caller; Refusal 401 when the key or token is not known, or missing where one is needed."""
        key = _key(headers)
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


def class_of(caller: Caller, headers: CIMultiDictProxy[str], default_class: str, serves: Callable[[str], bool]) -> str:
    """The request's class: the caller's first that is served, or the default; a header may only choose among his.

    Raises Refusal 403 when he asks for a class that is not his, or has none that this service has a route for.
    """
    his = _classes(caller, default_class)
    wanted = headers.get(CLASS_HEADER)
    if wanted is not None and wanted not in his:
        raise Refusal(403, "class_not_allowed", f"This key may not use the class {wanted[:64]!r}.", param=CLASS_HEADER)
    for class_ in his if wanted is None else (wanted,):
        if serves(class_):
            return class_
    raise Refusal(403, "class_not_served", f"No route for {', '.join(his)} here: ask for another model, or elsewhere.")


def may_use(caller: Caller, default_class: str, serves: Callable[[str], bool]) -> bool:
    """Whether `class_of` would find him a class."""
    return any(map(serves, _classes(caller, default_class)))


def _classes(caller: Caller, default_class: str) -> tuple[str, ...]:
    return caller.classes or (default_class,)


def _unknown(code: str, message: str) -> Refusal:
    return Refusal(401, code, message, headers={"WWW-Authenticate": "Bearer"})


def load_access(path: Path | None, *, anonymous: bool, tokens: Tokens | None = None) -> Access:
    """Callers from a file of YAML or JSON, and by token. Raises BadSetting with file, field and remedy."""
    access = Access(anonymous=anonymous, tokens=tokens)
    if path is not None:
        access.load(path)
    return access


def _keys(path: Path) -> tuple[_Key, ...]:
    try:
        said = YAML(typ="safe", pure=True).load(path.read_text("utf-8"))
        formats.require(path, formats.number_in(said), FORMAT, "Update this gateway, or give it a file that it reads.")
        keys = msgspec.convert(said, _Keys).keys
    except msgspec.ValidationError as error:  # a ValueError too
        raise BadSetting(str(path), "keys", "its content", f"{error}: sha256, tenant and classes per key.") from None
    except (OSError, YAMLError, ValueError, LookupError, RecursionError) as error:  # 2020-13-45, !!bool x, [[[[…
        why = getattr(error, "strerror", None) or getattr(error, "problem", None) or f"no text ({type(error).__name__})"
        raise BadSetting(str(path), "keys", str(why), "Give a readable YAML or JSON file with a list `keys`.") from None
    if len({key.sha256 for key in keys}) != len(keys):
        raise BadSetting(str(path), "keys", "sha256", "A key stands there twice; leave one of the two.")
    return keys


def _key(headers: CIMultiDictProxy[str]) -> str | None:
    said = headers.get("Authorization")
    if said is not None:
        scheme, _, rest = said.partition(" ")
        return rest.strip() if scheme.lower() == "bearer" else said
    return next((key for name in _KEY_HEADERS if (key := headers.get(name))), None)
