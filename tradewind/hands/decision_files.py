"""Decisions as files: JSON lines, byte for byte as on the topic so that they can be verified; Parquet, a row a pair."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import IO, Any, Final

from router_sync.margin import PARTS, parts, total_usd
from streams.contract.errors import BadSetting, Stop
from streams.contract.records import Considered, Decision
from tradewind.hands.decisions import Said

MOST_ROWS: Final = 5_000_000
"""Of a Parquet file: it is made in memory."""


def format_of(file: Path) -> str:
    """ "jsonl" or "parquet", by the file's ending. Raises BadSetting for others."""
    ending = file.suffix.lstrip(".")
    if ending in ("jsonl", "parquet"):
        return ending
    raise BadSetting("argument", "FILE", str(file), "End it in .jsonl or .parquet, or write - for JSON lines on stdout")


async def write_lines(said: AsyncIterator[Said], out: IO[bytes]) -> int:
    """Write each decision as one line, its bytes as they are; how many there were."""
    count = 0
    async for one in said:
        if one.decision is not None:
            out.write(one.value.replace(b"\n", b" ") + b"\n")
            count += 1
    return count


async def write_parquet(said: AsyncIterator[Said], file: Path) -> int:
    """Write a row for each endpoint that each route considered; how many decisions there were."""
    import polars

    columns: dict[str, list[Any]] = {}
    count = 0
    async for one in said:
        if (decision := one.decision) is not None:
            count += 1
            for row in rows(decision):
                for name, value in row.items():
                    columns.setdefault(name, []).append(value)
            if columns and len(columns["service"]) > MOST_ROWS:
                raise Stop(f"There are more than {MOST_ROWS} rows", "Narrow it by --since or --service, or take .jsonl")
    # a column may be empty for long: its type is looked for in all of it
    polars.DataFrame(columns, infer_schema_length=None).write_parquet(file)
    return count


def rows(decision: Decision) -> Iterator[dict[str, Any]]:
    """A flat row for each endpoint of each route, excluded ones too; all with the same columns."""
    head = {
        "service": decision.service, "epoch": decision.epoch, "version": decision.version,
        "made_at_s": decision.made_at_s, "method": decision.method, "gap": decision.gap, "reason": decision.reason,
        "previous": decision.previous, "digest": decision.digest,
    }  # fmt: skip
    for one in decision.considered:
        for pair in _pairs(one):
            yield head | pair


def _pairs(one: Considered) -> Iterator[dict[str, Any]]:
    head = {"origin": one.origin, "class": one.class_, "demand_rps": one.demand_rps, "unserved_rps": one.unserved_rps}
    for c in one.candidates:
        dollars = {f"{name}_usd": usd for name, usd in parts(c).items()}
        yield head | {
            "endpoint": c.endpoint, "allowed": True, "share": c.share, "why_not": None, "kind": None, **dollars,
            "total_usd": total_usd(c), "crowd_usd": c.crowd_usd, "load": c.load, "p95_ms": c.p95_ms,
        }  # fmt: skip
    nothing = dict.fromkeys((*(f"{name}_usd" for name in PARTS), "total_usd", "crowd_usd", "load", "p95_ms"))
    for e in one.excluded:
        told = {"endpoint": e.endpoint, "allowed": False, "share": 0.0, "why_not": e.reason, "kind": e.kind or None}
        yield head | told | nothing
