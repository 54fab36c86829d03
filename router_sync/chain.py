"""Decisions as a chain: each holds the digest of the one before, and signed tables hold the digest of the last.

    decision 1 ◄── previous ── decision 2 ◄── previous ── decision 3
                                                 ▲
                                                 └── decision ── table, signed: whoever altered, dropped or put in
                                                                 one before it would need the router's key

A digest is of the bytes as they travel, less the digest itself: nothing is written anew to be checked, so a field that
a later version adds, or how a number is written, breaks nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Final

import msgspec

from streams.contract.records import Decision, RoutingTable

_encode: Final = msgspec.json.Encoder().encode


def linked(decision: Decision, last: RoutingTable | None) -> Decision:
    """`decision` as the next link of its service's chain, behind the one that `last` is made of; None: the first."""
    open_ = msgspec.structs.replace(decision, previous=last.decision if last is not None else "", digest="")
    return msgspec.structs.replace(open_, digest=hashlib.sha256(_encode(open_)).hexdigest())


def anchored(table: RoutingTable, last: RoutingTable | None, decisions: Iterable[Decision]) -> RoutingTable:
    """`table` with the digest of the decision it is made of: the one among `decisions`, else that of the `last` table.

    Shares that are only said again were decided before.
    """
    before = last.decision if last is not None else ""
    digest = next((d.digest for d in decisions if d.service == table.service), before)
    return msgspec.structs.replace(table, decision=digest)


def fits(value: bytes, digest: str) -> bool:
    """Whether `digest` is that of `value`, a decision's bytes as they travel.

    A quote within a text is escaped, so the field can stand in them once only.
    """
    bare = value.replace(b',"digest":"%b"' % digest.encode(), b"", 1)
    return bool(digest) and len(bare) < len(value) and hashlib.sha256(bare).hexdigest() == digest
