"""`tradewind version`: what is installed, and which formats it reads and writes."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

import msgspec

from tradewind import __version__
from tradewind.cli.options import AsJson

_LIBRARIES = ("faust-streaming", "aiokafka", "msgspec", "aiohttp", "highspy")


def tell_version(as_json: AsJson = False) -> None:
    """Say the versions of Tradewind, Python and what it stands on, and the formats it speaks.

    Example: tradewind version --json | jq .formats
    """
    versions = {"tradewind": __version__, "python": platform.python_version(), **_libraries()}
    if as_json:
        print(msgspec.json.encode({**versions, "formats": formats()}).decode())
        return
    for name, said in {**versions, **{f"format of {name}": str(said) for name, said in formats().items()}}.items():
        print(f"{name:24} {said or 'not installed'}")


def _libraries() -> dict[str, str | None]:
    return {name.removesuffix("-streaming"): _installed(name) for name in _LIBRARIES}


def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def formats() -> dict[str, str | int]:
    """Formats by name: topics as their names say, files by number."""
    from router_sync.client.shelf import FORMAT
    from router_sync.keys import TRUST_FORMAT
    from streams.contract.schema import VERSION
    from streams.contract.topics import FLEET, ROUTING_TABLE
    from tradewind.running import VERSION as RUNNING

    return {
        "contract": VERSION, "fleet": FLEET.name, "routing_table": ROUTING_TABLE.name, "table_file": FORMAT,
        "trust_file": TRUST_FORMAT, "up_note": RUNNING,
    }  # fmt: skip
