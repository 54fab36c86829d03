"""Who may call, where the file does not say: one API key, made on first use and kept for its owner alone."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from streams.contract.errors import BadSetting
from streams.contract.records import Fleet

KEY: Final = "api-key"
HASHES: Final = "api-keys.yaml"
_SAID: Final = ("keys", "anonymous", "jwt")


class Credential(NamedTuple):
    """An API key of ours: the file that holds it, the file gateways know it by, and whether it was made just now."""

    key: str
    key_file: Path
    hashes: Path
    new: bool


def needed(gateway: Mapping[str, Any]) -> bool:
    """Whether the section says nothing of who may call."""
    return not any(gateway.get(field) for field in _SAID)


def load_or_make(folder: Path, fleet: Fleet) -> Credential:
    """The key in `folder`, for all classes of `fleet`. Raises BadSetting when it cannot be read or written."""
    path = folder / KEY
    try:
        new = not path.exists()
        if new:
            _write(path, f"tw-{secrets.token_urlsafe(24)}\n")
        key = path.read_text("ascii").strip()
        if not key:
            raise BadSetting(str(path), "API key", "", "Take the file away, and a new key is made.")
        _write(folder / HASHES, _hashes(key, fleet))
    except (OSError, UnicodeDecodeError) as error:
        reason = str(getattr(error, "strerror", None) or error)
        raise BadSetting(str(path), "API key", reason, "Let this user read and write it, or take it away.") from None
    return Credential(key, path, folder / HASHES, new)


def _hashes(key: str, fleet: Fleet) -> str:
    """The file of keys as gateways read it: each service's default class first, since the first served is taken."""
    defaults = [service.default_class for service in fleet.services]
    classes = dict.fromkeys([*defaults, *(c.name for service in fleet.services for c in service.classes)])
    caller = {"sha256": hashlib.sha256(key.encode()).hexdigest(), "tenant": "local", "classes": list(classes)}
    return msgspec.json.encode({"keys": [caller]}).decode()


def _write(path: Path, text: str) -> None:
    """A whole file for its owner only; whoever reads meanwhile sees the old one or the new one."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.touch(mode=0o600)
    draft.write_text(text)
    draft.replace(path)
