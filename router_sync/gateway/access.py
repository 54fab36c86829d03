"""Who calls, and as what: an API key gives the classes a caller may use. Keys are kept as SHA-256, never as they are.

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

from router_sync.gateway.refusal import Refusal
from streams.contract.errors import BadSetting
from streams.contract.records import Name

CLASS_HEADER: Final = "x-tradewind-class"


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody with a key. No classes: the service's default class, and no other."""

    sha256: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")]
    tenant: Name
    classes: tuple[Name, ...] = ()


class _Keys(msgspec.Struct, frozen=True):
    keys: tuple[Caller, ...]


ANONYMOUS: Final = Caller(sha256="0" * 64, tenant="anonymous")


class Access:
    """Callers by key."""

    def __init__(self, callers: tuple[Caller, ...] = (), *, anonymous: bool = False) -> None:
        self._callers = {bytes.fromhex(caller.sha256): caller for caller in callers}
        self._anonymous = anonymous

    def who(self, headers: CIMultiDictProxy[str]) -> Caller:
        """The caller; Refusal 401 when the key is unknown, or missing where one is needed."""
        key = _key(headers)
        if key is None or (self._anonymous and not self._callers):
            if self._anonymous:
                return ANONYMOUS
            raise Refusal(401, "missing_api_key", "Send an API key: Authorization: Bearer KEY.")
        # a digest is looked up, so that timing tells nothing of the key
        # bytes that are no UTF-8 come as surrogates: they are somebody's wrong key, not our mistake
        caller = self._callers.get(hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest())
        if caller is None:
            raise Refusal(401, "invalid_api_key", "This API key is not known here.")
        return caller


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


def load_access(path: Path | None, *, anonymous: bool) -> Access:
    """Callers from a file of YAML or JSON. Raises BadSetting with file, field and remedy."""
    if path is None:
        return Access(anonymous=anonymous)
    try:
        said = YAML(typ="safe", pure=True).load(path.read_text("utf-8"))
        keys = msgspec.convert(said, _Keys).keys
    except (OSError, UnicodeDecodeError, YAMLError) as error:
        raise BadSetting(
            str(path), "keys", str(error), "Give a readable YAML or JSON file with a list `keys`."
        ) from None
    except msgspec.ValidationError as error:
        raise BadSetting(str(path), "keys", "its content", f"{error}: sha256, tenant and classes per key.") from None
    if len({caller.sha256 for caller in keys}) != len(keys):
        raise BadSetting(str(path), "keys", "sha256", "A key stands there twice; leave one of the two.")
    return Access(keys, anonymous=anonymous)


def _key(headers: CIMultiDictProxy[str]) -> str | None:
    said = headers.get("Authorization")
    if said is not None:
        scheme, _, key = said.partition(" ")
        return key.strip() if scheme.lower() == "bearer" else said
    return headers.get("api-key") or headers.get("x-api-key")
