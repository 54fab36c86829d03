"""`tradewind keys`: API keys for callers of a gateway, which keeps their SHA-256 and never the key itself."""

from __future__ import annotations

import hashlib
import json
import sys
from typing import Annotated, Final

import msgspec
import typer

from streams.contract.errors import BadSetting
from streams.contract.records import Name
from tradewind.cli.options import AsJson

app = typer.Typer(no_args_is_help=True, help="Make API keys for callers of a gateway.")
_PREFIX: Final = "tw-"
_RANDOM_BYTES: Final = 32


@app.command("make")
def make(
    tenant: Annotated[str, typer.Option(help="Whose key it is.")],
    class_: Annotated[
        list[str] | None,
        typer.Option("--class", help="A request class it may use, the usual one first; else each service's default."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make a key: say it once, for the caller, and the entry for the gateway's file of keys.

    Examples:
      tradewind keys make --tenant acme --class chat --class batch
      tradewind keys make --tenant acme --json | jq -r .entry >> keys.yaml
    """
    import secrets

    classes = list(dict.fromkeys(class_ or []))
    for flag, name in (("--tenant", tenant), *(("--class", one) for one in classes)):
        _check_name(flag, name)
    key = _PREFIX + secrets.token_urlsafe(_RANDOM_BYTES)
    entry = _entry(_digest(key), tenant, classes)
    if as_json:
        print(json.dumps({"key": key, "sha256": _digest(key), "tenant": tenant, "classes": classes, "entry": entry}))
        return
    print(f"The key, shown this once, for {tenant}:\n\n  {key}\n", file=sys.stderr)
    print("The entry for the gateway's file of keys, below `keys:`:\n", file=sys.stderr)
    print(entry)


@app.command("hash")
def hash_key(as_json: AsJson = False) -> None:
    """The SHA-256 of a key on standard input, as the gateway's file of keys has it.

    Examples:
      tradewind keys hash < key.txt
      printf %s "$KEY" | tradewind keys hash
    """
    key = sys.stdin.read().strip()
    if not key or len(key.split()) > 1:
        raise BadSetting("standard input", "key", "***", "Give one key, on one line.")
    print(json.dumps({"sha256": _digest(key)}) if as_json else _digest(key))


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


def _entry(digest: str, tenant: str, classes: list[str]) -> str:
    lines = [f"  - sha256: {digest}", f'    tenant: "{tenant}"']
    if classes:
        named = ", ".join(f'"{one}"' for one in classes)
        lines.append(f"    classes: [{named}]")
    return "\n".join(lines)


def _check_name(flag: str, name: str) -> None:
    try:
        msgspec.convert(name, Name)
    except msgspec.ValidationError:
        remedy = "Use letters, digits and _ . : / @ + - only, a letter or digit first, at most 128."
        raise BadSetting("flags", flag, name, remedy) from None
