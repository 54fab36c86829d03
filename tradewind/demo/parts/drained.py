"""How long after its notice an endpoint still got something new: by tables, and by what it wrote down itself."""

from __future__ import annotations

from collections.abc import Iterator

from streams.contract.records import RoutingTable
from tradewind.demo.parts.run import Found, Run
from tradewind.demo.reclaim import Reclaimed


def measure(run: Run) -> Found:
    """`drained_s`: the longest of all; None where nobody was taken back, or no table said so. `drains`: each."""
    each = [_drained_s(run, one) for one in run.reclaimed]
    known = [drained_s for drained_s in each if drained_s is not None]
    return {
        "drained_s": max(known) if known and len(known) == len(each) else None,
        "drains": [
            {
                "endpoint": one.endpoint,
                "notice_at_s": round(one.notice_at_s, 1),
                "killed_at_s": round(one.killed_at_s, 1),
                "drained_s": drained_s,
            }
            for one, drained_s in zip(run.reclaimed, each, strict=True)
        ],
    }


def _drained_s(run: Run, one: Reclaimed) -> float | None:
    """From the notice to the first table that sends nothing there, or to the last request there before it died."""
    tables = [at_s for at_s, table in run.tables if at_s >= one.notice_at_s and one.endpoint not in _used(table)]
    if not tables:
        return None
    lived_s = one.killed_at_s - one.notice_at_s
    since_s = (received.at_s - one.unix_s for received in run.received.get(one.endpoint, ()))
    requests = [after_s for after_s in since_s if 0 <= after_s <= lived_s]
    return round(max(tables[0] - one.notice_at_s, *requests, 0.0), 3)


def _used(table: RoutingTable) -> set[str]:
    return {name for r in table.routes for name, share in zip(r.endpoints, r.shares, strict=True) if share > 0}


def told(found: Found) -> Iterator[str]:
    """For people."""
    for one in found["drains"]:
        drained_s = one["drained_s"]
        after = (
            "and no table said so" if drained_s is None else f"and got nothing new from {drained_s:.2f} s after it on"
        )
        yield f"{one['endpoint']} had notice at {one['notice_at_s']:g} s, died at {one['killed_at_s']:g} s, {after}"
