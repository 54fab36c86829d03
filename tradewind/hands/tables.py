"""Tables in force as gateways see them: the highest number whose signature a trusted key gave."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec

from router_sync.keys import load_trust, public_path
from router_sync.sign import Trust
from streams.contract.errors import TableRefused
from streams.contract.records import Route, RoutingTable
from streams.contract.topics import ROUTING_TABLE
from streams.settings import Settings
from tradewind.hands import kafka

Signature = Literal["good", "not checked"]
_decoder = msgspec.json.Decoder(RoutingTable)


class Held(msgspec.Struct, frozen=True, kw_only=True):
    """A table, and who vouches for it. `kid`: the key that signed it, None where that was not checked."""

    table: RoutingTable
    signature: Signature
    kid: str | None = None

    @property
    def number(self) -> tuple[int, int]:
        """(epoch, version)"""
        return self.table.epoch, self.table.version


class Tables(msgspec.Struct, frozen=True):
    """Tables in force by service, and why others on the topic are not followed: service to the last reason."""

    held: dict[str, Held]
    refused: dict[str, str] = {}


def trust_of(paths: Sequence[Path] | None, state_dir: Path) -> Trust | None:
    """The keys in `paths`, else in STATE_DIR/router.key.pub where there is one; None: signatures are not checked.

    Raises BadSetting when a file cannot be used.
    """
    usual = public_path(state_dir / "router.key")
    if not paths and not usual.is_file():
        return None
    return load_trust(*(paths or [usual]))


def judged(record: Any, trust: Trust | None) -> Held:
    """The table in a record of the topic. Raises TableRefused as a gateway would."""
    key, value = record.key or b"", record.value or b""
    kid = trust.verify(list(record.headers), key, value) if trust is not None else None
    try:
        table = _decoder.decode(value)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise TableRefused("schema", value[:80], str(error)) from None
    if table.service.encode() != key:
        raise TableRefused("key", key, f"the table is for {table.service}")
    return Held(table=table, kid=kid, signature="good" if trust is not None else "not checked")


def newest(records: Iterable[Any], trust: Trust | None) -> Tables:
    """What a gateway with these keys follows, having read `records`."""
    held: dict[str, Held] = {}
    refused: dict[str, str] = {}
    for record in records:
        if record.value is None:
            continue
        try:
            one = judged(record, trust)
        except TableRefused as error:
            refused[(record.key or b"").decode("utf-8", "replace")] = f"{error.field} {error.reason}"
            continue
        known = held.get(one.table.service)
        if known is None or one.number > known.number:
            held[one.table.service] = one
    return Tables(held, refused)


async def tables(consumer: Any, settings: Settings, trust: Trust | None) -> Tables:
    """The tables on the topic now. Raises as `kafka.answering` does."""
    return newest(await kafka.held(consumer, settings, ROUTING_TABLE), trust)


def shares(route: Route) -> dict[str, float]:
    """Endpoint to its share."""
    return dict(zip(route.endpoints, route.shares, strict=True))


def gained(old: RoutingTable | None, new: RoutingTable, endpoint: str) -> list[dict[str, Any]]:
    """Per route in which `endpoint` has another share than before: what it had and has, and who gained or lost."""
    before = {(r.origin, r.class_): shares(r) for r in (old.routes if old is not None else ())}
    moved = []
    for route in new.routes:
        was, now = before.get((route.origin, route.class_), {}), shares(route)
        if abs(was.get(endpoint, 0.0) - now.get(endpoint, 0.0)) < 1e-9:
            continue
        others = {
            name: round(now.get(name, 0.0) - was.get(name, 0.0), 4)
            for name in sorted(was.keys() | now.keys())
            if name != endpoint and abs(now.get(name, 0.0) - was.get(name, 0.0)) >= 5e-5
        }
        moved.append({"origin": route.origin, "class": route.class_, "had": was.get(endpoint, 0.0),
                      "has": now.get(endpoint, 0.0), "others": others})  # fmt: skip
    return moved
