"""Whether the decisions on the topic, or in a file, are the chain that routers made."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import msgspec

from router_sync.audit import Audit, ChainState
from router_sync.sign import Trust
from streams.contract.errors import Missing
from streams.settings import Settings
from tradewind.hands import kafka
from tradewind.hands.decisions import all_of
from tradewind.hands.tables import Tables, tables

PROGRESS: Final = 10_000
"""Decisions between two words on how far it is."""


class Verified(msgspec.Struct, frozen=True, kw_only=True):
    """The chain of each service. `signatures`: whether the tables that vouch for them were checked."""

    ok: bool
    signatures: bool
    services: tuple[ChainState, ...]


class _Service(msgspec.Struct):
    """Of a decision its service, whatever else is in it."""

    service: str = "?"


async def verified(
    settings: Settings, trust: Trust | None, service: str | None, progress: Callable[[int], None]
) -> Verified:
    """How the chains on the topic are; `service`: of one alone."""
    audit = Audit()
    async with kafka.reader(settings) as consumer:
        # tables first: a decision made meanwhile is one since, and no finding
        held = await tables(consumer, settings, trust)
        count = 0
        async for said in all_of(consumer, settings):
            if service is None or said.key == service.encode():
                audit.take(said.place, said.key, said.value)
            count += 1
            if count % PROGRESS == 0:
                progress(count)
    return _judged(audit, held, service, trust)


def of_file(file: Path, service: str | None) -> Verified:
    """How the chains in an exported file are. Nobody vouches for their last decision: no table is at hand."""
    audit = Audit()
    try:
        for number, line in enumerate(_lines(file), 1):
            name = _service(line)
            if service in (None, name):
                audit.take(f"line {number}", name.encode(), line)
    except OSError as error:
        raise Missing(
            f"{file} cannot be read ({error})", "Export one: `tradewind decisions export FILE.jsonl`"
        ) from None
    return _judged(audit, Tables({}), service, None)


def _lines(file: Path) -> Iterator[bytes]:
    with file.open("rb") as lines:
        for line in lines:
            if line.strip():
                yield line.rstrip(b"\r\n")


def _service(line: bytes) -> str:
    try:
        return msgspec.json.decode(line, type=_Service).service
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return "?"


def _judged(audit: Audit, held: Tables, service: str | None, trust: Trust | None) -> Verified:
    anchors = {
        name: one.table.decision for name, one in held.held.items() if service in (None, name) and one.table.decision
    }
    states = tuple(audit.judged(anchors))
    return Verified(ok=all(state.ok for state in states), signatures=trust is not None, services=states)


def lines(found: Verified) -> Iterator[str]:
    """The judgement for a terminal: of each service the first break, and how many more."""
    for state in found.services:
        yield _line(state)
        for finding in state.breaks[:1]:
            yield f"  BROKEN at {finding.place}, decision {finding.number}: {finding.says}"
        if len(state.breaks) > 1:
            yield f"  and {len(state.breaks) - 1} more (--json)"
        yield from (f"  note: {finding.number} at {finding.place}: {finding.says}" for finding in state.noted[:5])
        if len(state.noted) > 5:
            yield f"  and {len(state.noted) - 5} more (--json)"
    if not found.services:
        yield "no decisions"
    elif not found.signatures:
        yield "signatures of tables were not checked (no trusted key: --trust FILE)"


def _line(state: ChainState) -> str:
    begins = "" if state.begins else ", older ones let go"
    vouched = "no table was there to vouch for them"
    if state.vouched is not None:
        vouched = f"{state.vouched} vouched for by the table in force"
    how = "whole" if state.ok else "BROKEN"
    return f"{state.service}  {how}: {state.decisions} decisions from {state.first} to {state.last}{begins}; {vouched}"
