"""Orders of operators: who is drained, by whom and why. The last word on an endpoint holds, until its time is over.

A drained endpoint gets no share and is no fallback, even where nothing else is left: an operator's word is obeyed, and
what stays unserved is said in the table's reason.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator, Mapping
from typing import Any, TypeVar

from streams.contract.errors import shown
from streams.contract.records import Fleet, Order, TableOrder
from streams.runtime.step import Heard, Refusal

AnyOrder = TypeVar("AnyOrder", Order, TableOrder)


def misdirected(fleet: Fleet | None, heard: Heard[Any]) -> Iterator[Refusal]:
    """Orders whose key is not their endpoint, and those for endpoints that a known fleet has not."""
    known = None if fleet is None else {e.name for e in fleet.endpoints}
    for position, order in zip(heard.positions.tolist(), heard.records, strict=True):
        key = heard.batch.messages[position].key or b""
        if key != order.endpoint.encode():
            yield Refusal(position, "key", shown(key[:128]), f"is not the order's endpoint, {order.endpoint}")
        elif known is not None and order.endpoint not in known:
            reason = f"is not in the fleet{meant(order.endpoint, known)}"
            yield Refusal(position, "endpoint", shown(order.endpoint), reason)


def meant(name: str, known: Collection[str]) -> str:
    """The hint that goes with a name that is not among `known`; empty when none is like it.

    >>> meant("eu-west-a", ["eu-west-1", "us-east-1"])
    ': did you mean eu-west-1?'
    """
    near = difflib.get_close_matches(name, sorted(known), 1)
    return f": did you mean {near[0]}?" if near else ""


def told(orders: dict[str, AnyOrder], heard: Heard[AnyOrder]) -> bool:
    """Take orders into `orders` (key to the order that stands), tombstones too; whether that changed any."""
    passed = dict(zip(heard.positions.tolist(), heard.records, strict=True))
    changed = False
    for position, message in enumerate(heard.batch.messages):
        order, key = passed.get(position), (message.key or b"").decode("utf-8", "replace")
        if order is not None and _stands(order):
            changed |= orders.get(key) != order
            orders[key] = order
        elif order is not None or message.value is None:
            changed |= orders.pop(key, None) is not None
    return changed


def _stands(order: Order | TableOrder) -> bool:
    """Whether it orders something; else it ends what was ordered before."""
    return order.drain if isinstance(order, Order) else order.hold


def in_force(orders: Mapping[str, AnyOrder], known: Collection[str], now_s: float) -> dict[str, AnyOrder]:
    """The orders for names of `known` that hold at `now_s`, by name."""
    return {
        name: order
        for name, order in orders.items()
        if name in known and (order.until_s is None or now_s < order.until_s)
    }


def words(name: str, order: Order) -> str:
    """Who drained `name`, and why, as one phrase.

    >>> words("eu-west-a", Order(endpoint="eu-west-a", drain=True, by="ann", reason="new driver", at_s=0))
    'eu-west-a is drained by ann: new driver'
    """
    said = f"{name} is drained by {order.by or 'an operator'}"
    return f"{said}: {order.reason}" if order.reason else said
